"""Linear splines in plain torch: value and gradients by looking up the two coefficients around each input.

Knots t_k = k T - R, k = 0..K-1, T = 2 R / (K - 1). With k the segment of x (the first or the last one outside the
knots), d = x - t_k and the slope s_k = (v_{k+1} - v_k) / T:

    y = v_k + s_k d,     dy/dx = s_k,     dy/dv_k = 1 - d / T,     dy/dv_{k+1} = d / T.

Every implementation has the functions ``forward`` and ``backward`` of this file. Shapes: x, y, grad (N, C, M),
contiguous; v (C, K), or (1, K) for all channels. x is of the dtype of v, or half precision where v is float32: the
arithmetic is that of v.
"""

import torch
from torch import Tensor

Needs = tuple[bool, bool]
Gradients = tuple[Tensor | None, Tensor | None]


def forward(x: Tensor, values: Tensor, reach: float) -> Tensor:
    """Return y, of the dtype of x. Plain torch operations: every transform of torch.func can enter."""
    left, slope, offset, _ = _segment(x, values, reach)
    return (left + slope * offset).to(x.dtype)


def backward(grad: Tensor, x: Tensor, values: Tensor, reach: float, needs: Needs) -> Gradients:
    """Return the gradients of x and v, None where ``needs`` says no; sums are taken in float64."""
    _, slope, offset, at = _segment(x, values, reach)
    by_x = (grad * slope).to(x.dtype) if needs[0] else None
    if not needs[1]:
        return by_x, None
    grad, share = grad.double(), (offset * _inverse(values, reach)).double()
    made = _sums(grad - grad * share, at, values) + _sums(grad * share, at + 1, values)
    return by_x, made.to(values.dtype)


def slope_sums(grad: Tensor, x: Tensor, values: Tensor, reach: float) -> Tensor:
    """Return the gradient by v of the sum of grad s_k, (C, K) as v: differentiable in ``grad``."""
    at = _segment(x, values.detach(), reach)[3]
    grad = grad.to(values.dtype) * _inverse(values, reach)
    return _sums(grad, at + 1, values) - _sums(grad, at, values)


def _segment(x: Tensor, values: Tensor, reach: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return v_k, s_k, d and the place of v_k in the flattened values, (N, C, M) each."""
    channels, knots = values.shape
    x = x.to(values.dtype)
    position = x.detach() * _inverse(values, reach) + (knots - 1) / 2
    # NaN has no segment; it comes back through d
    k = position.nan_to_num(nan=0.0).clamp(0, knots - 2).long()
    offset = x - (k.to(x.dtype) * (2 * reach / (knots - 1)) - reach)
    at = k + knots * torch.arange(channels, device=x.device)[:, None]
    flat = values.flatten()
    left = flat[at]
    slope = (flat[at + 1] - left) * _inverse(values, reach)
    # 0 times infinity: a flat end goes on flat
    return left, slope, offset.masked_fill((slope == 0) & offset.isinf(), 0.0), at


def _inverse(values: Tensor, reach: float) -> float:
    """Return 1 / T."""
    return (values.shape[1] - 1) / (2 * reach)


def _sums(terms: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """Return the sums of the terms at each place, as (C, K), in a fixed order."""
    made = torch.zeros(values.numel(), dtype=terms.dtype, device=terms.device)
    if terms.is_cuda:  # where index_add adds in any order, and this sorts first
        return made.index_put((at,), terms, accumulate=True).view(values.shape)
    return made.index_add(0, at.flatten(), terms.flatten()).view(values.shape)
