"""Orthonormal weights near given ones, cheaply: products of matrices only, as long as they are nearly orthonormal.

What comes out is close to orthonormal, only :func:`polish` with a proof; :mod:`lablib.privacy.projections` scales
by a proven bound.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lablib.certify.arithmetic import check_arithmetic
from lablib.ops.conv_norms import to_phases
from lablib.ops.rounding import EPS64

_NEAR = 0.15  # ||W W^T - 1||_F up to which one round is enough: less than 0.11 % from orthonormal
_ROUNDS = 20  # after which other ways take over
_SMALL = 0.1  # one round after a defect d it is below d^3 / 3


def polar_factor(weight: Tensor) -> Tensor:
    r"""Return the polar factor U V^T of W = U S V^T (O, I), O, I >= 1: the nearest matrix with orthonormal rows or
    columns.

    U V^T = (W W^T)^{-1/2} W for O <= I. The root of the small matrix G = W W^T comes from the coupled iteration

        M = Z Y,   T = 1 + (1 - M) / 2 + 3 (1 - M)^2 / 8,   Y <- Y T,   Z <- T Z,

    from Y = G / c, Z = 1, so that Z -> (G / c)^{-1/2} with errors cubed in each round (Newton-Schulz with one more
    term; Higham, Functions of Matrices, 2008, sections 6.7 and 5.3). It converges for eigenvalues of G / c below 7
    / 3; one round is enough for weights that a training step moved from orthonormal ones. Where it does not
    converge (weights near a lower rank), the decomposition is computed in float64; a matrix of zeros becomes some
    orthonormal one.
    """
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.mT
    gram = wide @ wide.mT
    root = _inverse_root(gram)
    if root is None:
        left, _, right = torch.linalg.svd(wide.double(), full_matrices=False)
        factor = (left @ right).to(weight.dtype)
    else:
        factor = root @ wide
    return factor if wide is weight else factor.mT


def polish(weight: Tensor) -> Tensor | None:
    r"""Return W (O, I) one round nearer to orthonormal, with a true spectral norm of at most 1; None if it is far.

    Let G = W W^T (O <= I) and E = G - 1 with ||E||_F <= s. For an eigenvalue 1 + e of G, |e| <= s, the round

        W <- T W,   T = 1 - E / 2 + 3 E^2 / 8

    gives (1 + e)(1 - e/2 + 3 e^2/8)^2 = 1 + 5 e^3/8 - 15 e^4/64 + 9 e^5/64 <= 1 + 5 s^3/8 + 9 s^5/64, whose root
    bounds the norm. So the one Gram matrix in float64 proves the norm of what comes out. The rest is rounding (u,
    gamma_r = r u / (1 - r u), r the shorter side), relative to ||W||_F:

        of T  gamma (s + s^2),  of the product  gamma ||T - 1||_F,  of sum and scaling  4 u.
    """
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.mT
    exact = wide.double()
    rest = exact @ exact.mT
    diagonal = rest.diagonal()
    total = float(diagonal.sum())
    diagonal -= 1.0
    short, long = wide.shape
    s = float(torch.linalg.matrix_norm(rest)) + (long + short * short + 8) * EPS64 * (1.0 + total)
    unit = torch.finfo(weight.dtype).eps / 2
    if not s <= _NEAR or short * unit > 1e-3 or not _rounds_plainly(weight.device):
        return None
    rest = rest.to(weight.dtype)
    change = (rest @ rest).mul_(0.375).sub_(rest, alpha=0.5)
    gamma = (short + 8) * unit * 1.01
    frobenius = math.sqrt(total) * 1.001
    rounding = frobenius * (gamma * (s + s * s) + gamma * (0.5 * s + 0.375 * s * s) + 4.0 * unit) * 1.2
    bound = math.sqrt(1.0 + 0.625 * s**3 + 0.15 * s**5) + rounding
    # not addmm, which may round W as often as there are terms
    scaled = (wide + change @ wide) / (bound * (1.0 + 2.0 * unit))
    return scaled if wide is weight else scaled.mT


def _rounds_plainly(device: torch.device) -> bool:
    """Whether float32 products on ``device`` are sums of float32 products, and nothing coarser."""
    try:
        check_arithmetic(device, True, False)
    except ValueError:
        return False
    return True


def _inverse_root(gram: Tensor) -> Tensor | None:
    """Return G^{-1/2} (r, r), None where the iteration does not converge."""
    count = len(gram)
    # eigenvalues on both sides of 1, none near 7 / 3
    size = max(float(gram.trace()) / count, 0.55 * _estimate_largest(gram))
    if not size > 0.0:
        return None
    identity = torch.eye(count, dtype=gram.dtype, device=gram.device)
    y, z = gram / size, None
    for _ in range(_ROUNDS):
        rest = identity - (y if z is None else z @ y)
        defect = float(torch.linalg.matrix_norm(rest))
        if not defect < 2.0 * count:  # also NaN
            return None
        step = identity + rest @ (0.5 * identity + 0.375 * rest)
        z = step if z is None else step @ z
        if defect <= _SMALL:
            return z / size**0.5
        y = y @ step
    return None


def _estimate_largest(gram: Tensor) -> float:
    """Estimate the largest eigenvalue from below by power iteration."""
    vector = torch.linspace(1.0, 2.0, len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(8):
        vector = gram @ vector
        vector = vector / torch.linalg.vector_norm(vector).clamp(min=1e-30)
    return float(torch.linalg.vector_norm(gram @ vector))


def nearly_orthonormal_kernel(kernel: Tensor, stride: tuple[int, int]) -> Tensor:
    r"""Return a kernel of the same size whose convolution A is nearer to A A^T = 1 (or A^T A = 1).

    Steps A <- A - (A A^T - 1) A / 2 (Bjorck and Bowie, SIAM J. Numer. Anal. 8, 1971) on the lattice, each cut to the
    taps there are: gradient steps on ||A A^T - 1||_F^2 among kernels of this size. As many as make progress, at most
    20; since the next projection goes on from here, a few hundred training steps come close to what there is.
    """
    phases = to_phases(kernel, stride)
    kept = to_phases(torch.ones_like(kernel), stride)
    wide = phases.shape[0] <= phases.shape[1]
    k, mask = (phases, kept) if wide else (phases.transpose(0, 1), kept.transpose(0, 1))
    size = _estimate_lattice_norm(k)
    if not size > 0.0:
        return kernel
    # steps converge for norms below sqrt(3), so an estimate will do
    k = k / size
    q_h, q_w = k.shape[2:]
    before = float("inf")
    for _ in range(_ROUNDS):
        excess = F.conv2d(k, k, padding=(q_h - 1, q_w - 1))
        excess[:, :, q_h - 1, q_w - 1] -= torch.eye(len(k), dtype=k.dtype, device=k.device)
        defect = float(excess.square().sum())
        if not defect < 0.98 * before or defect <= 1e-4 * len(k):
            break
        before = defect
        step = F.conv2d(k.transpose(0, 1), excess.flip(2, 3), padding=(q_h - 1, q_w - 1)).transpose(0, 1)
        k = k - 0.5 * mask * step
    return _from_phases(k if wide else k.transpose(0, 1), stride, kernel.shape)


def _estimate_lattice_norm(k: Tensor) -> float:
    """Estimate the norm of a stride-1 convolution by power iteration on a small picture."""
    q_h, q_w = k.shape[2:]
    x = torch.linspace(1.0, 2.0, k.shape[1] * (2 * q_h + 3) * (2 * q_w + 3), dtype=k.dtype, device=k.device)
    x = x.reshape(1, k.shape[1], 2 * q_h + 3, 2 * q_w + 3).sin()
    size = 0.0
    for _ in range(8):
        x = x / torch.linalg.vector_norm(x).clamp(min=1e-30)
        y = F.conv2d(x, k, padding=(q_h - 1, q_w - 1))
        size = float(torch.linalg.vector_norm(y))
        x = F.conv_transpose2d(y, k, padding=(q_h - 1, q_w - 1))
    return size


def _from_phases(phases: Tensor, stride: tuple[int, int], shape: torch.Size) -> Tensor:
    """Undo ``to_phases`` for a kernel of any size: the taps beyond it are left out."""
    (s_h, s_w), (out, channels, k_h, k_w) = stride, shape
    q_h, q_w = phases.shape[2:]
    split = phases.reshape(out, channels, s_h, s_w, q_h, q_w).permute(0, 1, 4, 2, 5, 3)
    return split.reshape(out, channels, q_h * s_h, q_w * s_w)[:, :, :k_h, :k_w]
