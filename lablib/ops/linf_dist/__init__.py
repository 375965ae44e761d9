"""The distance neurons y_k = max_i |x_i - w_ki| and (sum_i |x_i - w_ki|^p)^(1/p): the public functions.

Source: Zhang et al., "Towards certifying l_inf robustness using neural networks with l_inf-dist neurons"
(arXiv 2102.05363), section 3; SortNet paper (arXiv 2210.01787), section 4. How they are computed: choice.py (the
implementations: reference.py, cpu.py, compiled.py, cuda.py) behind the torch operators of operator.py.

Rounding. With unit roundoff u (2^-24 in float32, 2^-53 in float64), for every implementation and finite results:

- :func:`linf_distance`: |y^ - y| <= u |y|. Each difference is rounded once (where it is subnormal it is exact, unless
  the process flushes subnormal numbers: no underflow term), and a maximum is exact and monotone: it picks one of the
  rounded values, and max_i (1 + e_i) |d_i| lies within (1 +- u) max_i |d_i|.
- :func:`linf_distance_bounds`: the same relative u for both bounds: w - l, u - w, l - w, w - u are rounded once,
  then compared with each other and with 0.
- :func:`lp_distance` with finite p makes no such promise (it is for training). Measured for the compiled form in
  float32: 3e-7 relative where p is 2^k or 3 2^k, up to 5.4e-6 (p = 1.5) elsewhere; gradients 1e-6
  (p = 8) to 1e-4 (p = 1024) of the largest, about p times the rounding of one ratio: 13 % at p = 1e6. Numbers below
  1.2e-38 are lost: terms and gradients that small count as 0 (at p = 1 a sum of such terms may be 98 % off).

Half precision is computed in float32; rounding the result adds that format's own u (2^-11, 2^-8) and, below its
smallest normal number, half its subnormal spacing.
"""

import math

import torch
from torch import Tensor

from lablib.ops.linf_dist import operator
from lablib.ops.masks import check_rising, checked_rows

__all__ = ["linf_distance", "linf_distance_bounds", "lp_distance"]

HALF = (torch.float16, torch.bfloat16)


def linf_distance(x: Tensor, weight: Tensor) -> Tensor:
    """Return max_i |x_i - w_ki| for x (..., I) and w (O, I): shape (..., O). 1-Lipschitz in linf, also in w.

    The gradient goes to the first of tied maxima, and is 0 where y = 0. NaN in a row of ``x`` makes its outputs
    NaN. float16 and bfloat16 are computed in float32.

    Raises:
        ValueError: for shapes, dtypes or devices that do not match, or no inputs at all.
    """
    return lp_distance(x, weight, math.inf)


def lp_distance(
    x: Tensor,
    weight: Tensor,
    p: float,
    *,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
    rows: int = 32,
) -> Tensor:
    """Return (sum_i |x_i - w_ki|^p)^(1/p), scaled so that no power over- or underflows: (..., O).

    The gradient is dy_k/dx_i = sign(d) (|d| / y_k)^(p-1), d = x_i - w_ki, and its negative to w_ki; 0 where d = 0
    or y = 0. ``p = math.inf`` is :func:`linf_distance`. Fast for p = 2^k and 3 2^k up to 4096 (repeated squaring);
    any real p >= 1 works, several times slower below about 100. Where (|d| / y)^p or (|d| / y)^(p-1) is below about
    2^-36, it may be left out of sums and gradients.

    Sub-batch masks: sub-batch s is rows s * rows .. (s + 1) * rows of ``x``, the last may be short; S of them.

    Args:
        x: (..., I); with masks (B, I).
        weight: (O, I).
        p: the power, >= 1.
        inputs: (S, I') int64, sorted. x is then compact, (B, I'): its column j is input inputs[s, j].
        outputs: (S, O') int64, sorted. The result is then compact, (B, O'): its column j is neuron outputs[s, j].
        rows: size of a sub-batch; more than the batch has: all of it. (What masks name is not checked on a GPU.)

    Raises:
        ValueError: for shapes, dtypes, devices or masks that do not match, no inputs at all, or p < 1.
    """
    if not p >= 1:
        raise ValueError(f"lp_distance needs p >= 1, got {p}")
    masked = inputs is not None or outputs is not None
    _check(weight, x, masked=masked, width=weight.shape[-1] if inputs is None else inputs.shape[-1])
    if masked:
        rows = checked_rows(x, weight, inputs, outputs, rows)
        check_rising(weight, inputs, outputs)
    flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    dtype = torch.promote_types(x.dtype, weight.dtype)
    inner = torch.float32 if dtype in HALF else dtype
    y = operator.lp(flat.to(inner), weight.to(inner), float(p), inputs, outputs, rows).to(dtype)
    return y if x.dim() == 2 else y.reshape(*x.shape[:-1], y.shape[1])


def linf_distance_bounds(lower: Tensor, upper: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exact range of :func:`linf_distance` over the box lower <= x <= upper: (least, most), (..., O).

    With hi_i = max(w_i - l_i, u_i - w_i) and lo_i = max(l_i - w_i, w_i - u_i, 0), the distance of w_i to [l_i, u_i]:
    most = max_i hi_i, least = max_i lo_i. Both are attained. Source: SortNet paper (arXiv 2210.01787), appendix on
    interval bounds. The gradient goes to the first of tied maxima; of equal sides in hi_i, to l; 0 where lo_i = 0.
    Where lower > upper there is no box and nothing is promised.

    Args:
        lower: (..., I).
        upper: (..., I).
        weight: (O, I).

    Raises:
        ValueError: for shapes, dtypes or devices that do not match, or no inputs at all.
    """
    _check(weight, lower, upper, width=weight.shape[-1])
    dtype = torch.promote_types(torch.promote_types(lower.dtype, upper.dtype), weight.dtype)
    inner = torch.float32 if dtype in HALF else dtype
    flat = (side.reshape(-1, side.shape[-1]).to(inner) for side in (lower, upper))
    shape = (*lower.shape[:-1], weight.shape[0])
    return tuple(side.to(dtype).reshape(shape) for side in operator.bounds(*flat, weight.to(inner)))


def _check(weight: Tensor, *xs: Tensor, width: int, masked: bool = False) -> None:
    x = xs[0]
    if weight.dim() != 2 or x.dim() < 1 or x.shape[-1] != width or width == 0 or (masked and x.dim() != 2):
        expected = f"x {'(B, I)' if masked else '(..., I)'} and weight (O, I) with I >= 1"
        raise ValueError(f"{expected} expected, got {tuple(x.shape)} and {tuple(weight.shape)}")
    for side in (weight, *xs):
        if not side.is_floating_point():
            raise ValueError(f"floating point numbers expected, got {side.dtype}; convert with .float()")
        if side.device != weight.device:
            raise ValueError(f"x and weight must be on one device, got {x.device} and {weight.device}")
    if len({side.shape for side in xs}) > 1:
        shapes = " and ".join(str(tuple(side.shape)) for side in xs)
        raise ValueError(f"the two sides of a box need one shape, got {shapes}")
