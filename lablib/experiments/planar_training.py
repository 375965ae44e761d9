"""Train a small Lipschitz network in the plane, in float64, and certify every point by its margin.

The network is a scalar f with a proven Lipschitz constant of at most 1 and classifies by sign, so a point x
of class sign(f(x)) is safe within radius |f(x)|. The loss is the logistic one at a temperature that belongs
to the data: with Adam it pushes on the smallest margins, where a mean of margins would give up hard points.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lablib.certify.margins import bound_radius_scalar
from lablib.experiments.threads import one_thread
from lablib.experiments.toy_data import PlanarData
from lablib.layers import (
    Abs,
    GroupSort,
    Householder,
    LInfDistance,
    LInfLinear,
    LipschitzSequential,
    MaxMin,
    OrthonormalLinear,
    SortNetLayer,
)
from lablib.train.loop import fit as train
from lablib.train.schedules import cosine

LEARNING_RATE = 0.03
SHARPNESS = 4.0  # logistic temperature, in units of the best radius possible
REPORT_SECONDS = 0.2

_ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "standard ReLU": lambda width: nn.ReLU(),
    "standard |x|": lambda width: Abs(),
    "MaxMin": lambda width: MaxMin(),
    "GroupSort 4": lambda width: GroupSort(4),
    "Householder": lambda width: Householder(width),
}
ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "standard ReLU": ("linf", "l2"),
    "standard |x|": ("linf", "l2"),
    "MaxMin": ("linf", "l2"),
    "GroupSort 4": ("linf", "l2"),
    "Householder": ("l2",),
    "linf distance": ("linf",),
    "SortNet": ("linf",),
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network at one moment of its training.

    Attributes:
        model: (N, 2) -> (N, 1), float64.
        data: what it is trained on.
        norm: ``linf`` or ``l2``, in which it is 1-Lipschitz.
        step, seconds: how long it has been trained.
    """

    model: LipschitzSequential
    data: PlanarData
    norm: str
    step: int
    seconds: float

    @one_thread()
    def evaluate(self, points: np.ndarray) -> np.ndarray:
        """Return f at the points: (N, 2) -> (N,) float64."""
        with torch.no_grad():
            return self.model(torch.from_numpy(np.asarray(points, dtype=np.float64)))[:, 0].numpy()

    @property
    def radii(self) -> np.ndarray:
        """The certified radius of each data point (N,), 0 where it is classified wrongly, rounding included."""
        outputs = self.evaluate(self.data.points)
        slack = bound_rounding(self.model, self.data.points)
        return bound_radius_scalar(outputs, self.data.labels, self.model.lipschitz, slack=slack)


@one_thread()
def bound_rounding(model: LipschitzSequential, points: np.ndarray) -> float:
    """Return a bound of how far rounding moves the float64 output of the networks of :func:`build`.

    Let M be the largest magnitude among points, layer outputs and parameters, n the widest layer. A neuron
    adds up n + 1 terms, weighted distances or products, of magnitudes that sum to at most 3 sqrt(n) M: by
    |w|_1 <= 1 in linf, by |w|_2 <= 1 and |x|_2 <= sqrt(n) M in l2. With gamma_k = k u / (1 - k u), u = 2^-53,
    that rounds by at most 3 sqrt(n) M gamma_(n+4) (Higham, "Accuracy and Stability of Numerical Algorithms",
    Section 3.1; a few more operations for the differences and for a Householder reflection). The errors of a
    layer are then a vector of l2 (or linf) norm at most 3 n M gamma_(n+4), which the layers behind it do not
    enlarge, so the layers' errors add up.

    Args:
        model: float64.
        points: (N, 2), where it is evaluated.
    """
    x = torch.from_numpy(np.asarray(points, dtype=np.float64))
    values = [x, *model.parameters()]
    with torch.no_grad():
        for layer in model:
            x = layer(x)
            values.append(x)
        largest = max(float(value.abs().max()) for value in values)
    widest = max(value.shape[-1] for value in values if value.ndim == 2)
    gamma = (widest + 4) * 2.0**-53 / (1 - (widest + 4) * 2.0**-53)
    return 3 * len(model) * widest * largest * gamma


def build(
    architecture: str, norm: str, width: int, depth: int, seed: int, points: np.ndarray
) -> LipschitzSequential:
    """Return an untrained network: ``depth`` hidden layers of ``width`` neurons.

    Distance layers start near the data: their weights are points, and a neuron far from all of them learns
    nothing.

    Raises:
        ValueError: for an unknown architecture, a norm it does not have, or a width that is not in fours.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"no architecture {architecture!r}; choose from {', '.join(ARCHITECTURES)}")
    if norm not in ARCHITECTURES[architecture]:
        raise ValueError(
            f"{architecture} is trained in {' or '.join(ARCHITECTURES[architecture])}, not in {norm}"
        )
    if width < 4 or width % 4 or depth < 1:
        raise ValueError(f"take a width in fours and a depth of 1 or more, not {width} and {depth}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture not in _ACTIVATIONS:
            return LipschitzSequential(*_distance(architecture, width, depth, points)).double()
        layers = _standard(_ACTIVATIONS[architecture], norm, width, depth)
    model = LipschitzSequential(*layers).double()
    with torch.no_grad():  # start with as many points above zero as below
        layers[-1].bias -= model(torch.from_numpy(points)).median()
    return model


@one_thread()
def fit(
    data: PlanarData,
    *,
    architecture: str,
    norm: str = "linf",
    width: int = 32,
    depth: int = 3,
    steps: int = 300,
    seed: int = 0,
    keep_on_interrupt: bool = False,
    on_progress: Callable[[Trained], None] | None = None,
) -> Trained:
    """Train on all points at once.

    Args:
        data: two classes, both with at least one point.
        architecture, norm, width, depth: see :func:`build`.
        keep_on_interrupt: Ctrl-C returns what was learned so far; by default it is passed on.
        on_progress: called a few times a second with the network as it is then.

    Raises:
        ValueError: as :func:`build`, or if a class is empty, or two points of different class coincide.
    """
    best = data.half_separation(norm)
    if best <= 0:
        raise ValueError("two points of different class lie on each other; move one of them")
    model = build(architecture, norm, width, depth, seed, data.points)
    sharpness = SHARPNESS / best
    start = last = time.perf_counter()
    taken = 0

    def loss(outputs: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        return F.softplus(-sharpness * signs * outputs[:, 0]).mean() / sharpness

    def report(step: int, _loss: float) -> None:
        nonlocal last, taken
        taken = step + 1
        now = time.perf_counter()
        if on_progress is not None and now - last > REPORT_SECONDS:
            on_progress(Trained(model, data, norm, taken, now - start))
            last = time.perf_counter()

    batch = (torch.from_numpy(data.points), torch.from_numpy(data.signs))
    rate = cosine(LEARNING_RATE, steps, LEARNING_RATE / 20)
    train(
        model, loss, [batch], steps, rate, progress=False, keep_on_interrupt=keep_on_interrupt, on_step=report
    )
    return Trained(model, data, norm, taken, time.perf_counter() - start)


def _standard(activation: Callable[[int], nn.Module], norm: str, width: int, depth: int) -> list[nn.Module]:
    affine = LInfLinear if norm == "linf" else OrthonormalLinear
    layers: list[nn.Module] = []
    for inputs in [2] + [width] * (depth - 1):
        layers += [affine(inputs, width), activation(width)]
    return [*layers, affine(width, 1)]


def _distance(architecture: str, width: int, depth: int, points: np.ndarray) -> list[nn.Module]:
    sizes = [2] + [width] * depth + [1]
    layer = SortNetLayer if architecture == "SortNet" else LInfDistance
    layers = [layer(inputs, outputs, bias=True) for inputs, outputs in itertools.pairwise(sizes)]
    chosen = torch.from_numpy(points)[torch.randint(len(points), (width,))]
    with torch.no_grad():
        layers[0].weight.copy_(chosen + 0.05 * torch.randn(width, 2))
    return layers
