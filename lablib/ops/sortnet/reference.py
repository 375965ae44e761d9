"""The sorted sum in plain torch: a full sort or top-K, output block by output block.

    y_k = sum_{j <= K} w_kj s_(j),  s_(j) the j-th largest over the inputs i of

        ABS    |x_i + b_ki|
        LOW    min |v + b_ki| over x_i <= v <= u_i, that is max(x_i + b_ki, -(u_i + b_ki), 0)
        HIGH   max |v + b_ki| over x_i <= v <= u_i, that is max(|x_i + b_ki|, |u_i + b_ki|)

Every implementation has the two functions of this file. Shapes: x, u (B, I), b (O, I), w (O, K), y (B, O), places
(B, O, K), the inputs i of s_(1), ..., s_(K); of equals the lowest i comes first, NaN before all numbers.
"""

import torch
from torch import Tensor

from lablib.ops.gpu import add_at

Needs = tuple[bool, bool, bool, bool]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
ABS, LOW, HIGH = 0, 1, 2
PLACE = torch.int32
BLOCK_ELEMENTS = 2**23  # numbers sorted at once: 32 MiB in float32
ONE_BY_ONE = (
    16  # up to this K sums run in the order of the ranks, as in the compiled code (which has no larger K)
)


def forward(
    x: Tensor, u: Tensor, center: Tensor, weight: Tensor, form: int, keep: bool
) -> tuple[Tensor, Tensor]:
    """Return y and the places, int32 (empty unless ``keep``)."""
    rows = max(1, BLOCK_ELEMENTS // max(1, x.numel()))
    parts = [_block(x, u, b, w, form, keep) for b, w in zip(center.split(rows), weight.split(rows))]
    y, places = (torch.cat(part, 1) for part in zip(*parts))
    return y, places if keep else places.flatten()


def backward(
    grad: Tensor,
    x: Tensor,
    u: Tensor,
    center: Tensor,
    weight: Tensor,
    places: Tensor,
    form: int,
    needs: Needs,
) -> Gradients:
    """Return the gradients of x, u, b and w, None where ``needs`` says no.

    Differentiable: y is piecewise linear in x, u and b, and linear in w.
    """
    at = places.long()
    by_x, by_u, size = _slopes(x, u, center, at, form)
    slope = grad[..., None] * weight
    return (
        _add_at(slope * by_x, at, x) if needs[0] else None,
        _add_at(slope * by_u, at, u) if needs[1] else None,
        _add_at((slope * (by_x + by_u)).transpose(0, 1), at.transpose(0, 1), center) if needs[2] else None,
        (grad[..., None] * size).sum(0) if needs[3] else None,
    )


def from_places(x: Tensor, u: Tensor, center: Tensor, weight: Tensor, places: Tensor, form: int) -> Tensor:
    """Return y with the graph of plain torch operations, which every transform of torch.func can enter."""
    return (_slopes(x, u, center, places.long(), form)[2] * weight).sum(-1)


def _slopes(x: Tensor, u: Tensor, center: Tensor, at: Tensor, form: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of the K sizes by x and by u, and the sizes, (B, O, K) each."""
    outputs = torch.arange(center.shape[0], device=x.device)[:, None]
    first, second = (_take(side, at) + center[outputs, at] for side in (x, u))
    if form == ABS:
        return first.sign(), torch.zeros_like(first), first.abs()
    if form == LOW:
        by_x, by_u = (first > 0).to(x.dtype), -((first <= 0) & (second < 0)).to(x.dtype)
        return by_x, by_u, by_x * first + by_u * second
    on_x = first.abs() >= second.abs()
    return first.sign() * on_x, second.sign() * ~on_x, torch.where(on_x, first.abs(), second.abs())


def _block(
    x: Tensor, u: Tensor, center: Tensor, weight: Tensor, form: int, keep: bool
) -> tuple[Tensor, Tensor]:
    size, top = _sizes(x[:, None, :], u[:, None, :], center, form), weight.shape[1]
    if keep:  # torch.topk promises nothing about ties
        values, places = (made[..., :top] for made in size.sort(dim=-1, descending=True, stable=True))
    else:
        values, places = size.topk(top).values, size.new_empty((x.shape[0], center.shape[0], 0))
    # Products of two float32 are exact in float64: fused multiply-adds elsewhere change nothing.
    if top > ONE_BY_ONE:
        total = (values.double() * weight.double()).sum(-1)
    else:
        total = torch.zeros(size.shape[:-1], dtype=torch.float64, device=x.device)
        for j in range(top):
            total += values[..., j].double() * weight[:, j].double()
    return total.to(x.dtype), places.to(PLACE)


def _sizes(x: Tensor, u: Tensor, center: Tensor, form: int) -> Tensor:
    first = x + center
    if form == ABS:
        return first.abs()
    second = u + center
    if form == HIGH:
        return torch.maximum(first.abs(), second.abs())
    return torch.maximum(first, -second).clamp(min=0)


def _take(x: Tensor, at: Tensor) -> Tensor:
    return x.gather(1, at.flatten(1)).reshape(at.shape)


def _add_at(values: Tensor, at: Tensor, like: Tensor) -> Tensor:
    if values.is_cuda:  # where scatter_add adds in any order
        return add_at(values.flatten(1), at.flatten(1), like.shape[1])
    return like.new_zeros(like.shape).scatter_add(1, at.flatten(1), values.flatten(1))
