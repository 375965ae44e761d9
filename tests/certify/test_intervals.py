"""Interval bounds: sampled points inside, tight where they should be, radii that hold at what is returned."""

import numpy as np
import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.certify import bound_logits, bound_margins, bound_radius, bound_radius_box
from lablib.certify.chain import in_float64

Chain = L.LipschitzSequential


def boxes(x, eps):
    return (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)


@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.1, 1.0])
def test_sampled_points_lie_inside_in_both_precisions(chain, images, eps):
    lower, upper = boxes(images, eps)
    low, high = bound_logits(chain, lower, upper)
    assert low.dtype == torch.float32
    assert (low < high).all()
    accurate, generator = in_float64(chain), torch.Generator().manual_seed(0)
    for kind in range(40):
        share = torch.rand(images.shape, generator=generator)
        share = share.round() if kind % 2 else share  # corners, too
        point = torch.minimum(torch.maximum(lower + share * (upper - lower), lower), upper)
        with torch.no_grad():
            for f in (chain(point).double(), accurate(point.double())):
                assert (low.double() <= f).all()
                assert (f <= high.double()).all()


def test_the_box_of_a_point_is_as_wide_as_rounding(chain, images):
    low, high = bound_logits(chain, images, images)
    assert ((high - low) < 1e-3 * high.abs().clamp(min=1)).all()


def test_boxes_inside_boxes(chain, images):
    outer, inner = (bound_logits(chain, *boxes(images, eps)) for eps in (0.2, 0.1))
    slack = 1e-4
    assert (outer[0] <= inner[0] + slack).all()
    assert (outer[1] >= inner[1] - slack).all()


def test_affine_boxes_are_exact():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 3)).eval()
    x = torch.rand(7, 5)
    low, high = bound_logits(network, x - 0.1, x + 0.1)
    with torch.no_grad():
        reach = 0.1 * network[0].weight.abs().sum(1)
        assert torch.allclose(high, network(x) + reach, atol=1e-5)
        assert torch.allclose(low, network(x) - reach, atol=1e-5)


def test_distance_boxes_are_attained():
    """Each bound of one distance neuron is the value at some point of the box."""
    torch.manual_seed(0)
    network = Chain(L.LInfDistance(3, 4)).eval()
    lower = torch.rand(5, 3)
    upper = lower + torch.rand(5, 3)
    low, high = bound_logits(network, lower, upper)
    grid = torch.cartesian_prod(*[torch.linspace(0, 1, 41)] * 3)
    for b in range(5):
        with torch.no_grad():
            values = network(lower[b] + grid * (upper[b] - lower[b]))
        assert torch.allclose(values.amax(0), high[b], atol=1e-5)
        assert (values.amin(0) <= low[b] + 0.03).all()


def test_margins_of_a_last_linear_layer_are_joint(images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5)).eval()
    lower, upper = boxes(images, 0.1)
    y = network(images).argmax(1)
    joint = bound_margins(network, lower, upper, y)
    low, high = bound_logits(network, lower, upper)
    apart = (low.gather(1, y[:, None]) - high).scatter(1, y[:, None], torch.inf)
    assert (joint >= apart - 1e-5).all()
    assert (joint > apart + 1e-3).any()
    assert joint.gather(1, y[:, None]).isinf().all()
    scaled = nn.Sequential(*network, L.Scale(-3.0)).eval()
    flipped = bound_margins(scaled, lower, upper, y)
    with torch.no_grad():
        f = in_float64(scaled)(images.double())
    gaps = (f.gather(1, y[:, None]) - f).scatter(1, y[:, None], torch.inf)
    assert (flipped <= gaps).all()


def test_radii_hold_and_cannot_grow(chain, images):
    y = chain(images).argmax(1)
    tolerance = 1e-3
    radii = bound_radius_box(chain, images, y, tolerance=tolerance, margins=False)
    assert radii.dtype == np.float32
    assert ((radii >= 0) & (radii <= 1)).all()
    assert (radii > 0).any()
    for shift, holds in ((0.0, True), (1.01 * tolerance, False)):
        eps = torch.from_numpy(radii + np.float32(shift)).reshape(-1, 1, 1, 1)
        worst = bound_margins(chain, *boxes(images, eps), y).amin(1).numpy()
        inner = (radii > 0) & (radii < 1 - tolerance)
        assert ((worst > 0) == holds)[inner].all()
    assert (bound_radius_box(chain, images, (y + 1) % 5) == 0).all()


def test_margins_and_intervals_together_are_the_larger():
    torch.manual_seed(1)
    network = Chain(
        nn.Flatten(), L.SortNetLayer(16, 16), L.MeanShift(16), L.SortNetLayer(16, 5), L.Scale(-1.0)
    )
    network.eval()
    x = torch.rand(30, 1, 4, 4)
    y = network(x).argmax(1)
    plain, box = bound_radius(network, x, y), bound_radius_box(network, x, y)
    assert (box >= plain).all()
    assert (box > plain + 1e-3).any()


def test_refusals(images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    y = torch.zeros(24, dtype=torch.long)
    with pytest.raises(ValueError, match="empty"):
        bound_logits(network, images, images - 0.1)
    with pytest.raises(ValueError, match="one shape"):
        bound_logits(network, images, images[:3])
    with pytest.raises(ValueError, match="raw pixels, or the valid range as lower= and upper="):
        bound_radius_box(network, 2 * images, y)
    with pytest.raises(ValueError, match="tolerance"):
        bound_radius_box(network, images, y, tolerance=0.0)
    with pytest.raises(ValueError, match="Softplus"):
        bound_logits(nn.Sequential(nn.Softplus()).eval(), images, images)
    with pytest.raises(ValueError, match="Flatten"):
        bound_margins(nn.Sequential(nn.ReLU()).eval(), images, images, y)
    with pytest.raises(ValueError, match="labels"):
        bound_margins(network, images, images, y + 7)
    network.train()
    with pytest.raises(ValueError, match=r"eval\(\)"):
        bound_logits(network, images, images)
