"""Distance neurons by broadcasting, output block by output block, so that memory stays bounded.

Slow and obviously right: the kernels are held against these functions, and fall back to them for inputs that
are not finite. All of them work on tensors x (B, I), weight (O, I) of one dtype; the gradients are functions of
their own. Sub-batch masks are those of :func:`lablib.ops.linf_dist.lp_distance`.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lablib.ops.gpu import add_at

BLOCK_ELEMENTS = 2**23  # |x - w| held at once: 32 MiB in float32


def linf_forward(x: Tensor, weight: Tensor) -> Tensor:
    """Return max_i |x_i - w_ki|, (B, O); differentiable, as the search for the largest keeps no graph."""
    made = []
    for part in _blocks(x, weight):
        with torch.no_grad():
            winner = (x[:, None, :] - part).abs().max(-1).indices
        made.append((x.gather(1, winner) - part.gather(1, winner.t()).t()).abs())
    return torch.cat(made, 1)


def linf_backward(grad: Tensor, x: Tensor, weight: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients to x and weight: grad times the sign, at the first of tied maxima.

    ``y``, the result of the forward, is not needed here: other implementations search for it.
    """
    grad_x, grad_w = torch.zeros_like(x), []
    for part, g in zip(_blocks(x, weight), grad.split(_block_rows(x), 1)):
        difference = x[:, None, :] - part
        winner = difference.abs().max(-1, keepdim=True).indices
        g = g * difference.gather(-1, winner)[..., 0].sign()
        grad_x += _spread(g, winner[..., 0], x.shape[1])
        grad_w.append(_spread(-g.t(), winner[..., 0].t(), x.shape[1]))
    return grad_x, torch.cat(grad_w)


def lp_forward(
    x: Tensor, weight: Tensor, p: float, inputs: Tensor | None, outputs: Tensor | None, rows: int
) -> Tensor:
    """Return (sum_i |x_i - w_ki|^p)^(1/p), scaled by the largest term: (B, O) or compact (B, O')."""
    made = x.new_empty(x.shape[0], _width(weight, outputs))
    for part, kept, chosen in sub_batches(x, inputs, outputs, rows):
        w = kept_weight(weight, kept, chosen)
        if math.isinf(p):
            made[part] = linf_forward(x[part], w)
        else:
            made[part] = torch.cat([_lp_block(x[part], block, p) for block in _blocks(x[part], w)], 1)
    return made


def lp_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    p: float,
    inputs: Tensor | None,
    outputs: Tensor | None,
    rows: int,
) -> tuple[Tensor, Tensor]:
    """Return the gradients to (compact) x and to the whole weight: sign(d) (|d| / y)^(p-1) grad, d = x - w."""
    grad_x, grad_w = torch.zeros_like(x), torch.zeros_like(weight)
    for part, kept, chosen in sub_batches(x, inputs, outputs, rows):
        w = kept_weight(weight, kept, chosen)
        if math.isinf(p):
            to_x, to_w = linf_backward(grad[part], x[part], w, y[part])
        else:
            to_x, to_w = _lp_slopes(grad[part], x[part], w, y[part], p)
        grad_x[part] = to_x
        add_kept(grad_w, to_w, kept, chosen)
    return grad_x, grad_w


def bounds_forward(lower: Tensor, upper: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest l_inf distance to w_k over the box [lower, upper], each (B, O)."""
    least, most = [], []
    for part in _blocks(lower, weight):
        near, far = _box_distances(lower, upper, part)
        least.append(near.amax(-1))
        most.append(far.amax(-1))
    return torch.cat(least, 1), torch.cat(most, 1)


def bounds_backward(
    grad_least: Tensor,
    grad_most: Tensor,
    lower: Tensor,
    upper: Tensor,
    weight: Tensor,
    least: Tensor,
    most: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients to lower, upper and weight, each at the first of tied maxima.

    Where u - w = w - l, the far side is l. A bound of 0 from below has no gradient. ``least`` and ``most``
    (the results of the forward) are not needed here: other implementations search for them.
    """
    to_lower, to_upper, to_weight = torch.zeros_like(lower), torch.zeros_like(upper), []
    step, width = _block_rows(lower), lower.shape[1]
    for part, low, high in zip(_blocks(lower, weight), grad_least.split(step, 1), grad_most.split(step, 1)):
        near, far = _box_distances(lower, upper, part)
        winner = far.max(-1).indices
        at_l, at_u, at_w = lower.gather(1, winner), upper.gather(1, winner), part.gather(1, winner.t()).t()
        up = at_u - at_w > at_w - at_l
        to_upper += _spread(torch.where(up, high, 0), winner, width)
        to_lower += _spread(torch.where(up, 0, -high), winner, width)
        to_part = _spread(torch.where(up, -high, high).t(), winner.t(), width)
        nearest = near.max(-1)
        winner = nearest.indices
        low = torch.where(nearest.values == 0, 0, low)
        below = lower.gather(1, winner) > part.gather(1, winner.t()).t()
        to_lower += _spread(torch.where(below, low, 0), winner, width)
        to_upper += _spread(torch.where(below, 0, -low), winner, width)
        to_part += _spread(torch.where(below, -low, low).t(), winner.t(), width)
        to_weight.append(to_part)
    return to_lower, to_upper, torch.cat(to_weight)


def _spread(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Return z (N, size) with z[n, index[n, m]] = the sum of values[n, m], each sum in a fixed order."""
    if values.is_cuda:
        return add_at(values, index, size)
    return values.new_zeros((values.shape[0], size)).scatter_add_(1, index, values)


def sub_batches(
    x: Tensor, inputs: Tensor | None, outputs: Tensor | None, rows: int
) -> Iterator[tuple[slice, Tensor | None, Tensor | None]]:
    """Yield (rows of x, kept inputs, chosen outputs) of every sub-batch; one sub-batch where nothing is masked."""
    if inputs is None and outputs is None:
        yield slice(0, x.shape[0]), None, None
        return
    for index, start in enumerate(range(0, x.shape[0], rows)):
        yield (
            slice(start, min(start + rows, x.shape[0])),
            None if inputs is None else inputs[index],
            None if outputs is None else outputs[index],
        )


def _width(weight: Tensor, outputs: Tensor | None) -> int:
    return weight.shape[0] if outputs is None else outputs.shape[1]


def kept_weight(weight: Tensor, kept: Tensor | None, chosen: Tensor | None) -> Tensor:
    """Return the rows ``chosen`` and columns ``kept`` of the weight; None: all."""
    weight = weight if chosen is None else weight[chosen]
    return weight if kept is None else weight[:, kept]


def add_kept(whole: Tensor, part: Tensor, kept: Tensor | None, chosen: Tensor | None) -> None:
    """Add ``part`` where :func:`kept_weight` takes it from; the indices of one sub-batch are distinct."""
    if kept is None and chosen is None:
        whole += part
    elif kept is None:
        whole[chosen] += part
    elif chosen is None:
        whole[:, kept] += part
    else:
        whole[chosen[:, None], kept] += part


def _block_rows(x: Tensor) -> int:
    return max(1, BLOCK_ELEMENTS // max(1, x.numel()))


def _blocks(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    return weight.split(_block_rows(x))


def _lp_block(x: Tensor, weight: Tensor, p: float) -> Tensor:
    size = (x[:, None, :] - weight).abs()
    most = size.amax(-1)
    scale = torch.where((most == 0) | most.isinf(), 1, most)
    return most * _power(size / scale[..., None], p).sum(-1) ** (1 / p)


def _power(ratio: Tensor, p: float) -> Tensor:
    """ratio^p, with 0^0 = 0 (the slope of |d| at 0 is taken as 0)."""
    return (ratio > 0).to(ratio) if p == 0 else ratio**p


def _lp_slopes(grad: Tensor, x: Tensor, weight: Tensor, y: Tensor, p: float) -> tuple[Tensor, Tensor]:
    grad_x, grad_w, step = torch.zeros_like(x), [], _block_rows(x)
    for part, g, size in zip(_blocks(x, weight), grad.split(step, 1), y.split(step, 1)):
        ratio = (x[:, None, :] - part) / torch.where(size == 0, 1, size)[..., None]
        slope = ratio.sign() * _power(ratio.abs(), p - 1) * g[..., None]
        grad_x += slope.sum(1)
        grad_w.append(-slope.sum(0))
    return grad_x, torch.cat(grad_w)


def _box_distances(lower: Tensor, upper: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Per input the least and the largest |z - w| over z in [l, u]."""
    below, above = lower[:, None, :] - weight, weight - upper[:, None, :]
    return torch.maximum(below, above).clamp(min=0), torch.maximum(-below, -above)
