"""A small dense solver of convex quadratic programs: a primal-dual interior point method."""

import dataclasses

import numpy as np
from scipy import linalg

RIDGE = 1e-13  # keeps rounding from making the Newton matrix indefinite when slacks become tiny
HUGE = 1e50


@dataclasses.dataclass(frozen=True)
class Solution:
    """``x`` (n,), its multipliers (m,) >= 0 of G x <= h, and the steps taken."""

    x: np.ndarray
    multipliers: np.ndarray
    steps: int


def solve(
    quadratic: np.ndarray,
    linear: np.ndarray,
    matrix: np.ndarray,
    limits: np.ndarray,
    gap: float = 1e-11,
    residual: float = 1e-9,
    most_steps: int = 100,
) -> Solution:
    """Return the minimiser of x^T P x / 2 + q^T x subject to G x <= h.

    Predictor and corrector after Mehrotra; each step factorises P + G^T diag(z / s) G, which must be positive
    definite (n^2 m operations: meant for a few hundred unknowns). Source: Nocedal and Wright, Numerical
    Optimization, 2nd ed., section 16.6.

    Args:
        quadratic: P (n, n), symmetric, positive semidefinite.
        linear: q (n,).
        matrix: G (m, n).
        limits: h (m,).
        gap: largest mean product of slack and multiplier at the end; times m, it is the duality gap.
        residual: largest error in the other optimality conditions, relative to 1 + max |q| and 1 + max |h|.
        most_steps: given up after these.

    Raises:
        ValueError: if the shapes do not fit, a number is not finite, or it does not converge, as when no x
            satisfies the constraints.
    """
    p, q, g, h = (np.asarray(part, dtype=np.float64) for part in (quadratic, linear, matrix, limits))
    n, m = len(q), len(h)
    if p.shape != (n, n) or g.shape != (m, n) or not m or not n:
        raise ValueError(f"P {p.shape}, q {q.shape}, G {g.shape} and h {h.shape} do not fit together")
    if not all(np.isfinite(part).all() for part in (p, q, g, h)):
        raise ValueError("every number of a quadratic program must be finite; look for NaN in the data")
    x, slack, dual = np.zeros(n), np.maximum(h, 1.0), np.ones(m)
    scales = 1.0 + np.abs(q).max(), 1.0 + np.abs(h).max()
    for step in range(most_steps):
        if not (slack.max() < HUGE and dual.max() < HUGE):  # there is no feasible point
            break
        stationarity = p @ x + q + g.T @ dual
        primal = g @ x + slack - h
        mean = slack @ dual / m
        off = max(np.abs(stationarity).max() / scales[0], np.abs(primal).max() / scales[1])
        if off <= residual and mean <= gap:
            return Solution(x, dual, step)
        newton = p + (g.T * (dual / slack)) @ g
        newton[np.diag_indices(n)] *= 1.0 + RIDGE
        try:
            factor = linalg.cho_factor(newton)
        except (linalg.LinAlgError, ValueError):  # not definite, or no longer finite
            break
        towards = _directions(factor, g, slack, dual, stationarity, primal)
        _, s_step, z_step = towards(slack * dual)
        length = _longest(slack, s_step), _longest(dual, z_step)
        left = (slack + length[0] * s_step) @ (dual + length[1] * z_step) / m
        # Not far below the wanted gap: with vanishing products the equations lose their accuracy.
        centre = max(mean * (left / mean) ** 3, gap / 4)
        x_step, s_step, z_step = towards(slack * dual + s_step * z_step - centre)
        length = 0.995 * min(_longest(slack, s_step), _longest(dual, z_step))
        x, slack, dual = x + length * x_step, slack + length * s_step, dual + length * z_step
    raise ValueError(
        f"the quadratic program did not converge in {most_steps} steps; see whether any x satisfies G x <= h"
    )


def _directions(factor, g, slack, dual, stationarity, primal):
    """Return the solver of the Newton equations for a wanted decrease of the products slack * dual."""

    def towards(decrease: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        right = -stationarity - g.T @ ((dual * primal - decrease) / slack)
        x_step = linalg.cho_solve(factor, right, check_finite=False)
        s_step = -primal - g @ x_step
        return x_step, s_step, -(decrease + dual * s_step) / slack

    return towards


def _longest(values: np.ndarray, step: np.ndarray) -> float:
    """Return the largest t <= 1 with values + t step >= 0."""
    shrinking = step < 0
    return float(min(1.0, (-values[shrinking] / step[shrinking]).min(initial=1.0)))
