"""The l2 radii that are proven for a network from pixels to logits."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.certify import bound_radius
from lablib.layers import LipschitzSequential
from lablib.privacy import certifiable


def certified_radii(
    front: LipschitzSequential, head: nn.Sequential, images: Tensor, labels: Tensor
) -> np.ndarray:
    """Return certified l2 radii (N,) float32 in units of pixels, rounding included; 0 where the class is wrong.

    They are of the network evaluated in float64: the allowance for rounding in float32, through filters of hundreds
    of taps, is as large as the radii that matter on CIFAR-10.

    Args:
        front: public fixed layers with a known constant.
        head: trained layers.
        images: (N, C, H, W) with pixels in [0, 1]. labels: (N,).
    """
    chain = certifiable(nn.Sequential(front, head)).double()
    with torch.no_grad(), parametrize.cached():
        return bound_radius(chain, images.double(), labels)
