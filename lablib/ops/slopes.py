r"""Bounds of every slope of a network, layer by layer: intervals for increments, rounded outward, differentiable.

The statement that is carried along: for units z_u that are functions of inputs x_i,

    low_ui t  <=  z_u(x + t e_i) - z_u(x)  <=  high_ui t          for all x and all t >= 0.

It says that every partial derivative, and every entry of Clarke's generalised Jacobian (the hull of limits of
derivatives), lies in [low, high]; and the increments are what monotonicity is about. Each layer carries it on:

- linear: increments add with the weights, so [sum W+ low + W- high, sum W+ high + W- low];
- a sort of a group: order statistics grow when members grow, and by t when all members grow by t, so the
  increment of each lies between the least and the largest of its group;
- elementwise phi with slopes in [a, b]: an increment d becomes one between a d and b d.

The last is the chain rule without differentiability; nothing is assumed of kinks and ties.

Rounding. Ends are float64 from the weights as stored, moved outward by an allowance (eps = 2^-52, twice the unit
roundoff; gradual underflow, torch's default, is assumed). A sum of 2 n products in any order is within gamma_2n
<= 2 n (eps/2) (1 + 1e-3) of the sum S of their absolute values, and within 2 n 2^-1075 for underflow; S as
computed and the subtraction of the allowance err by as much again at second order. (n + 8) eps S (1 + 1e-3)
therefore covers it, and leaves room for weights that are off by a relative 4 eps. Where no term of a lower end is
negative the true end is not, and 0 is kept: networks with weights >= 0 are proven increasing.
The allowance has no gradient. Infinity or NaN in weights, and overflow, give ends that are infinite or NaN, never
a finite wrong bound.

Shapes: low, high (..., units, inputs).
"""

import torch
from torch import Tensor

from lablib.ops.rounding import EPS64

_LEAST = 2.0**-1074  # the spacing of numbers where products underflow


def slopes_of_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slopes (low, high) of x -> W x, both W in float64 (exact): ``weight`` (O, I) -> (O, I) twice.

    Raises:
        ValueError: for no matrix of real floating-point numbers.
    """
    _check_weight(weight)
    slopes = weight.double()
    return slopes, slopes


def through_linear(low: Tensor, high: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slopes behind z -> W z: (..., U, I) twice and ``weight`` (O, U) -> (..., O, I) twice.

    Holds also if each entry of ``weight`` is off by a relative 4 * 2^-52, such as a difference just computed.

    Raises:
        ValueError: for shapes that do not fit.
    """
    _check_slopes(low, high)
    _check_weight(weight)
    units = weight.shape[1]
    if low.shape[-2] != units:
        raise ValueError(f"a weight for {units} units cannot follow slopes of shape {tuple(low.shape)}")
    w = weight.double()
    positive = w.relu()  # with its gradient 0 at 0 the two parts share the slope there
    parts = torch.cat([positive, w - positive], 1)
    # both ends as lower ones, of z and of -z
    ends = torch.cat([torch.cat([low, high], -2), torch.cat([-high, -low], -2)], -1)
    sums = parts @ ends
    with torch.no_grad():
        size = parts.abs() @ ends.abs()
        allowance = ((units + 8) * EPS64 * 1.001) * size + (4 * units + 8) * _LEAST
        negative = torch.cat([ends[..., :units, :] < 0, ends[..., units:, :] > 0], -2).double()
        never_negative = (parts != 0).double() @ negative == 0
    sums = sums - allowance
    sums = torch.where(never_negative & (sums < 0), 0.0, sums)
    lowest, highest = sums.chunk(2, -1)
    return lowest, -highest


def through_group_sort(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the slopes behind a sort of consecutive groups of ``size`` units; shapes stay.

    Each is [least low, largest high] of its group. Exact.

    Raises:
        ValueError: if ``size`` is not a positive divisor of the number of units.
    """
    _check_slopes(low, high)
    units = low.shape[-2]
    if size < 1 or units % size:
        raise ValueError(f"group size {size} does not divide {units} units; choose one that does")
    least = low.unflatten(-2, (-1, size)).amin(-2, keepdim=True)
    largest = high.unflatten(-2, (-1, size)).amax(-2, keepdim=True)
    return tuple(v.expand(*v.shape[:-2], size, v.shape[-1]).flatten(-3, -2) for v in (least, largest))


def through_elementwise(
    low: Tensor, high: Tensor, slope_low: Tensor | float, slope_high: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Return the slopes behind activations with slopes in [slope_low, slope_high]; shapes stay.

    ``slope_low``, ``slope_high``: numbers, or (..., U) with one per unit. Products with 0 and +-1 are exact.

    Raises:
        ValueError: for other shapes, or slope_low > slope_high.
    """
    _check_slopes(low, high)
    least, most = (_per_unit(v, low) for v in (slope_low, slope_high))
    if bool((least > most).any()):
        raise ValueError("slope_low must not be larger than slope_high")
    pairs = [(end, slope) for end in (low, high) for slope in (least, most)]
    lows = [_product_below(end, slope) for end, slope in pairs]
    highs = [-_product_below(-end, slope) for end, slope in pairs]
    return _fold(torch.minimum, lows), _fold(torch.maximum, highs)


def add_slopes(low: Tensor, high: Tensor, more_low: Tensor, more_high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slopes of a sum of two functions, rounded outward only where the sum is not exact.

    ``more_low``, ``more_high`` broadcast against ``low``, in any floating dtype. So r - r is 0.
    """
    _check_slopes(low, high)
    return _sum_below(low, more_low.double()), -_sum_below(-high, -more_high.double())


def intersect_slopes(low: Tensor, high: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return the part of [low, high] within [-size, size]: two proven bounds of the same slopes.

    ``size`` >= 0 broadcasts against ``low``: (I,) bounds all units, (U, I) each. Exact.
    """
    _check_slopes(low, high)
    return torch.maximum(low, -size), torch.minimum(high, size)


def _product_below(end: Tensor, slope: Tensor) -> Tensor:
    product = end * slope
    with torch.no_grad():
        exact = (slope == 0) | (slope.abs() == 1) | (end == 0)
        allowance = torch.where(exact, 0.0, EPS64 * product.abs() + 2 * _LEAST)
    return product - allowance


def _sum_below(a: Tensor, b: Tensor) -> Tensor:
    """The largest float64 that is at most a + b: what was rounded off is itself a number (Knuth's TwoSum)."""
    total = a + b
    with torch.no_grad():
        part = total - a
        lost = (a - (total - part)) + (b - part)
        below = torch.nextafter(total, torch.full_like(total, -torch.inf))
        step = torch.where(lost >= 0, 0.0, below - total)  # exact; NaN where the sum overflowed
    return total + step


def _fold(pick, values: list[Tensor]) -> Tensor:
    result = values[0]
    for value in values[1:]:
        result = pick(result, value)
    return result


def _per_unit(slope: Tensor | float, like: Tensor) -> Tensor:
    slope = torch.as_tensor(slope, dtype=torch.float64, device=like.device)
    if slope.dim() and slope.shape[-1] not in (1, like.shape[-2]):
        raise ValueError(
            f"one slope per unit expected, got shape {tuple(slope.shape)} for {tuple(like.shape)}"
        )
    return slope.unsqueeze(-1) if slope.dim() else slope


def _check_weight(weight: Tensor) -> None:
    if not isinstance(weight, Tensor) or weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError("a weight is a real matrix (O, I); give a tensor of two axes in a floating dtype")


def _check_slopes(low: Tensor, high: Tensor) -> None:
    if low.shape != high.shape or low.dim() < 2 or low.dtype != torch.float64 or high.dtype != torch.float64:
        raise ValueError(
            f"slopes are two float64 tensors (..., units, inputs), got {tuple(low.shape)} and "
            f"{tuple(high.shape)} in {low.dtype} and {high.dtype}"
        )
