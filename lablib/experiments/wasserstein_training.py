"""Train 1-Lipschitz potentials for the Kantorovich-Rubinstein dual, and prove what they reach.

    W1(P, Q)  =  sup { E_P f - E_Q f  :  f 1-Lipschitz in l2 }

A network f of constant L gives the *lower* bound (E_P f - E_Q f) / L of the distance, whatever its training
did. :func:`bound_dual` is that, for clouds of equal masses, with L proven from the weights and rounding taken off.
"""

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.certify import bound_operator_norm, bound_output_error
from lablib.experiments.activation_zoo import make_activation
from lablib.experiments.threads import one_thread
from lablib.experiments.wasserstein_clouds import Clouds
from lablib.layers import LipschitzSequential, OrthonormalLinear
from lablib.layers.splines import spline_parameter_groups, total_variation
from lablib.train.optimiser import set_rate
from lablib.train.schedules import cosine

SPLINE = {"knots": 21, "range": 0.15, "init": "abs"}  # public code of arXiv 2210.16222
VARIATION = 1e-10  # weight of the splines' total variation, from there too
MANY_THREADS_FROM = 512  # neurons: below, a second thread costs more than it does
LAST_RATE = 0.02  # the rate falls to this share of its start, along a cosine


@dataclasses.dataclass(frozen=True)
class Potential:
    """A trained potential.

    Attributes:
        model: (N, D) -> (N, 1), float64 on the CPU, in evaluation mode.
        clouds: what it was trained on.
        activation: its name in the zoo.
        step, seconds: how long it was trained.
    """

    model: LipschitzSequential
    clouds: Clouds
    activation: str
    step: int
    seconds: float

    @one_thread()
    def evaluate(self, points: np.ndarray) -> np.ndarray:
        """Return f at the points: (N, D) -> (N,) float64."""
        with torch.no_grad():
            return self.model(_double(points))[:, 0].numpy()

    @one_thread()
    def slopes(self, points: np.ndarray) -> np.ndarray:
        """Return the l2 norm of the gradient of f at the points: (N, D) -> (N,) float64, at most 1."""
        x = _double(points).requires_grad_()
        (gradient,) = torch.autograd.grad(self.model(x).sum(), x)
        return torch.linalg.vector_norm(gradient, dim=1).numpy()

    def bound_dual(self) -> float:
        """Return :func:`bound_dual` on the clouds it was trained on."""
        return bound_dual(self.model, self.clouds)

    def field(self, side: int = 61) -> tuple[np.ndarray, np.ndarray]:
        """Return the axis (side,) and f (side, side) on the frame of clouds in the plane, row = second
        coordinate."""
        axis = np.linspace(*self.clouds.frame, side)
        grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        return axis, self.evaluate(grid).reshape(side, side)


def bound_dual(network: nn.Module, clouds: Clouds) -> float:
    """Return a proven lower bound of the Wasserstein-1 distance (l2 cost) between the two clouds.

    With f the real function of ``network`` in float64, L its proven constant, F the computed values and E a
    proven bound of |F - f|:

        W1  >=  (mean f(first) - mean f(second)) / L
            >=  (mean (F - E)(first) - mean (F + E)(second)) / L.

    The weights are constrained anew in float64, so that they are not quite those of a float32 network: any
    1-Lipschitz function will do. Sums are correctly rounded, and the few roundings that remain taken off. Negative
    for a potential that points the wrong way.

    Args:
        network: (N, D) -> (N, 1), a chain with a guarantee in l2.
        clouds: the measures, on the points of which it is evaluated.

    Raises:
        ValueError: for a network without a guarantee in l2, or with layers the rounding bounds do not cover.
    """
    double = copy.deepcopy(network).double().eval()
    place = next(double.parameters()).device
    with torch.no_grad(), parametrize.cached():
        constant = bound_operator_norm(double, "l2")
        sums, sizes = [], []
        for points, sign in ((clouds.first, -1.0), (clouds.second, 1.0)):
            x = _double(points).to(place)
            ends = double(x) + sign * bound_output_error(double, x)
            if ends.shape != (len(points), 1):
                raise ValueError(f"a potential has one output, got {tuple(ends.shape)}")
            sums.append(math.fsum(ends[:, 0].tolist()))
            sizes.append(float(ends.abs().sum()))
    scale = constant * len(clouds.first)
    return (sums[0] - sums[1]) / scale - 2.0**-48 * sum(sizes) / scale


def build(activation: str, features: int, widths: Sequence[int], seed: int) -> LipschitzSequential:
    """Return an untrained potential: orthonormal layers of ``widths`` neurons, the activation behind each.

    Raises:
        ValueError: for an unknown activation, or no hidden layer.
    """
    if not widths:
        raise ValueError("a potential needs at least one hidden layer; give its width")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inputs, outputs in zip((features, *widths), widths):
            layers += [OrthonormalLinear(inputs, outputs), make_activation(activation, outputs, **SPLINE)]
        return LipschitzSequential(*layers, OrthonormalLinear(widths[-1], 1))


def fit(
    clouds: Clouds,
    activation: str,
    *,
    widths: Sequence[int] = (64, 64),
    steps: int = 300,
    batch: int = 256,
    rate: float = 0.02,
    seed: int = 0,
    device: str = "cpu",
    keep_on_interrupt: bool = False,
    on_step: Callable[[int, LipschitzSequential], None] | None = None,
) -> Potential:
    """Maximise mean f(first) - mean f(second) with Adam over potentials with this activation.

    Args:
        clouds: the two measures.
        activation: one of :data:`lablib.experiments.activation_zoo.ACTIVATIONS`, GroupSort in pairs.
        widths: of the hidden layers.
        steps, batch, rate: of Adam; ``batch`` points of each cloud a step (all of them, if there are no more), the
            rate falls along a cosine. Splines learn at their own, lower rates.
        seed: of the first weights and the batches.
        device: where to train.
        keep_on_interrupt: Ctrl-C returns what was learned so far; by default it is passed on.
        on_step: called with (steps done, network) before the first step and after each.

    Raises:
        ValueError: as :func:`build`; for steps, a batch or a rate that is not positive; if the loss is not finite.
    """
    if steps < 1 or batch < 1 or not 0.0 < rate < math.inf:
        raise ValueError(
            f"steps, batch and rate must be positive and finite, got {steps}, {batch} and {rate}"
        )
    model = build(activation, clouds.features, widths, seed).to(device)
    optimiser = torch.optim.Adam(spline_parameter_groups(model, rate))
    schedule = cosine(rate, steps, LAST_RATE * rate)
    draw = _batches(clouds, batch, seed, device)
    done, start = 0, time.perf_counter()
    small = max(clouds.features, *widths) < MANY_THREADS_FROM
    try:
        with one_thread() if small else contextlib.nullcontext():
            for done in range(steps):
                if on_step is not None:
                    on_step(done, model)
                set_rate(optimiser, schedule(done))
                _step(model, optimiser, *draw())
            done = steps
            if on_step is not None:
                on_step(done, model)
    except KeyboardInterrupt:
        if not keep_on_interrupt:
            raise
    return Potential(model.cpu().double().eval(), clouds, activation, done, time.perf_counter() - start)


def _step(model: nn.Module, optimiser: torch.optim.Optimizer, first: Tensor, second: Tensor) -> None:
    with parametrize.cached():  # each weight is made orthonormal once a step
        values = model(torch.cat([first, second]))
        loss = values[len(first) :].mean() - values[: len(first)].mean()
        loss = loss + VARIATION * total_variation(model)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if not math.isfinite(loss.item()):
        raise ValueError(f"the loss is {loss.item()}; lower the learning rate or look at the clouds")


def _batches(clouds: Clouds, batch: int, seed: int, device: str) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a function that draws points of both clouds: the same rows of both, if they are paired."""
    first, second = (torch.from_numpy(points).to(device) for points in (clouds.first, clouds.second))
    count = len(first)
    if batch >= count:
        return lambda: (first, second)
    generator = torch.Generator().manual_seed(seed)

    def rows() -> Tensor:
        return torch.randint(count, (batch,), generator=generator).to(device)

    def draw() -> tuple[Tensor, Tensor]:
        chosen = rows()
        return first[chosen], second[chosen if clouds.paired else rows()]

    return draw


def _double(points: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(points, dtype=np.float64))
