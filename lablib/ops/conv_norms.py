r"""Operator norms of convolutions with zero padding: proven for every stride, padding and input size.

A kernel K has shape (O, I, k_h, k_w). The convolution of a finite image with zero padding and stride s is a
piece (some rows, some columns) of the convolution of the infinite lattice Z^2, so the norm of the latter
bounds it.

Stride. Splitting the lattice into its s x s phases (space to depth) keeps every l_p norm and turns a strided
convolution into one of stride 1 with I s^2 input channels and a kernel of ceil(k / s): see :func:`to_phases`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lablib.ops.norms import absolute_sums, bound_spectral_norm, check_norm
from lablib.ops.rounding import EPS64, sum_allowance

Stride = int | tuple[int, int]


def to_phases(kernel: Tensor, stride: Stride) -> Tensor:
    """Return the stride-1 kernel (O, I s_h s_w, ceil(k_h / s_h), ceil(k_w / s_w)) of a strided convolution.

    Tap t = s q + r reads phase r of the input, q steps on. Missing taps are zeros.
    """
    s_h, s_w = _pair(stride)
    out, inputs, k_h, k_w = kernel.shape
    q_h, q_w = -(-k_h // s_h), -(-k_w // s_w)
    padded = F.pad(kernel, (0, q_w * s_w - k_w, 0, q_h * s_h - k_h))
    split = padded.reshape(out, inputs, q_h, s_h, q_w, s_w)
    return split.permute(0, 1, 3, 5, 2, 4).reshape(out, inputs * s_h * s_w, q_h, q_w)


def from_phases(phases: Tensor, stride: Stride) -> Tensor:
    """Undo :func:`to_phases` where the stride divides the kernel size: (O, I s s, q, q) to (O, I, q s, q s)."""
    s_h, s_w = _pair(stride)
    out, channels, q_h, q_w = phases.shape
    split = phases.reshape(out, channels // (s_h * s_w), s_h, s_w, q_h, q_w)
    return split.permute(0, 1, 4, 2, 5, 3).reshape(out, channels // (s_h * s_w), q_h * s_h, q_w * s_w)


def bound_conv_norm(kernel: Tensor, norm: str, stride: Stride = 1, grid: int | None = None) -> Tensor:
    """Return a proven bound of the operator norm of a zero-padded convolution from ``norm`` to ``norm``.

    linf: the largest sum of |K| over (I, k_h, k_w) of an output. l1: the largest sum over (O, k_h, k_w) of an
    input channel and phase. Both are attained by images larger than the kernel. l2:
    :func:`bound_conv_spectral`.

    Raises:
        ValueError: for an unknown norm or a kernel that is not (O, I, k_h, k_w).
    """
    check_norm(norm)
    if norm == "l2":
        return bound_conv_spectral(kernel, stride, grid)
    _check_kernel(kernel)
    phases = to_phases(kernel, stride)
    dims = (1, 2, 3) if norm == "linf" else (0, 2, 3)
    return absolute_sums(phases, dims).max() * sum_allowance(math.prod(phases.shape[d] for d in dims))


def bound_conv_spectral(kernel: Tensor, stride: Stride = 1, grid: int | None = None) -> Tensor:
    r"""Return a proven bound of the l2 norm of a zero-padded convolution: any stride, any input size.

    After :func:`to_phases` the kernel has q x q taps and stride 1, and the lattice operator has the norm
    sup_w ||K(w)||_2, with K(w) = sum_t K_t e^{-i t.w} an O x I s^2 matrix. A grid of N x N frequencies shows
    only part of it. For a fixed unit vector u, p(w) = ||K(w) u||^2 is a *nonnegative* trigonometric
    polynomial of degree n = q - 1 in each of w_1, w_2. Let M = max p.

    One variable: h = p - M/2 has |h| <= M/2 and attains M/2, so by M. Riesz's lemma h(w* + x) >= (M/2) cos(n
    x) for |x| <= pi/n. A grid of N points has one within pi/N of the maximum, hence

        max over the grid of p  >=  M (1 + cos(n pi / N)) / 2  =  M cos^2(n pi / (2 N)).

    (Without the shift by M/2 the same lemma gives cos(n pi / N): Ehlich and Zeller, Math. Z. 86, 1964.) Two
    variables: move to the grid in w_1, then in w_2: the factors multiply. So

        ||K||  <=  max over the grid of ||K(w)||_2 / (cos(n_h pi / (2 N)) cos(n_w pi / (2 N))).

    Args:
        kernel: (O, I, k_h, k_w).
        stride: one number or (s_h, s_w).
        grid: N; default 8 per degree, within 2 % of the norm per axis. More is tighter and slower.

    Raises:
        ValueError: for a kernel of another rank, or a grid so coarse that the cosine is not positive.
    """
    _check_kernel(kernel)
    phases = to_phases(kernel.double(), stride)
    sizes = [_grid_size(taps - 1, grid) for taps in phases.shape[2:]]
    factor = math.prod(math.cos((q - 1) * math.pi / (2 * n)) for q, n in zip(phases.shape[2:], sizes))
    # A real kernel has K(-w) = conj K(w): half of the frequencies are enough.
    spectrum = torch.fft.rfft2(phases, s=sizes).permute(2, 3, 0, 1)
    # [[Re, -Im], [Im, Re]] is the same operator on real vectors, and has no complex phase to differentiate.
    top = torch.cat([spectrum.real, -spectrum.imag], -1)
    real = torch.cat([top, torch.cat([spectrum.imag, spectrum.real], -1)], -2)
    # The FFT errs by a few u log N per tap, relative to the Frobenius norm of the whole kernel.
    fft_error = 16 * EPS64 * (4 + sum(math.log2(n) for n in sizes)) * phases.flatten().norm()
    fft_error = fft_error * math.sqrt(phases.shape[2] * phases.shape[3])
    return (bound_spectral_norm(real).max() + fft_error) / (factor * (1 - 8 * EPS64))


def bound_conv_near_orthonormal(phases: Tensor) -> Tensor:
    """Return a proven bound of the lattice l2 norm of a stride-1 kernel that is tight when it is orthonormal.

    A A^T is the convolution with the autocorrelation R_d = sum_t K_t K_{t+d}^T, so
    ||A||^2 <= 1 + sum_d ||R_d - [d = 0] I||_F: zero defect exactly when A A^T = I. ``phases``: (O, I, q_h,
    q_w), O <= I; a kernel with O > I is read through A^T A in the same way.
    """
    k = phases.double()
    k = k if k.shape[0] <= k.shape[1] else k.transpose(0, 1)
    q_h, q_w = k.shape[2:]
    correlation = F.conv2d(k, k, padding=(q_h - 1, q_w - 1))
    identity = torch.zeros_like(correlation)
    identity[:, :, q_h - 1, q_w - 1] = torch.eye(k.shape[0], dtype=k.dtype, device=k.device)
    defect = torch.linalg.matrix_norm((correlation - identity).permute(2, 3, 0, 1)).sum()
    terms = k.shape[1] * q_h * q_w
    rounding = 4 * EPS64 * terms * (2 * q_h - 1) * (2 * q_w - 1) * (1 + k.square().sum())
    return (1.0 + defect + rounding).sqrt() * (1 + 4 * EPS64)


def _grid_size(degree: int, grid: int | None) -> int:
    size = grid if grid is not None else max(1, 8 * degree)
    if size <= degree or size < 1:
        raise ValueError(
            f"a grid of {size} frequencies cannot bound a kernel of degree {degree}; use more than that"
        )
    return size if degree else 1  # one tap: the same at every frequency


def _check_kernel(kernel: Tensor) -> None:
    if kernel.dim() != 4 or kernel.numel() == 0:
        raise ValueError(
            f"a convolution kernel is (O, I, k_h, k_w) and not empty, got shape {tuple(kernel.shape)}"
        )


def _pair(value: Stride) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
