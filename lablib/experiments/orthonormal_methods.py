"""Ways to make a matrix orthonormal, side by side: how far from it each ends, and what a training step costs.

Every method turns free parameters A (O, I) into a weight of the same shape that is meant to have all singular
values equal to 1. Measured is the float32 weight as stored, in float64. Bjorck's iteration W <- 3/2 W - 1/2 W W^T W
(Bjorck and Bowie, SIAM J. Numer. Anal. 8, 1971) moves each singular value s to (3 s - s^3) / 2: it grows a small one
by 3/2 per step, so that it needs many from a small start, and throws one above sqrt(5) away.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lablib.certify.norms import bound_operator_norm, estimate_operator_norm
from lablib.experiments.bench import take_turns
from lablib.experiments.recipe import Recipe
from lablib.experiments.threads import one_thread
from lablib.layers import OrthonormalConv2d, OrthonormalLinear, SpectralConv2d

NAME = "orthonormal_methods"
OURS = "Cayley, scaled (OrthonormalLinear)"
ITERATIONS = (15, 25)


@dataclasses.dataclass(frozen=True)
class Config:
    """Shapes (O, I), O >= I, whose singular values are measured, those that are timed, draws of A, timed turns."""

    shapes: tuple[tuple[int, int], ...]
    timed: tuple[tuple[int, int], ...]
    seeds: int
    repeat: int


def bjorck(weight: Tensor, iterations: int) -> Tensor:
    """Return W (O, I) after so many Bjorck iterations of first order. Not orthonormal where stopped early."""
    for _ in range(iterations):
        weight = 1.5 * weight - 0.5 * weight @ (weight.mT @ weight)
    return weight


def free_parameters(out: int, inputs: int, kind: str, seed: int) -> Tensor:
    """Return A (O, I), normal: ``"well scaled"``, spectral norm near 1, or ``"badly scaled"``, entries near 1.

    The second is what a few large optimiser steps leave behind.
    """
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(out, inputs, generator=generator)
    return normal if kind == "badly scaled" else normal / (out**0.5 + inputs**0.5)


KINDS = ("well scaled", "badly scaled")


def _ours(free: Tensor) -> Callable[[], Tensor]:
    layer = OrthonormalLinear(free.shape[1], free.shape[0], bias=False)
    return _from(layer, free)


def _torch(orthogonal_map: str) -> Callable[[Tensor], Callable[[], Tensor]]:
    def prepare(free: Tensor) -> Callable[[], Tensor]:
        linear = nn.Linear(free.shape[1], free.shape[0], bias=False)
        layer = nn.utils.parametrizations.orthogonal(linear, orthogonal_map=orthogonal_map)
        # Its Householder form reads signs from the diagonal: anything but +-1 there drops or doubles columns.
        return _from(layer, free.clone().fill_diagonal_(1.0) if orthogonal_map == "householder" else free)

    return prepare


def _from(layer: nn.Module, free: Tensor) -> Callable[[], Tensor]:
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(free)
    return lambda: layer.weight


def _bjorck(iterations: int, divided: bool) -> Callable[[Tensor], Callable[[], Tensor]]:
    def prepare(free: Tensor) -> Callable[[], Tensor]:
        weight = nn.Parameter(free.clone())
        divisor = (free.shape[0] * free.shape[1]) ** 0.5 if divided else 1.0
        return lambda: bjorck(weight / divisor, iterations)

    return prepare


METHODS: dict[str, Callable[[Tensor], Callable[[], Tensor]]] = {
    OURS: _ours,
    "torch, Cayley": _torch("cayley"),
    "torch, matrix exponential": _torch("matrix_exp"),
    "torch, Householder": _torch("householder"),
    **{f"Björck, {n} iterations": _bjorck(n, False) for n in ITERATIONS},
    **{f"Björck, {n}, input / √(O I)": _bjorck(n, True) for n in ITERATIONS},
}


@one_thread()
def run(config: Config) -> dict[str, Any]:
    """Measure singular values and times of every method, and the norms of strided convolutions."""
    from tqdm.auto import tqdm

    plan = [(shape, kind, method) for shape in config.shapes for kind in KINDS for method in METHODS]
    rows = [_values(*each, config.seeds) for each in tqdm(plan, desc=NAME, unit="method")]
    times = [_times(shape, config.repeat) for shape in config.timed]
    return {"rows": rows, "times": times, "convolutions": strided_convolutions()}


def _values(shape: tuple[int, int], kind: str, method: str, seeds: int) -> dict[str, Any]:
    """Return the largest and smallest singular value per seed; None where they are not finite."""
    largest, smallest = [], []
    for seed in range(seeds):
        with torch.no_grad():
            weight = METHODS[method](free_parameters(*shape, kind, seed))().double()
        finite = bool(weight.isfinite().all())
        values = torch.linalg.svdvals(weight) if finite else None
        largest.append(float(values[0]) if finite else None)
        smallest.append(float(values[-1]) if finite else None)
    return {"shape": list(shape), "input": kind, "method": method, "largest": largest, "smallest": smallest}


def deviation(row: dict[str, Any]) -> float | None:
    """Return the largest |singular value - 1| of a row over its seeds; None where one was not finite."""
    values = row["largest"] + row["smallest"]
    return None if None in values else max(abs(value - 1.0) for value in values)


def _times(shape: tuple[int, int], repeat: int) -> dict[str, Any]:
    """Return time of forward and backward of each method over ours, both taking turns in this process."""
    free = free_parameters(*shape, "well scaled", 0)
    slope = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    steps = {name: _step(prepare(free), slope) for name, prepare in METHODS.items()}
    ratios = dict.fromkeys(METHODS, 1.0)
    for name in list(METHODS)[1:]:
        ours, theirs = take_turns(steps[OURS], steps[name], repeat)
        ratios[name] = theirs / ours
    return {"shape": list(shape), "over_ours": ratios}


def _step(weight: Callable[[], Tensor], slope: Tensor) -> Callable[[], None]:
    return lambda: weight().backward(slope)


def strided_convolutions(size: int = 64) -> list[dict[str, Any]]:
    """Return proven bound and power-iteration estimate of 4 x 4, stride 2 convolutions claimed 1-Lipschitz.

    The first two have a kernel that is orthonormal as a matrix (O, 16 I), which says nothing about the operator:
    windows overlap, and each pixel is read by four of them. The norm reaches 2.
    """
    torch.manual_seed(0)
    cases = {
        "kernel orthonormal as a matrix, all entries equal": reshaped_convolution(torch.full((1, 16), 0.25)),
        "kernel orthonormal as a matrix, random": reshaped_convolution(
            OrthonormalLinear(48, 16).weight.detach()
        ),
        "OrthonormalConv2d": OrthonormalConv2d(3, 16, 4, stride=2, padding=1),
        "SpectralConv2d": SpectralConv2d(3, 16, 4, stride=2, padding=1),
    }
    return [{"layer": name, "claim": 1.0} | measure_convolution(layer, size) for name, layer in cases.items()]


def reshaped_convolution(matrix: Tensor) -> nn.Conv2d:
    """Return the 4 x 4, stride 2, padding 1 convolution whose kernel is ``matrix`` (O, 16 I) reshaped."""
    out, inputs = matrix.shape[0], matrix.shape[1] // 16
    layer = nn.Conv2d(inputs, out, 4, stride=2, padding=1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(matrix.reshape(out, inputs, 4, 4))
    return layer


def measure_convolution(layer: nn.Module, size: int) -> dict[str, float]:
    """Return ``bound`` (proven, any image size) and ``estimate`` (power iteration on size x size images)."""
    layer = layer.double()
    channels = layer.in_channels
    x = torch.zeros(channels, size, size, dtype=torch.float64)
    estimate = estimate_operator_norm(layer, x, "l2", 200, torch.Generator().manual_seed(0))
    return {"bound": bound_operator_norm(layer, "l2"), "estimate": estimate}


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw the deviation from orthonormal and the time of each method."""
    from lablib.plots.orthonormal import draw_methods

    metrics = record["metrics"]
    rows = [row | {"deviation": deviation(row)} for row in metrics["rows"]]
    return {NAME: draw_methods(rows, metrics["times"])}


_PAPER = (1024, 784)

RECIPE = Recipe(
    name=NAME,
    question="Which ways of making a matrix orthonormal end there, and what does a step cost?",
    sizes={
        "quick": Config(shapes=((64, 64),), timed=((64, 64),), seeds=1, repeat=3),
        "standard": Config(
            shapes=((64, 64), (256, 256), _PAPER), timed=((64, 64), (256, 256)), seeds=3, repeat=15
        ),
        "full": Config(
            shapes=((64, 64), (256, 256), _PAPER), timed=((64, 64), (256, 256), _PAPER), seeds=10, repeat=15
        ),
    },
    run=run,
    draw=draw,
)
