"""Monotone whatever the weights: trained hard on the opposite, in every kind and depth, exactly and in floats."""

import copy
import io
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.certify import bound_step_back, certify_slopes
from lablib.theory.network import evaluate, fractions

KINDS = ("one-inf", "two-inf", "one", "inf", "two")
DEPTHS = [(), (8,), (8, 8, 8)]
DIRECTIONS = torch.tensor([[1, -1, 0], [-1, 0, 1]])


def trained(net: L.MonotoneNetwork, rate: float, steps: int = 40) -> L.MonotoneNetwork:
    """Fit lines whose slopes are 3 lambda in the direction that is forbidden."""
    generator = torch.Generator().manual_seed(0)
    wrong = -3.0 * net.lipschitz * net.directions.T
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    for _ in range(steps):
        x = torch.randn(64, net.in_features, generator=generator).to(wrong)
        optimiser.zero_grad()
        (net(x) - x @ wrong).square().mean().backward()
        optimiser.step()
    return net.eval()


def build(hidden=(8, 8), **options) -> L.MonotoneNetwork:
    torch.manual_seed(0)
    return L.MonotoneNetwork(3, hidden, 2, 2.0, DIRECTIONS, **options)


def smallest_slope(net: nn.Module, directions: torch.Tensor = DIRECTIONS) -> float:
    """The least slope along the promised directions in float64: at points of all sizes, at 0, between pairs."""
    generator = torch.Generator().manual_seed(1)
    sizes = torch.logspace(-6, 3, 200, dtype=torch.float64)[:, None]
    x = torch.cat([sizes * torch.randn(200, 3, generator=generator).double(), torch.zeros(1, 3)])
    slopes = torch.vmap(torch.func.jacrev(net))(x).detach() * directions
    least = float(slopes[:, directions != 0].min())
    for place, signs in enumerate(directions.T):
        y = x.clone()
        y[:, place] += 1.0
        rise = (net(y) - net(x)).detach() * signs  # 0 where nothing is promised
        least = min(least, float(rise.min()))
    return least


def exactly_monotone(net: L.MonotoneNetwork, pairs: int = 3) -> bool:
    """Rational arithmetic on the weights as stored: no rounding, no allowance."""
    layers, generator = L.describe(net), np.random.default_rng(0)
    x = fractions(generator.normal(size=(pairs, 3)))
    for place, signs in enumerate(net.directions.T.tolist()):
        y = x.copy()
        y[:, place] += Fraction(1, 1 << 40)
        rise = (evaluate(layers, y) - evaluate(layers, x)) * fractions(signs)
        if (rise < 0).any():
            return False
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", DEPTHS, ids=len)
@pytest.mark.parametrize("residual", ["certified", "lipschitz"])
def test_trained_on_the_opposite(kind, hidden, residual):
    for rate in (0.03, 30.0):
        net = trained(build(hidden, kind=kind, residual=residual), rate)
        frozen = net.frozen().double()
        assert smallest_slope(frozen) >= -1e-12
        assert exactly_monotone(net)
        slopes = certify_slopes(net)
        wanted = DIRECTIONS.numpy()
        assert slopes.increasing[wanted > 0].all()
        assert slopes.decreasing[wanted < 0].all()
        x = torch.randn(300, 3, dtype=torch.float64)
        jacobians = torch.vmap(torch.func.jacrev(frozen))(x).numpy()
        assert (jacobians >= slopes.low - 1e-12).all()
        assert (jacobians <= slopes.high + 1e-12).all()


def test_the_attack_arrives_at_the_boundary():
    """It is not for want of trying: what is promised to rise ends up flat."""
    for kind in KINDS:
        net = trained(build((8,), kind=kind), 0.03, steps=150).frozen().double()
        slopes = torch.vmap(torch.func.jacrev(net))(torch.randn(100, 3, dtype=torch.float64)) * DIRECTIONS
        assert slopes[:, DIRECTIONS != 0].mean() < 0.02


@pytest.mark.parametrize("head", [None, "sigmoid", "softplus"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_computed_steps_go_back_by_rounding_at_most(head, dtype):
    """Slopes near 0 make computed outputs jitter; the proven allowance covers every step of a fine grid."""
    net = trained(build(head=head).to(dtype), 0.03, steps=100)
    back = bound_step_back(net, torch.full((3,), -1.0, dtype=dtype), torch.full((3,), 1.0, dtype=dtype))
    assert (back < (1e-4 if dtype == torch.float32 else 1e-12)).all()
    x = torch.zeros(2001, 3, dtype=dtype)
    for place, signs in enumerate(DIRECTIONS.T):
        x.zero_()
        x[:, place] = torch.linspace(-1, 1, 2001, dtype=dtype)
        with torch.no_grad():
            steps = net(x).double().diff(dim=0) * signs
        assert (steps >= -torch.from_numpy(back)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_weights(dtype):
    """The function that the weights and the residual as stored define, evaluated in float64."""
    for kind in KINDS:
        net = trained(build(kind=kind), 0.3).to(dtype)
        assert smallest_slope(net.frozen().double()) >= -1e-12
        assert exactly_monotone(net)


def test_states_that_went_through_files_and_copies():
    net = trained(build(), 1.0)
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    loaded = build()
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for made in (loaded, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert smallest_slope(made.frozen().double()) >= -1e-12
        assert exactly_monotone(trained(made, 30.0))


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize("kind", KINDS)
def test_any_weights(kind, size):
    net = build(kind=kind)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(size * torch.randn_like(parameter))
        for layer in net.network[::2]:
            layer.bias.zero_()
    assert exactly_monotone(net)
    assert smallest_slope(net.frozen().double()) >= -1e-12


def test_tied_groups():
    """All units of a group equal: the sort has no order, and any choice of its gradient is within the bounds."""
    net = build()
    with torch.no_grad():
        for layer in net.network[:-1:2]:
            layer.weight = layer.weight[:1].expand_as(layer.weight).clone()
            layer.bias.zero_()
        net.network[-1].weight = -net.network[-1].weight.abs()
    assert smallest_slope(net.frozen().double()) >= -1e-12
    assert exactly_monotone(net)


def test_a_wrapped_network_trained_on_the_opposite():
    for kinds in (("one-inf", "inf", "inf"), ("one", "two", "inf"), ("two", "two", "two")):
        torch.manual_seed(0)
        sizes = [(3, 8), (8, 8), (8, 1)]
        parts = [L.LipschitzLinear(*size, kind=kind, lipschitz_const=1.3) for size, kind in zip(sizes, kinds)]
        inner = L.LipschitzSequential if len(set(kinds)) == 1 else nn.Sequential
        net = inner(parts[0], L.GroupSort(4), parts[1], L.PReLU(8), parts[2])
        wrapped = L.MonotonicWrapper(net, 1.3**3, [1, 0, -1])
        optimiser = torch.optim.Adam(wrapped.parameters(), lr=0.1)
        for _ in range(60):
            x = torch.randn(64, 3)
            optimiser.zero_grad()
            (wrapped(x) - x @ torch.tensor([[-9.0], [0.0], [9.0]])).square().mean().backward()
            optimiser.step()
        slopes = certify_slopes(wrapped.eval())
        assert slopes.increasing[0, 0]
        assert slopes.decreasing[0, 2]
        directions = torch.tensor([[1, 0, -1]])
        # float32 constraints: the function of these very weights, up to their rounding
        assert smallest_slope(copy.deepcopy(wrapped).double(), directions) >= -1e-12
