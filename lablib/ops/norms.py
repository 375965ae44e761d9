"""Operator norms of matrices, proven: every ``bound_*`` is at least the true norm of the weights as stored.

    l1 -> l1      max_j sum_i |W_ij|   (largest column)
    linf -> linf  max_i sum_j |W_ij|   (largest row)
    l2 -> l2      largest singular value

All are computed in float64 with the rounding allowance of :mod:`lablib.ops.rounding`, and are differentiable.
Convolutions: :mod:`lablib.ops.conv_norms`.
"""

import math

import torch
from torch import Tensor

from lablib.ops.rounding import EPS64, sum_allowance

NORMS = ("l1", "l2", "linf")
NOT_FINITE = "the weights are not finite or too large to compute with; look for the step that made them so"


def check_norm(norm: str) -> str:
    """Return ``norm`` if it is one of ``"l1"``, ``"l2"``, ``"linf"``.

    Raises:
        ValueError: otherwise.
    """
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; use one of {', '.join(NORMS)}")
    return norm


def absolute_sums(weight: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Return the float64 sums of |weight| over ``dim`` (kept as size 1), without an allowance."""
    return weight.double().abs().sum(dim, keepdim=True)


def bound_matrix_norm(weight: Tensor, norm: str) -> Tensor:
    """Return a proven bound of the operator norm of ``weight`` (..., O, I) in ``norm``, shape (...).

    Raises:
        ValueError: for an unknown norm, or a tensor with fewer than two dimensions.
    """
    check_norm(norm)
    if weight.dim() < 2:
        raise ValueError(f"an operator norm needs a matrix (..., O, I), got shape {tuple(weight.shape)}")
    if norm == "l2":
        return bound_spectral_norm(weight)
    dim = -1 if norm == "linf" else -2
    return absolute_sums(weight, dim).amax((-2, -1)) * sum_allowance(weight.shape[dim])


def bound_spectral_norm(weight: Tensor) -> Tensor:
    """Return a proven bound of the largest singular value of ``weight`` (..., O, I), shape (...).

    The square root of the largest eigenvalue of the Gram matrix of the shorter side, in float64. Forming it
    errs by at most n u ||W||_F^2 <= n m u ||W||_2^2 (n longer, m shorter side), the symmetric eigenvalue
    solver is backward stable with a constant below m^2 (Golub and Van Loan, Matrix Computations, 4th ed.,
    section 8.3). The allowance covers both with a factor to spare; the result is above the true value by less
    than 1e-9 for matrices up to 1024 x 1024.

    Raises:
        ValueError: for NaN, infinity, or entries so large that their squares overflow (beyond about 1e150).
    """
    w = weight.double()
    gram = _short_gram(w)
    short, long = sorted(w.shape[-2:])
    try:
        # above 0, so that the gradient of the root is finite for W = 0
        largest = torch.linalg.eigvalsh(gram)[..., -1].clamp(min=2.0**-1070)
    except torch.linalg.LinAlgError as error:
        raise ValueError(NOT_FINITE) from error
    # Squares below 2^-1074 underflow: their square roots, for all entries together, are in the last term.
    underflow = math.sqrt(long * short) * 2.0**-536
    return largest.sqrt() * (1.0 + 4.0 * (long + short) * short * EPS64) + underflow


def bound_near_orthonormal(weight: Tensor) -> Tensor:
    """Return a proven bound of the spectral norm: cheap, and tight for orthonormal rows or columns.

    ||W||_2^2 = ||G||_2 <= 1 + ||G - I||_F with G the Gram matrix of the shorter side.
    """
    w = weight.double()
    gram = _short_gram(w)
    short, long = sorted(w.shape[-2:])
    identity = torch.eye(short, dtype=gram.dtype, device=gram.device)
    defect = torch.linalg.matrix_norm(gram - identity)
    size = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (1.0 + defect + 4.0 * (long + short * short) * EPS64 * (1.0 + size)).sqrt() * (1.0 + 4 * EPS64)


def _short_gram(w: Tensor) -> Tensor:
    return w @ w.mT if w.shape[-2] <= w.shape[-1] else w.mT @ w
