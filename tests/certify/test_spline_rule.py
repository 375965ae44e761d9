"""Certificates through learned splines: rounding against fractions, boxes against all ends and knots."""

import numpy as np
import pytest
import torch

from lablib import layers as L
from lablib.certify import bound_logits, bound_output_error, bound_radius
from lablib.theory.network import evaluate, fractions


def spline(channels, knots, reach=1.0, scale=1.3):
    """A chain of one float32 spline whose slopes differ everywhere, many at their bounds."""
    layer = L.LearnableSpline(channels, knots, reach, init=reach * torch.randn(channels, knots))
    layer.scale = torch.full((channels,), scale)
    return L.LipschitzSequential(layer).eval()


@pytest.mark.parametrize("reach", [1e-3, 0.1, 30.0])
@pytest.mark.parametrize("knots", [2, 21, 100])
@pytest.mark.parametrize("scale", [0.02, 1.0, 60.0])
def test_rounding_stays_within_its_bound(reach, knots, scale):
    network = spline(3, knots, reach, scale)
    layer = network[0]
    t = (layer.positions() / layer.scale.detach()[0].double()).float()
    near = torch.cat([t, torch.nextafter(t, t + 1), torch.nextafter(t, t - 1)])
    x = torch.cat([near, 1e-30 * t, 1e4 * t, torch.randn(20)])[:, None].expand(-1, 3).contiguous()
    with torch.no_grad():
        computed = fractions(network(x).numpy())
    exact = evaluate(L.describe(network, (3,)), fractions(x.numpy()))
    error = np.abs(computed - exact).astype(float)
    bound = bound_output_error(network, x).numpy()
    assert (error <= bound).all()
    assert (bound <= 1e-5 * (x.abs().numpy() + 2 * reach / scale)).all()


@pytest.mark.parametrize("knots", [2, 5, 16, 33])
def test_boxes_are_the_hull_of_ends_and_knots(knots):
    network = spline(4, knots)
    layer = network[0]
    lower = 2 * torch.randn(60, 4)
    upper = lower + 3 * torch.rand(60, 1) ** 3
    low, high = bound_logits(network, lower, upper)
    for c, f in enumerate(layer.export()):
        for row in range(60):
            a, b = float(lower[row, c]), float(upper[row, c])
            inside = f.positions[(f.positions > a) & (f.positions < b)]
            values = f(np.concatenate([[a, b], inside]))
            assert values.min() - 1e-4 < float(low[row, c]) <= values.min()
            assert values.max() <= float(high[row, c]) < values.max() + 1e-4


def test_a_scaled_input_that_overflows_within_the_radius_has_no_certificate():
    layer = L.LearnableSpline(2, 5, 1.0, slopes=(-1e-20, 1e-20))
    layer.scale = torch.tensor([1.0, 64.0])
    network = L.LipschitzSequential(layer).eval()
    x, step = torch.tensor([[8e36, 5.2e36]]), torch.tensor([[-1.2e36, 1.2e36]])
    assert network(x).argmax() == 0
    assert network(x + step)[0, 1].isinf()
    with pytest.raises(ValueError, match="overflow"):
        bound_radius(network, x, torch.tensor([0]), "linf")
    assert bound_radius(network, 1e-10 * x, torch.tensor([0]), "linf") > 1.3e26
