"""Splines whose slopes stay within bounds: the projection of the coefficients, exact for the numbers as stored."""

import ctypes
import functools
import math
from fractions import Fraction

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lablib.ops import native

# Bits of the whole numbers that stand for the coefficients: all of the significand, but two of float64's, so that
# sums taken in float64 stay exact.
_BITS = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 51}
# Exponent of the smallest unit: of the smallest normal number, which no processor takes for 0 (nothing is computed in
# float16, where the smallest number is safe); in float64 more, so that coefficients in units do not overflow.
_LEAST = {torch.float16: -24, torch.bfloat16: -126, torch.float32: -126, torch.float64: -500}
_TINY = 2.0**-1022
_LARGEST = 1e300  # of a slope bound times the reach
_SLACK = 2.0  # whole numbers by which rounding may carry a difference over its bound
_MARGIN = 1.0001  # against rounding in the size of the coefficients
_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
_SIGNATURE = (
    [ctypes.c_void_p, *[ctypes.c_int64] * 2, *[ctypes.c_double] * 3, ctypes.c_int, *[ctypes.c_double] * 2]
    + [ctypes.c_void_p] * 2
    + [ctypes.c_int]
)
ONE_THREAD = 2**14  # up to so many coefficients, waking other threads costs more than it saves

_LIBRARY = torch.library.Library("lablib", "FRAGMENT")
_LIBRARY.define("project_slopes(Tensor values, float reach, float low, float high) -> (Tensor, Tensor)")


def project_slopes(values: Tensor, reach: float, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Return the coefficients (C, K) with slopes clipped to [low, high] and the mean of each row kept.

        d_k = clip(v_{k+1} - v_k, low T, high T),   v'_k = sum_{j < k} d_j + const,   mean v' = mean v

    Source: Ducotterd et al. (JMLR 25, 2024; arXiv 2210.16222), section 3.3. Nearest in the space of slopes at a fixed
    mean. The gradient is that of this formula; where a difference is within rounding of its bound it passes.

    Proof that rounding breaks no bound. Let m = mean v, L = max(|low|, |high|). Any spline of mean m' with slopes in
    [-L, L] has |v'_k - m'| <= (1/K) sum_j |v'_k - v'_j| <= L T (1/K) sum_j |k - j| <= L T (K - 1) / 2 = L R. Let
    2^e > |m| + L R and q = 2^(e - b) with b the bits of the dtype's significand. In units of q the coefficients are
    rounded to whole numbers n_k, the differences of these clipped to [ceil(low T / q), floor(high T / q)], and added
    up: sums of whole numbers that float64 holds, so without error and in any order. A whole constant then brings the
    mean to m within q. By the inequality all results are whole numbers up to 2^b, so they are stored as they are, and
    their differences, divided by T, lie in [low, high] in exact arithmetic, T = 2 R / (K - 1) being no float either.
    The price is q / T <= (K - 1) (1 + |m| / (L R)) 2^-b of slope, 1.2e-6 for 21 knots in float32. q is never below
    the smallest normal number (float16: the smallest; float64: 2^-500), so that no multiple of it is rounded, or
    flushed to 0.

    A row gets NaN if it holds NaN or infinity, if its results, or its coefficients summed or in units of q, overflow,
    or if no whole number lies between the bounds (only where both have one sign, and nearly meet or T is too small
    for m or the dtype).

    Raises:
        ValueError: for coefficients that are not (C, K) with K >= 2 or not floating point, a reach that is not a
            positive number, or bounds that are not finite numbers with low <= high (at most 1e300 times R).
    """
    check_values(values, reach)
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"slope bounds must be finite with low <= high, got {low} and {high}")
    if max(abs(low), abs(high)) * reach > _LARGEST:
        raise ValueError(f"slope bounds times the reach must be at most {_LARGEST:g}, got {low} and {high}")
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        stored, passes = torch.ops.lablib.project_slopes(values.detach(), reach, low, high)
        smooth = _formula(values, passes)
        return stored + (smooth - smooth.detach())  # of the first value, with the second gradient
    return torch.ops.lablib.project_slopes(values, reach, low, high)[0]


def check_values(values: Tensor, reach: float) -> None:
    """Raise ValueError unless ``values`` is (C, K), K >= 2, floating point, and ``reach`` a positive number."""
    if values.dim() != 2 or values.shape[1] < 2:
        raise ValueError(f"values must be (channels, knots) with 2 or more knots, got {tuple(values.shape)}")
    if values.dtype not in _BITS:
        raise ValueError(f"values must be floating point numbers, got {values.dtype}; convert with .float()")
    check_reach(reach, values.shape[1])


def check_reach(reach: float, knots: int) -> None:
    """Raise ValueError unless ``reach`` is a positive number for which 1 / T and T are far from overflow."""
    least = 1e-30 * (knots - 1)
    if not least <= reach <= 1e30:
        raise ValueError(
            f"reach must be a positive number (between {least:g} and 1e30 for {knots} knots), got {reach}"
        )


def _formula(values: Tensor, passes: Tensor) -> Tensor:
    """Return a tensor with the derivatives of the projection."""
    steps = torch.nn.functional.pad((values.diff(dim=1) * passes).cumsum(1), (1, 0))
    return steps + (values - steps).mean(1, keepdim=True)


def _pull_back(grad: Tensor, passes: Tensor) -> Tensor:
    """Return the transpose of :func:`_formula`: what comes after a difference pulls at it."""
    mean = grad.mean(1, keepdim=True)
    after = (mean - grad).cumsum(1)[:, :-1] * passes
    return mean + torch.nn.functional.pad(after, (1, 0)) - torch.nn.functional.pad(after, (0, 1))


def _project(values: Tensor, reach: float, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return the projected coefficients and where the gradient of a difference passes, (C, K - 1)."""
    check_values(values, reach)
    least, most = _bounds(reach, values.shape[1], low, high)
    # more room than needed makes the unit larger
    room = max(max(abs(low), abs(high)) * reach, 2.0 ** (_LEAST[values.dtype] + _BITS[values.dtype] - 1))
    if values.device.type == "cpu" and values.dtype in _SUFFIX and native.kernels() == "native":
        return _by_native(values.contiguous(), least, most, room)
    return _by_torch(values, least, most, room)


def _by_torch(values: Tensor, least: float, most: float, room: float) -> tuple[Tensor, Tensor]:
    v = values.double()
    mean = v.mean(1, keepdim=True)
    exponent = ((mean.abs() + room) * _MARGIN).frexp().exponent - _BITS[values.dtype]
    unit = torch.ldexp(torch.ones_like(mean), exponent)
    difference = (v / unit).round().diff(dim=1)
    # 1 and -1 where the quotient underflows
    floor = (least / unit).ceil().clamp(min=1.0 if least > 0 else -math.inf)
    ceiling = (most / unit).floor().clamp(max=-1.0 if most < 0 else math.inf)
    steps = torch.nn.functional.pad(difference.clamp(floor, ceiling).cumsum(1), (1, 0))
    made = (steps + (mean / unit - steps.mean(1, keepdim=True)).round()) * unit
    passes = (difference >= floor - _SLACK) & (difference <= ceiling + _SLACK)
    largest = made.abs().amax(1, keepdim=True)  # NaN if there is one
    broken = (floor > ceiling) | ~(largest <= torch.finfo(values.dtype).max)
    return made.masked_fill(broken, math.nan).to(values.dtype), passes


def _by_native(values: Tensor, least: float, most: float, room: float) -> tuple[Tensor, Tensor]:
    channels, knots = values.shape
    made, passes = torch.empty_like(values), values.new_empty((channels, knots - 1), dtype=torch.bool)
    threads = torch.get_num_threads() if values.numel() > ONE_THREAD else 1
    function = getattr(native.library("spline"), f"spline_project_{_SUFFIX[values.dtype]}")
    function.argtypes = _SIGNATURE
    function(
        values.data_ptr(), channels, knots, least, most, room, _BITS[values.dtype], _MARGIN, _SLACK,
        made.data_ptr(), passes.data_ptr(), threads,
    )  # fmt: skip
    return made, passes


@functools.lru_cache(256)
def _bounds(reach: float, knots: int, low: float, high: float) -> tuple[float, float]:
    """Return the least float >= low T and the largest <= high T, T = 2 R / (K - 1) exactly, neither subnormal."""
    spacing = 2 * Fraction(reach) / (knots - 1)
    return -_below(-Fraction(low) * spacing), _below(Fraction(high) * spacing)


def _below(bound: Fraction) -> float:
    """Return the largest float that is 0 or normal, and at most ``bound``."""
    near = float(bound) if Fraction(float(bound)) <= bound else math.nextafter(float(bound), -math.inf)
    return near if abs(bound) >= _TINY else -_TINY if bound < 0 else 0.0


def _fake(values, reach, low, high):
    made = torch.empty_like(values, memory_format=torch.contiguous_format)
    return made, values.new_empty((values.shape[0], values.shape[1] - 1), dtype=torch.bool)


def _vmap(info, in_dims, values, reach, low, high):
    folded = values.movedim(in_dims[0], 0)
    made = torch.ops.lablib.project_slopes(folded.flatten(0, 1), reach, low, high)
    return tuple(t.unflatten(0, folded.shape[:2]) for t in made), (0, 0)


def _save(ctx, inputs, output) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


_LIBRARY.impl("project_slopes", _project, "CompositeExplicitAutograd")
torch.library.register_fake("lablib::project_slopes", _fake, lib=_LIBRARY)
torch.library.register_vmap("lablib::project_slopes", _vmap, lib=_LIBRARY)
torch.library.register_autograd(
    "lablib::project_slopes",
    lambda ctx, grad, _: (_pull_back(grad, *ctx.saved_tensors), None, None, None),
    setup_context=_save,
    lib=_LIBRARY,
)
