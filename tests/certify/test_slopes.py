"""Certified slopes against gradients and increments of the network they are about."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lablib import layers as L
from lablib.certify import (
    bound_box_error,
    bound_output_error,
    bound_radius_slopes,
    bound_step_back,
    certify_slopes,
)
from lablib.certify.chain import in_float64

KINDS = ("one", "inf", "two", "one-inf", "two-inf")
SHAPE = (1, 4, 4)


def jacobians(network, x):
    """(B, O, I) of an exact enough copy, float64."""
    double = in_float64(network)

    def alone(row):
        return double(row[None])[0]

    rows = [torch.autograd.functional.jacobian(alone, row.double()) for row in x]
    return torch.stack(rows).flatten(2).numpy()


def assert_inside(slopes, found, slack=1e-9):
    size = slack * (1 + np.abs(found).max())  # what autograd itself rounds
    assert (found >= slopes.low - size).all()
    assert (found <= slopes.high + size).all()


def monotone(seed=0, inputs=3, hidden=(8, 8), **options):
    torch.manual_seed(seed)
    options = {"lipschitz": 2.0, "directions": (1, 0, -1)[:inputs]} | options
    return L.MonotoneNetwork(inputs, hidden, **options).eval()


def test_every_layer_keeps_its_gradients_inside(chain, images):
    if any(isinstance(part, nn.MaxPool2d) for part in chain):
        with pytest.raises(ValueError, match="no slopes are known of MaxPool2d"):
            certify_slopes(chain, shape=SHAPE)
        parts = [nn.AvgPool2d(2) if isinstance(part, nn.MaxPool2d) else part for part in chain]
        chain = nn.Sequential(*parts).eval()
    slopes = certify_slopes(chain, shape=SHAPE)
    assert slopes.low.shape == slopes.high.shape == (5, 16)
    assert (slopes.low <= slopes.high).all()
    points = torch.cat([images, 3 * torch.randn(24, *SHAPE)])
    assert_inside(slopes, jacobians(chain, points))
    box = certify_slopes(chain, 0.2, 0.3, shape=SHAPE)
    assert (box.low >= slopes.low).all()
    assert (box.high <= slopes.high).all()
    assert_inside(box, jacobians(chain, 0.2 + 0.1 * images))


def test_in_a_point_sized_box_slopes_are_the_gradient():
    torch.manual_seed(1)
    layers = [L.LInfLinear(4, 8), L.MaxMin(), nn.Linear(8, 8), L.GroupSort(4), nn.Linear(8, 8), nn.ReLU()]
    layers += [nn.Linear(8, 8), L.Abs(), nn.Linear(8, 8), L.FullSort(), nn.Linear(8, 8), L.PReLU(8)]
    layers += [
        nn.Linear(8, 8),
        L.LearnableSpline(8, init="maxmin"),
        L.Scale(-0.3),
        nn.Linear(8, 3),
        nn.Tanh(),
    ]
    network = nn.Sequential(*layers).double().eval()
    x = torch.randn(4, dtype=torch.float64)
    slopes = certify_slopes(network, x - 1e-9, x + 1e-9)
    gradient = jacobians(network, x[None])[0]
    assert_inside(slopes, gradient, 1e-12)
    assert (slopes.high - slopes.low).max() < 1e-6 * np.abs(gradient).max()
    wide = certify_slopes(network)
    assert (wide.high - wide.low).min() > np.abs(gradient).max()


def test_a_linear_network_is_exact_and_nonnegative_weights_are_increasing():
    torch.manual_seed(2)
    linear = nn.Sequential(nn.Linear(3, 5), nn.Identity(), L.MeanShift(5), nn.Linear(5, 2)).eval()
    slopes = certify_slopes(linear)
    assert (slopes.high - slopes.low).max() < 1e-14
    positive = nn.Sequential(
        nn.Linear(3, 8), L.GroupSort(4), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    ).eval()
    with torch.no_grad():
        for part in positive.parameters():
            part.abs_()
    slopes = certify_slopes(positive)
    assert slopes.increasing.all()
    assert not slopes.decreasing.any()
    assert (slopes.low == 0).all()
    assert np.array_equal(slopes.largest, slopes.high)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_monotone_networks_of_every_kind(kind, dtype):
    network = monotone(kind=kind, out_features=2, group_size=4, dtype=dtype)
    slopes = certify_slopes(network)
    assert slopes.increasing[:, 0].all()
    assert slopes.decreasing[:, 2].all()
    assert (slopes.largest[:, 1] <= 2.0).all()
    assert not slopes.increasing[:, 1].any()
    own = [end.detach().numpy() for end in network.slope_bounds()]
    assert (slopes.low >= own[0]).all()
    assert (slopes.high <= own[1]).all()
    assert_inside(slopes, jacobians(network, 3 * torch.randn(100, 3, dtype=dtype)))
    paper = certify_slopes(monotone(kind=kind, residual="lipschitz", dtype=dtype))
    assert paper.increasing[0, 0]
    assert (paper.largest <= 4.0 + 1e-6).all()


def test_an_adversary_that_wants_it_decreasing_meets_the_bound():
    """Trained down as far as it goes, the slope of the network comes close to the certified 0."""
    network = monotone(inputs=1, hidden=(8,), directions=(1,)).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.03)
    x = torch.linspace(-1, 1, 32)[:, None]
    for _ in range(100):
        optimiser.zero_grad()
        (network(x) + 2 * x).square().mean().backward()
        optimiser.step()
    slopes = certify_slopes(network.eval())
    found = jacobians(network, x)
    assert_inside(slopes, found)
    assert slopes.low[0, 0] >= 0
    assert found.min() < 1e-3


@pytest.mark.parametrize("head", ["sigmoid", "softplus"])
def test_heads_count(head):
    network = monotone(head=head)
    slopes = certify_slopes(network)
    assert slopes.increasing[0, 0]
    assert slopes.decreasing[0, 2]
    assert_inside(slopes, jacobians(network, 5 * torch.randn(100, 3)))
    near = certify_slopes(network, [0.1, 0.2, 0.3], [0.11, 0.21, 0.31])
    assert_inside(near, jacobians(network, torch.tensor([[0.105, 0.2, 0.3], [0.1, 0.2, 0.31]])))
    plain = certify_slopes(monotone())
    share = 0.25 if head == "sigmoid" else 1.0
    assert (slopes.high <= share * plain.high.clip(min=0) * (1 + 1e-12)).all()
    assert near.low[0, 0] > 0.2 * share * certify_slopes(monotone(), 0.1, 0.31).low[0, 0]


def test_wrappers_and_chains_around_them():
    torch.manual_seed(3)
    inner = nn.Sequential(
        L.LipschitzLinear(3, 8, kind="one-inf", lipschitz_const=2.0),
        L.GroupSort(4),
        L.LipschitzLinear(8, 2, kind="inf", lipschitz_const=1.0),
    )
    wrapped = L.MonotonicWrapper(inner, 2.0, [1, 0, -1]).eval()
    slopes = certify_slopes(wrapped)
    assert slopes.increasing[:, 0].all()
    assert slopes.decreasing[:, 2].all()
    assert slopes.low.shape == (2, 3)
    x = torch.randn(50, 3)
    assert_inside(slopes, jacobians(wrapped, x))
    chain = nn.Sequential(L.Normalise(0.5, 0.2), wrapped, L.Scale(-3.0)).eval()
    around = certify_slopes(chain, shape=(3,))
    assert around.decreasing[:, 0].all()
    assert around.increasing[:, 2].all()
    assert_inside(around, jacobians(chain, x))
    unknown = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))
    with pytest.raises(ValueError, match="GELU is not covered"):
        certify_slopes(L.MonotonicWrapper(unknown, 2.0, [1, 1, 1], assume_lipschitz=True).eval())


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e3, 1e30])
def test_weights_of_every_size(size):
    torch.manual_seed(5)
    network = nn.Sequential(nn.Linear(3, 8), L.MaxMin(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
    with torch.no_grad():
        network[2].weight.mul_(size)
    slopes = certify_slopes(network)
    assert_inside(slopes, jacobians(network, torch.randn(50, 3)))
    assert 0 < slopes.largest.max() < 20 * size
    with torch.no_grad():
        network[2].weight[0, 0] = math.inf
    with pytest.raises(ValueError, match="finite"):
        certify_slopes(network)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(KINDS),
    st.sampled_from([2, 4]),
    st.floats(0.01, 100),
    st.floats(0.001, 3),
)
def test_increments_in_boxes_of_random_networks(seed, kind, group, lipschitz, width):
    network = monotone(seed, kind=kind, group_size=group, lipschitz=lipschitz)
    centre = torch.randn(3, dtype=torch.float64)
    slopes = certify_slopes(network, centre - width, centre + width)
    x = (centre + width * (2 * torch.rand(64, 3, dtype=torch.float64) - 1)).repeat(3, 1)
    moved, axis = x.clone(), torch.arange(3).repeat_interleave(64)
    ends = (centre + width * (2 * torch.rand(192, 3, dtype=torch.float64) - 1))[torch.arange(192), axis]
    moved[torch.arange(192), axis] = ends
    step = (ends - x[torch.arange(192), axis]).numpy()
    double = in_float64(network)
    with torch.no_grad():
        rise = (double(moved) - double(x))[:, 0].numpy() * np.sign(step)
    slack = 1e-13 * (1 + lipschitz) * 10
    assert (rise >= slopes.low[0, axis] * np.abs(step) - slack).all()
    assert (rise <= slopes.high[0, axis] * np.abs(step) + slack).all()


def test_the_function_of_a_spline_is_reached_segment_by_segment():
    spline = L.LearnableSpline(2, knots=5, init=lambda t: t.abs() / 2 + t.square() / 4, slopes=(-1, 1))
    spline.scale = torch.tensor([1.0, 4.0])
    network = nn.Sequential(nn.Identity(), spline.eval()).eval()
    everywhere = certify_slopes(network, shape=(2,))
    inner = certify_slopes(
        network, 0.02, 0.1, shape=(2,)
    )  # for the second channel knots lie 4 times as dense
    segments = spline.values.detach().double().diff(dim=1) / 0.5
    assert np.allclose(everywhere.high.diagonal(), segments.amax(1))
    assert np.allclose(everywhere.low.diagonal(), segments.amin(1))
    assert np.allclose([inner.low[0, 0], inner.high[0, 0]], segments[0, 2])
    assert np.allclose([inner.low[1, 1], inner.high[1, 1]], segments[1, 2])
    wider = certify_slopes(network, 0.02, 0.2, shape=(2,))
    assert np.allclose(wider.high[1, 1], segments[1, 3])
    assert np.allclose(wider.high[0, 0], segments[0, 2])
    assert wider.low[0, 1] == wider.high[0, 1] == 0


# --- rounding


@pytest.mark.parametrize("head", [None, "sigmoid", "softplus"])
@pytest.mark.parametrize("kind", KINDS)
def test_rounding_of_monotone_networks_is_within_its_bounds(kind, head):
    network = monotone(kind=kind, head=head, out_features=2, lipschitz=20.0)
    x, _corners = 4 * torch.rand(300, 3) - 2, (torch.full((1, 3), -2.0), torch.full((1, 3), 2.0))
    error, box = (
        bound_output_error(network, x),
        bound_box_error(network, -x[:1].new_full((1, 3), 2), x.new_full((1, 3), 2)),
    )
    with torch.no_grad():
        off = (network(x).double() - in_float64(network)(x.double())).abs()
    assert (off <= error).all()
    assert (off <= box).all()
    assert off.max() > 0
    assert box.max() < 1e-3
    assert (box >= error.amin(0) / 2).all()


def test_box_errors_cover_every_layer(chain, images):
    low, high = torch.zeros(1, *SHAPE), torch.ones(1, *SHAPE)
    box = bound_box_error(chain, low, high)
    with torch.no_grad():
        off = (chain(images).double() - in_float64(chain)(images.double())).abs()
    assert (off <= box).all()
    assert box.max() < 1e-2


def test_increasing_up_to_the_rounding_that_is_stated():
    """With the slope driven to 0, float32 steps go down by some 1e-7: as far as stated, and no farther."""
    network = monotone(inputs=1, hidden=(8, 8), directions=(1,), lipschitz=1.0).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    x = torch.linspace(-1, 1, 64)[:, None]
    for _ in range(100):
        optimiser.zero_grad()
        (network(x) + x - 3).square().mean().backward()
        optimiser.step()
    network.eval()
    one = torch.ones(1)
    assert certify_slopes(network).low[0, 0] >= 0
    drops = {}
    for dtype in (torch.float32, torch.float64):
        network = network.to(dtype)
        stated = bound_step_back(network, -one.to(dtype), one.to(dtype))
        with torch.no_grad():
            steps = network(torch.linspace(-1, 1, 20_001, dtype=dtype)[:, None]).diff(dim=0)
        drops[dtype] = float(-steps.min()), float(stated[0])
        assert drops[dtype][0] <= drops[dtype][1]
    assert drops[torch.float32][0] > 1e-8  # it does go down
    assert drops[torch.float32][1] < 1e-4
    assert drops[torch.float64][1] < 1e-12


# --- refusals


def test_what_cannot_be_certified_is_refused():
    network = monotone()
    x = torch.randn(4, 3)
    calls = {
        "call eval": lambda: certify_slopes(monotone().train()),
        "needs 3 features": lambda: certify_slopes(network, [0.0, 0.0], [1.0, 1.0]),
        "shape of one input": lambda: certify_slopes(network, [0.0, 0.0, 0.0], [1.0, 1.0]),
        "the box is empty": lambda: certify_slopes(network, [0.0, 0.0, 2.0], 1.0),
        "or holds NaN": lambda: certify_slopes(network, math.nan, 1.0),
        "does not tell the shape": lambda: certify_slopes(nn.Sequential(nn.ReLU()).eval()),
        "add nn.Flatten": lambda: certify_slopes(nn.Sequential(nn.Linear(4, 2)).eval(), shape=(2, 4)),
        "l1 and linf": lambda: bound_radius_slopes(network, x, norm="l2"),
        "a Sigmoid is never": lambda: bound_radius_slopes(monotone(head="sigmoid"), x, threshold=0.0),
        "a StableSoftplus is never": lambda: bound_radius_slopes(monotone(head="softplus"), x),
        "threshold is for one": lambda: bound_radius_slopes(monotone(out_features=2), x, threshold=0.5),
        "finite number": lambda: bound_radius_slopes(network, x, threshold=math.nan),
        "expected, got shape": lambda: bound_radius_slopes(network, x, [1, 0]),
        "convert them": lambda: bound_radius_slopes(network, x.double()),
    }
    for message, call in calls.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_hidden_biases_that_are_not_finite_are_refused():
    network = monotone()
    with torch.no_grad():
        network.network[2].bias[1] = math.inf
    with pytest.raises(ValueError, match=r"2\.bias of Skip is not finite"):
        certify_slopes(network)


def test_a_sigmoid_is_decided_at_one_half():
    network, x = monotone(head="sigmoid"), torch.randn(6, 3)
    assert np.array_equal(bound_radius_slopes(network, x), bound_radius_slopes(network, x, threshold=0.5))
    assert bound_radius_slopes(network, x).all()


def test_numbers_make_a_box_for_rounding():
    network = monotone()
    tensors = bound_step_back(network, torch.full((3,), -1.0), torch.full((3,), 2.0))
    assert np.array_equal(tensors, bound_step_back(network, -1.0, 2.0))
    assert np.array_equal(tensors, bound_step_back(network, [-1.0] * 3, np.full(3, 2.0)))


def test_infinite_sides_mean_everywhere():
    network = monotone()
    everywhere, half = certify_slopes(network), certify_slopes(network, 0.0)
    assert np.array_equal(everywhere.low, half.low)
    assert np.array_equal(everywhere.high, half.high)


def test_flushed_products_are_in_the_rounding_bound():
    network = nn.Sequential(nn.Linear(64, 2, bias=False)).eval()
    with torch.no_grad():
        network[0].weight.fill_(2.0**-64)
    x = torch.full((1, 64), 2.0**-64)
    error = bound_output_error(network, x)
    torch.set_flush_denormal(True)
    try:
        with torch.no_grad():
            computed = network(x).double()
    finally:
        torch.set_flush_denormal(False)
    assert ((computed - 2.0**-122).abs() <= error).all()


def test_flushed_subnormal_numbers_are_refused():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush")
    try:
        with pytest.raises(ValueError, match="set_flush_denormal"):
            certify_slopes(monotone())
    finally:
        torch.set_flush_denormal(False)


def test_blocks_that_are_deep_copies():
    """Read through torch's cache, a copy had the weights of its original, and bounds were violated by a third."""
    torch.manual_seed(0)
    first = L.LInfLinear(4, 4)
    second = copy.deepcopy(first)
    with torch.no_grad():
        second.weight = -torch.randn(4, 4)
    net = nn.Sequential(first, L.MaxMin(), second).double().eval()
    slopes = torch.vmap(torch.func.jacrev(net))(torch.randn(300, 4, dtype=torch.float64)).detach().numpy()
    found = certify_slopes(net)
    assert (found.low <= slopes.min(0) + 1e-12).all()
    assert (found.high >= slopes.max(0) - 1e-12).all()
    foreign = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="deep copies of one parametrized module"):
        certify_slopes(nn.Sequential(foreign, copy.deepcopy(foreign)).eval())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lower": "a", "upper": 1.0}, "numbers or arrays"),
        ({"lower": 1j, "upper": 1.0}, "numbers or arrays"),
        ({"shape": 3}, "shape is that of one input"),
    ],
)
def test_bad_boxes_are_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        certify_slopes(nn.Sequential(nn.Linear(3, 1)).eval(), **arguments)
    with pytest.raises(ValueError, match="torch module"):
        certify_slopes(lambda x: x)


def test_outputs_and_thresholds_that_are_no_numbers():
    net, x = nn.Sequential(nn.Linear(3, 1)).eval(), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="finite number"):
        bound_radius_slopes(net, x, threshold="0")
    with torch.no_grad():
        net[0].bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="outputs contain NaN"):
        bound_radius_slopes(net, x)
    with pytest.raises(ValueError, match="bias of Linear is not finite"):
        certify_slopes(net)
    for end in (None, math.inf):
        with pytest.raises(ValueError, match="give a finite lower and upper"):
            bound_step_back(net, 0.0, end)
    with pytest.raises(ValueError, match="3 features"):
        bound_step_back(L.MonotoneNetwork(3, ()).eval(), torch.zeros(4), torch.ones(4))
