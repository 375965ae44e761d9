"""The network from pixels to logits as one 1-Lipschitz chain, and the l2 radii that are proven for it."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.certify import bound_radius
from lablib.layers import LipschitzSequential, SpectralLinear
from lablib.ops.norms import bound_matrix_norm


def certified_radii(
    front: LipschitzSequential, head: nn.Sequential, images: Tensor, labels: Tensor
) -> np.ndarray:
    """Return certified l2 radii (N,) float32 in units of pixels, rounding included; 0 where the class is wrong.

    They are of the network evaluated in float64: the allowance for rounding in float32, through filters of hundreds
    of taps, is as large as the radii that matter on CIFAR-10.

    Args:
        front: public fixed layers, 1-Lipschitz.
        head: trained layers without biases; linear ones but the last of norm at most 1, as projections leave them.
        images: (N, C, H, W) with pixels in [0, 1]. labels: (N,).
    """
    chain = as_chain(front, head).double()
    with torch.no_grad(), parametrize.cached():
        return bound_radius(chain, images.double(), labels)


def as_chain(front: LipschitzSequential, head: nn.Sequential) -> LipschitzSequential:
    """Return front and head as one chain of norm at most 1.

    A positive factor of the logits changes no decision and no radius, so the last layer is scaled to norm 1.
    """
    layers = list(front)
    for layer in head:
        layers.append(_spectral(layer, last=layer is head[-1]) if type(layer) is nn.Linear else layer)
    return LipschitzSequential(*layers).eval().requires_grad_(False)


def _spectral(layer: nn.Linear, last: bool) -> SpectralLinear:
    weight = layer.weight.detach()
    if last:
        weight = weight / max(float(bound_matrix_norm(weight, "l2")), 1e-30)
    made = SpectralLinear(layer.in_features, layer.out_features)
    with torch.no_grad():
        made.parametrizations.weight.original.copy_(weight)
        made.bias.zero_()
    return made
