"""Attacks: points inside the ball in exact distance, as close as known solutions, stronger where made to be."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.certify import adaptive, attacked_at, attacked_radius, pgd
from lablib.certify.attack_parts import Ball, margins, smooth_forward

Chain = L.LipschitzSequential


def linear_classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()


@pytest.fixture(scope="module")
def distance_net():
    torch.manual_seed(0)
    network = Chain(
        nn.Flatten(),
        L.LInfDistance(64, 32),
        L.MeanShift(32),
        L.SortNetLayer(32, 32, keep=0.8),
        L.MeanShift(32),
        L.LInfDistance(32, 4),
        L.Scale(-1.0),
    ).eval()
    x = torch.rand(16, 1, 8, 8)
    with torch.no_grad():  # means as after training, so that classes differ
        y = x
        for layer in network:
            if isinstance(layer, L.MeanShift):
                layer.running_mean.copy_(y.mean(0))
            y = layer(y)
    return network, x, y.argmax(1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_point_is_in_the_ball_exactly(norm, images):
    generator = torch.Generator().manual_seed(0)
    for eps in (0.0, 1e-9, 0.1, 1.0 / 3.0, 5.0):
        ball = Ball(images, eps, norm, 0.0, 1.0)
        point = ball.random(generator)
        for _ in range(5):
            assert (ball.distance(point) <= eps).all()
            assert ((point >= 0) & (point <= 1)).all()
            point = ball.step(point, torch.randn(point.shape, generator=generator), 0.7)
        corner = ball.corner(torch.rand(images.shape, generator=generator) < 0.5)
        assert (ball.distance(corner) <= eps).all()
        half = ball.between(corner, torch.full((len(images),), 0.5))
        assert (ball.distance(half) <= eps).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e-200])
def test_distances_are_rounded_up(dtype, size):
    """Against fractions; in linf exact where the distance is a float64 number."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 3, generator=generator, dtype=dtype)
    small = size * torch.rand(200, 3, generator=generator, dtype=dtype)
    points = torch.where(torch.rand(200, 3, generator=generator) < 0.5, small, x)
    x[100:] = size * x[100:]
    far, long = (Ball(x, 0.0, norm, 0.0, 1.0).distance(points).tolist() for norm in ("linf", "l2"))
    for row, point, linf, l2 in zip(x.tolist(), points.tolist(), far, long):
        gaps = [abs(Fraction(a) - Fraction(b)) for a, b in zip(row, point)]
        assert Fraction(linf) >= max(gaps)
        assert Fraction(l2) ** 2 >= sum(gap**2 for gap in gaps)
        assert Fraction(l2) ** 2 <= Fraction(1001, 1000) * sum(gap**2 for gap in gaps)
        if Fraction(float(max(gaps))) == max(gaps):
            assert linf == max(gaps)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_classifiers_are_broken_at_their_true_radius(norm, images):
    """Far from the walls of the box the true radius is the smallest gap over the dual norm."""
    network, x = linear_classifier(), images
    with torch.no_grad():
        f, weight = network(x), network[1].weight
    y = f.argmax(1)
    gaps = (f.gather(1, y[:, None]) - f).scatter(1, y[:, None], torch.inf)
    sizes = (weight[:, None] - weight).norm(p=1 if norm == "linf" else 2, dim=-1)
    true = (gaps / sizes[y].clamp(min=1e-9)).amin(1)
    radii, points = attacked_radius(network, x, y, norm, limit=5.0, steps=20, rounds=12, lower=-10, upper=10)
    assert (radii >= true - 1e-6).all()
    assert (radii <= 1.05 * true + 1e-4).all()
    assert (margins(network, points, y) <= 0).all()
    assert (Ball(x, 9.0, norm, -10.0, 10.0).distance(points) == radii).all()


@pytest.mark.parametrize("loss", ["margin", "ce"])
def test_pgd_turns_a_linear_classifier(loss, images):
    network = linear_classifier()
    y = network(images).argmax(1)
    found = pgd(network, images, y, 0.8, steps=20, restarts=2, loss=loss)
    assert (margins(network, found, y) <= margins(network, images, y)).all()
    assert (margins(network, found, y) <= 0).any()


def test_the_adaptive_attack_is_stronger_on_distance_networks(distance_net):
    network, x, y = distance_net
    eps = 0.1
    plain = margins(network, pgd(network, x, y, eps, steps=30), y)
    made = margins(network, adaptive(network, x, y, eps, steps=30), y)
    assert (made <= plain).all()
    assert (made < plain).sum() >= 4


def test_smooth_gradients_leave_values_alone(distance_net):
    network, x, _ = distance_net
    at = x.clone().requires_grad_()
    outputs = smooth_forward(network)(at, 8.0)
    assert torch.allclose(outputs, network(x), atol=1e-6)
    smooth = torch.autograd.grad(outputs.sum(), at)[0]
    sharp = torch.autograd.grad(network(at).sum(), at)[0]
    assert (smooth != 0).float().mean() > 3 * (sharp != 0).float().mean()


def test_attacks_at_given_radii_respect_what_is_certified(distance_net):
    network, x, y = distance_net
    y = y.clone()
    y[0] = (y[0] + 1) % 4
    far = attacked_at(network, x, y, [0.05, 0.5], steps=10)
    assert far[0] == 0
    found = (far > 0) & far.isfinite()
    assert found.any()
    assert (far[found] <= 0.5).all()
    skipped = attacked_at(network, x, y, [0.05, 0.5], steps=10, certified=torch.ones(16))
    assert skipped[1:].isinf().all()


def test_attacks_repeat_and_leave_the_network_alone(distance_net):
    network, x, y = distance_net
    before = {key: value.clone() for key, value in network.state_dict().items()}
    first, again = (adaptive(network, x[:4], y[:4], 0.05, steps=5, targets=1) for _ in range(2))
    assert torch.equal(first, again)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_vectors_and_unknown_modules():
    class Own(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum(1), 3 - x.sum(1)], 1)

    network, x = Own().eval(), torch.full((2, 3), 0.6)
    y = torch.zeros(2, dtype=torch.long)
    radii, _ = attacked_radius(network, x, y, steps=10)
    assert torch.allclose(radii, torch.full((2,), 0.1, dtype=torch.float64), atol=5e-3)


def test_refusals(images):
    network, y = linear_classifier(), torch.zeros(24, dtype=torch.long)
    for call, message in (
        (lambda: pgd(network, images, y, -0.1), "negative"),
        (lambda: pgd(network, images, y, math.nan), "finite"),
        (lambda: pgd(network, images, y, 0.1, "l1"), "linf and l2"),
        (lambda: pgd(network, images, y, 0.1, loss="hinge"), "hinge"),
        (lambda: pgd(network, images, y, 0.1, steps=0), "step"),
        (lambda: pgd(network, images + 1, y, 0.1), "raw pixels, .* lower= and upper="),
        (lambda: pgd(network, images, y + 3, 0.1), "labels"),
        (lambda: pgd(nn.Sequential(nn.ReLU()).eval(), images, y, 0.1), "Flatten"),
        (lambda: adaptive(network.train(), images, y, 0.1), "eval"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
