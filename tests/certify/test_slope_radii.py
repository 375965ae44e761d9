"""Radii from certified slopes against attacks and known distances."""

import numpy as np
import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.certify import bound_radius_slopes
from lablib.certify.chain import in_float64


def monotone(seed=0, inputs=3, hidden=(8, 8), **options):
    torch.manual_seed(seed)
    options = {"lipschitz": 2.0, "directions": (1, 0, -1)[:inputs]} | options
    return L.MonotoneNetwork(inputs, hidden, **options).eval()


def attacked(network, x, radius, norm, sign):
    """Points within ``radius`` (B,) that lower sign * f, by its gradient and at random; (B, N, I)."""
    x = x.clone().requires_grad_()
    slope = torch.autograd.grad((sign * network(x)[:, 0]).sum(), x)[0]
    generator = torch.Generator().manual_seed(0)
    moves = torch.randn(len(x), 40, x.shape[1], generator=generator)
    if norm == "linf":
        moves[:, 0] = -slope.sign()
        moves[:, 1:20] = moves[:, 1:20].sign()
        moves = moves / moves.abs().amax(-1, keepdim=True)
    else:
        moves[:, :2] = 0
        moves[torch.arange(len(x)), 0, slope.abs().argmax(1)] = 1.0
        moves[torch.arange(len(x)), 1, slope.abs().argmax(1)] = -1.0
        moves = moves / moves.abs().sum(-1, keepdim=True)
    return x.detach()[:, None] + 0.999 * radius[:, None, None] * moves


@pytest.mark.parametrize("norm", ["l1", "linf"])
@pytest.mark.parametrize("head", [None, "sigmoid"])
def test_no_attack_turns_a_decision_within_its_radius(norm, head):
    network = monotone(7, hidden=(8,), lipschitz=4.0, head=head)
    threshold = 0.45 if head else 0.1
    x = 2 * torch.rand(60, 3) - 1
    radius = bound_radius_slopes(network, x, norm=norm, threshold=threshold)
    plain = bound_radius_slopes(network, x, norm=norm, threshold=threshold, local=False)
    assert radius.dtype == np.float32
    assert (radius >= plain).all()
    assert (radius > 0).mean() > 0.95
    with torch.no_grad():
        above = network(x)[:, 0].double() > threshold
    sign = torch.where(above, 1.0, -1.0)
    near = attacked(network, x, torch.from_numpy(radius), norm, sign)
    for accurate in (network, in_float64(network)):
        points = near.to(next(accurate.parameters()).dtype)
        with torch.no_grad():
            assert ((accurate(points.flatten(0, 1))[:, 0].view(60, 40) > threshold) == above[:, None]).all()
    # and it is not far from what an attack does reach
    far = attacked(network, x, 6 * torch.from_numpy(radius), norm, sign)
    with torch.no_grad():
        turned = ((network(far.flatten(0, 1))[:, 0].view(60, 40) > threshold) != above[:, None]).any(1)
    assert turned.float().mean() > 0.3
    given_labels = bound_radius_slopes(network, x, ~above, norm, threshold)
    assert (given_labels == 0).all()


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_radii_of_several_outputs(norm):
    network = nn.Sequential(monotone(8, out_features=4, lipschitz=3.0)).eval()
    x = torch.randn(30, 3)
    with torch.no_grad():
        labels = network(x).argmax(1)
    radius = bound_radius_slopes(network, x, labels, norm)
    assert np.array_equal(radius, bound_radius_slopes(network, x, norm=norm))
    assert (radius > 0).all()
    moves = torch.randn(30, 200, 3)
    size = moves.abs().amax(-1, keepdim=True) if norm == "linf" else moves.abs().sum(-1, keepdim=True)
    near = x[:, None] + 0.999 * torch.from_numpy(radius)[:, None, None] * moves / size
    with torch.no_grad():
        assert (network(near.flatten(0, 1)).argmax(1).view(30, 200) == labels[:, None]).all()
    assert (bound_radius_slopes(network, x, (labels + 1) % 4, norm) == 0).all()
    ended = nn.Sequential(network, nn.Identity(), L.Scale(2.0)).eval()  # no linear end: differences of bounds
    wider = bound_radius_slopes(ended, x, labels, norm, local=False)
    assert (wider <= bound_radius_slopes(network, x, labels, norm, local=False) * (1 + 1e-6)).all()
    assert len(bound_radius_slopes(network, x[:0])) == 0


def test_the_radius_of_a_line_is_its_distance():
    network = nn.Sequential(nn.Linear(2, 1)).double().eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[3.0, -1.0]]))
        network[0].bias.zero_()
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 3.0]], dtype=torch.float64)
    assert bound_radius_slopes(network, x, [1, 0, 1], "l1") == pytest.approx([1, 2 / 3, 0], abs=1e-6)
    assert bound_radius_slopes(network, x, [1, 0, 1], "linf") == pytest.approx([0.75, 0.5, 0], abs=1e-6)
