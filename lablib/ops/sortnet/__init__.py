"""The SortNet neuron y_k = w_k . sort_desc(|x + b_k|), its bounds over a box, and the weights of the paper.

Source: SortNet paper (arXiv 2210.01787), section 4. GroupSort, l_inf-distance (w = (1, 0, ..., 0)) and
norm-bounded affine layers are special cases. How it is computed: choice.py (the implementations: reference.py,
cpu.py, compiled.py, cuda.py) behind the torch operator of operator.py.

Rounding. With floating point numbers of unit roundoff u (2^-24 in float32), the computed y^ and the exact y of the
same x, b, w satisfy, for every implementation,

    |y^ - y|  <=  gamma_{K+1} sum_j |w_j| |x + b|_(j) + tiny,     gamma_n = n u / (1 - n u).

Each |x_i + b_i| is rounded once, to a value within a relative u (sums do not underflow); sorting is exact, and sorted
lists are as close, entry by entry, as the lists were; a dot product of K terms in any order adds gamma_K (Higham,
Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1); tiny = K times the smallest subnormal number
pays for products that underflow. Up to K = 16 the CPU takes the sum in float64, in the order of the ranks: then
2 u / (1 - u) and one subnormal are enough in float32, and compiled, numba and plain torch return the same bits. Half
precision adds the rounding of the result.
"""

import functools

import torch
from torch import Tensor

from lablib.ops.masks import check_rising, checked_rows
from lablib.ops.projections import scale_groups
from lablib.ops.sortnet.operator import sorted_sum
from lablib.ops.sortnet.reference import ABS, HIGH, LOW

__all__ = ["geometric_weights", "sortnet", "sortnet_bounds"]


def sortnet(
    x: Tensor,
    center: Tensor,
    weight: Tensor,
    *,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
    rows: int = 32,
) -> Tensor:
    """Return w_k . (the K largest of |x + b_k|, descending), (..., O): ||w_k||_1-Lipschitz in linf.

    Of equals the lowest input comes first: it has the larger weight, and the gradient with it; where |x + b| is 0 the
    gradient is 0. NaN in a row of ``x`` makes its outputs NaN. float16 and bfloat16 are computed in float32. Fast up
    to K = 16; any K works.

    Sub-batch masks: sub-batch s is rows s * rows .. (s + 1) * rows of ``x``, the last may be short; S of them.

    Args:
        x: (..., I); with masks (B, I).
        center: (O, I), b.
        weight: (K,) shared by all outputs or (O, K), 1 <= K <= I, any signs.
        inputs: (S, I') int64, sorted. x is then compact, (B, I'): its column j is input inputs[s, j].
        outputs: (S, O') int64, sorted. The result is then compact, (B, O'): its column j is neuron outputs[s, j].
        rows: size of a sub-batch.

    Raises:
        ValueError: for shapes, devices or masks that do not match, or numbers that are not floating point.
    """
    if inputs is not None or outputs is not None:
        return _masked(x, center, weight, inputs, outputs, rows)
    given, result = _prepared((x,), center, weight)
    y = sorted_sum(given[0], None, *given[1:], ABS)
    return y.reshape(*x.shape[:-1], center.shape[0]).to(result)


def sortnet_bounds(lower: Tensor, upper: Tensor, center: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds (lower, upper) of :func:`sortnet` over the box lower <= x <= upper, (..., O) each.

    Let low_i and high_i be the least and largest |x_i + b_i| in the box. The j-th largest of |x + b| lies between
    the j-th largest of low and of high (sorting is monotone), so, with w = w+ - w-,

        sum_j w+_j low_(j) - w-_j high_(j)  <=  y  <=  sum_j w+_j high_(j) - w-_j low_(j).

    Both are attained where the weights of a neuron have one sign; else they are sound.
    Where lower > upper there is no box and nothing is promised. Gradients, ties, NaN and dtypes as in
    :func:`sortnet`; at low_i = 0 the gradient of low_i is 0, and high_i follows ``lower`` on a tie. Each bound is
    within gamma_{K+2} sum_j |w_j| high_(j) of its exact value.

    Args:
        lower, upper: (..., I), finite or not.
        center, weight: as in :func:`sortnet`.

    Raises:
        ValueError: as :func:`sortnet`.
    """
    if lower.shape != upper.shape:
        raise ValueError(
            f"a box has two corners of one shape, got {tuple(lower.shape)}, {tuple(upper.shape)}"
        )
    (low, high, center, weight), result = _prepared((lower, upper), center, weight)
    gains = torch.where(weight < 0, 0, weight)
    made = [sorted_sum(low, high, center, gains, form) for form in (LOW, HIGH)]
    if torch.compiler.is_compiling() or bool((weight < 0).any()):
        losses = torch.where(weight < 0, -weight, 0)
        made = [y - sorted_sum(low, high, center, losses, form) for y, form in zip(made, (HIGH, LOW))]
    return tuple(y.reshape(*lower.shape[:-1], center.shape[0]).to(result) for y in made)


def _prepared(sides: tuple[Tensor, ...], center: Tensor, weight: Tensor) -> tuple[list[Tensor], torch.dtype]:
    """Return (sides as (B, I), center, weight as (O, K)) in one dtype, at least float32, and the result's dtype."""
    x = sides[0]
    shapes = f"got x {tuple(x.shape)}, center {tuple(center.shape)}, weight {tuple(weight.shape)}"
    if center.dim() != 2 or x.dim() < 1 or x.shape[-1] != center.shape[1]:
        raise ValueError(f"x (..., I) and center (O, I) expected, {shapes}")
    if weight.dim() not in (1, 2) or not 1 <= weight.shape[-1] <= center.shape[1]:
        raise ValueError(f"weight (K,) or (O, K) with 1 <= K <= I expected, {shapes}")
    if weight.dim() == 2 and weight.shape[0] != center.shape[0]:
        raise ValueError(f"weight (O, K) needs one row per output, {shapes}")
    given = (*sides, center, weight)
    result = functools.reduce(torch.promote_types, [t.dtype for t in given])
    if not result.is_floating_point:
        raise ValueError(f"SortNet needs real floating point numbers, got {result}; convert with .float()")
    if any(t.device != x.device for t in given):
        raise ValueError(
            f"x is on {x.device}, center on {center.device}, weight on {weight.device}; move them"
        )
    work = torch.promote_types(result, torch.float32)
    rows = [side.reshape(-1, x.shape[-1]) for side in sides]
    return [t.to(work) for t in (*rows, center, weight.expand(center.shape[0], -1))], result


def _masked(
    x: Tensor, center: Tensor, weight: Tensor, inputs: Tensor | None, outputs: Tensor | None, rows: int
) -> Tensor:
    """One dense call per sub-batch on the rows and columns of ``center`` that it keeps."""
    if x.dim() != 2 or center.dim() != 2:
        raise ValueError(
            f"with masks x is (B, I') and center (O, I), got {tuple(x.shape)} and {tuple(center.shape)}"
        )
    rows = checked_rows(x, center, inputs, outputs, rows)
    check_rising(center, inputs, outputs)
    if not x.shape[0]:
        return x.new_empty((0, center.shape[0] if outputs is None else outputs.shape[1]))
    parts = []
    for s, part in enumerate(x.split(rows)):
        c, w = center, weight
        if outputs is not None:
            c, w = c[outputs[s]], w[outputs[s]] if w.dim() == 2 else w
        parts.append(sortnet(part, c if inputs is None else c[:, inputs[s]], w))
    return torch.cat(parts)


def geometric_weights(keep: float, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return q (1 - q)^(i-1) / (1 - (1 - q)^K) for i = 1..K, shape (K,), with a true sum of at most 1.

    ``keep`` is q in (0, 1], ``count`` is K. Source: SortNet paper, section 4.2 (the dropout identity).

    Raises:
        ValueError: for q or K outside their range.
    """
    if not 0.0 < keep <= 1.0:
        raise ValueError(f"keep probability must lie in (0, 1], got {keep}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    series = keep * (1.0 - keep) ** torch.arange(count, dtype=torch.float64)
    if keep == 1.0:
        return series.to(dtype)  # exactly (1, 0, ..., 0): the l_inf distance
    return scale_groups((series / series.sum()).to(dtype), 0)
