"""Maps onto the set of weights whose operator norm is at most 1, sound in the dtype of the weights.

Scaling, W / max(1, norm), per row or column, never scales up and has a gradient everywhere. The Euclidean
projection onto the l1 ball makes rows sparse. Both leave a true (exactly computed) norm of at most 1: see
:mod:`lablib.ops.rounding`.
"""

import torch
from torch import Tensor

from lablib.ops.norms import absolute_sums
from lablib.ops.rounding import target_below_one


def scale_groups(weight: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Scale each group of entries (equal indices outside ``dim``) to a sum of absolute values <= 1.

        w / max(1, sum |w|)

    ``weight``: any shape, any floating dtype; the result has both. Rows of (O, I): ``dim=1``; columns:
    ``dim=0``. NaN anywhere in a group makes the group NaN.
    """
    dims = (dim,) if isinstance(dim, int) else dim
    terms = 1
    for axis in dims:
        terms *= weight.shape[axis]
    limit = target_below_one(terms, weight.dtype)
    # max(sum, limit), not min(1, limit / sum): no division by zero, so the gradient of an all-zero row is
    # finite.
    scale = limit / absolute_sums(weight, dims).clamp(min=limit)
    return (weight.double() * scale).to(weight.dtype)


def project_rows_l1(weight: Tensor) -> Tensor:
    """Project each row of ``weight`` (O, ...) onto the l1 ball of radius 1 (nearest point in l2).

        w_i -> sign(w_i) max(|w_i| - theta, 0),  theta >= 0 the smallest with l1 norm <= 1

    Source: Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions" (ICML
    2008), section 3. The row is then scaled like :func:`scale_groups`, which absorbs the rounding
    of theta.
    """
    rows = weight.double().flatten(1)
    if rows.numel() == 0:
        return weight
    size = rows.abs()
    # Everything is measured from the largest entry: theta - max has no cancellation however large the row is.
    below = size - size.amax(1, keepdim=True)
    active = _support(below.detach())
    theta = ((below * active).sum(1, keepdim=True) - 1.0) / active.sum(1, keepdim=True)
    kept = rows.sign() * (below - theta).clamp(min=0.0)
    inside = size.sum(1, keepdim=True) <= 1.0
    return scale_groups(torch.where(inside, rows, kept).to(weight.dtype), 1).reshape(weight.shape)


def _support(below: Tensor) -> Tensor:
    """Return the entries that stay positive: threshold, drop what is below, until nothing drops.

    Michelot's algorithm (J. Optim. Theory Appl. 50, 1986): ends exactly, as a rule within ten rounds, without a sort.
    """
    active = torch.ones_like(below, dtype=torch.bool)
    while True:
        theta = ((below * active).sum(1, keepdim=True) - 1.0) / active.sum(1, keepdim=True)
        fewer = active & (below > theta)
        if torch.equal(fewer, active):
            return active
        active = fewer
