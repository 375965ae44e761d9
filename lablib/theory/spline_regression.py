"""The best 1-Lipschitz function for one-dimensional data and a TV(2) penalty: a convex problem.

    minimise  (1/N) sum_i (f(x_i) - y_i)^2 + lambda TV(2)(f)   over all f with |f'| <= 1

Among all functions with given values at the data points, the broken line through them has the least TV(2) (mean
value theorem), and its slopes are the secants'. So the values at the N points are all that is to be found, and the
optimum over *all* functions is a broken line with at most N - 2 knots. :func:`sparsest` finds one with the fewest.
Source: Debarre, Denoyelle, Unser, Fageot, "Sparsest piecewise-linear regression of one-dimensional data" (J. Comput.
Appl. Math. 406, 2022, arXiv 2003.10112), sections 3 and 4; with the constraint on slopes, Ducotterd et al. (arXiv
2210.16222), section on the representer theorem.

The same number is a lower bound for networks with one hidden layer, f(x) = sum_j v_j s_j(w_j x + b_j) + c with
1-Lipschitz s_j and weights ||v||, ||w|| <= 1 in l2, or sum |v_j| <= 1 and |w_j| <= 1 (linf), penalised with
sum_j TV(2)(s_j): each |v_j w_j| <= 1, so TV(2)(f) <= sum_j |v_j w_j| TV(2)(s_j) <= sum_j TV(2)(s_j). One neuron
reaches it.
"""

import dataclasses

import numpy as np

from lablib.theory.quadratic_program import solve
from lablib.theory.spline_targets import BrokenLine


@dataclasses.dataclass(frozen=True)
class Fit:
    """An optimal broken line and its objective.

    Attributes:
        line: the function; feasible, every slope in [-1, 1] up to the last bit.
        mse: mean squared error on the data.
        objective: mse + lambda TV(2).
        lower_bound: no feasible function has a smaller objective (the dual value, in float64); NaN if the
            function was sought on another grid than the data points.
    """

    line: BrokenLine
    mse: float
    objective: float
    lower_bound: float


def objective(line: BrokenLine, x: np.ndarray, y: np.ndarray, weight: float) -> tuple[float, float]:
    """Return the mean squared error of ``line`` on the data, and that plus ``weight`` times its TV(2)."""
    mse = float(((line(x) - y) ** 2).mean())
    return mse, mse + weight * line.second_variation


def fit(x: np.ndarray, y: np.ndarray, weight: float, grid: np.ndarray | None = None) -> Fit:
    """Return the optimum over all 1-Lipschitz functions, or over those with knots on ``grid`` only.

    Args:
        x: (N,) increasing.
        y: (N,).
        weight: lambda >= 0.
        grid: (K,) increasing, K >= 2; default x. Its end pieces go on beyond it. A few hundred points at most:
            the cost grows with K^3.

    Raises:
        ValueError: if x does not increase, has fewer than two points, or a number is not finite.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    BrokenLine(x, y)  # checks both
    if not (np.isfinite(weight) and weight >= 0):
        raise ValueError(f"the weight of TV(2) must be finite and at least 0, not {weight}")
    knots = x if grid is None else BrokenLine(grid, np.zeros(len(grid))).positions
    solved, duals = _minimise(_from_slopes(knots, x), y, weight)
    offset, slopes = solved[0], np.clip(solved[1:], -1.0, 1.0)
    line = BrokenLine(knots, offset + np.concatenate([[0.0], np.cumsum(slopes * np.diff(knots))]))
    lower = _dual_value(knots, y, weight, *duals) if grid is None else float("nan")
    return Fit(line, *objective(line, x, y, weight), lower)


def _minimise(at_data, y, weight) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return the first value and the slopes (K,), and the multipliers of changes of slope and of slopes.

    Unknowns: these, and t (K - 2,) with -t <= change <= t, which is |change| at the optimum. Slopes, not values:
    data points close to each other then do not make the problem ill-conditioned.
    """
    unknowns = at_data.shape[1]
    slopes = np.eye(unknowns)[1:]
    changes = np.diff(slopes, axis=0)
    bends = len(changes)
    quadratic = np.zeros((unknowns + bends, unknowns + bends))
    quadratic[:unknowns, :unknowns] = 2.0 * at_data.T @ at_data / len(y)
    linear = np.concatenate([-2.0 * at_data.T @ y / len(y), np.full(bends, weight)])
    none, unit = np.zeros((len(slopes), bends)), np.eye(bends)
    matrix = np.block([[changes, -unit], [-changes, -unit], [slopes, none], [-slopes, none]])
    limits = np.concatenate([np.zeros(2 * bends), np.ones(2 * len(slopes))])
    # Where |change| is 0 its multiplier is below lambda: products this small leave it below about 1e-8.
    solved = solve(quadratic, linear, matrix, limits, gap=1e-8 * min(max(weight, 1e-8), 1e-5))
    above, below, up, down = np.split(solved.multipliers, np.cumsum([bends, bends, len(slopes)]))
    return solved.x[:unknowns], (above - below, up - down)


def _dual_value(knots, y, weight, bends, slopes) -> float:
    """Return the minimum over the values of the Lagrangian: a lower bound for any |bends| <= weight, any slopes."""
    to_slopes = np.diff(np.eye(len(knots)), axis=0) / np.diff(knots)[:, None]
    pull = np.diff(to_slopes, axis=0).T @ np.clip(bends, -weight, weight) + to_slopes.T @ slopes
    return float(pull @ y - len(y) * (pull @ pull) / 4 - np.abs(slopes).sum())


def _from_slopes(knots: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return (N, K): value on the first knot and the K - 1 slopes -> values at x."""
    starts = np.tril(np.ones((len(knots), len(knots) - 1)), -1) * np.diff(knots)
    lines = [BrokenLine(knots, column)(x) for column in starts.T]
    return np.stack([np.ones(len(x)), *lines], axis=1)


def active_knots(line: BrokenLine, tolerance: float = 1e-6) -> np.ndarray:
    """Return the indices (in ``line.positions``) where the slope changes by more than ``tolerance``."""
    return np.flatnonzero(np.abs(np.diff(line.slopes)) > tolerance) + 1


def sparsest(line: BrokenLine, tolerance: float = 1e-6) -> BrokenLine:
    """Return a broken line with the same values on ``line.positions``, the same TV(2), and the fewest knots.

    Bends of one sign in adjacent points need about half as many knots: where two neighbours both bend to the
    left, the pieces before and after meet between them. A run of n such points becomes ceil(n / 2) knots.
    Source: Debarre et al. (arXiv 2003.10112), section 4. Changes of slope up to ``tolerance`` count as none, and
    values move by as little.
    """
    positions, values, slopes = line.positions, line.values, line.slopes
    bends = active_knots(line, tolerance)
    signs = np.sign(np.diff(slopes))[bends - 1]
    knots, at, run = [positions[0]], [values[0]], 0
    for number, bend in enumerate(bends):
        follows = number and bend == bends[number - 1] + 1 and signs[number] == signs[number - 1]
        run = run + 1 if follows else 1
        if run % 2:
            knots.append(positions[bend])
            at.append(values[bend])
        else:  # drop the knot at the point before; the pieces around this pair of points meet between them
            before, after = slopes[bend - 2], slopes[bend]
            rise = values[bend] - values[bend - 1] - after * (positions[bend] - positions[bend - 1])
            meet = rise / (before - after)
            knots[-1], at[-1] = positions[bend - 1] + meet, values[bend - 1] + before * meet
    return BrokenLine(np.array([*knots, positions[-1]]), np.array([*at, values[-1]]))
