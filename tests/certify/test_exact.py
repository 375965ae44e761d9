"""The mixed-integer search against brute force on a grid, and in its place between certificate and attack."""

import numpy as np
import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.certify import attacked_radius, bound_radius, bound_radius_box, exact_radius
from lablib.certify.chain import in_float64
from lablib.certify.milp import Program

Chain = L.LipschitzSequential
STEPS = 201

NETWORKS = {
    "linear": lambda: nn.Sequential(nn.Linear(2, 3)),
    "relu": lambda: nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 6), nn.LeakyReLU(0.2), nn.Linear(6, 3)),
    "maxmin": lambda: nn.Sequential(
        L.LInfLinear(2, 8), L.MaxMin(), L.LInfLinear(8, 4), L.GroupSort(4), nn.Linear(4, 3)
    ),
    "distance": lambda: Chain(
        L.Normalise(0.3, 0.3), L.LInfDistance(2, 5), L.MeanShift(5), L.LInfDistance(5, 3, bias=True), L.Scale(-1.0)
    ),
    "sortnet": lambda: Chain(
        L.Normalise(0.3, 0.3), L.SortNetLayer(2, 3, keep=0.6, top=2),
        L.SortNetLayer(3, 3, keep=0.6, top=2, bias=True), L.Scale(-2.0),
    ),
    "residual": lambda: nn.Sequential(
        nn.Linear(2, 4), L.ConvexResidual(Chain(L.LInfLinear(4, 4), L.Abs(), L.FullSort()), 0.7), L.PReLU(4, -0.5),
        nn.Linear(4, 3),
    ),
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 1, 2)), L.LInfDistanceConv2d(1, 2, 2, padding=1), nn.AvgPool2d(2, stride=1),
        nn.Conv2d(2, 2, 1), nn.ReLU(), L.MaxMin(), nn.Flatten(), nn.Linear(4, 3),
    ),
}  # fmt: skip


def made(name):
    """A network whose mean outputs on the square are equal, so that its classes differ from place to place."""
    torch.manual_seed(4)
    network = NETWORKS[name]().eval()
    points = torch.rand(500, 2)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, L.MeanShift):
                part.running_mean.normal_()
            if type(part) is nn.Linear:
                part.weight.mul_(3.0)
        last = [part for part in network if getattr(part, "bias", None) is not None][-1]
        sign = -1.0 if name == "distance" else -1.0 / 2.0 if name == "sortnet" else 1.0
        last.bias.sub_(sign * network(points).mean(0))
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_against_a_grid_and_attacks(name):
    network, x = made(name), torch.rand(4, 2)
    double = in_float64(network)
    with torch.no_grad():
        y = network(x).argmax(1)
        grid = torch.cartesian_prod(*[torch.linspace(0, 1, STEPS, dtype=torch.float64)] * 2)
        classes = double(grid).argmax(1)
    found = exact_radius(network, x, y)
    certified = bound_radius_box(network, x, y, tolerance=1e-5)
    attacked, _ = attacked_radius(network, x, y, steps=10, rounds=6)
    for i, radius in enumerate(found):
        wrong = grid[classes != y[i]]
        brute = float((wrong - x[i].double()).abs().amax(1).min()) if len(wrong) else np.inf
        assert radius.optimal
        assert certified[i] <= radius.upper
        assert radius.lower <= brute + 1e-9
        assert radius.lower <= attacked[i] + 1e-6
        if np.isfinite(radius.upper):
            assert 0 <= radius.upper - radius.lower < 1e-5
            point = torch.from_numpy(radius.point)[None]
            f = double(point)[0]
            assert f[y[i]] <= f[[j for j in range(3) if j != y[i]]].max()
            assert float((point - x[i].double()).abs().max()) == radius.upper
            assert ((point >= 0) & (point <= 1)).all()
        else:
            assert brute == np.inf
            assert radius.lower == 1.0


def test_the_search_is_not_empty():
    """The grid test would pass if classes were constant: each network here has attacks."""
    x = torch.rand(3, 2)
    for name in NETWORKS:
        found = exact_radius(made(name), x, made(name)(x).argmax(1))
        assert any(0 < radius.upper < np.inf for radius in found), name


@pytest.mark.parametrize("name", NETWORKS)
def test_the_encoding_of_a_point_is_the_network(name):
    network, x = in_float64(made(name)), torch.rand(1, 2, dtype=torch.float64)
    values = Program(x.numpy(), x.numpy(), 100).through([network])
    with torch.no_grad():
        outputs = network(x)[0].numpy()
    assert np.allclose(values.low, outputs, atol=1e-12)
    assert np.allclose(values.high, outputs, atol=1e-12)


def test_a_limit_and_wrong_samples():
    network, x = made("relu"), torch.rand(6, 2)
    y = network(x).argmax(1)
    y[0] = (y[0] + 1) % 3
    whole = exact_radius(network, x, y)
    assert (whole[0].lower, whole[0].upper) == (0.0, 0.0)
    near = exact_radius(network, x, y, limit=np.full(6, 0.01))
    for full, part in zip(whole[1:], near[1:]):
        assert part.lower == pytest.approx(min(full.lower, 0.01), abs=2e-6)


@pytest.mark.parametrize(
    ("name", "scale"), [("relu", -1e-6), ("maxmin", -1e-6), ("linear", 1e-9), ("relu", 1.0), ("linear", 1.0)]
)
def test_ends_that_disagree_are_not_called_optimal(name, scale):
    """Logits below the solver's tolerance: what it finds there need not be an attack."""
    network, x = nn.Sequential(*made(name), L.Scale(scale)).eval(), torch.rand(6, 2)
    found = exact_radius(network, x, network(x).argmax(1))
    for radius in found:
        none = radius.upper == np.inf and radius.lower == 1.0
        assert radius.optimal == (none or radius.upper - radius.lower <= 1e-5)
    assert all(radius.optimal for radius in found) == (scale == 1.0)


def test_refusals():
    x, y = torch.rand(1, 2), torch.zeros(1, dtype=torch.long)
    spline = L.LipschitzSequential(L.LInfLinear(2, 3), L.LearnableSpline(3), L.LInfLinear(3, 2)).eval()
    with pytest.raises(ValueError, match="does not cover LearnableSpline; use bound_radius"):
        exact_radius(spline, x, y)
    assert bound_radius(spline, x, y).shape == (1,)
    with pytest.raises(ValueError, match="Tanh"):
        exact_radius(nn.Sequential(nn.Linear(2, 2), nn.Tanh()).eval(), x, y)
    with pytest.raises(ValueError, match="binary variables"):
        Program(np.zeros((1, 2)), np.ones((1, 2)), 3).through([made("distance").double()])
    with pytest.raises(ValueError, match="time"):
        exact_radius(made("relu"), x, y, seconds=0)
    with pytest.raises(ValueError, match="raw pixels, or the valid range as lower= and upper="):
        exact_radius(made("relu"), x + 1, y)
    with pytest.raises(ValueError, match="Flatten"):
        exact_radius(nn.Sequential(nn.ReLU()).eval(), torch.rand(1, 2, 2), y)
    with pytest.raises(ValueError, match="limit"):
        exact_radius(made("relu"), x, y, limit=np.ones(3))
    with pytest.raises(ValueError, match="eval"):
        exact_radius(made("relu").train(), x, y)
