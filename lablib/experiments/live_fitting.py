"""Fit a function of one number with a small 1-Lipschitz network, quickly enough to be watched."""

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch

from lablib.experiments.activation_zoo import make_activation
from lablib.experiments.spline_population import LINEAR
from lablib.experiments.threads import one_thread
from lablib.layers import LearnableSpline, LipschitzSequential, guarantee
from lablib.layers.splines import spline_parameter_groups, total_variation
from lablib.theory.spline_targets import sample
from lablib.train.loop import fit as train
from lablib.train.schedules import cosine

WIDTH, DEPTH, GROUP_SIZE = 10, 3, 5
SPLINE = {"knots": 101, "range": 0.5, "init": "relu"}  # of the paper's one-dimensional fits
POINTS = 200
RATE = 0.02  # ten times the paper's: hundreds of steps instead of a hundred thousand
REPORT_SECONDS = 0.2
BEND = 1e-2  # a change of slope smaller than this is not counted as a knot


@dataclasses.dataclass(frozen=True)
class LiveFit:
    """A network at one moment of its training.

    Attributes:
        model: (N, 1) -> (N, 1), float64, 1-Lipschitz in ``norm``.
        x, y: the data, (POINTS,) each.
        step, seconds: how long it has been trained.
    """

    model: LipschitzSequential
    norm: str
    x: np.ndarray
    y: np.ndarray
    step: int
    seconds: float

    @one_thread()
    def evaluate(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values and slopes of the network at the points ``at`` (M,)."""
        x = torch.from_numpy(np.asarray(at, dtype=np.float64))[:, None].requires_grad_()
        with torch.enable_grad():
            made = self.model(x)
            (slopes,) = torch.autograd.grad(made.sum(), x)
        return made.detach()[:, 0].numpy(), slopes[:, 0].numpy()

    @property
    def mse(self) -> float:
        """Mean squared error on the data."""
        return float(((self.evaluate(self.x)[0] - self.y) ** 2).mean())

    @property
    def lipschitz(self) -> float:
        """The proven constant."""
        return guarantee(self.model)[1]

    @property
    def knots(self) -> tuple[int, int] | None:
        """How many knots of all splines bend, and how many there are; None without splines."""
        splines = [layer for layer in self.model if isinstance(layer, LearnableSpline)]
        if not splines:
            return None
        bent = sum(int(spline.active_knots(BEND).sum()) for spline in splines)
        return bent, sum(spline.channels * (spline.knots - 2) for spline in splines)


def build(activation: str, norm: str = "l2", seed: int = 0) -> LipschitzSequential:
    """Return an untrained 1-10-10-10-1 network.

    Raises:
        ValueError: for an unknown activation or norm, or an activation that the norm does not have.
    """
    if norm not in LINEAR:
        raise ValueError(f"no norm {norm!r}; choose from {', '.join(LINEAR)}")
    affine = LINEAR[norm]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[torch.nn.Module] = []
        for inputs in [1] + [WIDTH] * (DEPTH - 1):
            layers += [
                affine(inputs, WIDTH),
                make_activation(activation, WIDTH, group_size=GROUP_SIZE, **SPLINE),
            ]
        return LipschitzSequential(*layers, affine(WIDTH, 1)).double()


@one_thread()
def fit(
    target: Callable[[np.ndarray], np.ndarray],
    *,
    activation: str,
    norm: str = "l2",
    weight: float = 0.0,
    steps: int = 400,
    seed: int = 0,
    keep_on_interrupt: bool = False,
    on_progress: Callable[[LiveFit], None] | None = None,
) -> LiveFit:
    """Fit ``target`` on [-1, 1] with Adam on all points at once; mean squared error plus ``weight`` times TV(2).

    Args:
        target: array -> array of the same shape.
        activation, norm: see :func:`build`.
        weight: lambda >= 0, of the sum of TV(2) over all splines.
        keep_on_interrupt: Ctrl-C returns what was learned so far; by default it is passed on.
        on_progress: called a few times a second with the network as it is then.

    Raises:
        ValueError: as :func:`build`, or for a negative weight.
    """
    if not weight >= 0:
        raise ValueError(f"the weight of TV(2) is at least 0, not {weight}")
    x, y = sample(target, POINTS, np.random.default_rng(seed))
    model = build(activation, norm, seed)
    start = last = time.perf_counter()
    taken = 0

    def loss(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        error = (outputs - wanted).square().mean()
        return error + weight * total_variation(model) if weight else error

    def report(step: int, _loss: float) -> None:
        nonlocal last, taken
        taken = step + 1
        now = time.perf_counter()
        if on_progress is not None and now - last > REPORT_SECONDS:
            on_progress(LiveFit(model, norm, x, y, taken, now - start))
            last = time.perf_counter()

    optimiser = torch.optim.Adam(spline_parameter_groups(model, RATE))
    batch = (torch.from_numpy(x)[:, None], torch.from_numpy(y)[:, None])
    options = {"progress": False, "keep_on_interrupt": keep_on_interrupt, "on_step": report}
    train(model, loss, [batch], steps, cosine(RATE, steps, RATE / 20), optimiser=optimiser, **options)
    return LiveFit(model, norm, x, y, taken, time.perf_counter() - start)
