"""How many pieces a spline has: its second variation, its active knots, and the same function with fewer knots."""

import numpy as np
import torch
from torch import Tensor

from lablib.ops.splines.projection import check_values

EPS64 = 2.0**-52


def second_variation(values: Tensor, reach: float) -> Tensor:
    """Return TV(2) of each row of ``values`` (C, K): the sum of the changes of slope, (C,). Differentiable.

        TV(2) = sum_k |v_{k+1} - 2 v_k + v_{k-1}| / T,   T = 2 R / (K - 1)

    Source: Ducotterd et al. (arXiv 2210.16222), section 3.2.

    Raises:
        ValueError: for coefficients that are not (C, K) with K >= 2, or a reach that is not a positive number.
    """
    return _slope_changes(values, reach).abs().sum(1)


def count_active_knots(values: Tensor, reach: float, tolerance: float) -> Tensor:
    """Return how many inner knots of each row change the slope by more than ``tolerance`` (>= 0), (C,) int64.

    The outer knots never count: the end segments go on with their slope.

    Raises:
        ValueError: as :func:`second_variation`, and for a tolerance that is negative or NaN.
    """
    _check_tolerance(tolerance)
    return (_slope_changes(values.detach().double(), reach).abs() > tolerance).sum(1)


def remove_knots(values: Tensor, reach: float, tolerance: float) -> list[tuple[Tensor, Tensor]]:
    """Return for each row the positions and values of the fewest knots that keep the function within ``tolerance``.

    Knots that stay keep their value, so each new slope is a mean of old ones: slope bounds stay true. A knot may go
    where the new line passes its value within ``tolerance``, rounding included; both functions being linear between
    knots, they differ by at most that. In the first and the last segment, which go on without end, only knots exactly
    on the line may go: the end slopes stay, and the bound holds on the whole real line. With tolerance 0 exactly the
    knots go at which v_{k+1} - v_k = v_k - v_{k-1} in exact arithmetic. The fewest knots are a shortest path over all
    pairs of them: Imai, Iri, "Polygonal approximations of a curve" (Computational Morphology, 1988).

    Returns:
        One pair per row: positions and values, float64, (n,) each with n >= 2, positions rising. The function is
        linear between them and goes on outside with its first and last slope.

    Raises:
        ValueError: as :func:`second_variation`, and for a tolerance that is negative or NaN, or values that are not
            finite.
    """
    check_values(values, reach)
    _check_tolerance(tolerance)
    v = values.detach().cpu().double().numpy()
    if not np.isfinite(v).all():
        raise ValueError("values must be finite to remove knots, got NaN or infinity")
    last = v.shape[1] - 1
    positions = (
        (2 * torch.arange(last + 1) - last).double() * reach / last
    )  # symmetric, with 0 if that is a knot
    rows = [_path(following) for following in _shortest(v, tolerance)]
    return [(positions[kept], torch.from_numpy(row)[kept].clone()) for kept, row in zip(rows, v)]


def _slope_changes(values: Tensor, reach: float) -> Tensor:
    """Return (v_{k+1} - 2 v_k + v_{k-1}) / T, (C, K - 2)."""
    check_values(values, reach)
    return values.diff(n=2, dim=1) * ((values.shape[1] - 1) / (2 * reach))


def _check_tolerance(tolerance: float) -> None:
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be a number of at least 0, got {tolerance}")


def _shortest(v: np.ndarray, tolerance: float) -> np.ndarray:
    """Return for each row and knot the next knot of the shortest path to the last one, (C, K)."""
    channels, knots = v.shape
    straight = _straight(v)
    # The tests below are off by a few units in the last place of the largest value.
    allowed = tolerance - 16 * EPS64 * np.abs(v).max(initial=0.0, axis=1, keepdims=True)
    steps = np.zeros((channels, knots), dtype=np.int64)
    following = np.full((channels, knots), knots - 1)
    for i in range(knots - 2, -1, -1):
        run = np.cumprod(straight[:, i : knots - 2], axis=1, dtype=bool)  # knots i+1.. lie on one line with i
        direct = np.concatenate([np.ones((channels, 1), dtype=bool), run], axis=1)
        if i > 0:
            near = _near(v[:, i:], allowed) & (allowed > 0)
            near[:, -1] = False  # the last segment goes on without end
            direct |= near
        length = np.where(direct, steps[:, i + 1 :] + 1, knots)
        following[:, i] = i + 1 + length.argmin(axis=1)
        steps[:, i] = length.min(axis=1)
    return following


def _near(v: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return for which later knots the line from the first one passes all knots between within ``allowed``."""
    distance = np.arange(1, v.shape[1])
    rise = v[:, 1:] - v[:, :1]
    slope = rise / distance
    least = np.maximum.accumulate((rise - allowed) / distance, axis=1)
    most = np.minimum.accumulate((rise + allowed) / distance, axis=1)
    return (slope >= least) & (slope <= most)


def _straight(v: np.ndarray) -> np.ndarray:
    """Return at which inner knots v_{k+1} - v_k = v_k - v_{k-1} exactly, (C, K - 2).

    A difference is its rounded value and the error of that, which is a float too (Knuth, The Art of Computer
    Programming, vol. 2, section 4.2.2): two differences are equal if and only if both parts are.
    """
    a, b = v[:, 1:], v[:, :-1]
    rounded = a - b
    shown = rounded - a
    error = (a - (rounded - shown)) - (b + shown)
    return (rounded[:, 1:] == rounded[:, :-1]) & (error[:, 1:] == error[:, :-1])


def _path(following: np.ndarray) -> list[int]:
    kept = [0]
    while kept[-1] != len(following) - 1:
        kept.append(int(following[kept[-1]]))
    return kept
