"""Two-class data sets in the plane: Boolean vertices, moons, circles, spirals, and points drawn by hand.

Every function returns a :class:`PlanarData`; NumPy only, so that a notebook shows them at once.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

BOOLEAN_TABLES = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "XOR": (0, 1, 1, 0)}
FRAME_BOOLEAN = (-0.6, 1.6)  # room for the squares of radius 1/2 around the vertices
FRAME_SHAPES = (-0.1, 1.1)


@dataclasses.dataclass(frozen=True)
class PlanarData:
    """Points of two classes in the plane.

    Attributes:
        name: what it is called in figures.
        points: (N, 2) float64, finite.
        labels: (N,) int64, 0 or 1.
        frame: (low, high), the range of both axes in which it is drawn.

    Raises:
        ValueError: if the shapes do not match, a point is not finite or a label is not 0 or 1.
    """

    name: str
    points: np.ndarray
    labels: np.ndarray
    frame: tuple[float, float] = FRAME_SHAPES

    def __post_init__(self) -> None:
        points = np.asarray(self.points, dtype=np.float64)
        labels = np.asarray(self.labels, dtype=np.int64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
            raise ValueError(f"points have shape {points.shape}; give at least one point, as (N, 2)")
        if labels.shape != points.shape[:1]:
            raise ValueError(f"{len(points)} points need as many labels, not shape {labels.shape}")
        if not np.isfinite(points).all():
            raise ValueError("points hold NaN or infinity; remove those rows")
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("labels must be 0 or 1")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "labels", labels)

    @property
    def signs(self) -> np.ndarray:
        """(N,) float64: -1 for class 0, +1 for class 1."""
        return 2.0 * self.labels - 1.0

    def half_separation(self, norm: str) -> float:
        """Return half the distance between the two classes, the best radius any classifier can have.

        Raises:
            ValueError: if one of the classes has no point, or the norm is not l2 or linf.
        """
        first, second = self.points[self.labels == 0], self.points[self.labels == 1]
        if len(first) == 0 or len(second) == 0:
            raise ValueError("both classes need at least one point")
        difference = first[:, None, :] - second[None, :, :]
        if norm == "linf":
            return float(np.abs(difference).max(axis=2).min()) / 2
        if norm == "l2":
            return float(np.sqrt((difference**2).sum(axis=2)).min()) / 2
        raise ValueError(f"norm {norm!r} is not one of l2, linf")


def boolean(name: str) -> PlanarData:
    """Return the four vertices of the unit square, labelled by ``AND``, ``OR`` or ``XOR``."""
    if name not in BOOLEAN_TABLES:
        raise ValueError(f"no Boolean function {name!r}; choose from {', '.join(BOOLEAN_TABLES)}")
    vertices = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=np.float64)
    return PlanarData(name, vertices, np.array(BOOLEAN_TABLES[name]), FRAME_BOOLEAN)


def moons(points: int = 80, noise: float = 0.06, seed: int = 0) -> PlanarData:
    """Return two interleaved half circles in the unit square, with Gaussian noise of the given spread."""
    rng, half = _checked(points, noise, seed)
    angle = rng.uniform(0, np.pi, (2, half))
    upper = np.stack([np.cos(angle[0]), np.sin(angle[0])], axis=1)
    lower = np.stack([1 - np.cos(angle[1]), 0.5 - np.sin(angle[1])], axis=1)
    return _two_classes("moons", upper, lower, noise, rng, centre=(0.5, 0.25), half_width=1.65)


def circles(points: int = 80, noise: float = 0.06, seed: int = 0) -> PlanarData:
    """Return two rings around one centre in the unit square, the inner one with 0.45 of the outer radius."""
    rng, half = _checked(points, noise, seed)
    angle = rng.uniform(0, 2 * np.pi, (2, half))
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=2)
    return _two_classes("circles", ring[0], 0.45 * ring[1], noise, rng, centre=(0, 0), half_width=1.2)


def spirals(points: int = 120, noise: float = 0.02, seed: int = 0, turns: float = 1.25) -> PlanarData:
    """Return two spiral arms that wind around each other in the unit square."""
    rng, half = _checked(points, noise, seed)
    along = np.sqrt(rng.uniform(0.03, 1, (2, half)))
    angle = 2 * np.pi * turns * along + np.array([[0.0], [np.pi]])
    arm = along[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=2)
    return _two_classes("spirals", arm[0], arm[1], noise, rng, centre=(0, 0), half_width=1.1)


def drawn(text: str) -> PlanarData:
    """Read points drawn or typed by hand: one per line or semicolon, ``x1 x2 class``.

    >>> drawn("0.2 0.3 0; 0.7, 0.8, 1").labels.tolist()
    [0, 1]
    """
    rows = [row.replace(",", " ").split() for row in text.replace(";", "\n").splitlines()]
    rows = [row for row in rows if row]
    try:
        numbers = np.array([[float(number) for number in row] for row in rows])
    except ValueError:
        raise ValueError("write each point as three numbers: x1 x2 class, such as 0.2 0.7 1") from None
    if numbers.ndim != 2 or numbers.shape[1] != 3:
        raise ValueError("write each point as three numbers: x1 x2 class, such as 0.2 0.7 1")
    if not np.isin(numbers[:, 2], (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    return PlanarData("your points", numbers[:, :2], numbers[:, 2])


EXAMPLE_POINTS = "0.2 0.3 0\n0.3 0.7 0\n0.8 0.2 0\n0.5 0.45 1\n0.75 0.65 1\n0.55 0.9 1"

DATA_SETS: dict[str, Callable[[], PlanarData]] = {
    "XOR": lambda: boolean("XOR"),
    "AND": lambda: boolean("AND"),
    "OR": lambda: boolean("OR"),
    "moons": moons,
    "circles": circles,
    "spirals": spirals,
}


def load(name: str) -> PlanarData:
    """Return the data set called ``name`` at its default size.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    if name not in DATA_SETS:
        raise ValueError(f"no data set {name!r}; choose from {', '.join(DATA_SETS)}")
    return DATA_SETS[name]()


def _checked(points: int, noise: float, seed: int) -> tuple[np.random.Generator, int]:
    if points < 2:
        raise ValueError(f"{points} points cannot make two classes; ask for at least 2")
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise is {noise}; give a spread of 0 or more")
    return np.random.default_rng(seed), points // 2


def _two_classes(name, first, second, noise, rng, centre, half_width) -> PlanarData:
    """Stack the classes, add noise, and scale the frame centre +- half_width to the unit square."""
    points = np.concatenate([first, second])
    points = points + noise * rng.standard_normal(points.shape)
    labels = np.repeat([0, 1], [len(first), len(second)])
    return PlanarData(name, 0.5 + (points - np.array(centre)) / (2 * half_width), labels)
