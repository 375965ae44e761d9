"""A privately trained network as a chain with a proven constant, for certificates of its decisions."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.certify.chain import known_layers
from lablib.layers.base import layer_name
from lablib.layers.conv import SpectralConv2d
from lablib.layers.intact import check_intact, plain_class
from lablib.layers.linear import SpectralLinear
from lablib.layers.sequential import ConvexResidual, LipschitzSequential
from lablib.layers.shift import Scale
from lablib.ops.conv_norms import bound_conv_norm
from lablib.ops.norms import bound_matrix_norm
from lablib.privacy.cotangents import ClipCotangent
from lablib.privacy.gathering import PrivateModule
from lablib.privacy.residual import Residual

CHAINS = (nn.Sequential, LipschitzSequential)
NEARLY_ONE = 0.99  # norms from here to 1 are left as they are


def certifiable(net: nn.Module) -> LipschitzSequential:
    """Return a copy of a trained ``net`` as a chain that states its l2 constant, in evaluation mode.

        model, optimizer, criterion, loader = engine.make_private(module=net, ...)  # and train
        chain = certifiable(model)
        radii = lablib.certify.bound_radius(chain, x, y, norm="l2")

    The weights are measured now: W x + b becomes c (W/c x + b/c) with c a proven bound of ||W||, so that the
    constant of the chain is the product of all c, and of the constants of the other layers. The outputs are those
    of ``net``: bit for bit where all norms are between 0.99 and 1, as in hidden layers with orthonormal weights
    (factors behind the last layer are powers of two), else up to rounding. So hand out and run the chain itself,
    for which radii allow for rounding. Later changes of ``net`` do not reach it.

    Args:
        net: what was given to ``make_private``, or what that returned: a chain of nn.Linear, nn.Conv2d (square,
            zero padding), their nonlinearities, and residuals. ``ClipCotangent``, the identity forward, is left out.

    Returns:
        The chain, in the dtype of ``net``; frozen. ``.double()`` of it gives radii with less lost to rounding.

    Raises:
        ValueError: for a layer that is not covered, named in the message; hooks; weights that are not finite.
    """
    module = net.module if isinstance(net, PrivateModule) else net
    if plain_class(module) not in CHAINS:
        raise ValueError(
            f"a certificate needs an nn.Sequential of known layers, not {layer_name(module)}; write the "
            "network as one"
        )
    check_intact(module)
    parts = _leaves(module)
    layers = [made for part in parts for made in _certified(part, last=part is parts[-1])]
    chain = LipschitzSequential(*layers).eval().requires_grad_(False)
    known_layers(chain)  # says which layer no certificate covers
    return chain


def _leaves(module: nn.Module) -> list[nn.Module]:
    if plain_class(module) in CHAINS:
        return [leaf for part in module for leaf in _leaves(part)]
    return [] if plain_class(module) is ClipCotangent else [module]


def _certified(layer: nn.Module, last: bool) -> list[nn.Module]:
    """Return layers that state their constants and together compute what ``layer`` does."""
    kind = plain_class(layer)
    if kind is nn.Linear:
        weight, bias, factor = _scaled(layer, float(bound_matrix_norm(_plain(layer), "l2")), last)
        made = SpectralLinear(layer.in_features, layer.out_features, bias is not None).to(weight)
    elif kind is nn.Conv2d:
        size, stride, padding = _geometry(layer)
        weight, bias, factor = _scaled(layer, float(bound_conv_norm(_plain(layer), "l2", stride)), last)
        channels = layer.in_channels, layer.out_channels
        made = SpectralConv2d(*channels, size, stride, padding, bias is not None).to(weight)
    elif kind is Residual:
        branch = LipschitzSequential(
            *(new for part in _leaves(layer.branch) for new in _certified(part, False))
        )
        made = ConvexResidual(branch, layer.share)
        tensors = (*layer.parameters(), *layer.buffers())
        made.to(next((t.dtype for t in tensors if t.is_floating_point()), torch.float32))
        made.parametrizations.alpha.original.fill_(layer.share)  # in float64 more of its digits
        return [made]
    else:
        return [copy.deepcopy(layer)]
    with torch.no_grad():
        made.parametrizations.weight.original.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return [made] if factor == 1.0 else [made, Scale(factor)]


def _plain(layer: nn.Module) -> Tensor:
    weight = layer.weight.detach()
    if parametrize.is_parametrized(layer):
        raise ValueError(f"{layer_name(layer)} computes its weights by a parametrization; remove it first")
    if not all(p.isfinite().all() for p in layer.parameters()):
        raise ValueError(
            f"{layer_name(layer)} has weights that are not finite; train anew with smaller steps"
        )
    return weight


def _scaled(layer: nn.Module, norm: float, last: bool) -> tuple[Tensor, Tensor | None, float]:
    """Return W / c, b / c and c: the norm, but of the last layer the next power of two, which rounds nothing and
    loses nothing (margins there are by the rows of W)."""
    if norm == 0.0 or NEARLY_ONE <= norm <= 1.0:
        factor = 1.0
    else:
        factor = 2.0 ** math.ceil(math.log2(norm)) if last else norm
    bias = None if layer.bias is None else layer.bias.detach() / factor
    return layer.weight.detach() / factor, bias, factor


def _geometry(layer: nn.Conv2d) -> tuple[int, int, int]:
    """Return kernel size, stride and padding of a square convolution."""
    padding = {"valid": (0, 0), "same": tuple(k // 2 for k in layer.kernel_size)}.get(
        layer.padding, layer.padding
    )
    pairs = (layer.kernel_size, layer.stride, padding)
    lopsided = layer.padding == "same" and layer.kernel_size[0] % 2 == 0
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    if lopsided or not plain or any(a != b for a, b in pairs):
        raise ValueError(
            f"{layer_name(layer)} is not covered: certificates are for square kernels, strides and paddings of "
            "zeros, alike on all sides, without groups and dilation"
        )
    return tuple(pair[0] for pair in pairs)
