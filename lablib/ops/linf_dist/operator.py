"""The torch operators of the distance neurons: fake tensors, gradients, vmap, and who computes them.

``lablib::lp_distance`` and ``lablib::linf_distance_bounds`` take contiguous matrices of one dtype, float32 or
float64. ``index``, the first input that decides each output, is kept for the backward on a GPU only: on a CPU
searching again is cheaper than writing it in every forward.
"""

import math

import torch
from torch import Tensor

from lablib.ops.linf_dist import reference
from lablib.ops.linf_dist.choice import OnGpu, implementation
from lablib.ops.masks import checked_rows

_LIBRARY = torch.library.Library("lablib", "FRAGMENT")
_MASKS = "Tensor? inputs, Tensor? outputs, int rows"
_LIBRARY.define(f"lp_distance(Tensor x, Tensor weight, float p, {_MASKS}, bool keep) -> (Tensor, Tensor)")
_LIBRARY.define(
    "lp_distance_backward(Tensor grad, Tensor x, Tensor weight, Tensor y, Tensor index, float p, "
    f"{_MASKS}, bool need_x, bool need_weight) -> (Tensor, Tensor)"
)
_LIBRARY.define(
    "linf_distance_bounds(Tensor lower, Tensor upper, Tensor weight, bool keep) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "linf_distance_bounds_backward(Tensor grad_least, Tensor grad_most, Tensor lower, Tensor upper, "
    "Tensor weight, Tensor least, Tensor most, Tensor low_index, Tensor high_index) "
    "-> (Tensor, Tensor, Tensor)"
)


def lp(
    x: Tensor, weight: Tensor, p: float, inputs: Tensor | None, outputs: Tensor | None, rows: int
) -> Tensor:
    """Return the distances (B, O), differentiable. Arguments as :func:`lablib.ops.linf_dist.lp_distance`."""
    keep = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if keep and torch._C._are_functorch_transforms_active():
        # an operator with a gradient of its own cannot be entered by torch.func
        return reference.lp_forward(x, weight, p, inputs, outputs, rows)
    return torch.ops.lablib.lp_distance(x, weight, p, inputs, outputs, rows, keep)[0]


def bounds(lower: Tensor, upper: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and largest distances over a box, (B, O) each, differentiable."""
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (lower, upper, weight))
    if keep and torch._C._are_functorch_transforms_active():
        return reference.bounds_forward(lower, upper, weight)
    return torch.ops.lablib.linf_distance_bounds(lower, upper, weight, keep)[:2]


def _check(weight: Tensor, *xs: Tensor, width: int) -> None:
    """The kernels read and write as much memory as these shapes and dtypes say.

    Raises:
        ValueError: for anything but x (B, width) and weight (O, I) of one dtype on one device.
    """
    for x in xs:
        if x.dim() != 2 or weight.dim() != 2 or x.shape != xs[0].shape or x.shape[1] != width or not width:
            raise ValueError(
                f"x (B, {width}) and weight (O, I) expected, got {tuple(x.shape)}, {tuple(weight.shape)}"
            )
        if x.dtype != weight.dtype or x.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"float32 or float64 alike expected, got {x.dtype} and {weight.dtype}")
        if x.device != weight.device:
            raise ValueError(f"x is on {x.device}, weight on {weight.device}; move one")


def _check_results(weight: Tensor, shape: tuple[int, int], *ys: Tensor) -> None:
    for y in ys:
        if tuple(y.shape) != shape or y.dtype != weight.dtype or y.device != weight.device:
            raise ValueError(
                f"{weight.dtype} {shape} on {weight.device} expected, got {y.dtype} {tuple(y.shape)}"
            )


def _check_lp(x: Tensor, weight: Tensor, inputs: Tensor | None, outputs: Tensor | None, rows: int) -> int:
    """Check the arguments of the l_p operators; return the rows of a sub-batch."""
    _check(weight, x, width=weight.shape[-1] if inputs is None else inputs.shape[-1])
    return checked_rows(x, weight, inputs, outputs, rows)


def _lp_forward(x, weight, p, inputs, outputs, rows, keep):
    rows = _check_lp(x, weight, inputs, outputs, rows)
    return implementation(x, weight).lp_forward(
        x.contiguous(), weight.contiguous(), p, inputs, outputs, rows, keep
    )


def _lp_backward(grad, x, weight, y, index, p, inputs, outputs, rows, need_x, need_weight):
    rows = _check_lp(x, weight, inputs, outputs, rows)
    _check_results(weight, (x.shape[0], weight.shape[0] if outputs is None else outputs.shape[1]), grad, y)
    sides = (t.contiguous() for t in (grad, x, weight, y))
    return implementation(x, weight).lp_backward(*sides, index, p, inputs, outputs, rows, need_x, need_weight)


def _lp_fake(x, weight, p, inputs, outputs, rows, keep):
    width = weight.shape[0] if outputs is None else outputs.shape[1]
    y = x.new_empty((x.shape[0], width))
    kept = keep and math.isinf(p) and implementation(x, weight) is OnGpu
    return y, x.new_empty(y.shape if kept else (0,), dtype=torch.int64)


def _lp_backward_fake(grad, x, weight, y, index, p, inputs, outputs, rows, need_x, need_weight):
    return x.new_empty(x.shape if need_x else (0,)), weight.new_empty(weight.shape if need_weight else (0,))


def _lp_save(ctx, inputs, output) -> None:
    x, weight, ctx.p, kept, chosen, ctx.rows, _ = inputs
    ctx.save_for_backward(x, weight, kept, chosen, *output)
    ctx.mark_non_differentiable(output[1])


def _lp_pull_back(ctx, grad, _):
    x, weight, kept, chosen, y, index = ctx.saved_tensors
    need_x, need_weight = ctx.needs_input_grad[:2]
    if torch.is_grad_enabled():  # somebody will differentiate again: plain torch, with its graph
        to_x, to_weight = reference.lp_backward(grad, x, weight, y, ctx.p, kept, chosen, ctx.rows)
    else:
        to_x, to_weight = torch.ops.lablib.lp_distance_backward(
            grad, x, weight, y, index, ctx.p, kept, chosen, ctx.rows, need_x, need_weight
        )
    return to_x if need_x else None, to_weight if need_weight else None, None, None, None, None, None


def _bounds_forward(lower, upper, weight, keep):
    _check(weight, lower, upper, width=weight.shape[-1])
    return implementation(lower, upper, weight).bounds_forward(
        lower.contiguous(), upper.contiguous(), weight.contiguous(), keep
    )


def _bounds_backward(grad_least, grad_most, lower, upper, weight, least, most, low_index, high_index):
    _check(weight, lower, upper, width=weight.shape[-1])
    _check_results(weight, (lower.shape[0], weight.shape[0]), grad_least, grad_most, least, most)
    return implementation(lower, upper, weight).bounds_backward(
        grad_least.contiguous(), grad_most.contiguous(), lower.contiguous(), upper.contiguous(),
        weight.contiguous(), least.contiguous(), most.contiguous(), low_index, high_index,
    )  # fmt: skip


def _bounds_fake(lower, upper, weight, keep):
    shape = (lower.shape[0], weight.shape[0])
    kept = keep and implementation(lower, upper, weight) is OnGpu
    index = [lower.new_empty(shape if kept else (0,), dtype=torch.int64) for _ in range(2)]
    return lower.new_empty(shape), lower.new_empty(shape), *index


def _bounds_backward_fake(grad_least, grad_most, lower, upper, weight, least, most, low_index, high_index):
    return torch.empty_like(lower), torch.empty_like(upper), torch.empty_like(weight)


def _bounds_save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.mark_non_differentiable(*output[2:])


def _bounds_pull_back(ctx, grad_least, grad_most, *_):
    saved = ctx.saved_tensors
    if torch.is_grad_enabled():
        made = reference.bounds_backward(grad_least, grad_most, *saved[:5])
    else:
        made = torch.ops.lablib.linf_distance_bounds_backward(grad_least, grad_most, *saved)
    return *(t if need else None for t, need in zip(made, ctx.needs_input_grad)), None


def _one_by_one(operator) -> None:
    """Let ``torch.vmap`` enter the operator: one call per element."""

    def rule(info, in_dims, *args):
        calls = [
            operator(*(a.select(d, n) if isinstance(d, int) else a for a, d in zip(args, in_dims)))
            for n in range(info.batch_size)
        ]
        made = tuple(torch.stack(some) for some in zip(*calls))
        return made, (0,) * len(made)

    torch.library.register_vmap(operator.default, rule)


for _name, _made, _fake in (
    ("lp_distance", _lp_forward, _lp_fake),
    ("lp_distance_backward", _lp_backward, _lp_backward_fake),
    ("linf_distance_bounds", _bounds_forward, _bounds_fake),
    ("linf_distance_bounds_backward", _bounds_backward, _bounds_backward_fake),
):
    _LIBRARY.impl(_name, _made, "CompositeExplicitAutograd")
    torch.library.register_fake(f"lablib::{_name}", _fake, lib=_LIBRARY)
    _one_by_one(getattr(torch.ops.lablib, _name))
torch.library.register_autograd("lablib::lp_distance", _lp_pull_back, setup_context=_lp_save, lib=_LIBRARY)
torch.library.register_autograd(
    "lablib::linf_distance_bounds", _bounds_pull_back, setup_context=_bounds_save, lib=_LIBRARY
)
