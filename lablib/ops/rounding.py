"""How far rounding can carry a computed norm from the true one: the margins that make the bounds proven.

Everything is computed in float64 (unit roundoff u = 2^-53) from the weights as stored, whatever their dtype.
A sum of n nonnegative terms, in any order, is within a relative (n - 1) u of the true sum (Higham, Accuracy
and Stability of Numerical Algorithms, 2nd ed., section 4.2). The allowances below are about twice what is
needed.
"""

import math

import torch

EPS64 = 2.0**-52


def sum_allowance(terms: int) -> float:
    """Return a factor >= 1 such that the true sum is at most the computed float64 sum times it.

    ``terms``: how many nonnegative terms were added.
    """
    return 1.0 + (terms + 4) * EPS64


def target_below_one(terms: int, dtype: torch.dtype) -> float:
    """Return c < 1: terms scaled in float64 to a sum of c and rounded to ``dtype`` truly sum to at most 1."""
    return target_below(1.0, terms, dtype)


def target_below(cap: float, terms: int, dtype: torch.dtype) -> float:
    """Return c < cap: terms scaled in float64 to a sum of c and rounded to ``dtype`` truly sum to at most cap.

    Rounding to ``dtype`` moves each term by a relative eps/2 or, among the subnormal numbers, by half their
    spacing. 0 where nothing else is safe. The same holds for Euclidean norms: a sum of squares errs by one
    rounding more per term, its root by half of that.
    """
    info = torch.finfo(dtype)
    spacing = info.smallest_normal * info.eps
    return max(0.0, cap * (1.0 - (terms + 8) * EPS64 - info.eps) - terms * spacing)


def round_down(value: float, dtype: torch.dtype) -> float:
    """Return the largest number of ``dtype`` that is at most ``value`` > 0; 0 below its smallest one."""
    info = torch.finfo(dtype)
    exponent = math.frexp(value)[1] - 1  # value in [2^exponent, 2^(exponent + 1))
    step = max(info.eps * 2.0**exponent, info.smallest_normal * info.eps)
    return min(math.floor(value / step) * step, info.max)
