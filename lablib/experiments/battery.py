"""The soundness battery: measurements that try to break the claim of any Lipschitz layer.

The tests walk the list of our own layers (:mod:`lablib.experiments.layer_cases`); the recipe ``peer_battery``
applies the same measurements to published packages (:mod:`lablib.experiments.peer_cases`). Each measured
value is a *lower* bound of the true constant: above the claim it refutes it, below it proves nothing.

Norms: "l1", "l2", "linf" from the norm to itself, or "l1->linf", "l2->linf".
"""

import copy
import dataclasses
import io
import pickle
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

# Relative, on top of the claim: the arithmetic of the measurement itself, in float64. Pairs may be 1e-6
# apart.
TOLERANCE = {"jacobian": 1e-12, "pair": 1e-8}
STATES = ("fresh", "trained", "reloaded", "copied", "pickled")


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer, how to build it, what it may be fed, and what it claims.

    Attributes:
        name: for the table.
        build: makes a fresh layer.
        shapes: sample shapes without the batch axis; each is tried with a batch axis in front.
        norms: where the claim is made; default what the layer itself states.
        claim: the constant; default what the layer itself states.
        steps: large optimiser steps taken in the state "trained".
        states: which of STATES to go through.
        note: why it breaks, where that is known.
    """

    name: str
    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    norms: tuple[str, ...] | None = None
    claim: float | None = None
    steps: int = 5
    states: tuple[str, ...] = STATES
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Finding:
    """The largest value seen for one state, norm and way of looking.

    ``how``: "pair", the ratio of two points; "jacobian", a derivative that a pair along its worst direction
    bears out; "autograd", a derivative that no pair bears out (a wrong gradient, not a broken constant);
    "nan", a gradient that is not finite; "fails: ...", an exception.
    """

    state: str
    norm: str
    value: float
    how: str


def norms_of(case: Case, module: nn.Module) -> tuple[str, ...]:
    """Return where the case claims its constant."""
    return case.norms if case.norms is not None else tuple(module.norms)


def claim_of(case: Case, module: nn.Module) -> float:
    """Return the constant the case claims."""
    return case.claim if case.claim is not None else float(module.lipschitz)


def examine(case: Case, seed: int = 0) -> list[Finding]:
    """Bring the layer into each state and look for large constants: one finding per state, norm and ``how``.

    A state that cannot be reached (say, the layer cannot be pickled) is a finding with value 0 and the error.
    """
    findings = []
    for state, module in states(case, seed):
        if isinstance(module, Exception):
            error = f"fails: {type(module).__name__}: {str(module).splitlines()[0]}"
            findings.append(Finding(state, "", 0.0, error))
            continue
        # In evaluation mode weights stand still, so that each constraint is computed once, not at every call.
        with parametrize.cached(), torch.no_grad():
            module(torch.ones(1, *case.shapes[0], dtype=_dtype(module)))
            for norm in norms_of(case, module):
                found = largest_constants(module, case, norm, seed)
                findings.extend(Finding(state, norm, value, how) for how, value in found.items())
    return findings


def refutes(finding: Finding, claim: float, tolerance: float | None = None) -> bool:
    """Return whether the finding refutes the claim: above it by more than the measurement's own rounding."""
    if finding.how not in TOLERANCE:
        return False
    return finding.value > claim * (1.0 + (TOLERANCE[finding.how] if tolerance is None else tolerance))


# --- states
# --------------------------------------------------------------------------------------------------


def states(case: Case, seed: int = 0) -> Iterator[tuple[str, nn.Module | Exception]]:
    """Yield (state, module in evaluation mode) for each state, or the exception in its place.

    "trained": optimiser steps of size 1 per weight, each pushing outputs apart, then straight to evaluation
    mode, with no forward pass in between that could refresh a stale estimate. The others are made from it.
    Modules are in float64, or in float32 where a package cannot do otherwise.
    """
    torch.manual_seed(seed)
    yield "fresh", _ready(case, case.build())
    if case.states == ("fresh",):
        return
    torch.manual_seed(seed)
    trained = case.build()
    _push_apart(trained, case)
    makers = {
        "reloaded": lambda: _reload(trained, case),
        "copied": lambda: copy.deepcopy(trained),
        "pickled": lambda: pickle.loads(pickle.dumps(trained)),
        "trained": lambda: trained,  # last: getting ready turns it into float64
    }
    for state, make in makers.items():
        if state in case.states:
            try:
                yield state, _ready(case, make())
            except Exception as error:  # whatever a package raises is what the table shows
                yield state, error


def _ready(case: Case, module: nn.Module) -> nn.Module:
    module = module.eval().double()
    try:
        with torch.no_grad():
            module(torch.ones(2, *case.shapes[0], dtype=torch.float64))
    except RuntimeError:
        return module.float()
    return module


def _reload(trained: nn.Module, case: Case) -> nn.Module:
    fresh = case.build()
    buffer = io.BytesIO()
    torch.save(trained.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    return fresh


def _push_apart(module: nn.Module, case: Case) -> None:
    weights = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=1.0) if weights else None
    module.train()
    for step in range(case.steps):
        x = torch.randn(16, *case.shapes[step % len(case.shapes)])
        apart = module(x) - module(x + torch.randn_like(x))
        if optimiser is not None:
            optimiser.zero_grad()
            (-apart.square().mean()).backward()
            optimiser.step()


# --- measurements
# --------------------------------------------------------------------------------------------


def largest_constants(module: nn.Module, case: Case, norm: str, seed: int = 0) -> dict[str, float]:
    """Return the largest value found over the shapes, by how it was found (see :class:`Finding`)."""
    best = {"jacobian": 0.0, "pair": 0.0}
    for shape in case.shapes:
        generator = torch.Generator().manual_seed(seed)
        for point in sample_points(shape, generator):
            x = point.to(_dtype(module))
            matrix = jacobian(module, x)
            if not matrix.isfinite().all():
                best["nan"] = 0.0
                continue
            value, direction = operator_norm(matrix, norm)
            how = "jacobian" if _borne_out(module, x, direction, value, norm) else "autograd"
            best[how] = max(best.get(how, 0.0), value)
        best["pair"] = max(best["pair"], pair_search(module, shape, norm, generator))
    return best


def sample_points(shape: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
    """Return single samples where layers may misbehave: random, large, tied, at and near zero."""
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    return [
        normal,
        100.0 * torch.randn(shape, generator=generator, dtype=torch.float64),
        torch.randint(-1, 2, shape, generator=generator).double(),
        torch.zeros(shape, dtype=torch.float64),
        1e-6 * normal,
    ]


def jacobian(module: nn.Module, x: Tensor) -> Tensor:
    """Return the Jacobian (outputs, inputs) of ``module`` at one sample (without batch axis)."""

    def sample(v: Tensor) -> Tensor:
        return module(v[None])[0].flatten()

    with torch.enable_grad():
        try:
            made = torch.func.jacrev(sample)(x)
        except (
            RuntimeError,
            NotImplementedError,
            ValueError,
        ):  # code that vmap cannot enter, in some packages
            made = torch.autograd.functional.jacobian(sample, x)
    return made.detach().reshape(made.shape[0], -1)


def operator_norm(matrix: Tensor, norm: str) -> tuple[float, Tensor]:
    """Return the norm of ``matrix`` (O, I) as an operator, and an input direction (I,) that attains it."""
    m = matrix.double()
    if norm == "l2":
        _, values, right = torch.linalg.svd(m, full_matrices=False)
        return float(values[0]), right[0]
    if norm in ("linf", "l2->linf"):
        sizes = m.abs().sum(1) if norm == "linf" else m.norm(dim=1)
        row = m[sizes.argmax()]
        return float(sizes.max()), row.sign() if norm == "linf" else row
    sizes = m.abs().sum(0) if norm == "l1" else m.abs().amax(0)
    return float(sizes.max()), torch.eye(m.shape[1], dtype=m.dtype)[sizes.argmax()]


def pair_search(
    module: nn.Module,
    shape: tuple[int, ...],
    norm: str,
    generator: torch.Generator,
    pairs: int = 32,
    steps: int = 20,
) -> float:
    """Return the largest ||f(x) - f(y)|| / ||x - y|| found by gradient ascent on x and y from random pairs.

    Starts at all distances from 1e-6 (float32: 1e-2) to 10, so that a jump of f, invisible to Jacobians,
    shows.
    """
    orders, dtype = _orders(norm), _dtype(module)
    x = torch.randn(pairs, *shape, generator=generator).to(dtype)
    gap = torch.randn(x.shape, generator=generator).to(dtype)
    distances = torch.logspace(-6 if dtype == torch.float64 else -2, 1, pairs, dtype=dtype)
    gap = gap * distances.reshape(-1, *[1] * len(shape))
    sizes = _size(gap, 2.0).reshape(-1, *[1] * len(shape))
    best = 0.0
    for _ in range(steps):
        x, gap = x.detach().requires_grad_(), gap.detach().requires_grad_()
        with torch.enable_grad():
            ratios = _ratios(module, x, gap, *orders)
            slopes = torch.autograd.grad(ratios.sum(), (x, gap))
        best = max(best, ratios.max().item())
        x, gap = (v + 0.3 * sizes * _unit(slope) for v, slope in zip((x, gap), slopes))
    return best


def _borne_out(module: nn.Module, x: Tensor, direction: Tensor, value: float, norm: str) -> bool:
    """Return whether a short step from ``x`` along ``direction``, to either side, shows the derivative."""
    step, slack = (1e-7, 1e-4) if x.dtype == torch.float64 else (1e-2, 1e-2)
    gap = step * direction.reshape(x.shape).to(x)
    with torch.no_grad():
        ratios = _ratios(module, torch.stack([x, x]), torch.stack([gap, -gap]), *_orders(norm))
    return bool((ratios >= value * (1.0 - slack)).any())


def _dtype(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters()), torch.float64)


def _orders(norm: str) -> tuple[float, float]:
    order = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}
    start, _, end = norm.partition("->")
    return order[start], order[end or start]


def _size(v: Tensor, order: float) -> Tensor:
    return torch.linalg.vector_norm(v.flatten(1), order, dim=1)


def _ratios(module: nn.Module, x: Tensor, gap: Tensor, order_in: float, order_out: float) -> Tensor:
    y = x + gap
    return _size(module(y) - module(x), order_out).double() / _size(y - x, order_in).double()


def _unit(slope: Tensor) -> Tensor:
    slope = torch.nan_to_num(slope)
    size = slope.flatten(1).norm(dim=1).clamp(min=torch.finfo(slope.dtype).tiny)
    return slope / size.reshape(-1, *[1] * (slope.dim() - 1))
