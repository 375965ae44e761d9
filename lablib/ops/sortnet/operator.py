"""The torch operator of the sorted sum (reference.py): which implementation runs, gradients, vmap, fake tensors.

The places of the K largest are kept for the backward pass while they take up to ``KEPT_BYTES``; beyond that they are
searched again, part by part, so memory stays O(B O + O I) however large B O K is.
"""

import functools

import torch
from torch import Tensor

from lablib.ops.sortnet import reference
from lablib.ops.sortnet.choice import implementation
from lablib.ops.sortnet.reference import ABS, HIGH, LOW, Gradients, Needs

FLOATS = (torch.float32, torch.float64)
KEPT_BYTES = 2**28
Sides = tuple[Tensor, Tensor, Tensor, Tensor]  # x, u, b, w

_LIBRARY = torch.library.Library("lablib", "FRAGMENT")
_LIBRARY.define(
    "sortnet(Tensor x, Tensor? u, Tensor center, Tensor weight, int form, bool keep) -> (Tensor, Tensor)"
)
_LIBRARY.define(
    "sortnet_backward(Tensor grad, Tensor x, Tensor? u, Tensor center, Tensor weight, Tensor places, "
    "int form, bool[4] needs) -> (Tensor, Tensor, Tensor, Tensor)"
)


def sorted_sum(x: Tensor, u: Tensor | None, center: Tensor, weight: Tensor, form: int) -> Tensor:
    """Return y (B, O), differentiable, as reference.py says; ``u`` None: x. One dtype, float32 or float64."""
    sides = [t for t in (x, u, center, weight) if t is not None]
    graph = torch.is_grad_enabled() and any(t.requires_grad for t in sides)
    if (
        graph and torch._C._are_functorch_transforms_active()
    ):  # no operator with a gradient of its own may enter
        sides = (x, x if u is None else u, center, weight)
        places = torch.ops.lablib.sortnet(*(t.detach() for t in sides), form, True)[1]
        return reference.from_places(*sides, places, form)
    keep = graph and 4 * x.shape[0] * weight.shape[0] * weight.shape[1] <= KEPT_BYTES
    return torch.ops.lablib.sortnet(x, u, center, weight, form, keep)[0]


def _forward(
    x: Tensor, u: Tensor | None, center: Tensor, weight: Tensor, form: int, keep: bool
) -> tuple[Tensor, Tensor]:
    _check(x, u, center, weight, form)
    sides = _ready(x, u, center, weight)
    y, places = implementation(x, center, weight).forward(*sides, form, keep)
    if form == LOW and not x.is_cuda:  # compared as an integer, a negative NaN is less than 0
        y.masked_fill_(_nan_rows(*sides[:2])[:, None] | _nan_rows(center), float("nan"))
    return y, places


def _backward(
    grad: Tensor,
    x: Tensor,
    u: Tensor | None,
    center: Tensor,
    weight: Tensor,
    places: Tensor,
    form: int,
    needs: Needs,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check(x, u, center, weight, form)
    _check_results(grad, x, weight, places)
    sides, grad, places = _ready(x, u, center, weight), grad.contiguous(), places.contiguous()
    chosen = implementation(x, center, weight)
    if len(places):
        return _given(chosen.backward(grad, *sides, places, form, needs), x)
    rows = max(1, KEPT_BYTES // max(1, 4 * weight.numel()))
    parts = []
    for start in range(0, max(1, len(x)), rows):
        part = (*(side[start : start + rows] for side in sides[:2]), *sides[2:])
        found = chosen.forward(*part, form, True)[1]
        parts.append(chosen.backward(grad[start : start + rows], *part, found, form, needs))
    join = (torch.cat, torch.cat, _sum, _sum)
    return _given(
        tuple(joined(some) if need else None for joined, some, need in zip(join, zip(*parts), needs)), x
    )


def _sum(parts: tuple[Tensor, ...]) -> Tensor:
    return functools.reduce(torch.add, parts)


def _check(x: Tensor, u: Tensor | None, center: Tensor, weight: Tensor, form: int) -> None:
    """The kernels read and write as much memory as these shapes and dtypes say.

    Raises:
        ValueError: for anything but x, u (B, I), center (O, I), weight (O, K), K <= I, alike, and a known form.
    """
    sides = [t for t in (x, u, center, weight) if t is not None]
    shapes = ", ".join(f"{t.dtype} {tuple(t.shape)} on {t.device}" for t in sides)
    if (
        any(t.dim() != 2 for t in sides)
        or x.shape[1] != center.shape[1]
        or (u is not None and u.shape != x.shape)
    ):
        raise ValueError(f"x, u (B, I) and center (O, I) expected, got {shapes}")
    if weight.shape[0] != center.shape[0] or not 1 <= weight.shape[1] <= center.shape[1]:
        raise ValueError(f"weight (O, K) with 1 <= K <= I expected, got {shapes}")
    if any(t.dtype != x.dtype or t.device != x.device for t in sides) or x.dtype not in FLOATS:
        raise ValueError(f"float32 or float64 alike on one device expected, got {shapes}")
    if form not in (ABS, LOW, HIGH):
        raise ValueError(f"form must be {ABS}, {LOW} or {HIGH}, got {form}")


def _check_results(grad: Tensor, x: Tensor, weight: Tensor, places: Tensor) -> None:
    shape = (x.shape[0], weight.shape[0])
    if tuple(grad.shape) != shape or grad.dtype != x.dtype or grad.device != x.device:
        raise ValueError(f"grad {shape} as {x.dtype} expected, got {grad.dtype} {tuple(grad.shape)}")
    if not len(places):
        return
    if tuple(places.shape) != (*shape, weight.shape[1]) or places.dtype != reference.PLACE:
        raise ValueError(f"places {(*shape, weight.shape[1])} as int32 expected, got {tuple(places.shape)}")
    if places.device.type == "cpu" and places.numel():
        least, most = (int(t) for t in places.aminmax())
        if least < 0 or most >= x.shape[1]:
            raise ValueError(f"places must lie in 0 .. {x.shape[1] - 1}, got {least} .. {most}")


def _ready(x: Tensor, u: Tensor | None, center: Tensor, weight: Tensor) -> Sides:
    """Contiguous, but for the weights: their rows may be one row, repeated."""
    x = x.contiguous()
    weight = weight if weight.stride(1) == 1 or weight.shape[1] == 1 else weight.contiguous()
    return x, x if u is None else u.contiguous(), center.contiguous(), weight


def _given(made: Gradients, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An operator returns tensors: empty ones for what nobody asked for."""
    return tuple(like.new_empty(0) if t is None else t for t in made)


def _nan_rows(*sides: Tensor) -> Tensor:
    """Return which rows hold a NaN in one of ``sides``, (N, I) each: (N,)."""
    return functools.reduce(torch.bitwise_or, [side.amax(1).isnan() for side in sides])


def _fake_forward(x, u, center, weight, form, keep):
    y = x.new_empty((x.shape[0], center.shape[0]))
    return y, x.new_empty((*y.shape, weight.shape[1]) if keep else 0, dtype=reference.PLACE)


def _fake_backward(grad, x, u, center, weight, places, form, needs):
    sides = (x, x if u is None else u, center, weight)
    return tuple(x.new_empty(t.shape if need else 0) for t, need in zip(sides, needs))


def _save(ctx, inputs, output) -> None:
    x, u, center, weight, ctx.form, _ = inputs
    ctx.save_for_backward(x, u, center, weight, output[1])


def _pull_back(ctx, grad: Tensor, _) -> tuple[Tensor | None, ...]:
    x, u, center, weight, places = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:4])
    if torch.is_grad_enabled():  # somebody will differentiate again: plain torch, with its graph
        sides = (x, x if u is None else u, center, weight)
        if not len(places):
            places = torch.ops.lablib.sortnet(*(t.detach() for t in sides), ctx.form, True)[1]
        return *reference.backward(grad, *sides, places, ctx.form, needs), None, None
    made = torch.ops.lablib.sortnet_backward(grad, x, u, center, weight, places, ctx.form, needs)
    return *(t if need else None for t, need in zip(made, needs)), None, None


def _one_by_one(operator) -> None:
    """Let ``torch.vmap`` enter the operator: one call per element."""

    def rule(info, in_dims, *args):
        calls = [
            operator(*(a if not isinstance(d, int) else a.select(d, n) for a, d in zip(args, in_dims)))
            for n in range(info.batch_size)
        ]
        outs = tuple(torch.stack(some) for some in zip(*calls))
        return outs, (0,) * len(outs)

    torch.library.register_vmap(operator.default, rule)


_LIBRARY.impl("sortnet", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("sortnet_backward", _backward, "CompositeExplicitAutograd")
torch.library.register_fake("lablib::sortnet", _fake_forward, lib=_LIBRARY)
torch.library.register_fake("lablib::sortnet_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_autograd("lablib::sortnet", _pull_back, setup_context=_save, lib=_LIBRARY)
_one_by_one(torch.ops.lablib.sortnet)
_one_by_one(torch.ops.lablib.sortnet_backward)
