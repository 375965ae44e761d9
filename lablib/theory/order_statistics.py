"""Order statistics on [0,1]^d: how far a Lipschitz network must stay from the k-th largest coordinate.

**Bound** (SortNet paper, arXiv 2210.01787, Thm 3.6). Let f be within e of x_(k) on [0,1]^d. Fix j and k - 1
other coordinates S. At the vertex 1_S the k-th largest value is 0, at the vertex 1_(S + j) it is 1. So f
moves by at least 1 - 2e while only x_j moves by one: 1 - 2e <= lambda_j by the budget lemma. Add over j:
d (1 - 2e) <= sum_j lambda_j. A standard network has sum_j lambda_j <= 1, hence e >= 1/2 - 1/(2d). With M
affine layers and M - 1 group_sorts of size G the sum is at most G^(M-1), hence e >= 1/2 - G^(M-1)/(2d)
(and e >= 0).

**Tight for every k.** x_(k) - mean(x) ranges over [-(k-1)/d, 1 - k/d]: if x_(k) = v, then k coordinates are
>= v and the rest >= 0, so mean >= kv/d and the difference is <= v (1 - k/d) <= 1 - k/d; and k - 1 are <= 1,
the others <= v, so the difference is >= v - (k-1)/d - v (d-k+1)/d >= -(k-1)/d. Both ends are attained at
vertices. The mean plus the middle of the range has error half its length, 1/2 - 1/(2d).

**Tight for the maximum with group_sorts** too, for every d, M and G: see ``averaged_tournament`` in
:mod:`lablib.theory.constructions.sorting_networks`.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from lablib.theory.network import Layer, affine, evaluate


def check_order(d: int, k: int) -> None:
    """Raise ValueError unless 1 <= k <= d."""
    if d < 1 or not 1 <= k <= d:
        raise ValueError(f"the k-th largest of d coordinates needs 1 <= k <= d, not k = {k}, d = {d}")


def order_statistic(x, k: int) -> np.ndarray:
    """Return the k-th largest coordinate of each point: x (..., d) -> (...,). k = 1 is the maximum."""
    x = np.asarray(x)
    check_order(x.shape[-1], k)
    return np.sort(x, axis=-1)[..., x.shape[-1] - k]


def error_bound(d: int, depth: int = 1, group: int = 1) -> Fraction:
    """Return the proven lower bound of the sup error on [0,1]^d: max(0, 1/2 - G^(M-1)/(2d)), for every k.

    Args:
        d: number of inputs.
        depth: M, the number of affine layers.
        group: G, the size of the sorted groups between them; 1 is a standard network of any depth.

    >>> error_bound(2), error_bound(8, depth=3, group=2)
    (Fraction(1, 4), Fraction(1, 4))
    """
    if d < 1 or depth < 1 or group < 1:
        raise ValueError(f"d, depth and group must be at least 1, not {d}, {depth}, {group}")
    return Fraction(1, 2) - Fraction(min(group ** (depth - 1), d), 2 * d)


def best_standard(d: int, k: int) -> list[Layer]:
    """Return the standard network with the least error: mean(x) + (d - 2k + 1) / (2d), in fractions."""
    check_order(d, k)
    return [affine([[Fraction(1, d)] * d], [Fraction(d - 2 * k + 1, 2 * d)])]


def grid(d: int, points: int) -> np.ndarray:
    """Return a regular grid on [0,1]^d, (points^d, d); ``points=2`` gives the vertices."""
    if points < 2 or points**d > 1 << 24:
        raise ValueError(f"a grid needs 2 or more points per axis and at most 2^24 in all, not {points}^{d}")
    axis = np.arange(points) if points == 2 else np.linspace(0.0, 1.0, points)
    return np.stack(np.meshgrid(*[axis] * d, indexing="ij"), axis=-1).reshape(-1, d)


def estimate_error(layers: Sequence[Layer], k: int, x) -> tuple[float | Fraction, np.ndarray]:
    """Return the largest |f(x) - x_(k)| over the given points and the point where it occurs.

    This is a lower bound of the sup error on [0,1]^d, not a proof of how large it is; exact at fractions.

    Args:
        layers: a network with one output.
        k: which order statistic.
        x: (B, d).

    Raises:
        ValueError: if there is no point, or the network has more than one output.
    """
    x = np.asarray(x)
    if len(x) == 0:
        raise ValueError("give at least one point to measure the error at")
    y = evaluate(layers, x)
    if y.shape != (len(x), 1):
        raise ValueError(f"the network must have one output, not shape {y.shape[1:]}")
    errors = np.abs(y[:, 0] - order_statistic(x, k))
    worst = int(np.argmax(errors))
    return errors[worst], x[worst]


def error_surface(layers: Sequence[Layer], k: int = 1, points: int = 41) -> dict[str, np.ndarray]:
    """Return a picture of d = 2: ``x``, ``y`` (points,), ``output`` and ``error`` = f - x_(k), (points,
    points).

    Row i, column j belongs to the point (x[j], y[i]).
    """
    axis = np.linspace(0.0, 1.0, points)
    square = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    output = evaluate(layers, square)[:, 0]
    error = output - order_statistic(square, k)
    return {"x": axis, "y": axis, "output": output.reshape(points, -1), "error": error.reshape(points, -1)}
