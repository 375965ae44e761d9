"""The torch operators of linear splines: which implementation runs, derivatives of every order, vmap, fake tensors.

Both have gradients made of the two operators themselves. With phi the hat functions of the knots and
<., .> the sum over all entries, the forward pass is F(x, v) = sum_k v_k phi_k(x), the backward pass

    B(g, x, v) = (g F'(x, v), g^T phi(x)),

and for a gradient (h, w) of its two results the product <h, g F'(x, v)> + <w, g^T phi(x)> = <h g, F'(x, v)> +
<g, F(x, w)> has the gradients h F'(x, v) + F(x, w) by g, g F'(x, w) by x and (h g)^T phi'(x) by v.
"""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lablib.ops.splines import reference
from lablib.ops.splines.choice import implementation
from lablib.ops.splines.reference import Needs

WIDE = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)

_LIBRARY = torch.library.Library("lablib", "FRAGMENT")
_LIBRARY.define("linear_spline(Tensor x, Tensor values, float reach) -> Tensor")
_LIBRARY.define(
    "linear_spline_backward(Tensor grad, Tensor x, Tensor values, float reach, bool[2] needs) "
    "-> (Tensor, Tensor)"
)


def spline(x: Tensor, values: Tensor, reach: float) -> Tensor:
    """Return y (N, C, M), differentiable, as reference.py says."""
    graph = torch.is_grad_enabled() and (x.requires_grad or values.requires_grad)
    # The gradients of an operator cannot be transformed, nor has it a derivative forwards: plain torch has both.
    if (graph and torch._C._are_functorch_transforms_active()) or forward_ad._current_level >= 0:
        return reference.forward(x, values, reach)
    return torch.ops.lablib.linear_spline(x, values, reach)


def _forward(x: Tensor, values: Tensor, reach: float) -> Tensor:
    _check(x, values, reach)
    if not x.numel():
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    return implementation(x, values).forward(x.contiguous(), values.contiguous(), reach)


def _backward(grad: Tensor, x: Tensor, values: Tensor, reach: float, needs: Needs) -> tuple[Tensor, Tensor]:
    _check(x, values, reach)
    if grad.shape != x.shape or grad.dtype != x.dtype or grad.device != x.device:
        raise ValueError(f"grad {tuple(x.shape)} as {x.dtype} expected, got {grad.dtype} {tuple(grad.shape)}")
    if x.numel():
        sides = (t.contiguous() for t in (grad, x, values))
        made = implementation(x, values).backward(*sides, reach, needs)
    else:
        made = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (x, values))
    return tuple(t if need else x.new_empty(0) for t, need in zip(made, needs))


def _check(x: Tensor, values: Tensor, reach: float) -> None:
    """The kernels read and write as much memory as these shapes and dtypes say.

    Raises:
        ValueError: for anything but x (N, C, M) and values (C, K), K >= 2, of fitting dtypes, or a bad reach.
    """
    given = f"got x {x.dtype} {tuple(x.shape)} on {x.device}, values {values.dtype} {tuple(values.shape)}"
    if x.dim() != 3 or values.dim() != 2 or x.shape[1] != values.shape[0] or values.shape[1] < 2:
        raise ValueError(f"x (N, C, M) and values (C, K), K >= 2, expected, {given}")
    fits = x.dtype == values.dtype or (x.dtype in HALF and values.dtype == torch.float32)
    if values.dtype not in WIDE or not fits or x.device != values.device:
        raise ValueError(f"float32 or float64 alike, or half precision and float32, expected, {given}")
    if not 1e-30 <= reach <= 1e30:
        raise ValueError(f"reach must lie between 1e-30 and 1e30, got {reach}")


def _fake_forward(x, values, reach):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_backward(grad, x, values, reach, needs):
    made = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, values))
    return tuple(t if need else x.new_empty(0) for t, need in zip(made, needs))


def _save(ctx, inputs, output) -> None:
    x, values, ctx.reach = inputs
    ctx.save_for_backward(x, values)


def _pull_back(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, values = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:2])
    made = torch.ops.lablib.linear_spline_backward(grad, x, values, ctx.reach, needs)
    return *(t if need else None for t, need in zip(made, needs)), None


def _save_twice(ctx, inputs, output) -> None:
    *sides, ctx.reach, ctx.needs = inputs
    ctx.save_for_backward(*sides)


def _pull_back_twice(ctx, h: Tensor, w: Tensor) -> tuple[Tensor | None, ...]:
    grad, x, values = ctx.saved_tensors
    by_grad = by_x = by_values = None
    if ctx.needs[0]:
        by_grad = torch.ops.lablib.linear_spline_backward(h, x, values, ctx.reach, [True, False])[0]
        by_values = reference.slope_sums(h.to(values.dtype) * grad, x, values, ctx.reach)
    if ctx.needs[1]:
        y = torch.ops.lablib.linear_spline(x, w, ctx.reach)
        by_grad = y if by_grad is None else by_grad + y
        by_x = torch.ops.lablib.linear_spline_backward(grad, x, w, ctx.reach, [True, False])[0]
    needed = ctx.needs_input_grad[:3]
    return *(t if need else None for t, need in zip((by_grad, by_x, by_values), needed)), None, None


def _fold(batch: int, in_dims: tuple[int | None, ...], *tensors: Tensor) -> list[Tensor]:
    """Return (N, C, M) and (C, K) tensors with the batch of ``torch.vmap`` joined to the channels."""
    given = [t.expand(batch, *t.shape) if d is None else t.movedim(d, 0) for t, d in zip(tensors, in_dims)]
    return [t.flatten(0, 1) if t.dim() == 3 else t.transpose(0, 1).flatten(1, 2) for t in given]


def _vmap_forward(info, in_dims, x, values, reach):
    y = torch.ops.lablib.linear_spline(*_fold(info.batch_size, in_dims, x, values), reach)
    return y.unflatten(1, (info.batch_size, -1)), 1


def _vmap_backward(info, in_dims, grad, x, values, reach, needs):
    folded = _fold(info.batch_size, in_dims, grad, x, values)
    by_x, by_values = torch.ops.lablib.linear_spline_backward(*folded, reach, needs)
    if needs[0]:
        by_x = by_x.unflatten(1, (info.batch_size, -1))
    if needs[1]:
        by_values = by_values.unflatten(0, (info.batch_size, -1))
    return (by_x, by_values), (1 if needs[0] else None, 0 if needs[1] else None)


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
