"""Functions on [-1, 1] to fit, all with slopes in [-1, 1]: two random broken lines and a cosine.

    f1  slope +1 and -1 in turn, switching at random places
    f2  slope in {-1, 0, 1}, each switch to one of the two others
    f3  cos(7 pi x) / (7 pi)

Source: Ducotterd et al., "Improving Lipschitz-constrained neural networks by learning activation functions"
(JMLR 25, 2024, arXiv 2210.16222), section on one-dimensional fitting. A network whose constant is 1 can represent
each of them; f1 asks for the full slope everywhere.
"""

import dataclasses

import numpy as np

TARGETS = ("f1", "f2", "f3")
FREQUENCY = 7 * np.pi  # of f3


@dataclasses.dataclass(frozen=True)
class BrokenLine:
    """The function through the points (positions, values), straight between them and beyond both ends.

    Attributes:
        positions: (M,) increasing, M >= 2.
        values: (M,).
    """

    positions: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        positions = np.asarray(self.positions, dtype=np.float64)
        values = np.asarray(self.values, dtype=np.float64)
        if positions.ndim != 1 or len(positions) < 2 or positions.shape != values.shape:
            raise ValueError(
                f"a broken line needs at least two positions and as many values, got shapes {positions.shape} "
                f"and {values.shape}"
            )
        if not (
            np.isfinite(values).all() and np.isfinite(positions).all() and (np.diff(positions) > 0).all()
        ):
            raise ValueError("positions must increase, and all numbers be finite; sort them and drop doubles")
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "values", values)

    @property
    def slopes(self) -> np.ndarray:
        """(M - 1,) slope of each piece."""
        return np.diff(self.values) / np.diff(self.positions)

    @property
    def second_variation(self) -> float:
        """TV(2): the sum of the absolute changes of slope."""
        return float(np.abs(np.diff(self.slopes)).sum())

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the values at ``x`` (any shape), in float64."""
        x = np.asarray(x, dtype=np.float64)
        piece = np.clip(np.searchsorted(self.positions, x, side="right") - 1, 0, len(self.positions) - 2)
        return self.values[piece] + self.slopes[piece] * (x - self.positions[piece])


def random_broken_line(slopes: tuple[float, ...], switches: int, rng: np.random.Generator) -> BrokenLine:
    """Return a broken line on [-1, 1] with mean 0 whose slope switches at ``switches`` uniform random places.

    It starts with the largest slope; each switch is to another of ``slopes``, all equally likely.

    Raises:
        ValueError: for a negative number of switches, or fewer than two different slopes to switch between.
    """
    if switches < 0 or (switches and len(set(slopes)) < 2) or not slopes:
        raise ValueError(
            f"{switches} switches between the slopes {slopes}: give switches >= 0 and two slopes"
        )
    places = np.sort(rng.uniform(-1.0, 1.0, switches))
    taken = [max(slopes)]
    for _ in range(switches):
        others = [slope for slope in slopes if slope != taken[-1]]
        taken.append(others[rng.integers(len(others))])
    positions = np.concatenate([[-1.0], places, [1.0]])
    values = np.concatenate([[0.0], np.cumsum(np.array(taken) * np.diff(positions))])
    mean = ((values[1:] + values[:-1]) / 2 * np.diff(positions)).sum() / 2
    return BrokenLine(positions, values - mean)


def cosine(x: np.ndarray) -> np.ndarray:
    """Return cos(7 pi x) / (7 pi): slopes fill [-1, 1] but stay at the ends only in points."""
    return np.cos(FREQUENCY * np.asarray(x, dtype=np.float64)) / FREQUENCY


def make_target(name: str, switches: int = 9, seed: int = 5):
    """Return the function called ``name``, one of :data:`TARGETS`: array of any shape -> float64 array.

    ``switches`` and ``seed`` draw f1 and f2 (a :class:`BrokenLine`); f3 does not depend on them.

    >>> float(make_target("f3")(0.0) * 7 * np.pi)
    1.0

    Raises:
        ValueError: for another name.
    """
    if name not in TARGETS:
        raise ValueError(f"no target {name!r}; choose one of {', '.join(TARGETS)}")
    if name == "f3":
        return cosine
    slopes = (-1.0, 1.0) if name == "f1" else (-1.0, 0.0, 1.0)
    return random_broken_line(slopes, switches, np.random.default_rng(seed))


def sample(
    target, points: int, rng: np.random.Generator, noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return x (points,) uniform on [-1, 1], sorted, and target(x) plus Gaussian noise of that deviation.

    Raises:
        ValueError: for fewer than one point or negative noise.
    """
    if points < 1 or not noise >= 0:
        raise ValueError(f"give at least one point and noise >= 0, not {points} and {noise}")
    x = np.sort(rng.uniform(-1.0, 1.0, points))
    return x, target(x) + noise * rng.standard_normal(points)
