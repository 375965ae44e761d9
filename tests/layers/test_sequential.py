"""Chains: common norms, products of constants, refusals that name the layers."""

import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.layers import describe


def test_norms_and_product():
    net = L.LipschitzSequential(L.LInfLinear(4, 4), nn.ReLU(), L.MaxMin(), L.LInfDistance(4, 2), L.Scale(3.0))
    assert (net.norms, net.lipschitz) == (("linf",), 3.0)
    assert L.LipschitzSequential().norms == ("l1", "l2", "linf")
    assert L.LipschitzSequential(nn.Sigmoid(), nn.LeakyReLU(-2.0)).lipschitz == 0.5
    nested = L.LipschitzSequential(net, L.LipschitzSequential(L.LInfLinear(2, 2)))
    assert (nested.norms, nested.lipschitz) == (("linf",), 3.0)


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ((L.LInfLinear(2, 2), nn.ReLU(), L.SpectralLinear(2, 2)), ("0 (LInfLinear", "2 (SpectralLinear")),
        ((L.Householder(2), L.LInfDistance(2, 2)), ("0 (Householder", "1 (LInfDistance")),
        ((L.L1Linear(2, 2), L.OrthonormalLinear(2, 2)), ("0 (L1Linear", "1 (OrthonormalLinear")),
    ],
)
def test_mismatched_chains_are_refused_by_name(layers, named):
    with pytest.raises(ValueError, match="no norm in common") as error:
        L.LipschitzSequential(*layers)
    assert all(name in str(error.value) for name in named)


@pytest.mark.parametrize(
    "layer", [nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2), nn.PReLU(), nn.Sequential(), nn.Softplus()]
)
def test_layers_without_guarantee_are_refused(layer):
    with pytest.raises(ValueError, match=type(layer).__name__):
        L.LipschitzSequential(layer)


def test_a_replaced_layer_is_seen():
    net = L.LipschitzSequential(L.LInfLinear(2, 2), nn.ReLU())
    net[1] = L.Scale(2.0)
    assert net.lipschitz == 2.0
    net[1] = L.L1Linear(2, 2)
    with pytest.raises(ValueError, match="no norm in common"):
        net.norms


def test_pooling_table():
    assert L.guarantee(nn.AvgPool2d(3, 2, 1)) == (("l1", "l2", "linf"), 1.0)
    assert L.guarantee(nn.AvgPool2d(3, ceil_mode=True))[0] == ("linf",)
    assert L.guarantee(nn.MaxPool2d(2))[0] == ("l1", "l2", "linf")
    assert L.guarantee(nn.MaxPool2d(3, 2))[0] == ("linf",)
    with pytest.raises(ValueError, match="divisor_override"):
        L.guarantee(nn.AvgPool2d(2, divisor_override=1))


@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(2), nn.AvgPool2d(3, 1), nn.AvgPool2d((2, 3), (2, 1))]
)
def test_average_pooling_constants_are_true(pool):
    basis = torch.eye(49, dtype=torch.float64).reshape(49, 1, 7, 7)
    matrix = pool(basis).flatten(1).T
    for order in (1, 2, float("inf")):
        assert torch.linalg.matrix_norm(matrix, order) <= 1 + 1e-12


def test_residual():
    block = L.ConvexResidual(L.LInfLinear(3, 3), 0.25)
    x = torch.randn(4, 3)
    assert torch.allclose(block(x), 0.75 * x + 0.25 * block.branch(x))
    assert (block.norms, block.lipschitz) == (("linf",), 1.0)
    assert not block.alpha.requires_grad
    assert L.ConvexResidual(L.LipschitzSequential(L.LInfLinear(3, 3), L.Scale(4.0))).lipschitz == 4.0
    learned = L.ConvexResidual(L.LInfLinear(3, 3), 0.25, learnable=True)
    assert torch.allclose(learned.alpha, torch.tensor(0.25))
    with torch.no_grad():
        for parameter in learned.parameters():
            parameter.add_(100.0)
    assert 0 <= learned.alpha <= 1


@pytest.mark.parametrize("loaded", [-3.0, 7.0])
def test_a_fixed_share_cannot_leave_its_interval(loaded):
    net = L.LipschitzSequential(L.ConvexResidual(L.Abs(), 0.5)).requires_grad_(True)
    assert not list(net.parameters())
    (key,) = net.state_dict()
    net.load_state_dict({key: torch.tensor(loaded)})
    assert net[0].alpha == (0.0 if loaded < 0 else 1.0)
    assert describe(net)[0]["alpha"] == float(net[0].alpha)
    x = torch.randn(3, 2)
    assert torch.equal(net(x), x if loaded < 0 else x.abs())
