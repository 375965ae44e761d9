"""The rules of layers with weights: see :mod:`lablib.privacy.rules` for what a rule says."""

import dataclasses
import math

from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.ops.conv_norms import bound_conv_norm
from lablib.ops.norms import bound_matrix_norm
from lablib.privacy.effects import SLACK, Arithmetics, Effect, Flow, Measured, norm_of, times
from lablib.privacy.windows import Windows


def linear(layer: nn.Linear, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    r"""y = W x + b, at each of P positions (all axes but the last; P = 1 for vectors).

        X' = ||W||_2 X + sqrt(P) ||b||
        gradient by x:  W^T g,           gain ||W||_2
        gradient by W:  sum_p g_p x_p^T, Frobenius norm <= sum_p ||g_p|| ||x_p|| <= G X  (Cauchy-Schwarz)
        gradient by b:  sum_p g_p,       norm <= sqrt(P) G

    Attained by W orthonormal, x along its first row, g = W x.
    """
    _check_plain(layer)
    outputs, inputs = layer.weight.shape
    if not flow.shape or flow.shape[-1] != inputs:
        raise ValueError(
            f"nn.Linear takes {inputs} features, its input has shape {flow.shape}; correct either"
        )
    norm = measured("weight")
    if norm is None:
        norm = float(bound_matrix_norm(layer.weight.detach(), "l2"))
    product = _Product(norm, norm_of(layer.weight), inputs, outputs, math.prod(flow.shape[:-1]))
    return _affine(layer, flow, how, product, (*flow.shape[:-1], outputs))


def convolution(layer: nn.Conv2d, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    r"""A convolution with zero padding: y = K U x, U the unfolding of the image into patches (I k_h k_w, P).

    Each pixel is in at most r = r_h r_w patches, r_h <= ceil(k_h / s_h) exactly counted at the border, so U^T U is
    diagonal with entries <= r and ||U||_2 = sqrt(r): 1 for patches (stride = kernel), sqrt(k_h k_w) for stride 1.

        X' = ||A|| X + sqrt(P) ||b||,    A = K U,  ||A|| <= min(lattice norm, sqrt(r) ||K||_2)
        gradient by x:  A^T g,           gain ||A||
        gradient by K:  g (U x)^T,       Frobenius norm <= ||g|| ||U x|| <= sqrt(r) G X
        gradient by b:  sum_p g_p,       norm <= sqrt(P) G

    with ||K||_2 of the kernel as a matrix (O, I k_h k_w). For the kernel it does not matter how it was scaled: the
    gradient is by the stored kernel.
    """
    if layer.groups != 1 or layer.dilation != (1, 1) or layer.padding_mode != "zeros":
        raise ValueError("only convolutions with zero padding, without groups and dilation, are covered")
    _check_plain(layer)
    channels = layer.weight.shape[1]
    if len(flow.shape) != 3 or flow.shape[0] != channels:
        raise ValueError(
            f"nn.Conv2d takes images ({channels}, H, W), its input has shape {flow.shape}; correct either"
        )
    axes = _conv_windows(layer, flow.shape[1:])
    reach = math.sqrt(math.prod(axis.overlap() for axis in axes))
    norm = measured("weight")
    if norm is None:
        norm = bound_kernel(layer.weight.detach(), layer.stride, reach)
    outputs, taps = len(layer.weight), math.prod(layer.kernel_size)
    grid = tuple(axis.count for axis in axes)
    product = _Product(norm, norm_of(layer.weight), channels * taps, outputs * taps, math.prod(grid), reach)
    return _affine(layer, flow, how, product, (outputs, *grid))


def bound_kernel(kernel: Tensor, stride: tuple[int, int], reach: float) -> float:
    """Return a proven bound of the convolution's l2 norm: that on the lattice, or ``reach`` ||K||_2 if less."""
    lattice = float(bound_conv_norm(kernel, "l2", stride))
    return min(lattice, reach * float(bound_matrix_norm(kernel.flatten(1), "l2")) * (1.0 + SLACK))


@dataclasses.dataclass(frozen=True)
class _Product:
    """A product with weights: its operator norm, the Frobenius norm, terms of sums forward and backward, positions,
    and ``reach``, the norm of the unfolding."""

    norm: float
    frobenius: float
    terms: int
    terms_back: int
    positions: int
    reach: float = 1.0


def _affine(
    layer: nn.Module, flow: Flow, how: Arithmetics, product: _Product, shape: tuple[int, ...]
) -> Effect:
    absolute = product.frobenius * product.reach  # bounds the norm of |W|, or of |K| U
    shift, parameters = 0.0, {}
    if layer.bias is not None:
        shift = math.sqrt(product.positions) * norm_of(layer.bias)
        if layer.bias.requires_grad:
            parameters["bias"] = math.sqrt(product.positions) * (1.0 + how.sums(product.positions) + SLACK)
    if layer.weight.requires_grad:
        share = product.reach * flow.norm
        parameters["weight"] = share * (1.0 + how.products(product.positions) + SLACK)
    forward = product.norm + how.products(product.terms) * absolute + SLACK
    return Effect(
        shape,
        times(forward, flow.norm) + shift * (1.0 + how.sums(product.terms + 2) + SLACK),
        product.norm + how.products(product.terms_back) * absolute + SLACK,
        parameters,
    )


def _check_plain(layer: nn.Module) -> None:
    """Refuse weights computed from free parameters: the gradient by those is another, with no bound."""
    if parametrize.is_parametrized(layer) and any(p.requires_grad for p in layer.parameters()):
        raise ValueError(
            "its weights are computed by a parametrization, and gradients by what is behind them have no bound here; "
            'remove it and take constraint="orthonormal", which projects the weights after each step'
        )


def _conv_windows(layer: nn.Conv2d, sizes: tuple[int, ...]) -> tuple[Windows, Windows]:
    if layer.padding == "valid":
        padding = (0, 0, 0, 0)
    elif layer.padding == "same":  # torch pads the last side by one more where the total is odd
        totals = [k - 1 for k in layer.kernel_size]
        padding = tuple(side for total in totals for side in (total // 2, total - total // 2))
    else:
        padding = tuple(p for p in layer.padding for _ in range(2))
    return tuple(
        Windows(size, k, s, before, after)
        for size, k, s, before, after in zip(
            sizes, layer.kernel_size, layer.stride, padding[::2], padding[1::2]
        )
    )
