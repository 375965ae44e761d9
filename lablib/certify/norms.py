"""Operator norms of layers and chains from their actual weights: proven bounds and, apart, estimates.

``bound_operator_norm`` reads the weights in float64 and rounds up; for a chain it multiplies.
``estimate_operator_norm`` climbs on the Jacobian at one point: it is a *lower* bound of the constant up to
rounding, never a certificate.
"""

import math

import torch
from torch import Tensor, nn

from lablib.layers.conv import L1Conv2d, LInfConv2d, OrthonormalConv2d, SpectralConv2d
from lablib.layers.intact import check_intact, is_chain, plain_class
from lablib.layers.linear import L1Linear, LInfLinear, OrthonormalLinear, SpectralLinear
from lablib.layers.lipschitz_linear import LipschitzLinear
from lablib.layers.sequential import ConvexResidual, guarantee
from lablib.ops.conv_norms import bound_conv_norm
from lablib.ops.norms import NOT_FINITE, bound_matrix_norm, check_norm
from lablib.ops.rounding import EPS64

# Exactly these classes: a subclass may compute something else with its weights.
_LINEAR = (nn.Linear, LInfLinear, L1Linear, LipschitzLinear, SpectralLinear, OrthonormalLinear)
_CONV = (nn.Conv2d, LInfConv2d, L1Conv2d, SpectralConv2d, OrthonormalConv2d)


def bound_operator_norm(module: nn.Module, norm: str, grid: int | None = None) -> float:
    """Return a proven Lipschitz bound of ``module`` in ``norm``, from its weights as they are now.

    Linear layers and convolutions (torch's too: zero padding, no groups, no dilation) are measured; layers
    without a matrix give their stated constant; a chain multiplies, which can be far above the constant of
    the whole.

    Args:
        grid: frequencies per axis for l2 bounds of convolutions; default 64, under 0.3 % above for 3 x 3
        kernels.

    Raises:
        ValueError: if a layer states no guarantee in this norm, is a subclass that states none, or has hooks;
            if weights are not finite.
    """
    check_norm(norm)
    check_intact(module)
    with torch.no_grad():
        bound = _bound(module, norm, grid or 64)
    if not math.isfinite(bound):
        raise ValueError(NOT_FINITE)
    return bound


def _bound(module: nn.Module, norm: str, grid: int) -> float:
    kind = plain_class(module)
    if is_chain(module):
        bound = 1.0
        for layer in module:
            bound *= _bound(layer, norm, grid) * (1.0 + EPS64)
        return bound
    if kind is ConvexResidual:
        alpha = float(module.alpha)
        return ((1.0 - alpha) + alpha * _bound(module.branch, norm, grid)) * (1.0 + 4 * EPS64)
    if kind in _LINEAR:
        return float(bound_matrix_norm(module.weight, norm))
    if kind in _CONV:
        return _bound_conv(module, norm, grid)
    norms, constant = guarantee(module)
    if norm not in norms:
        raise ValueError(f"{type(module).__name__} is Lipschitz in {', '.join(norms)}, not in {norm}")
    return constant


def _bound_conv(conv: nn.Module, norm: str, grid: int) -> float:
    # Our own have neither groups nor dilation, and have checked their circular padding.
    plain = not isinstance(conv, nn.Conv2d) or (conv.groups, conv.dilation, conv.padding_mode) == (
        1,
        (1, 1),
        "zeros",
    )
    if not plain:
        raise ValueError("the bound covers convolutions with zero padding, no groups and no dilation")
    return float(bound_conv_norm(conv.weight, norm, conv.stride, grid))


def estimate_operator_norm(
    module: nn.Module, x: Tensor, norm: str, steps: int = 50, generator: torch.Generator | None = None
) -> float:
    """Return an estimate from below of the Jacobian's norm at the single sample ``x``: no certificate.

    l2: power iteration on J^T J. linf and l1: Hager's ascent (Higham, Accuracy and Stability of Numerical
    Algorithms, 2nd ed., Algorithm 15.1), on J^T for linf. Products only: no Jacobian is formed.

    Args:
        x: one sample without batch axis.

    Raises:
        ValueError: for an unknown norm or fewer than one step.
    """
    check_norm(norm)
    if steps < 1:
        raise ValueError(f"at least one step is needed, got {steps}")
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        y = module(x[None])[0]
        u = torch.zeros_like(y, requires_grad=True)
        # J^T u as a graph: it is linear in u, and its own pull-back is J v.
        pulled = torch.autograd.grad(y, x, u, create_graph=True)[0]

    def forward(v: Tensor) -> Tensor:
        return torch.autograd.grad(pulled, u, v, retain_graph=True)[0]

    def backward(v: Tensor) -> Tensor:
        return torch.autograd.grad(y, x, v, retain_graph=True)[0]

    if norm == "l2":
        start = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        return _power(forward, backward, start, steps)
    if norm == "l1":
        return _hager(forward, backward, x.detach(), steps)
    return _hager(backward, forward, y.detach(), steps)  # ||J||_inf = ||J^T||_1


def _power(forward, backward, v: Tensor, steps: int) -> float:
    value = 0.0
    for _ in range(steps):
        v = v / v.norm().clamp(min=torch.finfo(v.dtype).tiny)
        u = forward(v)
        value = float(u.norm())
        v = backward(u)
    return value


def _hager(apply, adjoint, like: Tensor, steps: int) -> float:
    """Climb ||A v||_1 over unit vectors: move to the steepest until none is better."""
    v = torch.full_like(like, 1.0 / like.numel())
    best = 0.0
    for _ in range(steps):
        u = apply(v)
        value = float(u.abs().sum())
        slope = adjoint(torch.where(u < 0, -1.0, 1.0).to(u))
        if value <= best and best > 0:
            break
        best = max(best, value)
        v = torch.zeros_like(like)
        v.view(-1)[slope.abs().argmax()] = 1.0
    return best
