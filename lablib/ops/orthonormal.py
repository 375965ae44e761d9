"""Weights with a spectral norm of at most 1: orthonormal blocks, their rounding error scaled away."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lablib.ops.conv_norms import bound_conv_near_orthonormal, bound_conv_spectral, from_phases
from lablib.ops.norms import NOT_FINITE, bound_near_orthonormal, bound_spectral_norm


def cayley(free: Tensor) -> Tensor:
    """Return (1 + S)^-1 (1 - S) with S = (A - A^T) / 2: orthogonal for every real A = ``free`` (..., n, n).

    In float32 or above, also for half-precision ``free``: torch has no half-precision linear algebra. Smooth
    and defined everywhere, since 1 + S is never singular. At n = 1024 in float32 it is seven times faster than
    the matrix exponential, and closer to orthogonal; Bjorck iterations stopped early are far from it and
    diverge on badly scaled input.

    Raises:
        ValueError: if the entries are so large that 1 + S cannot be solved with.
    """
    free = free.to(_solvable(free.dtype))
    skew = (free - free.mT) / 2
    identity = torch.eye(free.shape[-1], dtype=free.dtype, device=free.device)
    try:
        return torch.linalg.solve(identity + skew, identity - skew)
    except torch.linalg.LinAlgError as error:
        raise ValueError(NOT_FINITE) from error


def orthonormal_matrix(free: Tensor, base: Tensor) -> Tensor:
    """Return the first k columns of B Q, or their transpose, with a true spectral norm of at most 1.

    Q is the Cayley map of the lower triangle of F, with zeros to its right.

    Args:
        free: (n, k) or (k, n), n >= k, any real numbers; its shape and dtype are those of the result.
        base: B (n, n), orthonormal up to rounding.
    """
    tall = free if free.shape[0] >= free.shape[1] else free.mT
    long, short = tall.shape
    rotation = cayley(F.pad(tall.tril(-1), (0, long - short)))
    columns = base.to(rotation.dtype) @ rotation[:, :short]
    return shrink_matrix(columns if tall is free else columns.mT, free.dtype)


def complete_basis(weight: Tensor) -> Tensor:
    """Return B (n, n) orthonormal, n the longer side of ``weight``, that starts with its longer columns.

    ``weight`` (n, k) or (k, n); its columns (rows) are made orthonormal where they are not, by Gram-Schmidt.
    """
    tall = (weight if weight.shape[0] >= weight.shape[1] else weight.mT).to(_solvable(weight.dtype))
    basis, factor = torch.linalg.qr(tall, mode="complete")
    signs = torch.ones(len(basis), dtype=basis.dtype, device=basis.device)
    signs[: tall.shape[1]] = torch.where(factor.diagonal() < 0, -1.0, 1.0)
    return (basis * signs).to(weight.dtype)


def random_orthonormal(like: Tensor) -> Tensor:
    """Return a random matrix of the shape and dtype of ``like``, orthonormal on its shorter side."""
    start = torch.empty(like.shape, dtype=_solvable(like.dtype), device=like.device)
    return torch.nn.init.orthogonal_(start).to(like.dtype)


def shrink_matrix(weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return ``weight`` (O, I), orthonormal up to rounding, scaled to a true spectral norm of at most 1.

    ``dtype``: of the result, default that of ``weight``.
    """
    dtype = dtype or weight.dtype
    with torch.no_grad():
        scale = 1.0 / (bound_near_orthonormal(weight) + _cast_error(weight[:, :, None, None], dtype))
    return (weight.double() * scale).to(dtype)


def scale_matrix_spectral(weight: Tensor, cap: float = 1.0) -> Tensor:
    """Return W / max(1, ||W||_2 / cap) for W (O, I); the true spectral norm of the result is at most cap."""
    bound = bound_spectral_norm(weight) + _cast_error(weight[:, :, None, None], weight.dtype)
    return (weight.double() * (cap / bound.clamp(min=cap))).to(weight.dtype)


def scale_conv_spectral(kernel: Tensor, stride: int | tuple[int, int], grid: int | None = None) -> Tensor:
    """Return K / max(1, bound) for K (O, I, k_h, k_w); the true l2 norm of the convolution is at most 1."""
    bound = bound_conv_spectral(kernel, stride, grid) + _cast_error(kernel, kernel.dtype)
    return (kernel.double() / bound.clamp(min=1.0)).to(kernel.dtype)


def orthonormal_kernel(free: Tensor, out_channels: int, in_channels: int, stride: int) -> Tensor:
    r"""Return the kernel (O, I, q s, q s) of an orthonormal convolution of stride s from free parameters.

    Block convolution orthogonal parametrisation (Li et al., "Preventing gradient attenuation in Lipschitz
    constrained convolutional networks", NeurIPS 2019, arXiv 1911.00937, section 4): with c = max(O, I s^2),
    an orthogonal c x c matrix, followed q - 1 times along each axis by the two-tap kernel [P, 1 - P], P an
    orthogonal projector of rank c // 2. Each factor A has A A^T = 1 on the lattice, so their product has.
    Space to depth takes care of the stride (:func:`~lablib.ops.conv_norms.to_phases`); leaving out rows or
    columns keeps the norm at most 1.

    With circular padding (stride 1) the operator is exactly orthonormal up to rounding, with zero padding it
    is a piece of an orthonormal one: 1-Lipschitz. The last rounding error is scaled away.

    Args:
        free: (1 + 2 (q - 1), c, c), any real numbers.
    """
    size = free.shape[-1]
    taps = (free.shape[0] + 1) // 2
    rotations = cayley(free)
    kernel = rotations[0][:, :, None, None]
    half = rotations[1:, :, : size // 2]
    projectors = half @ half.mT
    for step in range(taps - 1):
        kernel = _append_two_taps(kernel, projectors[2 * step], axis=2)
        kernel = _append_two_taps(kernel, projectors[2 * step + 1], axis=3)
    with torch.no_grad():
        scale = 1.0 / (bound_conv_near_orthonormal(kernel) + _cast_error(kernel, free.dtype))
    kernel = (kernel.double() * scale).to(free.dtype)
    return from_phases(kernel[:out_channels, : in_channels * stride * stride], stride)


def _append_two_taps(kernel: Tensor, projector: Tensor, axis: int) -> Tensor:
    """Compose ``kernel`` with the two-tap kernel [P, 1 - P] along ``axis``: one tap longer there."""
    kept = torch.einsum("ab,bcij->acij", projector, kernel)
    rest = kernel - kept
    gap = torch.zeros_like(kernel.narrow(axis, 0, 1))
    return torch.cat([kept, gap], axis) + torch.cat([gap, rest], axis)


def _solvable(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which to factorise: torch has no half-precision linear algebra."""
    return torch.promote_types(dtype, torch.float32)


def _cast_error(kernel: Tensor, dtype: torch.dtype) -> Tensor:
    """Bound what rounding the scaled kernel to ``dtype`` adds to the norm.

    Entries move by eps/2, so the norm by at most eps/2 sum_t ||K_t||_F. Doubled: that covers the scaling itself.
    """
    return torch.finfo(dtype).eps * torch.linalg.matrix_norm(kernel.detach().double(), dim=(0, 1)).sum()
