"""The search over regions against all patterns of tiny networks, one linear program each, and dense sampling."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from lablib import layers as L
from lablib.certify import certify_slopes, exact_slopes
from lablib.certify.chain import in_float64
from lablib.certify.slope_search import Search

TINY = {
    "maxmin": lambda: nn.Sequential(nn.Linear(2, 4), L.MaxMin(), nn.Linear(4, 4), L.MaxMin(), nn.Linear(4, 2)),
    "relu": lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), L.Abs(), nn.Linear(3, 1)),
    "leaky": lambda: nn.Sequential(
        L.Normalise(0.1, 0.5), nn.Linear(3, 3), L.PReLU(3), nn.Linear(3, 1), L.Scale(-2.0)
    ),
    "groups": lambda: nn.Sequential(
        L.LInfLinear(2, 6), L.GroupSort(3), L.LInfLinear(6, 3), L.FullSort(), nn.Linear(3, 1)
    ),
    "steep": lambda: nn.Sequential(nn.Linear(2, 4), nn.LeakyReLU(2.0), nn.Linear(4, 1)),
}  # fmt: skip
BOXES = {"space": (None, None), "box": (-1.0, [0.5, 2.0, 1.0])}


def within(values, low, high, slack=1e-12):
    return bool((values >= low - slack).all() and (values <= high + slack).all())


def made(name, seed=0):
    torch.manual_seed(seed)
    return TINY[name]().eval()


def box_of(name, inputs):
    lower, upper = BOXES[name]
    return lower, upper if upper is None else upper[:inputs]


def inputs_of(network):
    return next(part.in_features for part in network.modules() if hasattr(part, "in_features"))


def outcomes(part, forms):
    """Each way the layer can go: (constraints >= 0, forms behind it)."""
    width = len(forms)
    if isinstance(part, (L.GroupSort, L.FullSort)):
        size = getattr(part, "size", width)
        orders = itertools.product(itertools.permutations(range(size)), repeat=width // size)
        for order in orders:
            at = np.concatenate([np.array(p) + size * g for g, p in enumerate(order)])
            behind = forms[at]
            yield (
                np.diff(behind.reshape(-1, size, behind.shape[1]), axis=1).reshape(-1, behind.shape[1]),
                behind,
            )
    elif isinstance(part, (nn.ReLU, nn.LeakyReLU, L.Abs, L.PReLU)):
        unit = part(torch.full((1, width), -1.0))[0].detach().double().numpy()
        for signs in itertools.product((1.0, -1.0), repeat=width):
            signs = np.array(signs)
            yield signs[:, None] * forms, np.where(signs > 0, 1.0, -unit)[:, None] * forms
    else:  # affine: read off in float64
        with torch.no_grad():
            shift = part(torch.zeros(1, width, dtype=torch.float64))
            weight = (part(torch.eye(width, dtype=torch.float64)) - shift).T.numpy()
        behind = weight @ forms
        behind[:, -1] += shift[0].numpy()
        yield np.zeros((0, forms.shape[1])), behind


def all_slopes(network, inputs, lower, upper):
    """The slopes of every pattern whose polytope holds a ball."""
    regions = [(np.zeros((0, inputs + 1)), np.eye(inputs, inputs + 1))]
    for part in in_float64(network):
        regions = [(np.vstack([faces, more]), to) for faces, at in regions for more, to in outcomes(part, at)]
    bounds = [(None, None)] * inputs if lower is None else list(zip(np.broadcast_to(lower, inputs), upper))
    found = []
    for faces, forms in regions:
        norms = np.linalg.norm(faces[:, :-1], axis=1)
        ball = linprog(
            -np.eye(inputs + 1)[inputs],
            A_ub=np.column_stack([-faces[:, :-1], norms]),
            b_ub=faces[:, -1],
            bounds=[*bounds, (None, 1.0)],
        )
        if ball.status == 0 and ball.x[-1] > 1e-6:
            found.append(forms[:, :-1])
    return np.array(found)


def gradients(network, points):
    x = torch.as_tensor(points, dtype=torch.float64).requires_grad_()
    outputs = in_float64(network)(x)
    rows = [torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in outputs.unbind(1)]
    return torch.stack(rows, 1).numpy()


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", TINY)
def test_all_patterns(name, box):
    network = made(name)
    inputs = inputs_of(network)
    lower, upper = box_of(box, inputs)
    slopes = all_slopes(network, inputs, lower, upper)
    found = exact_slopes(network, lower, upper)
    proven = certify_slopes(network, lower, upper)
    assert found.complete, found.stopped
    assert within(found.low, proven.low, proven.high)
    assert within(found.high, proven.low, proven.high)
    np.testing.assert_allclose(found.low, slopes.min(0), atol=1e-12)
    np.testing.assert_allclose(found.high, slopes.max(0), atol=1e-12)
    assert within(found.low, found.low_bound, found.low_bound + 1e-11, 0.0)
    assert within(found.high, found.high_bound - 1e-11, found.high_bound, 0.0)
    for ends, points in ((found.low, found.low_points), (found.high, found.high_points)):
        for o, i in np.ndindex(*ends.shape):
            assert gradients(network, points[o, i][None])[0, o, i] == pytest.approx(ends[o, i], abs=1e-12)
            assert lower is None or ((points[o, i] >= lower) & (points[o, i] <= upper)).all()


def test_samples_stay_inside():
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Linear(3, 4), L.GroupSort(4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)
    ).eval()
    found = exact_slopes(network, -2.0, 2.0, limit=2000)
    slopes = gradients(network, np.random.default_rng(0).uniform(-2, 2, (20_000, 3)))
    assert found.complete
    assert within(slopes, found.low, found.high)


@pytest.mark.parametrize("seed", range(3))
def test_cones_and_ties(seed):
    """Without biases all regions meet in a point; repeated and dead units tie everywhere."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(2, 6, bias=False), L.MaxMin(), nn.Linear(6, 4, bias=False), nn.ReLU(), nn.Linear(4, 4), L.MaxMin(),
        nn.Linear(4, 1),
    ).eval()  # fmt: skip
    with torch.no_grad():
        network[0].weight[1] = network[0].weight[0]
        network[2].weight[3].zero_()
        network[4].bias.zero_()
        network[4].weight[1] = network[4].weight[0]
    angle = np.linspace(0, 2 * np.pi, 100_001)
    slopes = gradients(network, np.stack([np.cos(angle), np.sin(angle)], 1))
    for box in ((None, None), (-1.0, 1.0)):
        found = exact_slopes(network, *box)
        assert found.complete
        np.testing.assert_allclose(found.low, slopes.min(0), atol=1e-12)
        np.testing.assert_allclose(found.high, slopes.max(0), atol=1e-12)


def test_one_input():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(1, 8), L.MaxMin(), nn.Linear(8, 8), L.MaxMin(), nn.Linear(8, 1)).eval()
    slopes = gradients(network, np.linspace(-40, 40, 400_001)[:, None])
    found = exact_slopes(network)
    assert found.low[0, 0] == pytest.approx(slopes.min(), abs=1e-12)
    assert found.high[0, 0] == pytest.approx(slopes.max(), abs=1e-12)


def trained_down(kind="one-inf", head=None):
    """An "increasing" network fitted to a falling function: its least slopes go to 0."""
    torch.manual_seed(0)
    network = L.MonotoneNetwork(2, (6, 6), lipschitz=2.0, directions=(1, -1), kind=kind, head=head)
    x = torch.randn(128, 2)
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        (network(x) - torch.sin(3 * x[:, :1]) + 2 * x[:, :1] - x[:, 1:]).square().mean().backward()
        optimiser.step()
    return network.eval()


@pytest.mark.parametrize("kind", ["one-inf", "two", "one"])
def test_monotone_networks(kind):
    network = trained_down(kind)
    low, high = (end.detach().numpy() for end in network.slope_bounds())
    found = exact_slopes(network)
    assert found.complete
    assert within(found.low, low, high)
    assert within(found.high, low, high)
    assert found.low[0, 0] >= -1e-12
    assert found.high[0, 1] <= 1e-12
    slopes = gradients(network.network, np.random.default_rng(0).normal(size=(5000, 2)))
    added = (network.directions * network.residual()).detach().double().numpy()
    assert within(slopes + added, found.low, found.high)
    frozen = exact_slopes(network.frozen())
    np.testing.assert_allclose(frozen.low, found.low, atol=1e-12)


def test_chosen_slopes_and_wrapper():
    torch.manual_seed(0)
    inner = nn.Sequential(
        L.LipschitzLinear(3, 6, kind="one-inf"), L.MaxMin(), L.LipschitzLinear(6, 2, kind="inf")
    )
    network = L.MonotonicWrapper(inner, 1.0, (1, 0, -1)).eval()
    whole = exact_slopes(network)
    some = exact_slopes(network, inputs=[2, 0], outputs=[1])
    np.testing.assert_allclose(some.low, whole.low[1:, [2, 0]], atol=1e-12)
    np.testing.assert_allclose(some.high, whole.high[1:, [2, 0]], atol=1e-12)
    assert some.low_points.shape == (1, 2, 3)
    assert (whole.low[:, 0] >= 0).all()
    assert (whole.high[:, 2] <= 0).all()


def test_stopped_early_still_encloses(monkeypatch):
    network = made("maxmin", 2)
    whole = exact_slopes(network)
    stopped = exact_slopes(network, limit=1)
    assert not stopped.complete
    assert "larger limit" in stopped.stopped
    split, calls = Search._split, itertools.count()

    def interrupted(self, node):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return split(self, node)

    monkeypatch.setattr(Search, "_split", interrupted)
    broken = exact_slopes(network)
    assert not broken.complete
    assert "interrupted" in broken.stopped
    for part in (stopped, broken):
        assert within(whole.low, part.low_bound, part.low)
        assert within(whole.high, part.high, part.high_bound)


@pytest.mark.parametrize(
    ("network", "options", "words"),
    [
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.Tanh()), {}, "Tanh"),
        (lambda: nn.Sequential(nn.Linear(2, 4), nn.Softplus(), nn.Linear(4, 1)), {}, "Softplus"),
        (lambda: nn.Sequential(L.Abs()), {}, "no linear layer"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1)), {}, "gets 3"),
        (lambda: nn.Sequential(nn.Linear(2, 80), L.FullSort(), nn.Linear(80, 1)), {}, "3160 comparisons"),
        (lambda: trained_down(head="sigmoid"), {}, "head"),
        (lambda: nn.Sequential(nn.Linear(2, 1)), {"lower": 1.0, "upper": 1.0}, "lower < upper"),
        (lambda: nn.Sequential(nn.Linear(2, 1)), {"lower": [0.0, np.nan]}, "NaN"),
        (lambda: nn.Sequential(nn.Linear(2, 1)), {"upper": [0.0] * 3}, "shape"),
        (lambda: nn.Sequential(nn.Linear(2, 1)), {"inputs": [2]}, "inputs are numbers from 0 to 1"),
        (lambda: nn.Sequential(nn.Linear(2, 1)), {"outputs": []}, "outputs are numbers"),
        (lambda: nn.Sequential(nn.Linear(2, 1)), {"limit": 0}, "at least 1"),
    ],
)
def test_refuses(network, options, words):
    with pytest.raises(ValueError, match=words):
        exact_slopes(network().eval(), **options)


def test_refuses_nan_weights():
    network = made("maxmin")
    with torch.no_grad():
        network[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        exact_slopes(network)
