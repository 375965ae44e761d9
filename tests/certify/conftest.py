"""Small chains of every layer that certificates cover, by name."""

import pytest
import torch
from torch import nn

from lablib import layers as L

Chain = L.LipschitzSequential


def _sort_net():
    return Chain(
        L.Normalise(0.2, 0.4),
        nn.Flatten(),
        L.SortNetLayer(16, 12, keep=0.6, top=6),
        L.MeanShift(12),
        L.SortNetLayer(12, 5, keep=0.6, top=4, bias=True),
        L.Scale(-1.0),
    )


def _linf_linear():
    return Chain(
        nn.Flatten(),
        L.LInfLinear(16, 12),
        L.MaxMin(),
        L.ConvexResidual(Chain(L.LInfLinear(12, 12), L.Abs()), 0.4),
        L.LInfLinear(12, 12, constraint="project"),
        L.GroupSort(4),
        L.LInfLinear(12, 5),
        L.Scale(2.5),
    )


def _distance_conv():
    return Chain(
        L.LInfDistanceConv2d(1, 3, 2, stride=2, padding=1),
        L.MeanShift(3),
        L.SortNetConv2d(3, 2, 2, keep=0.7, top=5, bias=True),
        nn.Flatten(),
        L.FullSort(),
        L.PReLU(),
        L.LInfDistance(8, 5, bias=True),
    )


def _orthonormal():
    return Chain(
        L.OrthonormalConv2d(1, 4, 2, stride=2),
        L.Householder(4),
        L.SpectralConv2d(4, 4, 3, padding=1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        L.OrthonormalLinear(4, 8),
        L.MaxMin(),
        L.SpectralLinear(8, 8),
        L.LeakyReLU(-0.7),
        L.OrthonormalLinear(8, 5),
    )


def _l1():
    return Chain(
        L.L1Conv2d(1, 2, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        L.L1Linear(32, 8),
        nn.Tanh(),
        L.L1Linear(8, 5),
    )


def _splines():
    chain = Chain(
        L.LearnableSpline(1, knots=4, range=0.7, init="relu"),
        nn.Flatten(),
        L.LInfLinear(16, 12),
        L.LearnableSpline(12, knots=8, range=0.3, init="maxmin"),
        L.LInfLinear(12, 12),
        L.LearnableSpline(12, knots=33, range=0.5, init=lambda t: (20 * t).sin(), slopes=(-1.0, 2.0)),
        L.LearnableSpline(1, knots=5, init="abs", scaling=False),
        L.LInfLinear(12, 5),
    )
    for part in chain:
        if getattr(part, "scaling", False):
            part.scale = torch.rand(part.channels).add(-0.5).mul(6).exp()
    return chain


def _torch_layers():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.LeakyReLU(0.3, inplace=True),
        nn.MaxPool2d(2),
        L.LInfConv2d(3, 3, 2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(3, 8),
        nn.Tanh(),
        nn.Linear(8, 8),
        nn.ReLU6(),
        nn.Hardtanh(-0.3, 0.7),
        nn.Linear(8, 5),
    )


BUILDERS = {
    "sort net": _sort_net,
    "linf linear": _linf_linear,
    "distance conv": _distance_conv,
    "orthonormal": _orthonormal,
    "l1": _l1,
    "splines": _splines,
    "torch layers": _torch_layers,
}


@pytest.fixture(params=list(BUILDERS))
def chain(request):
    """A fresh chain (B, 1, 4, 4) -> (B, 5) in evaluation mode, with means and biases that are not 0."""
    torch.manual_seed(3)
    network = BUILDERS[request.param]().eval()
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, L.MeanShift):
                part.running_mean.normal_()
            if getattr(part, "bias", None) is not None:
                part.bias.normal_(std=0.1)
    return network


@pytest.fixture
def images():
    """(24, 1, 4, 4) in [0, 1], some at the ends and some with ties."""
    x = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    x[0], x[1], x[2] = 0.0, 1.0, 0.5
    x[3] = x[3].round()
    return x
