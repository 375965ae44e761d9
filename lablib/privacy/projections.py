"""Keeping weights small after each private step: projections, with the operator norms they prove.

A step with noise moves weights out of the set on which sensitivities are small; a projection brings them back. It
sees the weights only, which are public by then: post-processing costs no privacy.
"""

import math

import torch
from torch import Tensor, nn

from lablib.ops.conv_norms import to_phases
from lablib.ops.norms import NOT_FINITE
from lablib.ops.orthonormal import scale_conv_spectral, scale_matrix_spectral, shrink_matrix
from lablib.ops.rounding import target_below_one
from lablib.privacy.polar import nearly_orthonormal_kernel, polar_factor, polish

CONSTRAINTS = ("orthonormal", "spectral", "frobenius", None)


def check_constraint(constraint: str | None) -> str | None:
    """Return ``constraint`` if it is one of :data:`CONSTRAINTS`.

    Raises:
        ValueError: otherwise.
    """
    if constraint is not None and (not isinstance(constraint, str) or constraint not in CONSTRAINTS):
        raise ValueError(
            f'unknown constraint {constraint!r}; use "orthonormal", "spectral", "frobenius" or None'
        )
    return constraint


@torch.no_grad()
def project(module: nn.Module, constraint: str | None) -> dict[str, float]:
    """Project every trained ``nn.Linear`` and ``nn.Conv2d`` weight of ``module`` in place; return proven norms.

    ===============  =======================================  ==========================================
    ``constraint``   matrix W (O, I)                          kernel K (O, I, k_h, k_w)
    ===============  =======================================  ==========================================
    "orthonormal"    polar factor U V^T of W = U S V^T        patches (stride >= kernel): the same of
                                                              (O, I k_h k_w); else steps towards an
                                                              orthonormal convolution, then as "spectral"
    "spectral"       W / max(1, ||W||_2)                      K / max(1, ||K||) on the infinite lattice
    "frobenius"      W / max(1, ||W||_F)                      K / max(1, sqrt(r) ||K||_F)
    ===============  =======================================  ==========================================

    with r = ceil(k_h / s_h) ceil(k_w / s_w). Orthonormal weights keep cotangents from vanishing on their way back,
    so that the noise is in proportion to gradients (Bethune et al., ICLR 2024, arXiv 2305.16202, section 3.2).
    Biases, and parameters with ``requires_grad=False``, stay as they are.

    Returns:
        {full parameter name: a proven bound of its l2 operator norm, at most 1}; empty for None. It holds for the
        stored weights, rounding included, until they are changed.

    Raises:
        ValueError: for an unknown constraint, weights that are not finite, or a convolution with groups, dilation or
            another padding than zeros.
    """
    check_constraint(constraint)
    norms: dict[str, float] = {}
    if constraint is None:
        return norms
    for name, part in module.named_modules():
        if type(part) not in (nn.Linear, nn.Conv2d) or not part.weight.requires_grad:
            continue
        full = f"{name}.weight" if name else "weight"
        _check(part, full)
        if part.weight.numel():
            own = _projected_matrix if isinstance(part, nn.Linear) else _projected_kernel
            part.weight.copy_(own(part, constraint))
        norms[full] = 1.0
    return norms


def _check(part: nn.Module, name: str) -> None:
    if part.weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{name} is in {part.weight.dtype}; private training is for float32 and float64, convert it"
        )
    if part.weight.numel() and not bool(part.weight.abs().amax().isfinite()):
        raise ValueError(f"{name}: {NOT_FINITE}")
    if isinstance(part, nn.Conv2d) and (part.groups, part.dilation, part.padding_mode) != (
        1,
        (1, 1),
        "zeros",
    ):
        raise ValueError(
            f"{name}: only convolutions with zero padding, without groups and dilation, are projected"
        )


def _projected_matrix(layer: nn.Linear, constraint: str) -> Tensor:
    weight = _tamed(layer.weight)
    if constraint == "frobenius":
        return _scale_frobenius(weight, 1.0)
    if constraint == "spectral":
        return scale_matrix_spectral(weight)
    return _orthonormal(weight)


def _projected_kernel(layer: nn.Conv2d, constraint: str) -> Tensor:
    weight, stride = _tamed(layer.weight), layer.stride
    patches = all(k <= s for k, s in zip(layer.kernel_size, stride))
    if constraint == "frobenius":
        return _scale_frobenius(weight, math.sqrt(math.prod(to_phases(weight, stride).shape[2:])))
    if patches and constraint == "spectral":
        return scale_matrix_spectral(weight.flatten(1)).reshape(weight.shape)
    if patches:
        return _orthonormal(weight.flatten(1)).reshape(weight.shape)
    if constraint == "orthonormal":
        weight = nearly_orthonormal_kernel(weight, stride)
    return scale_conv_spectral(weight, stride)


def _orthonormal(weight: Tensor) -> Tensor:
    """Return the polar factor of ``weight`` (O, I), or one round towards it, its true norm at most 1."""
    near = polish(weight)
    return shrink_matrix(polar_factor(weight)) if near is None else near


def _scale_frobenius(weight: Tensor, factor: float) -> Tensor:
    """Return W / max(1, factor ||W||_F); the true value of factor ||W||_F is then at most 1."""
    limit = target_below_one(weight.numel(), weight.dtype) / factor
    size = torch.linalg.vector_norm(weight.double())
    return (weight.double() * (limit / size.clamp(min=limit))).to(weight.dtype)


def _tamed(weight: Tensor) -> Tensor:
    """Scale entries beyond 1e15 to that: their squares overflow. Any projection of them has norm 1 anyhow."""
    largest = weight.abs().amax()
    return weight * (1e15 / largest) if bool(largest > 1e15) else weight
