"""No attacked point may lie inside its certified radius: every family of layers, trained networks, two precisions.

A planted fault shows that the attacks would see a radius that is too large.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lablib import layers as L
from lablib.certify import adaptive, attacked_radius, bound_radius, bound_radius_box, exact_radius, pgd
from lablib.certify.attack_parts import margins
from lablib.certify.chain import in_float64
from lablib.certify.curves import check_uncontradicted

Chain = L.LipschitzSequential
ORDERS = {"linf": np.inf, "l2": 2}


def sort_net(inputs, classes):
    return Chain(
        L.Normalise(0.3, 0.38),
        nn.Flatten(),
        L.SortNetLayer(inputs, 32, keep=0.75),
        L.MeanShift(32),
        L.SortNetLayer(32, 32, keep=0.75),
        L.MeanShift(32),
        L.SortNetLayer(32, classes, keep=0.75, bias=True),
        L.Scale(-1.0),
    )


def distance_net(inputs, classes):
    return Chain(
        nn.Flatten(),
        L.LInfDistance(inputs, 48),
        L.MeanShift(48),
        L.LInfDistance(48, classes, bias=True),
        L.Scale(-1.0),
    )


def sorting_net(inputs, classes):
    return Chain(
        nn.Flatten(),
        L.LInfLinear(inputs, 32),
        L.MaxMin(),
        L.ConvexResidual(L.LInfLinear(32, 32), 0.5),
        L.GroupSort(4),
        L.LInfLinear(32, classes),
    )


def patch_net(inputs, classes):
    return Chain(
        L.SortNetConv2d(1, 8, 4, stride=4, keep=0.8),
        L.MeanShift(8),
        nn.Flatten(),
        L.SortNetLayer(32, classes, bias=True),
        L.Scale(-1.0),
    )


def orthonormal_net(inputs, classes):
    return Chain(
        L.OrthonormalConv2d(1, 4, 2, stride=2),
        L.Householder(4),
        nn.Flatten(),
        L.OrthonormalLinear(64, 32),
        L.MaxMin(),
        L.OrthonormalLinear(32, classes),
    )


def spline_net(inputs, classes):
    return Chain(
        nn.Flatten(),
        L.OrthonormalLinear(inputs, 32),
        L.LearnableSpline(32, knots=20, range=0.5, init="maxmin"),
        L.OrthonormalLinear(32, 32),
        L.LearnableSpline(32, knots=51, range=0.3, init="abs"),
        L.OrthonormalLinear(32, classes),
    )


def relu_net(inputs, classes):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 16),
        nn.Tanh(),
        nn.Linear(16, classes),
    )


FAMILIES = {
    "sort net": sort_net,
    "distance net": distance_net,
    "sorting net": sorting_net,
    "patch net": patch_net,
    "orthonormal net": orthonormal_net,
    "spline net": spline_net,
    "relu net": relu_net,
}


@pytest.fixture(scope="module")
def digits():
    from lablib.data import load

    data = load("digits")
    x = torch.from_numpy(data.x_train).float() / data.scale
    y = torch.from_numpy(data.y_train)
    chosen = y < 4
    return x[chosen][:400], y[chosen][:400]


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request, digits):
    """(network, x, y): a small network after a few steps on digits 0..3, and images to certify."""
    x, y = digits
    torch.manual_seed(1)
    network = FAMILIES[request.param](64, 4).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for step in range(60):
        rows = torch.arange(step * 50, step * 50 + 50) % len(x)
        loss = nn.functional.multi_margin_loss(network(x[rows]), y[rows], margin=0.5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    assert (network(x).argmax(1) == y).float().mean() > 0.7
    return network, x[:24], y[:24]


def certificates(network, x, y):
    """(norm, name, radii) of every certificate the network has."""
    norms = network.norms if isinstance(network, Chain) else ()
    for norm in [norm for norm in norms if norm in ORDERS]:
        yield norm, "margins", bound_radius(network, x, y, norm)
    if "l2" not in norms or "linf" in norms:
        yield "linf", "intervals", bound_radius_box(network, x, y)


def test_attacks_find_nothing_inside_certified_radii(trained):
    network, x, y = trained
    for norm, name, radii in certificates(network, x, y):
        safe = radii > 0
        assert safe.sum() > len(x) / 2
        rows, eps = torch.from_numpy(safe), torch.from_numpy(radii[safe])
        for precision in (torch.float32, torch.float64):
            model = network if precision == torch.float32 else in_float64(network)
            inputs, labels = x[rows].to(precision), y[rows]
            with parametrize.cached():  # the weights stand still: orthonormal ones are computed once
                attacked = (
                    adaptive(model, inputs, labels, eps, norm, steps=10, targets=2),
                    pgd(model, inputs, labels, eps, norm, steps=10, loss="ce"),
                )
            for points in attacked:
                gap = (points.double() - x[rows].double()).flatten(1)
                assert (gap.norm(p=ORDERS[norm], dim=1) <= eps.double() * (1 + 1e-12)).all()
                assert (margins(network, points.float(), labels) > 0).all() or precision == torch.float64
                assert (margins(model, points, labels) > 0).all(), f"{name} refuted in {precision}"


def test_attacks_from_outside_stop_before_the_radius(trained):
    network, x, y = trained
    for norm, name, radii in certificates(network, x, y):
        with parametrize.cached():
            found, points = attacked_radius(network, x[:6], y[:6], norm, rounds=4, steps=10, targets=2)
        check_uncontradicted(radii[:6], found.numpy(), name)
        hit = found.isfinite()
        assert hit.any()
        assert (margins(network, points[hit], y[:6][hit]) <= 0).all()


def test_certificates_exact_radii_and_attacks_are_in_order():
    """Certified <= true <= attacked, on networks small enough for the exact search."""
    torch.manual_seed(2)
    network = Chain(
        L.LInfDistance(4, 8), L.MeanShift(8), L.LInfDistance(8, 3, bias=True), L.Scale(-1.0)
    ).eval()
    x = torch.rand(200, 4)
    with torch.no_grad():
        network[2].bias.add_(network(x).mean(0))
    x, y = x[:10], network(x[:10]).argmax(1)
    box, plain = bound_radius_box(network, x, y, tolerance=1e-6), bound_radius(network, x, y)
    found, _ = attacked_radius(network, x, y, rounds=8, steps=15)
    true = exact_radius(network, x, y)
    upper, lower = (np.array([getattr(radius, end) for radius in true]) for end in ("upper", "lower"))
    assert (plain <= box).all()
    assert (box <= upper + 1e-6).all()
    assert (lower <= found.numpy() + 1e-6).all()
    assert np.isfinite(upper).sum() >= 5
    assert (box > 0.5 * np.minimum(upper, 1.0)).any()


class _TooSmall(L.Scale):
    """States a third of its constant."""

    norms = L.Scale.norms

    @property
    def lipschitz(self):
        return abs(self.constant) / 3


def test_a_constant_that_is_too_small_is_refuted(digits, monkeypatch):
    from lablib.certify.rules import RULES

    x, y = digits
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), L.LInfLinear(64, 4))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(40):
        loss = nn.functional.multi_margin_loss(network(x), y, margin=0.5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    monkeypatch.setitem(RULES, _TooSmall, RULES[L.Scale])
    lying = Chain(nn.Flatten(), network[1], _TooSmall(3.0), L.MaxMin(), L.Scale(1.0)).eval()
    y = lying(x).argmax(1)
    radii = bound_radius(lying, x[:24], y[:24])
    found, _ = attacked_radius(lying, x[:24], y[:24], rounds=8, steps=20)
    with pytest.raises(ValueError, match="refuted"):
        check_uncontradicted(radii, found.numpy())


def test_radii_are_not_so_cautious_that_they_say_nothing(trained):
    """Rounding takes off little: 1e-4 in linf; in l2, where sums of n products have errors of n u, 1.5e-3."""
    network, x, y = trained
    if not isinstance(network, Chain):
        return
    norm = network.norms[0]
    radii = bound_radius(network, x, y, norm)
    with torch.no_grad():
        f = network(x).double()
    gap = (f.gather(1, y[:, None]) - f).scatter(1, y[:, None], torch.inf).amin(1)
    plain = gap.clamp(min=0) / ((2.0 if norm == "linf" else 2.0**0.5) * network.lipschitz)
    assert (torch.from_numpy(radii) > plain - (1e-4 if norm == "linf" else 1.5e-3)).all()
