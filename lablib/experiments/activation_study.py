"""What one activation does: graph and slope, a budget, a deep random network, and the network's gradients.

The random network has ``WIDTH`` inputs, ``depth`` layers of ``WIDTH`` neurons and ``WIDTH`` outputs, and
every affine map in it spends all that the norm allows: orthonormal matrices for l2; for linf rows of l1 norm
one, in the first layer dense and after that signed permutations. Whatever gradient is lost is then lost by
the activation alone. Distance and SortNet neurons replace the affine part, so their layers stand alone.
"""

import copy
import dataclasses
import functools
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from lablib.experiments.threads import one_thread
from lablib.layers import (
    Abs,
    FullSort,
    GroupSort,
    Householder,
    LeakyReLU,
    LearnableSpline,
    LInfDistance,
    MaxMin,
    SortNetLayer,
    describe,
)
from lablib.theory.budget import budget
from lablib.theory.network import affine

WIDTH = 8
RANGE = 2.0  # inputs are drawn in [-RANGE, RANGE]
DUAL = {"linf": "l1", "l2": "l2"}  # norm on inputs -> norm of the gradient that bounds the change
CURVE_POINTS, FIELD_POINTS, SAMPLES = 401, 41, 250
NEURON_INPUTS = 4  # inputs of the single distance or SortNet neuron whose graph is drawn


@dataclasses.dataclass(frozen=True)
class Parameter:
    """The one number a reader can turn: a range with a step, or a short list of choices."""

    name: str
    default: float
    text: str
    low: float = 0.0
    high: float = 1.0
    step: float = 0.05
    choices: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Activation:
    """One entry of the explorer's picker.

    Attributes:
        label: its name in the picker.
        build: (parameter value, number of inputs, number of outputs) -> module; activations keep the number.
        norms: the norms for which a layer of it is 1-Lipschitz, the default first.
        group: value -> how many neurons it looks at together.
        text: one sentence on what to see.
        parameter: what can be turned, or None.
        neuron: True if it replaces the affine map too.
    """

    label: str
    build: Callable[[float, int, int], nn.Module]
    norms: tuple[str, ...]
    group: Callable[[float], int]
    text: str
    parameter: Parameter | None = None
    neuron: bool = False


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything that is drawn about one activation. T curve points, K outputs, S field points a side.

    Attributes:
        title: label with the parameter's value.
        norm: ``linf`` or ``l2``, the norm on inputs; ``dual`` is the norm of gradients.
        inputs: (T,) values of the neuron that moves; the other neurons of its group stand still.
        graph, derivative: (K, T) outputs of the group, and their slopes.
        budget_before: (WIDTH,) what the first neuron of the group may spend on each input.
        budget_after: (WIDTH,) what the first neuron after the activation may spend.
        line_at, line: (T,) the liveliest output of the network along its steepest direction at the origin.
        field_at: (S,) and field: (S, S) the same output on a plane holding that direction, row = second axis.
        gradient_norms: (WIDTH * SAMPLES,) dual norm of the gradient of every output at random inputs.
        seconds: time all this took.
    """

    title: str
    norm: str
    dual: str
    depth: int
    inputs: np.ndarray
    graph: np.ndarray
    derivative: np.ndarray
    budget_before: np.ndarray
    budget_after: np.ndarray
    line_at: np.ndarray
    line: np.ndarray
    field_at: np.ndarray
    field: np.ndarray
    gradient_norms: np.ndarray
    seconds: float


@one_thread()
def study(
    activation: str | Activation, value: float = 0.0, *, norm: str = "linf", depth: int = 6, seed: int = 0
) -> Study:
    """Measure an activation with its parameter at ``value`` (ignored where it has none).

    Args:
        activation: a name in ``ACTIVATIONS``, or an entry that is not among them (:func:`edited_spline`).

    Raises:
        ValueError: if there is no such activation, or it is not 1-Lipschitz in ``norm``, or depth < 1.
    """
    if isinstance(activation, str) and activation not in ACTIVATIONS:
        raise ValueError(f"no activation {activation!r}; choose from {', '.join(ACTIVATIONS)}")
    entry = ACTIVATIONS[activation] if isinstance(activation, str) else activation
    if norm not in entry.norms:
        raise ValueError(f"{entry.label} is not 1-Lipschitz in {norm}; choose from {', '.join(entry.norms)}")
    if depth < 1:
        raise ValueError(f"a network has at least one layer, not {depth}")
    start = time.perf_counter()
    inputs, graph, derivative = _graph(entry, value)
    before, after = _budget(entry, value)
    network = random_network(entry, value, norm, depth, seed)
    gradient_norms = np.linalg.norm(
        gradients(network, _samples(seed)), ord=1 if norm == "linf" else 2, axis=2
    )
    alive = int(gradient_norms.mean(axis=1).argmax())
    line_at, line, field_at, field = _slices(network, alive, norm)
    return Study(
        title=entry.label if entry.parameter is None else f"{entry.label}, {entry.parameter.name} {value:g}",
        norm=norm,
        dual=DUAL[norm],
        depth=depth,
        inputs=inputs,
        graph=graph,
        derivative=derivative,
        budget_before=before,
        budget_after=after,
        line_at=line_at,
        line=line,
        field_at=field_at,
        field=field,
        gradient_norms=gradient_norms.ravel(),
        seconds=time.perf_counter() - start,
    )


def edited_spline(layer: LearnableSpline) -> Activation:
    """Return an entry that is ``layer``, a spline shared by all channels, as it is whenever it is studied.

    Raises:
        ValueError: if each channel has a spline of its own.
    """
    if layer.channels != 1:
        raise ValueError(f"the spline has {layer.channels} channels; study one that is shared: channels=1")
    text = "A spline drawn by hand, its slopes clipped to [−1, 1]. Elementwise: the budget cannot grow."
    return Activation(
        "edited spline", lambda v, i, o: copy.deepcopy(layer), ("linf", "l2"), lambda v: 1, text
    )


def random_network(entry: Activation, value: float, norm: str, depth: int, seed: int) -> nn.Module:
    """Return ``depth`` layers of WIDTH neurons, every one of the last layer an output, in float64.

    The affine maps depend on ``seed`` and ``norm`` only, so that activations are compared on the same ones.
    """
    rng = np.random.default_rng(seed)
    layers: list[nn.Module] = []
    for number in range(depth):
        weight, bias = _extreme_matrix(norm, number, rng), rng.uniform(-0.6, 0.6, WIDTH)
        if entry.neuron:
            centers = rng.uniform(-1.0, 1.0, (WIDTH, WIDTH))
            layers.append(_with(entry.build(value, WIDTH, WIDTH), "weight", centers))
            continue
        linear = _with(nn.Linear(WIDTH, WIDTH), "weight", weight)
        layers += [_with(linear, "bias", bias), entry.build(value, WIDTH, WIDTH)]
    return nn.Sequential(*layers).double().requires_grad_(False)


def gradients(network: nn.Module, points: np.ndarray) -> np.ndarray:
    """Return the gradient of every output at each point, (outputs, P, WIDTH)."""
    inputs = torch.from_numpy(points).requires_grad_()
    outputs = network(inputs)
    columns = outputs.sum(dim=0)
    rows = [torch.autograd.grad(column, inputs, retain_graph=True)[0] for column in columns]
    return torch.stack(rows).numpy()


def _graph(entry: Activation, value: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Move the first neuron of a group through [-RANGE, RANGE]; the others stand still in (-0.4, 1)."""
    if entry.neuron:
        count, outputs = NEURON_INPUTS, 1
        module = _with(entry.build(value, count, 1), "weight", np.zeros((1, count)))
    else:
        count = outputs = entry.group(value)
        width = max(count, 2)  # pairs are the least that Householder takes
        module = entry.build(value, width, width)
    still = np.linspace(-0.4, 1.0, count + 1)[1:-1] if count > 1 else np.empty(0)
    t = np.linspace(-RANGE, RANGE, CURVE_POINTS)
    z = np.zeros((CURVE_POINTS, max(count, 2)))
    z[:, 0], z[:, 1:count] = t, still
    points = torch.from_numpy(z).requires_grad_()
    y = module.double()(points)
    slopes = [torch.autograd.grad(y[:, k].sum(), points, retain_graph=True)[0][:, 0] for k in range(outputs)]
    return t, y[:, :outputs].detach().numpy().T, torch.stack(slopes).numpy()


def _budget(entry: Activation, value: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the budgets of one neuron before and after; all WIDTH neurons start with a total of 1."""
    rows = _rows_of_norm_one(np.random.default_rng(5))
    if entry.norms == ("l2",):  # pairwise reflections: between the identity and |H|, entry by entry
        c, s = abs(np.cos(value)), abs(np.sin(value))
        return np.abs(rows[0]), np.maximum(np.abs(rows[0]), c * np.abs(rows[0]) + s * np.abs(rows[1]))
    module = entry.build(value, WIDTH, WIDTH)
    after = budget([affine(rows), *describe(module.double(), (WIDTH,))], WIDTH)
    return np.abs(rows[0]), after[0]


def _slices(
    network: nn.Module, output: int, norm: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Follow one output along its steepest direction u at the origin, and on the plane of u's two halves.

    u = sign(gradient) for linf, gradient / its length for l2 (all ones where the gradient is zero). The
    axes of the plane are the first and the second half of u, each of norm one.
    """
    slope = gradients(network, np.zeros((1, WIDTH)))[output, 0]
    if norm == "linf":
        direction = np.where(slope < 0, -1.0, 1.0)
        size = lambda v: np.abs(v).max()  # noqa: E731
    else:
        direction = slope if np.any(slope) else np.ones(WIDTH)
        size = np.linalg.norm
    halves = np.stack(
        [direction * (np.arange(WIDTH) < WIDTH // 2), direction * (np.arange(WIDTH) >= WIDTH // 2)]
    )
    halves = halves / np.array([[max(size(half), 1e-12)] for half in halves])
    direction = direction / size(direction)
    t = np.linspace(-RANGE, RANGE, CURVE_POINTS)
    axis = np.linspace(-RANGE, RANGE, FIELD_POINTS)
    plane = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2) @ halves
    with torch.no_grad():
        values = network(torch.from_numpy(np.vstack([np.outer(t, direction), plane]))).numpy()[:, output]
    return t, values[:CURVE_POINTS], axis, values[CURVE_POINTS:].reshape(FIELD_POINTS, FIELD_POINTS)


def _extreme_matrix(norm: str, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return a matrix that wastes no gradient: orthonormal (l2), or rows of l1 norm one (linf)."""
    normal = rng.standard_normal((WIDTH, WIDTH))
    order, signs = rng.permutation(WIDTH), rng.choice([-1.0, 1.0], WIDTH)
    if norm == "l2":
        return np.linalg.qr(normal)[0]
    if number == 0:
        return normal / np.abs(normal).sum(axis=1, keepdims=True)
    return signs[:, None] * np.eye(WIDTH)[order]


def _rows_of_norm_one(rng: np.random.Generator) -> np.ndarray:
    rows = rng.standard_normal((WIDTH, WIDTH)) ** 3  # a few large entries in each row: easier to follow
    return rows / np.abs(rows).sum(axis=1, keepdims=True)


@functools.lru_cache(maxsize=32)
def _samples(seed: int) -> np.ndarray:
    return np.random.default_rng(1000 + seed).uniform(-RANGE, RANGE, (SAMPLES, WIDTH))


def _with(module: nn.Module, name: str, values: np.ndarray) -> nn.Module:
    module.double()
    with torch.no_grad():
        getattr(module, name).copy_(torch.from_numpy(np.asarray(values)))
    return module


def _householder(value: float, inputs: int, outputs: int) -> nn.Module:
    return _with(Householder(inputs), "angle", np.full(inputs // 2, value))


def _keep(value: float, inputs: int, outputs: int) -> nn.Module:
    return SortNetLayer(inputs, outputs, keep=value, top=inputs)


_EVERY, _LINF = ("linf", "l2"), ("linf",)
_ENTRIES = (
    Activation(
        "ReLU",
        lambda v, i, o: nn.ReLU(),
        _EVERY,
        lambda v: 1,
        "Flat on half of its inputs: there the gradient is gone for good.",
    ),
    Activation(
        "absolute value",
        lambda v, i, o: Abs(),
        _EVERY,
        lambda v: 1,
        "Slope ±1 everywhere: the gradient keeps its norm, but a neuron's budget cannot grow.",
    ),
    Activation(
        "leaky ReLU",
        lambda v, i, o: LeakyReLU(v),
        _EVERY,
        lambda v: 1,
        "Slope −1 is the absolute value, 0 is ReLU, 1 is no activation at all. PReLU learns this number.",
        Parameter("slope", 0.1, "left of zero", -1.0, 1.0, 0.05),
    ),
    Activation(
        "MaxMin",
        lambda v, i, o: MaxMin(),
        _EVERY,
        lambda v: 2,
        "Sorts pairs. Each output is one of its inputs: no gradient is lost, and the budget may double.",
    ),
    Activation(
        "GroupSort",
        lambda v, i, o: GroupSort(int(v)),
        _EVERY,
        int,
        "Sorts groups of neurons; the budget of a neuron may grow by the group size.",
        Parameter("group size", 4, "neurons sorted together", choices=(2, 4, 8)),
    ),
    Activation(
        "FullSort",
        lambda v, i, o: FullSort(),
        _EVERY,
        lambda v: WIDTH,
        "Sorts the whole layer: every neuron may spend on every input.",
    ),
    Activation(
        "Householder",
        _householder,
        ("l2",),
        lambda v: 2,
        "Reflects a pair of neurons across a line when it lies on the far side. It keeps lengths in l2; "
        "in linf it is not 1-Lipschitz, and the total budget may pass what linf allows.",
        Parameter("angle", 1.55, "turns the mirror; π/2 is MaxMin", 0.0, 3.15, 0.05),
    ),
    Activation(
        "linf distance",
        lambda v, i, o: LInfDistance(i, o),
        _LINF,
        lambda v: NEURON_INPUTS,
        "One neuron is max |x − w|: full budget on every input at once.",
        neuron=True,
    ),
    Activation(
        "SortNet neuron",
        _keep,
        _LINF,
        lambda v: NEURON_INPUTS,
        "Sorts |x − w| and weighs the largest most. keep 1 is the linf distance.",
        Parameter("keep", 0.75, "how fast the weights fall off", 0.05, 1.0, 0.05),
        neuron=True,
    ),
)
ACTIVATIONS: dict[str, Activation] = {entry.label: entry for entry in _ENTRIES}
