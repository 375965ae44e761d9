"""Layers that overwrite their input: bounds see the values before, and nobody's images change."""

import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.certify import (
    adaptive,
    attacked_at,
    attacked_radius,
    bound_logits,
    bound_output_error,
    exact_radius,
    pgd,
)  # fmt: skip
from lablib.certify.attack_parts import margins
from lablib.certify.chain import in_float64


def test_in_place_layers_in_a_residual():
    network = L.LipschitzSequential(L.ConvexResidual(nn.ReLU(inplace=True), 0.3)).eval()
    x = -torch.rand(1, 8) * 1e6
    given = x.clone()
    bound = bound_output_error(network, given)
    low, high = bound_logits(network, given, given)
    assert torch.equal(given, x)
    with torch.no_grad():
        exact, computed = in_float64(network)(x.double()), network(x.clone()).double()
    error = (computed - exact).abs()
    assert error.max() > 1e-4
    assert (error <= bound).all()
    assert ((low.double() <= exact) & (exact <= high.double())).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attacks_and_the_exact_search_leave_images_alone(dtype):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Hardtanh(0.4, 0.6, inplace=True), nn.Linear(4, 3)).eval().to(dtype)
    x = torch.rand(5, 4, dtype=dtype)
    y = network(x.clone()).argmax(1)
    given = x.clone()
    for call in (
        lambda: margins(network, given, y),
        lambda: pgd(network, given, y, 0.1, steps=3),
        lambda: adaptive(network, given, y, 0.1, steps=3),
        lambda: attacked_at(network, given, y, [0.1], steps=3),
        lambda: attacked_radius(network, given, y, steps=3, rounds=2),
    ):
        call()
        assert torch.equal(given, x)
    with pytest.raises(ValueError, match="Hardtanh"):
        exact_radius(network, given, y)
    moved = given - 0.5
    before = moved.clone()
    exact_radius(nn.Sequential(nn.ReLU(inplace=True), network[1]).eval(), moved, y, -1.0, 1.0)
    assert torch.equal(moved, before)
