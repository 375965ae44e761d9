"""Maps onto the set of weights whose operator norm is at most 1 (or a cap), sound in the dtype of the weights.

Scaling, W / max(1, norm), per row or column, never scales up and has a gradient everywhere. The Euclidean
projection onto the l1 ball makes rows sparse. All leave a true (exactly computed) norm of at most 1, or the
cap: see :mod:`lablib.ops.rounding`.
"""

import numbers

import torch
from torch import Tensor

from lablib.ops.norms import absolute_sums
from lablib.ops.orthonormal import scale_matrix_spectral
from lablib.ops.rounding import round_down, target_below, target_below_one

# Of W (O, I): the norm from which and the norm to which W is bounded, ||W z||_q <= cap ||z||_p.
KINDS = {
    "one": ("l1", "l1"),
    "inf": ("linf", "linf"),
    "two": ("l2", "l2"),
    "one-inf": ("l1", "linf"),
    "two-inf": ("l2", "linf"),
}


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


def cap_norm(weight: Tensor, kind: str, cap: float = 1.0, vectorwise: bool = True) -> Tensor:
    """Return ``weight`` (O, I) with an operator norm of at most ``cap``, never scaled up; shape and dtype stay.

        w / max(1, ||w|| / cap)     of each vector w, or of the whole matrix

    ===========  ============  ==========================  ==============
    ``kind``     bounded map   norm                        vector w
    ===========  ============  ==========================  ==============
    ``one``      l1 -> l1      max_j sum_i |W_ij|          column
    ``inf``      linf -> linf  max_i sum_j |W_ij|          row
    ``one-inf``  l1 -> linf    max_ij |W_ij|               entry
    ``two-inf``  l2 -> linf    max_i (sum_j W_ij^2)^(1/2)  row
    ``two``      l2 -> l2      largest singular value      (always whole)
    ===========  ============  ==========================  ==============

    The true norm of the result is at most ``cap``, and weights well within it are returned as they are. Source:
    Kitouni, Nolte, Williams, "Robust and Provably Monotonic Networks" (arXiv 2112.00038), section 2.

    Args:
        cap: between 1e-30 and 1e30.
        vectorwise: cap each vector for itself; otherwise the matrix is scaled as a whole.

    Raises:
        ValueError: for no matrix, an unknown kind, or a cap out of range.
    """
    check_kind(kind)
    check_cap(cap)
    if weight.dim() != 2:
        raise ValueError(f"an operator norm needs a matrix (O, I), got shape {tuple(weight.shape)}")
    if kind == "two":
        return scale_matrix_spectral(weight, cap)
    if kind == "one-inf" and vectorwise:
        limit = round_down(cap, weight.dtype)
        return weight.clamp(-limit, limit)
    if kind == "one-inf":
        terms, sizes = 1, weight.double().abs()
    else:
        dim = 0 if kind == "one" else 1
        terms = weight.shape[dim]
        sizes = _euclidean(weight, dim) if kind == "two-inf" else absolute_sums(weight, dim)
    if not vectorwise:
        sizes = sizes.amax((0, 1), keepdim=True)
    limit = target_below(cap, terms, weight.dtype)
    scale = limit / sizes.clamp(min=max(limit, torch.finfo(torch.float64).tiny))
    return (weight.double() * scale).to(weight.dtype)


def check_kind(kind: str) -> str:
    """Return ``kind`` if it is one of :data:`KINDS`.

    Raises:
        ValueError: otherwise.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r} of norm; use one of {', '.join(KINDS)}")
    return kind


def check_cap(cap: float) -> float:
    """Return ``cap`` as a float.

    Raises:
        ValueError: unless it is a number between 1e-30 and 1e30.
    """
    if isinstance(cap, bool) or not isinstance(cap, numbers.Real) or not 1e-30 <= cap <= 1e30:
        raise ValueError(f"a cap is a number above 0 (between 1e-30 and 1e30), got {cap!r}")
    return float(cap)


def _euclidean(weight: Tensor, dim: int) -> Tensor:
    return torch.linalg.vector_norm(weight.double(), dim=dim, keepdim=True)


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
