"""One SortNet neuron in NumPy and fractions: ranks, the dropout identity, and the l_p norm it is trained with.

Sources: SortNet paper (arXiv 2210.01787), section 4.2 (weights, dropout identity); arXiv 2102.05363,
section 4.2 (l_p relaxation of the l_inf distance).
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def rank_weights(keep: Any, top: int) -> list:
    """Return q (1-q)^(i-1) / (1 - (1-q)^K), i = 1..K: floats for a float q, fractions for a fraction.

    >>> rank_weights(Fraction(1, 2), 2)
    [Fraction(2, 3), Fraction(1, 3)]
    """
    _check_keep(keep)
    if top < 1:
        raise ValueError(f"the number of ranks must be at least 1, got {top}")
    total = 1 - (1 - keep) ** top
    return [keep * (1 - keep) ** i / total for i in range(top)]


def ranked_sum(values: Sequence, keep: Any) -> Any:
    """Return sum_i q (1-q)^(i-1) x_(i), x_(i) the i-th largest value; no cut, exact in fractions."""
    _check_keep(keep)
    ordered = sorted(values, reverse=True)
    return sum(keep * (1 - keep) ** i * value for i, value in enumerate(ordered))


def expected_maximum(values: Sequence, keep: Any) -> Any:
    """Return E[max of the kept values] where each is kept with probability q, by going through all subsets.

    The maximum of nothing is 0. Exact for fractions; 2^d subsets, so for d <= 16 values.

    Raises:
        ValueError: for too many values, or q outside (0, 1].
    """
    _check_keep(keep)
    if len(values) > 16:
        raise ValueError(f"{len(values)} values have too many subsets; give at most 16, or sample")
    total = keep * 0
    for kept in itertools.product((False, True), repeat=len(values)):
        number = sum(kept)
        largest = max((value for value, chosen in zip(values, kept, strict=True) if chosen), default=0)
        total += keep**number * (1 - keep) ** (len(values) - number) * largest
    return total


def sample_winners(count: int, keep: float, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return which rank is the largest kept one in each of ``draws`` random subsets, (draws,) int.

    Ranks are 0..count-1, largest value first; ``count`` stands for an empty subset.
    """
    _check_keep(keep)
    kept = rng.random((draws, count)) < keep
    return np.where(kept.any(axis=1), kept.argmax(axis=1), count)


def lp_norm(differences: np.ndarray, p: float) -> np.ndarray:
    """Return (sum_i |d_i|^p)^(1/p) over the last axis, p >= 1 or infinity, scaled by the largest |d_i|.

    >>> float(lp_norm(np.array([3.0, 4.0]), 2))
    5.0
    """
    _check_p(p)
    size = np.abs(differences)
    largest = size.max(axis=-1)
    if math.isinf(p):
        return largest
    ratio = size / np.where(largest > 0, largest, 1.0)[..., None]
    return largest * (ratio**p).sum(axis=-1) ** (1 / p)


def lp_gradient(differences: np.ndarray, p: float) -> np.ndarray:
    """Return sign(d_i) (|d_i| / y)^(p-1), the gradient of :func:`lp_norm`; (..., n) as the differences.

    At infinity it is the sign at the first largest entry and 0 elsewhere.
    """
    _check_p(p)
    size = np.abs(differences)
    if math.isinf(p):
        first = size.argmax(axis=-1)[..., None]
        return np.sign(differences) * (np.arange(size.shape[-1]) == first)
    value = lp_norm(differences, p)[..., None]
    return np.sign(differences) * (size / np.where(value > 0, value, 1.0)) ** (p - 1)


def inputs_in_use(gradient: np.ndarray) -> float:
    """Return (sum_i |g_i|)^2 / sum_i g_i^2 for one gradient (n,): n if all are equal, 1 if one stands alone."""
    size = np.abs(gradient)
    return float(size.sum() ** 2 / (size**2).sum()) if size.any() else 0.0


def layer_cost(widths: Sequence[int], keep: float) -> list[float]:
    """Return the share of its |x_i - w_i| that each layer computes in training, in expectation.

    ``widths`` are inputs, hidden widths, outputs. The first layer sees all inputs, the last computes all its
    outputs; in between both are masked: q^2.
    """
    _check_keep(keep)
    layers = len(widths) - 1
    if layers < 1:
        raise ValueError("give at least the number of inputs and of outputs")
    return [(keep if i > 0 else 1.0) * (keep if i < layers - 1 else 1.0) for i in range(layers)]


def _check_keep(keep: Any) -> None:
    if not 0 < keep <= 1:
        raise ValueError(f"the keep probability must lie in (0, 1], got {keep}")


def _check_p(p: float) -> None:
    if not p >= 1:
        raise ValueError(f"p must be at least 1 (infinity allowed), got {p}")
