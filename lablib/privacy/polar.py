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

# Of polish: ||W W^T - 1||_F at most, and ||W W^T - 1||_2 for one round and for its short form.
_REACH, _FAR, _NEAR = 2.0, 0.4, 0.15
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

    Let E = W W^T - 1 (O <= I), f = ||E||_F, and s^2 = min(f^2, ||E^2||_F) >= ||E||_2^2. The round is W <- T W with

        T = 1 - E / 2 + 3 E^2 / 8  [- 5 E^3 / 16 + 35 E^4 / 128  for s above 0.15],

    the start of the series of (1 + E)^(-1/2). For an eigenvalue e of E the singular value sqrt(1 + e) becomes
    sqrt(1 + e) t(e): at most 1 for e < 0, where all terms left out are positive, and for e > 0 at most

        1 + (1 + s / 2) 5 s^3 / 16   or   1 + (1 + s / 2) 63 s^5 / 256,

    since the first term left out is larger than the rest. So the one Gram matrix in float64 proves the norm of what
    comes out. The rest is rounding: with c = ||T - 1||_F, r the shorter side and gamma = (r + 8) u,

        of T  gamma (f / 5 + f^2 / 2 [+ f^3 + f^4]) ||W||_2,  of the product  gamma c ||W||_F,  of sums  4 u ||W||_F.
    """
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.mT
    exact = wide.double()
    rest = exact @ exact.mT
    diagonal = rest.diagonal()
    total = float(diagonal.sum())
    diagonal -= 1.0
    short, long = wide.shape
    f = float(torch.linalg.vector_norm(rest)) + (long + short * short + 8) * EPS64 * (1.0 + total)
    unit = torch.finfo(weight.dtype).eps / 2
    if not f <= _REACH or short * unit > 1e-3 or not _rounds_plainly(weight.device):
        return None
    gamma = (short + 8) * unit * 1.01
    rest = rest.to(weight.dtype)
    square = rest @ rest
    q = float(torch.linalg.vector_norm(square, dtype=torch.float64)) * (1.0 + 1e-9) + gamma * f * f
    s = min(f, math.sqrt(q))
    if s > _FAR:
        return None
    change = 0.375 * square - 0.5 * rest
    size, error = 0.5 * f + 0.375 * q, 0.2 * f + 0.5 * f**2
    excess = 0.3125 * s**3
    if s > _NEAR:
        change += square @ (0.2734375 * square - 0.3125 * rest)
        size, error = size + q * (0.3125 * f + 0.2734375 * q), error + f**3 + f**4
        excess = 0.2461 * s**5
    frobenius = math.sqrt(total) * 1.001
    rounding = gamma * error * (1.0 + s) + gamma * size * 1.01 * frobenius + 4.0 * unit * frobenius
    bound = 1.0 + (1.0 + 0.5 * s) * excess + 1.1 * rounding
    # not addmm, which may round W as often as there are terms
    scaled = (change @ wide).add_(wide).div_(bound * (1.0 + 2.0 * unit))
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
