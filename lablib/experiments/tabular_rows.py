"""Which rows of a table are learned from, which choose, and which judge: splits, folds, statistics of training rows.

``official`` splits have the published test rows for every seed, ``repeated`` ones draw a fifth of all rows anew for
each seed. Means and spreads always come from the rows that are learned from.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lablib.data import Table

OFFICIAL, REPEATED = "official", "repeated"
TEST_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Means and spreads of the rows that are learned from.

    Attributes:
        centre, scale: (I,) of the features. ``level``, ``unit``: of the target; 0 and 1 for classes.
    """

    centre: np.ndarray
    scale: np.ndarray
    level: float
    unit: float

    def features(self, x: np.ndarray) -> np.ndarray:
        """(N, I) in their own units -> (N, I)."""
        return (x - self.centre) / self.scale

    def target(self, y: np.ndarray) -> np.ndarray:
        """(N,) in its own unit -> (N,)."""
        return (y - self.level) / self.unit

    def outputs(self, score: np.ndarray) -> np.ndarray:
        """Scores (...,) of a model -> logits, or the target in its own unit."""
        return self.level + self.unit * score


@dataclasses.dataclass(frozen=True)
class Job:
    """One model to train.

    Attributes:
        x, y: (N, I), (N,) rows to learn from, standardised (classes stay 0 and 1).
        held_x, held_y: (M, I), (M,) rows to judge by, on the same scale.
        directions: (I,) +1, 0 or -1.
        classes: whether y is a yes or no.
        seed: of the start and of the order of the batches.
        scaling: how the rows were standardised.
    """

    x: np.ndarray
    y: np.ndarray
    held_x: np.ndarray
    held_y: np.ndarray
    directions: tuple[int, ...]
    classes: bool
    seed: int
    scaling: Scaling


def make_job(
    table: Table, fit: np.ndarray, held: np.ndarray, seed: int, statistics: np.ndarray | None = None
) -> Job:
    """Return the job that learns from rows ``fit`` and is judged by rows ``held`` (indices).

    ``statistics``: rows that means and spreads are of, by default ``fit``; published scripts take more.
    """
    classes = table.task == "classification"
    rows = fit if statistics is None else statistics
    scaling = measure(table.features[rows], None if classes else table.target[rows])
    x, y = scaling.features(table.features), scaling.target(table.target)
    return Job(x[fit], y[fit], x[held], y[held], table.directions, classes, seed, scaling)


def measure(x: np.ndarray, y: np.ndarray | None) -> Scaling:
    """Return the scaling that these rows ask for; a feature that is constant keeps its unit."""
    spread = x.std(0, ddof=1)
    level, unit = (0.0, 1.0) if y is None else (float(y.mean()), float(y.std(ddof=1)))
    return Scaling(x.mean(0), np.where(spread > 0, spread, 1.0), level, unit)


def split(table: Table, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of training and test rows; repeated splits keep the share of each class.

    Raises:
        ValueError: for another kind, or an official split where the table has none.
    """
    if kind == OFFICIAL:
        if table.test is None:
            raise ValueError(f"{table.name} has no official split; use {REPEATED!r}")
        return np.flatnonzero(~table.test), np.flatnonzero(table.test)
    if kind != REPEATED:
        raise ValueError(f"no split {kind!r}; choose {OFFICIAL!r} or {REPEATED!r}")
    rng = np.random.default_rng([seed, 1])
    classes = [np.ones(len(table.target), bool)]
    if table.task == "classification":
        classes = [table.target == 0, table.target == 1]
    test = np.zeros(len(table.target), bool)
    for chosen in classes:
        rows = rng.permutation(np.flatnonzero(chosen))
        test[rows[: round(TEST_SHARE * len(rows))]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)


def folds(rows: np.ndarray, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (learn, choose) pairs of indices: ``count`` disjoint parts of equal size, each chosen by once.

    Raises:
        ValueError: if there are fewer rows than folds, or fewer than two folds.
    """
    if not 2 <= count <= len(rows):
        raise ValueError(f"{len(rows)} rows cannot be cut into {count} folds; choose from 2 up")
    order = np.random.default_rng([seed, 2]).permutation(rows)
    size = len(rows) // count
    parts = [order[number * size : (number + 1) * size] for number in range(count)]
    return [(np.setdiff1d(rows, part), part) for part in parts]


def stacked(jobs: Sequence[Job]) -> tuple[np.ndarray, ...]:
    """Return x (P, N, I), y (P, N), held_x (P, M, I), held_y (P, M) of jobs of equal sizes, float32."""
    return tuple(
        np.stack([getattr(job, part) for job in jobs]).astype(np.float32)
        for part in ("x", "y", "held_x", "held_y")
    )
