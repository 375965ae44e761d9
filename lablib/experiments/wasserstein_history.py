"""Potentials in the plane as they learn, recorded step by step: what the explorer turns through."""

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np

from lablib.experiments.threads import one_thread
from lablib.experiments.wasserstein_clouds import exact_transport, toy
from lablib.experiments.wasserstein_training import Potential, fit
from lablib.layers import LipschitzSequential


@dataclasses.dataclass(frozen=True)
class History:
    """A potential at S moments of its training.

    Attributes:
        steps: (S,) steps done.
        duals: (S,) proven lower bounds of the distance, there.
        axis: (side,); fields: (S, side, side), the potential, row = second coordinate.
        rays: (N, 2, 2), each point of the first cloud and where the exact plan carries it.
        exact: the distance.
        seconds: time of the training, recording included.
    """

    steps: np.ndarray
    duals: np.ndarray
    axis: np.ndarray
    fields: np.ndarray
    rays: np.ndarray
    exact: float
    seconds: float


@one_thread()
def record_toy(
    name: str,
    activation: str,
    *,
    points: int = 256,
    steps: int = 200,
    states: int = 25,
    side: int = 41,
    widths: Sequence[int] = (32, 32, 32),
    seed: int = 0,
) -> History:
    """Train on the toy ``name`` and keep ``states`` states (or a few less), closer together at the start.

    Raises:
        ValueError: as :func:`~lablib.experiments.wasserstein_training.fit` and
            :func:`~lablib.experiments.wasserstein_clouds.toy`; for fewer than two states.
    """
    if states < 2:
        raise ValueError(f"a history has at least two states, not {states}")
    clouds = toy(name, points, seed)
    transport = exact_transport(clouds)
    at = np.unique(np.rint(steps * np.linspace(0, 1, states) ** 2).astype(int))
    kept: list[tuple[float, np.ndarray]] = []

    def keep(step: int, model: LipschitzSequential) -> None:
        if step in at:
            state = Potential(copy.deepcopy(model).double().eval(), clouds, activation, step, 0.0)
            kept.append((state.bound_dual(), state.field(side)[1]))

    trained = fit(clouds, activation, steps=steps, widths=widths, seed=seed, on_step=keep)
    duals, fields = (np.array(column) for column in zip(*kept))
    axis = np.linspace(*clouds.frame, side)
    return History(at, duals, axis, fields, transport.rays(clouds), transport.distance, trained.seconds)
