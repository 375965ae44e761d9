"""The torch operators of linear splines: which implementation runs, derivatives of every order, vmap, fake tensors.

Both have gradients made of the two operators themselves and of sums over segments. The forward pass is, with the
slope s and the height b at 0 of the line through v that u = alpha x is on (both linear in v, reference.py),

    F(x, v, alpha) = s(v) x + b(v) / alpha,   with F_x = s(v),   F_alpha = -b(v) / alpha^2,   F_v w = F(x, w, alpha),

almost everywhere, and the backward pass B(g, x, v, alpha) = (g F_x, sum of g F_v, sum of g F_alpha). For a gradient
(h, w, z) of its three results the product with them, in each channel

    sum of  h g s(v) + g F(x, w, alpha) - z g b(v) / alpha^2,

has the gradients  h s(v) + F(x, w, alpha) - z b(v) / alpha^2  by g,  g s(w)  by x, that of the sum of
(h g) s(v) - (z g / alpha^2) b(v) by v, and the sum of  -g b(w) / alpha^2 + 2 z g b(v) / alpha^3  by alpha: the third
result of B(g, x, w, alpha) less 2 z / alpha times that of B(g, x, v, alpha).
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lablib.ops.splines import reference
from lablib.ops.splines.choice import implementation
from lablib.ops.splines.projection import check_reach
from lablib.ops.splines.reference import Needs

WIDE = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)

_LIBRARY = torch.library.Library("lablib", "FRAGMENT")
_LIBRARY.define("linear_spline(Tensor x, Tensor values, Tensor? scale, float reach) -> Tensor")
_LIBRARY.define(
    "linear_spline_backward(Tensor grad, Tensor x, Tensor values, Tensor? scale, float reach, bool[3] needs) "
    "-> (Tensor, Tensor, Tensor)"
)


def spline(x: Tensor, values: Tensor, scale: Tensor | None, reach: float) -> Tensor:
    """Return y (N, C, M), differentiable, as reference.py says."""
    graph = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, values, scale))
    # The gradients of an operator cannot be transformed, nor has it a derivative forwards: plain torch has both.
    if (graph and torch._C._are_functorch_transforms_active()) or forward_ad._current_level >= 0:
        return reference.forward(x, values, scale, reach)
    return torch.ops.lablib.linear_spline(x, values, scale, reach)


def _forward(x: Tensor, values: Tensor, scale: Tensor | None, reach: float) -> Tensor:
    _check(x, values, scale, reach)
    if not x.numel():
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    return implementation(x, values).forward(*_contiguous(x, values, scale), reach)


def _backward(
    grad: Tensor, x: Tensor, values: Tensor, scale: Tensor | None, reach: float, needs: Needs
) -> tuple[Tensor, ...]:
    _check(x, values, scale, reach)
    if grad.shape != x.shape or grad.dtype != x.dtype or grad.device != x.device:
        raise ValueError(f"grad {tuple(x.shape)} as {x.dtype} expected, got {grad.dtype} {tuple(grad.shape)}")
    if needs[2] and scale is None:
        raise ValueError("there is no scale to have a gradient")
    if x.numel():
        made = implementation(x, values).backward(*_contiguous(grad, x, values, scale), reach, needs)
        return _where_needed(x, made, needs)
    return tuple(t.zero_() for t in _fake_backward(grad, x, values, scale, reach, needs))


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [t if t is None else t.contiguous() for t in tensors]


def _check(x: Tensor, values: Tensor, scale: Tensor | None, reach: float) -> None:
    """The kernels read and write as much memory as these shapes and dtypes say.

    Raises:
        ValueError: for anything but x (N, C, M), values (C, K), K >= 2, and scale (C,), if any, of fitting dtypes,
            or a bad reach.
    """
    given = f"got x {x.dtype} {tuple(x.shape)} on {x.device}, values {values.dtype} {tuple(values.shape)}"
    if x.dim() != 3 or values.dim() != 2 or x.shape[1] != values.shape[0] or values.shape[1] < 2:
        raise ValueError(f"x (N, C, M) and values (C, K), K >= 2, expected, {given}")
    fits = x.dtype == values.dtype or (x.dtype in HALF and values.dtype == torch.float32)
    if values.dtype not in WIDE or not fits or x.device != values.device:
        raise ValueError(f"float32 or float64 alike, or half precision and float32, expected, {given}")
    if scale is not None and (
        scale.shape != values.shape[:1] or scale.dtype != values.dtype or scale.device != values.device
    ):
        raise ValueError(
            f"a scale of each channel, as values are, expected, got {scale.dtype} {tuple(scale.shape)}"
        )
    check_reach(reach, values.shape[1])


def _fake_forward(x, values, scale, reach):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_backward(grad, x, values, scale, reach, needs):
    given = zip((x, values, scale), needs)
    made = (torch.empty_like(t, memory_format=torch.contiguous_format) if need else None for t, need in given)
    return _where_needed(x, made, needs)


def _where_needed(x: Tensor, made: Iterable[Tensor | None], needs: Needs) -> tuple[Tensor, ...]:
    """An operator returns tensors: an empty one for each gradient that nobody asked for."""
    return tuple(t if need else x.new_empty(0) for t, need in zip(made, needs))


def _save(ctx, inputs, output) -> None:
    *sides, ctx.reach = inputs
    ctx.save_for_backward(*sides)


def _pull_back(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, values, scale = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:3])
    made = torch.ops.lablib.linear_spline_backward(grad, x, values, scale, ctx.reach, needs)
    return *(t if need else None for t, need in zip(made, needs)), None


def _save_twice(ctx, inputs, output) -> None:
    *sides, ctx.reach, ctx.needs = inputs
    ctx.save_for_backward(*sides)


def _pull_back_twice(ctx, h: Tensor, w: Tensor, z: Tensor) -> tuple[Tensor | None, ...]:
    """What the head of this file derives, without the terms of results that nobody asked for."""
    grad, x, values, scale = ctx.saved_tensors
    needed, backward = ctx.needs_input_grad, torch.ops.lablib.linear_spline_backward
    by_grad, by_x, by_scale, steep, high = [], None, [], None, None
    if ctx.needs[0]:
        by_grad.append(backward(h, x, values, scale, ctx.reach, [True, False, False])[0])
        steep = h.to(values.dtype) * grad
    if ctx.needs[1]:
        by_grad.append(torch.ops.lablib.linear_spline(x, w, scale, ctx.reach))
        by_x, _, of_w = backward(grad, x, w, scale, ctx.reach, [True, False, needed[3]])
        by_scale.append(of_w)
    if ctx.needs[2]:
        share = (-z / scale.square())[:, None]
        by_grad.append((share * reference.heights(x, values, scale, ctx.reach)).to(grad.dtype))
        high = share * grad
        if needed[3]:
            of_v = backward(grad, x, values, scale, ctx.reach, [False, False, True])[2]
            by_scale.append(-2 * z / scale * of_v)
    by_values = None
    if needed[2] and (ctx.needs[0] or ctx.needs[2]):
        by_values = reference.line_sums(steep, high, x, values, scale, ctx.reach)
    return (
        _added(by_grad) if needed[0] else None,
        by_x if needed[1] else None,
        by_values,
        _added(by_scale) if needed[3] else None,
        None,
        None,
    )


def _added(terms: list[Tensor]) -> Tensor | None:
    return sum(terms[1:], terms[0]) if terms else None


def _fold(batch: int, in_dims: tuple[int | None, ...], *tensors: Tensor | None) -> list[Tensor | None]:
    """Return (N, C, M), (C, K) and (C,) tensors with the batch of ``torch.vmap`` joined to the channels."""
    folded: list[Tensor | None] = []
    for given, dim in zip(tensors, in_dims):
        if given is None:
            folded.append(None)
            continue
        t = given.expand(batch, *given.shape) if dim is None else given.movedim(dim, 0)
        folded.append(t.movedim(1, 0).flatten(1, 2) if t.dim() == 4 else t.flatten(0, 1))
    return folded


def _vmap_forward(info, in_dims, x, values, scale, reach):
    y = torch.ops.lablib.linear_spline(*_fold(info.batch_size, in_dims, x, values, scale), reach)
    return y.unflatten(1, (info.batch_size, -1)), 1


def _vmap_backward(info, in_dims, grad, x, values, scale, reach, needs):
    folded = _fold(info.batch_size, in_dims, grad, x, values, scale)
    made = torch.ops.lablib.linear_spline_backward(*folded, reach, needs)
    axes = [axis if need else None for axis, need in zip((1, 0, 0), needs)]
    batched = (t if axis is None else t.unflatten(axis, (info.batch_size, -1)) for t, axis in zip(made, axes))
    return tuple(batched), tuple(axes)


_LIBRARY.impl("linear_spline", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("linear_spline_backward", _backward, "CompositeExplicitAutograd")
torch.library.register_fake("lablib::linear_spline", _fake_forward, lib=_LIBRARY)
torch.library.register_fake("lablib::linear_spline_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_autograd("lablib::linear_spline", _pull_back, setup_context=_save, lib=_LIBRARY)
torch.library.register_autograd(
    "lablib::linear_spline_backward", _pull_back_twice, setup_context=_save_twice, lib=_LIBRARY
)
torch.library.register_vmap("lablib::linear_spline", _vmap_forward, lib=_LIBRARY)
torch.library.register_vmap("lablib::linear_spline_backward", _vmap_backward, lib=_LIBRARY)
