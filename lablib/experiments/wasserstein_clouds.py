"""Pairs of point clouds, and the exact Wasserstein-1 distance between them (l2 ground cost) by POT.

Two clouds of N points each, every point with mass 1/N. Toys lie in the plane; images are rows of pixels in
[0, 1]. Where a cloud is a translate of the other the distance is known without a solver.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from lablib.experiments import toy_data


@dataclasses.dataclass(frozen=True)
class Clouds:
    """Two measures of N points of equal mass.

    Attributes:
        name: what the pair is called in figures.
        first, second: (N, D) float32, finite.
        known: the distance where it has a closed form, else None.
        paired: whether point i of ``second`` was made from point i of ``first``; training then draws both
            together, which lowers the variance of its gradients.
        frame: (low, high) of both axes, for clouds in the plane.

    Raises:
        ValueError: for shapes that do not match, no points, NaN or infinity.
    """

    name: str
    first: np.ndarray
    second: np.ndarray
    known: float | None = None
    paired: bool = False
    frame: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for side in ("first", "second"):
            points = np.ascontiguousarray(getattr(self, side), dtype=np.float32)
            if points.ndim != 2 or 0 in points.shape:
                raise ValueError(
                    f"the {side} cloud has shape {points.shape}; give (N, D) with at least one point"
                )
            if not np.isfinite(points).all():
                raise ValueError(f"the {side} cloud holds NaN or infinity; remove those rows")
            object.__setattr__(self, side, points)
        if self.first.shape != self.second.shape:
            raise ValueError(
                f"both clouds need one shape, got {self.first.shape} and {self.second.shape}; draw equally many"
            )

    @property
    def features(self) -> int:
        """D."""
        return self.first.shape[1]

    def head(self, points: int) -> "Clouds":
        """Return the first ``points`` of both clouds (all, if there are no more)."""
        return dataclasses.replace(self, first=self.first[:points], second=self.second[:points])


@dataclasses.dataclass(frozen=True)
class Transport:
    """An optimal transport between clouds of N points, with its proof.

    Attributes:
        distance: cost of the plan ``target``; the distance is at most that.
        lower: value of a feasible dual solution; the distance is at least that. The two differ by the solver's
            tolerance, so ``distance`` is the exact value up to ``distance - lower``.
        target: (N,) which point of the second cloud each point of the first is carried to, a permutation.
    """

    distance: float
    lower: float
    target: np.ndarray

    def rays(self, clouds: Clouds) -> np.ndarray:
        """Return (N, 2, D): each point of the first cloud, and where it is carried in the second."""
        return np.stack([clouds.first, clouds.second[self.target]], axis=1)


def exact_transport(clouds: Clouds) -> Transport:
    """Solve the transport problem between the clouds with POT's network simplex (``ot.lp.emd``), in float64.

    Equal masses: an optimal plan is a permutation (Birkhoff and von Neumann). Both bounds are computed anew from
    the costs: the plan's cost, and mean u + mean v with the solver's u and v_j = min_i (C_ij - u_i), which
    is feasible whatever u is.

    Raises:
        ValueError: if POT is not installed.
    """
    try:
        import ot
    except ModuleNotFoundError:
        raise ValueError("exact transport needs POT; install it: pip install -e '.[imaging]'") from None
    from scipy.spatial.distance import cdist

    # cdist subtracts first: no cancellation, as in |x|^2 - 2 x.y + |y|^2
    cost = cdist(clouds.first.astype(np.float64), clouds.second.astype(np.float64))
    plan, log = ot.lp.emd([], [], cost, numItermax=100_000_000, log=True, center_dual=False)
    target = plan.argmax(axis=1)
    if not np.array_equal(np.sort(target), np.arange(len(target))):
        raise AssertionError(f"POT's plan for {clouds.name} is no permutation")
    u = log["u"]
    lower = u.mean() + (cost - u[:, None]).min(axis=0).mean()
    distance = cost[np.arange(len(target)), target].mean()
    if distance - lower > 1e-6 * (1.0 + distance):
        raise AssertionError(f"POT stopped early on {clouds.name}: {lower} < {distance}")
    return Transport(float(distance), float(lower), target)


def translated_blob(points: int, seed: int) -> Clouds:
    """A Gaussian blob and the same points moved by v: the distance is |v|, and any f = <v, x> / |v| attains it."""
    rng = np.random.default_rng(seed)
    first = 0.09 * rng.standard_normal((points, 2)) + (0.25, 0.35)
    move = np.array([0.45, 0.3])
    return Clouds("translated blob", first, first + move, float(np.linalg.norm(move)), True, (0.0, 1.0))


def moons_and_circle(points: int, seed: int) -> Clouds:
    """Two interleaved half circles, and a ring around them."""
    rng = np.random.default_rng(seed)
    moons = toy_data.moons(2 * (points + 1), noise=0.06, seed=seed).points
    first = moons[rng.permutation(len(moons))[:points]]
    angle = rng.uniform(0, 2 * np.pi, points)
    radius = 0.48 + 0.01 * rng.standard_normal(points)
    ring = 0.5 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Clouds("moons and circle", first, ring, frame=(-0.06, 1.06))


def eight_and_one(points: int, seed: int) -> Clouds:
    """Eight Gaussians on a ring, and one in its centre: the potential is nearly a cone."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * rng.integers(0, 8, points) / 8
    centres = 0.5 + 0.4 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    first = centres + 0.03 * rng.standard_normal((points, 2))
    second = 0.5 + 0.05 * rng.standard_normal((points, 2))
    return Clouds("eight Gaussians and one", first, second, frame=(-0.06, 1.06))


TOYS: dict[str, Callable[[int, int], Clouds]] = {
    "translated blob": translated_blob,
    "moons and circle": moons_and_circle,
    "eight Gaussians and one": eight_and_one,
}


def toy(name: str, points: int = 256, seed: int = 0) -> Clouds:
    """Return one of :data:`TOYS`, clouds of ``points`` points in the plane.

    Raises:
        ValueError: for an unknown name or fewer than one point.
    """
    if name not in TOYS:
        raise ValueError(f"no toy {name!r}; choose from {', '.join(TOYS)}")
    if points < 1:
        raise ValueError(f"a cloud has at least one point, not {points}")
    return TOYS[name](points, seed)
