"""Boxes and the polytopes that comparisons cut out of them: which of those have an interior, by linear programs."""

import itertools
import math

import numpy as np

from lablib.certify.pieces import Affine, Piece

SAMPLES = 200  # points of a box that are tried before a search
HIGHS = 1e-9  # tolerance of its constraints
THIN = 1e-8  # radius of the smallest ball that counts as an interior
FAR = 1e6  # beyond it nothing is looked for


class Space:
    """The box, in coordinates z with x = middle + half z, and its polytopes {a z + c >= 0}, |a| = 1.

    Raises:
        ValueError: for an empty box, NaN, or ends of another shape than () or (I,).
    """

    def __init__(self, steps: list[Piece], inputs: int, lower, upper):
        self.lower, self.upper = _end(lower, -math.inf, inputs), _end(upper, math.inf, inputs)
        if not (self.lower < self.upper).all():
            raise ValueError("every input needs lower < upper; leave an input out of the network to fix it")
        finite = np.isfinite(self.lower), np.isfinite(self.upper)
        low, high = np.where(finite[0], self.lower, 0.0), np.where(finite[1], self.upper, 0.0)
        both = finite[0] & finite[1]
        self.middle = np.where(both, low / 2 + high / 2, low + high)
        self.half = np.where(both, high / 2 - low / 2, _bend_distance(steps, inputs))
        self.walls = np.array(
            [
                [*(sign * np.eye(inputs)[i]), (1.0 if both[i] else 0.0)]
                for i in range(inputs)
                for sign, there in ((1.0, finite[0][i]), (-1.0, finite[1][i]))
                if there
            ]
        ).reshape(-1, inputs + 1)

    def plane(self, form: np.ndarray) -> np.ndarray:
        """The half-space where ``form`` (I + 1,), an affine function of x, is not negative, as (a, c)."""
        a, c = form[:-1] * self.half, form[-1] + form[:-1] @ self.middle
        return np.array([*a, c]) / np.linalg.norm(a)

    def sign(self, form: np.ndarray, slope: float) -> int:
        """1 or -1 where ``form`` keeps its sign over the box, else 0; constant if no entry is above ``slope``."""
        a, c = form[:-1], form[-1]
        if np.abs(a).max() <= slope:
            return 1 if c + a @ self.middle > 0 else -1
        ends = np.zeros((2, len(a)))  # 0 where the input has no part, also of an infinite box
        for end, bound in zip(ends, (self.lower, self.upper)):
            np.multiply(a, bound, where=a != 0, out=end)
        if c + ends.min(0).sum() >= 0:
            return 1
        return -1 if c + ends.max(0).sum() <= 0 else 0

    def ball(self, planes: np.ndarray) -> tuple[np.ndarray, float] | None:
        """Centre z and radius (at most 1) of the largest ball in the polytope, None for a thin or empty one."""
        from scipy.optimize import linprog

        faces = np.vstack([planes, self.walls])
        size = faces.shape[1] - 1
        bounds = [(-FAR, FAR)] * size + [(None, 1.0)]
        for method in ("highs", "highs-ipm"):
            done = linprog(
                -np.eye(size + 1)[size],
                A_ub=np.column_stack([-faces[:, :-1], np.ones(len(faces))]) if len(faces) else None,
                b_ub=faces[:, -1] if len(faces) else None,
                bounds=bounds,
                method=method,
                options={"primal_feasibility_tolerance": HIGHS, "dual_feasibility_tolerance": HIGHS},
            )
            if done.status == 0:
                centre = done.x[:size]
                radius = min([1.0, *(faces[:, :-1] @ centre + faces[:, -1])])
                return (centre, radius) if radius > THIN else None
        raise ValueError(
            f"HiGHS could not solve a region ({done.message}); scale inputs or weights to about 1"
        )


def samples(space: Space) -> np.ndarray:
    """Points z (SAMPLES, I) in the box, the same every time; of several sizes where it has no ends."""
    rng = np.random.default_rng(0)
    z = rng.uniform(-1.0, 1.0, (SAMPLES, len(space.half))) * 4.0 ** rng.integers(-2, 3, (SAMPLES, 1))
    x = np.clip(space.middle + space.half * z, space.lower, space.upper)
    return (x - space.middle) / space.half


def _end(value, default: float, inputs: int) -> np.ndarray:
    end = np.asarray(default if value is None else value, dtype=np.float64)
    if end.shape not in ((), (inputs,)) or np.isnan(end).any():
        raise ValueError(
            f"lower and upper are numbers or ({inputs},) each, without NaN; got shape {end.shape}"
        )
    return np.broadcast_to(end, (inputs,))


def _bend_distance(steps: list[Piece], inputs: int) -> float:
    """How far from 0 the first comparisons change, about: the unit of length where the box gives none."""
    forms = np.eye(inputs, inputs + 1)
    for step in itertools.takewhile(lambda s: isinstance(s, Affine), steps):
        forms = step.weight @ forms
        forms[:, -1] += step.bias
    slopes = np.abs(forms[:, :-1]).max(1)
    far = np.abs(forms[:, -1])[slopes > 0] / slopes[slopes > 0]
    return float(far.max()) if far.any() else 1.0
