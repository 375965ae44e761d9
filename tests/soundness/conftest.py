"""Deliberately broken layers: what the battery must catch."""

import math

import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.experiments.battery import Case


class _TooLargeLinear(L.LInfLinear):
    """Rows of l1 norm 1.05."""

    def forward(self, x):
        return nn.functional.linear(x, 1.05 * self.weight)


class _WrongAxisHouseholder(nn.Module):
    """A parameter shaped for images that broadcasts against vectors, and a missing minus sign."""

    norms, lipschitz = ("l2",), 1.0

    def forward(self, x):
        a, b = x.chunk(2, 1)
        keep = a > b
        return torch.cat([torch.where(keep, a, b), torch.where(keep, a, b)], 1)


class _ReshapedConv(nn.Conv2d):
    """A 4 x 4 stride 2 convolution whose kernel is orthonormal as a matrix (O, I k k): norm 2, not 1."""

    norms, lipschitz = ("l2",), 1.0

    def __init__(self):
        super().__init__(1, 1, 4, stride=2, padding=1, bias=False)
        with torch.no_grad():
            self.weight.fill_(0.25)


class _ScaledSort(L.GroupSort):
    """GroupSort with its output scaled up a little."""

    def forward(self, x):
        return 1.001 * super().forward(x)


class _WrongNorm(nn.Module):
    """A rotation of pairs, 1-Lipschitz in l2, sold for all norms."""

    norms, lipschitz = ("l1", "l2", "linf"), 1.0

    def forward(self, x):
        a, b = x.chunk(2, -1)
        return torch.cat([a + b, a - b], -1) / math.sqrt(2.0)


class _Jump(nn.Module):
    """Slope 1 almost everywhere and a jump: invisible to Jacobians."""

    norms, lipschitz = ("l2",), 1.0

    def forward(self, x):
        return x + 0.5 * (x > 0)


class _StaleSpectral(nn.Module):
    """The norm is estimated in training and divided by in evaluation: stale after a step."""

    norms, lipschitz = ("l2",), 1.0

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8))
        self.register_buffer("norm", torch.ones(()))

    def forward(self, x):
        if self.training:
            self.norm = torch.linalg.matrix_norm(self.weight.detach(), 2)
        return x @ (self.weight / self.norm).T


class _Unsaved(L.Scale):
    """The cap is not in the state: a layer built wider reloads a narrower one."""

    def __init__(self):
        super().__init__(1.0)
        self.weight = nn.Parameter(torch.ones(()))
        self.factor = 1.0

    def forward(self, x):
        return self.weight.clamp(-1.0, 1.0) * self.factor * x

    def _load_from_state_dict(self, *args):
        super()._load_from_state_dict(*args)
        self.factor = math.pi / 3


class _UnprojectedSpline(L.LearnableSpline):
    """A spline whose bounds hold at the start only: training moves the free coefficients."""

    norms = L.LearnableSpline.norms

    @property
    def values(self):
        return self.parametrizations.coefficients.original


class _LooseShare(nn.Module):
    """A convex combination whose share is a frozen parameter: nothing keeps it in [0, 1]."""

    norms, lipschitz = ("l1", "l2", "linf"), 1.0

    def __init__(self):
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5), requires_grad=False)

    def forward(self, x):
        return (1.0 - self.share) * x + self.share * x.abs()


PLANTED = {
    "linear of norm 1.05": Case("", lambda: _TooLargeLinear(8, 6), ((8,),)),
    "householder without its reflection": Case("", _WrongAxisHouseholder, ((8,), (8, 3, 3))),
    "convolution orthonormalised by reshape": Case("", _ReshapedConv, ((1, 16, 16),)),
    "sort scaled by 1.001": Case("", lambda: _ScaledSort(4), ((8,),)),
    "a rotation in all norms": Case("", _WrongNorm, ((8,),)),
    "a jump": Case("", _Jump, ((8,),)),
    "a stale norm after a step": Case("", _StaleSpectral, ((8,),)),
    "a cap that is not saved": Case("", _Unsaved, ((8,),)),
    "a spline that is not projected": Case("", lambda: _UnprojectedSpline(8), ((8,),)),
}


@pytest.fixture(params=PLANTED, ids=lambda name: name.replace(" ", "-"))
def planted_fault(request) -> Case:
    """A case whose claim is false."""
    return PLANTED[request.param]


@pytest.fixture
def reshaped_convolution() -> Case:
    """The planted fault that published packages had."""
    return PLANTED["convolution orthonormalised by reshape"]


@pytest.fixture
def loose_share() -> Case:
    """A fault that only unfreezing or loading shows."""
    return Case("", _LooseShare, ((8,),))
