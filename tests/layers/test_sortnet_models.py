"""The SortNet models: training form against loops, sorted form against plain layers, means, boxes, subsets."""

import copy
import math

import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.layers.boxes import linear_worst, propagate_box
from lablib.layers.subsets import SUB_BATCH


def small(cls, **options):
    """A model of the class and inputs that fit it, in float64."""
    torch.manual_seed(0)
    if cls is L.SortConv:
        model, x = cls(2, 6, 9, 5, classes=3, keep=0.6, stride=1, hidden=5, std=0.5), torch.rand(70, 2, 6, 6)
    else:
        hidden = {"hidden": 5} if cls is L.SortHybrid else {}
        model = cls(12, 9, 5, classes=3, keep=0.6, mean=0.3, std=0.5, **hidden, **options)
        x = torch.rand(70, 3, 2, 2)
    return model.double(), x.double()


def naive_features(model, x, p):
    """The training form sample by sample, on full vectors with the dropped entries masked."""
    source = copy.deepcopy(model.subsets)
    rows = model._rows(model.normalise(x))
    positions, kept = model.positions, None
    for index, layer in enumerate(model.distances):
        last = index + 1 == len(model.distances)
        keep = 1.0 if last else getattr(model.distances[index + 1], "keep", 1.0)
        outputs = source.draw(layer.out_features, keep, len(x)) if keep < 1.0 else None
        y = torch.full((len(rows), layer.out_features), torch.nan, dtype=rows.dtype)
        for b, row in enumerate(rows):
            batch = b // (SUB_BATCH * positions)
            d = (row - layer.weight).abs()
            d = d if kept is None else d[:, kept[batch]]
            values = d.amax(1) if math.isinf(p) else d.pow(p).sum(1).pow(1.0 / p)
            chosen = slice(None) if outputs is None else outputs[batch]
            y[b, chosen] = values[chosen]
        rows, kept = y - y.nanmean(0) if index < len(model.shifts) else y + layer.bias, outputs
    if positions > 1:
        rows = rows.view(len(x), positions, -1).transpose(1, 2).flatten(1)
    return rows


MODELS = [L.SortMLP, L.SortHybrid, L.SortConv]


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("p", [3.0, math.inf])
def test_training_form_is_the_dense_one_on_subsets(cls, p):
    model, x = small(cls)
    model.set_p(p)
    expected = naive_features(model, x, p)
    got = model.train()._features(x)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    if cls is not L.SortMLP:
        expected = -model.head(torch.tanh(model.hidden(expected)))
    model, x = small(cls)
    model.set_p(p)
    torch.testing.assert_close(model.train()(x), -expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cls", MODELS)
def test_every_parameter_gets_its_gradient(cls):
    model, x = small(cls)
    out = model.train()(x)
    (out.square().sum() + model.scale.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    listed = [p for group in model.groups() for p in group["params"]]
    assert len(listed) == len({id(p) for p in listed})
    assert {id(p) for p in listed} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("cls", MODELS)
def test_network_is_a_plain_chain_that_shares_weights(cls):
    model, x = small(cls)
    network = model.network()
    assert not network.training
    assert model.training
    L.recompute_means(model, [x])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
        state = {name: value + 0.01 for name, value in model.state_dict().items()}
        model.load_state_dict(state)
    torch.testing.assert_close(model.eval()(x), network(x), rtol=0, atol=0)
    if cls is L.SortMLP:
        assert isinstance(network, L.LipschitzSequential)
        assert network.lipschitz == model.lipschitz >= 2.0
        assert network.norms == ("linf",)
        kinds = [type(layer) for layer in network]
        assert kinds[:4] == [L.Normalise, nn.Flatten, L.LInfDistance, L.MeanShift]
        assert kinds.count(L.SortNetLayer) == 4
        assert kinds[-1] is L.Scale
    logits, worst = (model(x), None) if cls is L.SortMLP else model(x, torch.zeros(70, dtype=torch.long), 0.1)
    torch.testing.assert_close(logits, network(x))
    assert worst is None or (worst[:, 0] == 0.0).all()


@pytest.mark.parametrize("cls", MODELS)
def test_recomputed_means_centre_the_sorted_features(cls):
    model, x = small(cls)
    L.recompute_means(model, [x])  # one batch: its means are the means
    y = x
    for layer in model.network():
        y = layer(y)
        if isinstance(layer, L.MeanShift):
            others = [0, *range(2, y.dim())]
            torch.testing.assert_close(
                y.mean(others), torch.zeros(y.shape[1], dtype=y.dtype), atol=1e-6, rtol=0
            )
    assert all(shift.momentum == 0.1 for shift in model.shifts)
    # several batches: the average over samples, whatever their sizes
    first = model.distances[0]
    L.recompute_means(model, [x[:50], x[50:]])
    rows = model._rows(model.normalise(x))
    expected = torch.stack([(row - first.weight).abs().amax(1) for row in rows]).mean(0)
    torch.testing.assert_close(model.shifts[0].running_mean, expected, rtol=1e-6, atol=1e-6)
    L.recompute_means(model, [x[:0], x[:50], x[:0], x[50:]])  # empty ones, also first, count for nothing
    torch.testing.assert_close(model.shifts[0].running_mean, expected, rtol=1e-6, atol=1e-6)
    for nothing in ([], [x[:0]]):
        with pytest.raises(ValueError, match="at least one batch"):
            L.recompute_means(model, nothing)


@pytest.mark.parametrize("cls", MODELS)
def test_bounds_hold_and_are_met_at_radius_0(cls):
    model, x = small(cls)
    L.recompute_means(model, [x])
    x, y = x[:10], torch.arange(10) % 3
    lower, upper = model.bounds(x - 0.1, x + 0.1)
    model.eval()
    worst = None if cls is L.SortMLP else model(x, y, 0.1)[1]
    for _ in range(50):
        out = model(x + 0.1 * (2 * torch.rand_like(x) - 1))
        assert (out >= lower - 1e-12).all()
        assert (out <= upper + 1e-12).all()
        if worst is not None:
            assert (out - out.gather(1, y[:, None]) <= worst + 1e-12).all()
    for end in model.bounds(x, x):
        torch.testing.assert_close(end, model(x))
    with pytest.raises(ValueError, match="negative radius"):
        model.bounds(x + 0.1, x - 0.1)


def test_worst_of_a_linear_layer_is_met_at_a_corner():
    head, y = nn.Linear(4, 3).double(), torch.tensor([0, 2])
    center = torch.randn(2, 4, dtype=torch.float64)
    worst = linear_worst(head, center - 0.3, center + 0.3, y)
    corners = torch.cartesian_prod(*[torch.tensor([-0.3, 0.3], dtype=torch.float64)] * 4)
    out = head(center[:, None] + corners)  # (2, 16, 3)
    difference = out - out.gather(2, y[:, None, None].expand(2, 16, 1))
    torch.testing.assert_close(worst, difference.amax(1))


def test_a_box_through_convolution_and_sign_change():
    chain = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), L.Scale(-2.0)
    ).double()
    x = torch.rand(3, 2, 5, 5, dtype=torch.float64)
    lower, upper = propagate_box(chain, x - 0.2, x + 0.2)
    for _ in range(50):
        out = chain(x + 0.2 * (2 * torch.rand_like(x) - 1))
        assert (out >= lower - 1e-12).all()
        assert (out <= upper + 1e-12).all()
    with pytest.raises(ValueError, match="no interval rule for Softplus"):
        propagate_box(nn.Softplus(), x, x)
    with pytest.raises(ValueError, match="one shape"):
        propagate_box(chain, x, x[:1])


def test_identity_start():
    model = L.SortMLP(6, 9, 3, classes=4, identity=10.0)
    first, second, last = (layer.weight for layer in model.distances)
    assert all(first[k, k % 6] == -10.0 for k in range(9))
    assert (second.diagonal() == -10.0).all()
    assert (last.abs() < 10.0).all()  # fewer outputs than inputs
    assert (first == -10.0).sum() == 9


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: L.SortMLP(4, 4, 1), "at least 2"),
        (lambda: L.SortHybrid(4, 4, 2), "at least 3"),
        (lambda: L.SortConv(3, 8, 4, 5, stride=4), "half the image size"),
        (lambda: L.SortMLP(4, 4, 3, keep=0.0), "keep probability"),
        (lambda: L.SortMLP(4, 4, 3).set_p(0.5), "at least 1"),
        (lambda: L.SortMLP(4, 4, 3)(torch.ones(2, 4, dtype=torch.uint8)), "divide by their scale"),
        (lambda: L.Normalise(0.0, 0.0), "positive, finite std"),
        (lambda: L.Normalise(float("nan"), 1.0), "finite mean"),
        (lambda: L.Normalise([0.1, 0.2], 1.0)(torch.ones(2, 3)), "expected 2 channels"),
        (lambda: L.SortNetConv2d(3, 4, 3)(torch.ones(2, 3, 2, 2)), "smaller than the kernel"),
        (lambda: L.LInfDistanceConv2d(3, 4, 3)(torch.ones(3, 8, 8)), "image\\[None\\]"),
        (lambda: L.LInfDistanceConv2d(3, 4, 0), "kernel_size must be"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_normalise_is_exact_about_its_constant():
    layer = L.Normalise(0.1307, 0.3081)
    assert layer.std == float(torch.tensor(0.3081))  # the same number in float32 and float64
    assert layer.lipschitz >= 1.0 / layer.std
    assert "mean" not in layer.state_dict()
    with pytest.raises(AttributeError, match="part of its guarantee"):
        layer.std = 1.0


def test_convolutional_layers_are_the_dense_ones_on_patches():
    layer = L.SortNetConv2d(3, 5, 3, stride=2, padding=1, keep=0.7, top=6, bias=True)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 7, 6)
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    got = layer(x)
    assert got.shape == (2, 5, 4, 3)
    dense = L.SortNetLayer(27, 5, keep=0.7, top=6, bias=True)
    dense.load_state_dict(layer.state_dict())
    patch = padded[:, :, 2:5, 4:7].flatten(1)  # output row 1, column 2
    torch.testing.assert_close(got[:, :, 1, 2], dense(patch))
    assert layer(x[:0]).shape == (0, 5, 4, 3)


# --- subsets and the mean over them


def test_subsets_are_sorted_of_one_size_and_kept_with_probability_q():
    source = L.SubsetSource(0)
    drawn = [source.draw(40, 0.3, 100) for _ in range(200)]
    for kept in drawn:
        assert kept.shape[0] == 4
        assert (kept.diff(dim=1) > 0).all()
        assert kept.min() >= 0
        assert kept.max() < 40
    sizes = torch.tensor([kept.shape[1] for kept in drawn], dtype=torch.float64)
    assert abs(sizes.mean() - 12.0) < 4 * math.sqrt(40 * 0.3 * 0.7 / 200)
    assert sizes.std() > 2.0  # binomial, not fixed
    counts = torch.bincount(torch.cat([kept.flatten() for kept in drawn]), minlength=40) / 800
    assert (counts - 0.3).abs().max() < 5 * math.sqrt(0.3 * 0.7 / 800)
    assert source.draw(2, 1e-6, 5).shape == (1, 1)  # never none at all


def test_subsets_of_ranks_are_those_of_the_whole_batch():
    whole = L.SubsetSource(3).draw(50, 0.5, 130)
    parts = []
    for first, samples in ((0, 64), (64, 66), (130, 0)):
        source = L.SubsetSource(3)
        source.place(first, 130)
        parts.append(source.draw(50, 0.5, samples))
    assert torch.equal(torch.cat(parts), whole)
    with pytest.raises(ValueError, match="multiple of 32"):
        L.SubsetSource(3).place(16, 130)


def test_subsets_go_on_from_their_state():
    source, other = L.SubsetSource(1), L.SubsetSource(2)
    source.draw(9, 0.5, 40)
    other.load_state_dict(source.state_dict())
    assert torch.equal(source.draw(9, 0.5, 40), other.draw(9, 0.5, 40))


@pytest.mark.parametrize("samples", [64, 70])
def test_compact_mean_shift_is_the_mean_of_those_that_have_the_channel(samples):
    shift = L.MeanShift(7).double()
    shift.running_mean.fill_(5.0)
    kept = torch.tensor([[0, 2, 6], [0, 1, 2], [1, 2, 6]])[: -(-samples // 32)]
    x = torch.randn(samples, 3, dtype=torch.float64, requires_grad=True)
    full = torch.full((samples, 7), torch.nan, dtype=torch.float64)
    index = kept.repeat_interleave(32, 0)[:samples]
    full = full.scatter(1, index, x)
    mean = full.nanmean(0)
    expected = (full - mean).gather(1, index)
    got = shift(x, kept)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    weights = torch.randn_like(expected)
    grads = [torch.autograd.grad((y * weights).sum(), x, retain_graph=True)[0] for y in (got, expected)]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)
    seen = ~mean.isnan()
    torch.testing.assert_close(
        shift.running_mean[seen], 4.5 + 0.1 * mean.detach()[seen], rtol=1e-6, atol=1e-6
    )
    assert (shift.running_mean[~seen] == 5.0).all()
    shift.eval()
    torch.testing.assert_close(shift(x, kept), x - shift.running_mean[index])
    for arguments in ((x[:, :2], kept), (x, kept, 0), (x, kept, -1), (x, kept[0])):
        with pytest.raises(ValueError, match="compact features"):
            shift(*arguments)
