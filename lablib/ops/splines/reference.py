"""Linear splines in plain torch: value and gradients by looking up the two coefficients around each input.

Knots t_k = k T - R, k = 0..K-1, T = 2 R / (K - 1). With a scale alpha per channel (1 without) u = alpha x, k the
segment of u (the first or the last one outside the knots), d = u - t_k and the slope s_k = (v_{k+1} - v_k) / T:

    y = (v_k + s_k d) / alpha,   dy/dx = s_k,   dy/dv_k = (1 - d / T) / alpha,   dy/dv_{k+1} = d / (T alpha).

The line of segment k meets 0 in b_k = v_k - s_k t_k, so y = s_k x + b_k / alpha and dy/dalpha = -b_k / alpha^2. Sums
over the inputs of each segment are therefore enough for all gradients of a channel.

Every implementation has the functions ``forward`` and ``backward`` of this file. Shapes: x, y, grad (N, C, M),
contiguous; v (C, K), alpha (C,) > 0 or None. x is of the dtype of v, or half precision where v is float32: the
arithmetic, and alpha, are of that of v.
"""

import torch
from torch import Tensor

Needs = tuple[bool, bool, bool]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def forward(x: Tensor, values: Tensor, scale: Tensor | None, reach: float) -> Tensor:
    """Return y, of the dtype of x. Plain torch operations: every transform of torch.func can enter."""
    left, slope, offset, _ = _segment(x, values, scale, reach)
    y = left + slope * offset
    return (y if scale is None else y / scale[:, None]).to(x.dtype)


def backward(
    grad: Tensor, x: Tensor, values: Tensor, scale: Tensor | None, reach: float, needs: Needs
) -> Gradients:
    """Return the gradients of x, v and alpha, None where ``needs`` says no; sums are taken in float64."""
    _, slope, offset, at = _segment(x, values, scale, reach)
    by_x = (grad * slope).to(x.dtype) if needs[0] else None
    if not (needs[1] or needs[2]):
        return by_x, None, None
    grad = grad.double()
    share = (offset * _inverse(values, reach)).double()
    sums = torch.stack([_sums(grad, at, values), _sums(grad * share, at, values)], -1)
    return by_x, *by_segments(sums, values, scale, needs)


def by_segments(sums: Tensor, values: Tensor, scale: Tensor | None, needs: Needs) -> Gradients:
    """Return the gradients of v and alpha from the sums of g and of g d / T in each segment, (C, K, 2) float64."""
    by_values = by_scale = None
    alpha = None if scale is None else scale.double()
    if needs[1]:
        made = _coefficients(sums[..., 0], sums[..., 1])
        by_values = (made if alpha is None else made / alpha[:, None]).to(values.dtype)
    if needs[2]:
        by_scale = (-(sums[:, :-1, 0] * _heights(values.double())).sum(1) / alpha.square()).to(values.dtype)
    return by_values, by_scale


def heights(x: Tensor, values: Tensor, scale: Tensor, reach: float) -> Tensor:
    """Return b_k at each x (N, C, M), of the dtype of v: differentiable in ``values``."""
    at = _segment(x, values.detach(), scale, reach)[3]
    return torch.nn.functional.pad(_heights(values), (0, 1)).flatten()[at]


def line_sums(
    steep: Tensor | None, high: Tensor | None, x: Tensor, values: Tensor, scale: Tensor | None, reach: float
) -> Tensor:
    """Return the gradient by v (C, K) of the sum of steep s_k + high b_k: differentiable in both, (N, C, M)."""
    at = _segment(x, values.detach(), scale, reach)[3]
    ones = steps = values.new_zeros(values.shape)
    if steep is not None:
        steps = _sums(steep * _inverse(values, reach), at, values)
    if high is not None:
        ones = _sums(high, at, values)
        steps = steps - ones * _places(values)
    return _coefficients(ones, steps)


def _segment(
    x: Tensor, values: Tensor, scale: Tensor | None, reach: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return v_k, s_k, d and the place of v_k in the flattened values, (N, C, M) each."""
    channels, knots = values.shape
    x = x.to(values.dtype)
    if scale is not None:
        x = x * scale[:, None]
    position = x.detach() * _inverse(values, reach) + (knots - 1) / 2
    # NaN has no segment; it comes back through d
    k = position.nan_to_num(nan=0.0).clamp(0, knots - 2).long()
    if knots > 2**24:  # where float32 may round knots - 2 up
        k = k.clamp(max=knots - 2)
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


def _places(values: Tensor) -> Tensor:
    """Return t_k / T (K,)."""
    knots = values.shape[1]
    return torch.arange(knots, dtype=values.dtype, device=values.device) - (knots - 1) / 2


def _heights(values: Tensor) -> Tensor:
    """Return b_k of every segment (C, K - 1)."""
    return values[:, :-1] - values.diff(dim=1) * _places(values)[:-1]


def _coefficients(ones: Tensor, steps: Tensor) -> Tensor:
    """Return the gradient of v (C, K): ``ones`` pull at v_k, ``steps`` at v_{k+1} - v_k; (C, K), 0 for k = K - 1."""
    return ones - steps + torch.nn.functional.pad(steps[:, :-1], (1, 0))


def _sums(terms: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """Return the sums of the terms at each place, as (C, K), in a fixed order."""
    made = torch.zeros(values.numel(), dtype=terms.dtype, device=terms.device)
    if terms.is_cuda:  # where index_add adds in any order, and this sorts first
        return made.index_put((at,), terms, accumulate=True).view(values.shape)
    return made.index_add(0, at.flatten(), terms.flatten()).view(values.shape)
