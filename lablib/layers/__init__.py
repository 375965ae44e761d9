"""Layers whose Lipschitz constant is proven, for one's own networks. Each states ``norms`` and ``lipschitz``.

    from lablib.layers import LInfLinear, LipschitzSequential, MaxMin
    net = LipschitzSequential(LInfLinear(784, 128), MaxMin(), LInfLinear(128, 10))
    net.norms, net.lipschitz      # ('linf',), 1.0

Constraints are torch parametrizations: they hold after every optimiser step and after loading a state dict.
"""

from lablib.layers.activations import Abs, FullSort, GroupSort, Householder, LeakyReLU, MaxMin, PReLU
from lablib.layers.base import LipschitzLayer
from lablib.layers.conv import L1Conv2d, LInfConv2d, OrthonormalConv2d, SpectralConv2d
from lablib.layers.describe import describe
from lablib.layers.distance import LInfDistance, LInfDistanceConv2d, SortNetConv2d, SortNetLayer
from lablib.layers.frozen import FrozenMonotone
from lablib.layers.linear import L1Linear, LInfLinear, OrthonormalLinear, SpectralLinear
from lablib.layers.lipschitz_linear import LipschitzLinear, direct_norm
from lablib.layers.monotone import MonotoneNetwork
from lablib.layers.monotonic_wrapper import MonotonicWrapper
from lablib.layers.partials import bound_partials
from lablib.layers.per_sample import CentreSample, ClipNorm
from lablib.layers.sequential import ConvexResidual, LipschitzSequential, guarantee
from lablib.layers.shift import MeanShift, Normalise, Scale
from lablib.layers.sortnet_models import SortConv, SortHybrid, SortMLP, recompute_means
from lablib.layers.splines import (
    LearnableSpline,
    PiecewiseLinear,
    spline_parameter_groups,
    total_variation,
)
from lablib.layers.subsets import SubsetSource

__all__ = [
    "Abs",
    "CentreSample",
    "ClipNorm",
    "ConvexResidual",
    "FrozenMonotone",
    "FullSort",
    "GroupSort",
    "Householder",
    "L1Conv2d",
    "L1Linear",
    "LInfConv2d",
    "LInfDistance",
    "LInfDistanceConv2d",
    "LInfLinear",
    "LeakyReLU",
    "LearnableSpline",
    "LipschitzLayer",
    "LipschitzLinear",
    "LipschitzSequential",
    "MaxMin",
    "MeanShift",
    "MonotoneNetwork",
    "MonotonicWrapper",
    "Normalise",
    "OrthonormalConv2d",
    "OrthonormalLinear",
    "PReLU",
    "PiecewiseLinear",
    "Scale",
    "SortConv",
    "SortHybrid",
    "SortMLP",
    "SortNetConv2d",
    "SortNetLayer",
    "SpectralConv2d",
    "SpectralLinear",
    "SubsetSource",
    "bound_partials",
    "describe",
    "direct_norm",
    "guarantee",
    "recompute_means",
    "spline_parameter_groups",
    "total_variation",
]
