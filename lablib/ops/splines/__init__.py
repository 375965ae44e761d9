"""Linear splines on a uniform grid of knots: the learnable activation s of the spline paper, one per channel.

Source: Ducotterd, Goujon, Bohra, Perdios, Neumayer, Unser, "Improving Lipschitz-constrained neural networks by
learning activation functions" (JMLR 25, 2024; arXiv 2210.16222), section 3. Knots t_k = k T - R, k = 0..K-1,
T = 2 R / (K - 1), K >= 2 even or odd; R is ``reach``. Between knots and beyond the outer ones the spline is linear.

How it is computed: choice.py (the implementations: reference.py, cpu.py, compiled.py, cuda.py) behind the torch
operators of operator.py. The coefficients of constrained splines: projection.py; few knots: knots.py.

Rounding. With floating point numbers of unit roundoff u (2^-24 in float32) and the spline y = S(x) through the stored
values, every implementation returns y^ with

    |y^ - y|  <=  18 u L (|x| + R) + 2 u |y|,   L = max_k |v_{k+1} - v_k| / T,

where nothing under- or overflows and K u is small. Derivation, to first order: (x + R) / T is computed with an error
of 3 u (|x| + R) / T, so that x may be taken for the segment beside its own, on whose line S is off by 2 L times
3 u (|x| + R). t_k is computed with an error of 6 u R and d = x - t_k with u |d| more, |d| <= |x| + R; the slope has
a relative error of 3 u, the product of both and the sum v_k + s_k d one rounding each.

With a scale alpha, y = S(alpha x) / alpha, the same implementations return y^ with

    |y^ - y|  <=  19 u L (|x| + R / alpha) + 3 u |y|:

alpha x is off by u alpha |x|, which S makes at most L times that, and then the above, at alpha x, is divided by alpha
with one rounding more. What is stored, v, is never divided: its slopes, exact, are those of y.
"""

import functools

import torch
from torch import Tensor

from lablib.ops.sorting import channel_dim
from lablib.ops.splines.knots import count_active_knots, remove_knots, second_variation
from lablib.ops.splines.operator import spline
from lablib.ops.splines.projection import check_values, project_slopes

__all__ = ["count_active_knots", "linear_spline", "project_slopes", "remove_knots", "second_variation"]


def linear_spline(
    x: Tensor, values: Tensor, reach: float, dim: int | None = None, scale: Tensor | None = None
) -> Tensor:
    """Return the linear spline through (t_k, v_k) of its channel at each entry of ``x``; same shape and dtype.

        y = v_k + (x - t_k) (v_{k+1} - v_k) / T   on t_k <= x < t_{k+1}

    The first and the last segment go on outside. At a knot the derivative is that from the right; derivatives of
    every order are those of this formula. NaN stays NaN. float16 and bfloat16 are computed in float32, and
    everything in float64 if ``values`` or ``scale`` are. Fused: the backward pass keeps x, ``values`` and ``scale``
    alone, looks everything up again, and adds up in float64 in an order that does not depend on the number of
    threads.

    Args:
        x: any rank, C channels on axis ``dim`` (default: axis 1, 0 for a vector).
        values: (C, K), or (1, K) for all channels.
        reach: R > 0, half the width of the grid.
        scale: alpha (C,), or (1,) for all channels, positive: y = S(alpha x) / alpha with the spline S above, the
            same slopes at knots t_k / alpha. Its entries are not looked at: 0 gives infinity or NaN, as dividing by
            it does, and a negative one the same formula.

    Raises:
        ValueError: for shapes, dtypes or devices that do not match, or a reach that is not a positive number.
    """
    check_values(values, reach)
    axis = channel_dim(x, dim)
    if not x.is_floating_point():
        raise ValueError(f"x must be floating point numbers, got {x.dtype}; convert with .float()")
    coefficients = [values] if scale is None else [values, _checked(scale)]
    for name, given in zip(("values", "scale"), coefficients):
        if given.shape[0] not in (1, x.shape[axis]):
            raise ValueError(
                f"{name} {tuple(given.shape)} are for {given.shape[0]} channels, x of shape {tuple(x.shape)} has "
                f"{x.shape[axis]} on axis {axis}"
            )
        if x.device != given.device:
            raise ValueError(f"x is on {x.device}, {name} on {given.device}; move them")
    work = functools.reduce(torch.promote_types, [t.dtype for t in (x, *coefficients)], torch.float32)
    given = x if work == torch.float32 else x.to(work)
    # Channels last in memory is as good as channels in front: no copy is made.
    last = not given.is_contiguous() and given.movedim(axis, -1).is_contiguous()
    if last:
        given, axis = given.movedim(axis, -1), x.dim() - 1
    shape, channels = given.shape, 1 if all(len(t) == 1 for t in coefficients) else given.shape[axis]
    split = (1, 1, -1) if channels == 1 else (shape[:axis].numel(), shape[axis], shape[axis + 1 :].numel())
    values, scale = (t if t is None else t.to(work).expand(channels, *t.shape[1:]) for t in (values, scale))
    y = spline(given.reshape(split), values, scale, float(reach)).reshape(shape).to(x.dtype)
    return y.movedim(-1, channel_dim(x, dim)) if last else y


def _checked(scale: Tensor) -> Tensor:
    if scale.dim() != 1 or not scale.is_floating_point():
        raise ValueError(f"scale must be floating point numbers (C,), got {scale.dtype} {tuple(scale.shape)}")
    return scale
