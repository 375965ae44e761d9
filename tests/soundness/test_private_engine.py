"""What the engine releases: the right sum, noise of the right scale, and no sample beyond its sensitivity."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lablib.layers import MaxMin
from lablib.layers.per_sample import ClipNorm
from lablib.privacy import ClipCotangent, CliplessEngine, CrossEntropy
from lablib.privacy.noise import NOISES, noise_scales

COUNT, RATE_SIZE = 30, 6
pytestmark = pytest.mark.filterwarnings(
    "ignore:step.. on a batch without a backward pass"
)  # noise alone is looked at


def network():
    torch.manual_seed(2)
    return nn.Sequential(
        ClipNorm(1.0),
        nn.Unflatten(1, (1, 4, 4)),
        nn.Conv2d(1, 4, 2),
        MaxMin(dim=1),
        nn.Flatten(),
        nn.Linear(36, 3),
    )


def data():
    generator = torch.Generator().manual_seed(3)
    return TensorDataset(torch.randn(COUNT, 16, generator=generator), torch.arange(COUNT) % 3)


def released(
    net, *, steps, seed=7, skip_backward=False, make=torch.optim.SGD, dataset=None, factor=1.0, **options
):
    """Return what each of ``steps`` steps releases, (steps, parameters) float64, before the inner optimizer uses it.

    The learning rate is 0, so that the weights and with them the bounds stay what they are.
    """
    engine = CliplessEngine(seed=seed)
    inner = make(net.parameters(), lr=0.0)
    settings = {"noise_multiplier": 1.0, "constraint": None, "criterion": CrossEntropy(factor)} | options
    model, optimizer, criterion, loader = engine.make_private(
        module=net,
        optimizer=inner,
        data_loader=DataLoader(dataset or data(), batch_size=RATE_SIZE),
        **settings,
    )
    seen = []

    def look(*_):
        seen.append(torch.cat([p.grad.flatten() for p in net.parameters()]).double())

    optimizer.register_step_pre_hook(look)
    while len(seen) < steps:
        for x, y in loader:
            if not skip_backward:
                criterion(model(x), y).backward()
            optimizer.step()
    assert engine.ledger.steps == len(seen)
    return torch.stack(seen[:steps]), engine


def slices(net):
    ends = list(itertools.accumulate(p.numel() for p in net.parameters()))
    starts = [0, *ends[:-1]]
    return {name: slice(a, b) for (name, _), a, b in zip(net.named_parameters(), starts, ends)}


def scale_by_hand(bounds, net, sigma, noise):
    """The definitions, written out once more."""
    deltas, sizes = bounds.parameters, {name: p.numel() for name, p in net.named_parameters()}
    if noise == "global":
        return {name: sigma * math.sqrt(sum(d * d for d in deltas.values())) for name in deltas}
    if noise == "per-layer":
        layer = {"2": ("2.weight", "2.bias"), "5": ("5.weight", "5.bias")}
        own = {key: math.sqrt(sum(deltas[name] ** 2 for name in names)) for key, names in layer.items()}
        return {name: sigma * math.sqrt(2) * own[name[0]] for name in deltas}
    raw = {
        name: (deltas[name] * math.sqrt(sizes[name])) ** -0.5 for name in deltas
    }  # sigma_l but for a factor
    effective = sum(value**-2 for value in raw.values()) ** -0.5
    return {name: sigma * raw[name] / effective * deltas[name] for name in deltas}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("case", ["plain", "cut", "adam", "empty", "no backward", "system entropy"])
def test_noise_has_the_stated_scale(noise, case):
    sigma, net = 1.7, network()
    options = {"noise": noise, "noise_multiplier": sigma, "constraint": "frobenius"}  # its norms cost nothing
    if case == "cut":
        options["max_physical_batch"] = 2
    if case == "adam":
        options["make"] = torch.optim.Adam
    if case == "no backward":
        options["skip_backward"] = True
    if case == "system entropy":
        options |= {"seed": None, "skip_backward": True}
    if case == "empty":  # one batch of three has no sample at all
        options |= {"expected_batch_size": 1, "dataset": torch.utils.data.Subset(data(), range(5))}
    steps = 20
    found, engine = released(net, steps=steps, **options)
    if case not in ("no backward", "system entropy"):
        silent, _ = released(network(), steps=steps, **options | {"noise_multiplier": 0.0})
        found = found - silent  # the same seed draws the same samples
    size = options.get("expected_batch_size", RATE_SIZE)
    scales = scale_by_hand(engine.sensitivity(), net, sigma, noise)
    for name, part in slices(net).items():
        whitened = found[:, part] * size / scales[name]
        count = whitened.numel()
        assert abs(whitened.mean()) < 5 / math.sqrt(count), name
        assert abs(whitened.square().mean() - 1) < 5 * math.sqrt(2 / count), name
        quartile = (whitened.abs() < 0.67448975).double().mean()
        assert abs(quartile - 0.5) < 5 * 0.5 / math.sqrt(count), name
    # noise of different parameters, and of different steps, has nothing in common
    scale = torch.cat([torch.full((part.stop - part.start,), scales[n]) for n, part in slices(net).items()])
    white = found * size / scale.double()
    assert abs((white[1:] * white[:-1]).mean()) < 5 / math.sqrt(white.numel())
    assert abs((white[:, 1:] * white[:, :-1]).mean()) < 5 / math.sqrt(white.numel())


@pytest.mark.parametrize("noise", NOISES)
def test_all_allocations_are_one_mechanism_of_sigma(noise):
    net = network()
    _, engine = released(net, steps=1)
    bounds = engine.sensitivity()
    sizes = {name: p.numel() for name, p in net.named_parameters()}
    scales = noise_scales(bounds, sizes, 1.3, noise)
    groups = bounds.rows if noise == "per-layer" else None
    # the worst sample moves each parameter by its bound: the shift in units of the noise is 1 / sigma
    shift = math.sqrt(sum((delta / scales[name]) ** 2 for name, delta in bounds.parameters.items()))
    assert shift == pytest.approx(1 / 1.3, rel=1e-9)
    assert groups is None or len({scales["2.weight"], scales["2.bias"]}) == 1
    squared = {
        kind: sum(sizes[n] * s**2 for n, s in noise_scales(bounds, sizes, 1.3, kind).items())
        for kind in NOISES
    }
    assert squared["balanced"] <= squared["global"] * (1 + 1e-12)
    assert squared["balanced"] <= squared["per-layer"] * (1 + 1e-12)


def per_sample_gradients(net, x, y, bound, temperature=1.0):
    """One backward pass per sample, in float64, with its cotangent clipped by hand."""
    slow = nn.Sequential(*net).double()
    rows = []
    for one, label in zip(x.double(), y):
        outputs = slow(one[None])
        loss = nn.functional.cross_entropy(temperature * outputs, label[None]) / temperature
        (cotangent,) = torch.autograd.grad(loss, outputs, retain_graph=True)
        cotangent = cotangent * min(1.0, bound / float(cotangent.norm()))
        rows.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(outputs, list(slow.parameters()), cotangent)])
        )
    return torch.stack(rows)


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("physical", [None, 2, 1])
def test_the_sum_is_divided_by_the_public_size(clip, physical):
    found, engine = released(
        network(), steps=10, noise_multiplier=0.0, loss_clip=clip, max_physical_batch=physical, factor=3.0
    )
    # the same seed draws these samples
    other = CliplessEngine(seed=7)
    net = network()
    _, optimizer, _, loader = other.make_private(
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.0),
        criterion=CrossEntropy(3.0),
        data_loader=DataLoader(data(), batch_size=RATE_SIZE),
        noise_multiplier=0.0,
        constraint=None,
    )
    batches = []
    while len(batches) < 10:
        for batch in loader:
            batches.append(batch)
            optimizer.step()
    assert len({len(x) for x, _ in batches}) > 2  # the drawn sizes differ, the divisor does not
    bound = clip or math.sqrt(2.0)
    for row, (x, y) in zip(found, batches):
        rows = per_sample_gradients(network(), x, y, bound, 3.0) if len(x) else torch.zeros(1, found.shape[1])
        assert torch.allclose(row, rows.sum(0) / RATE_SIZE, atol=1e-6)
        assert rows.norm(dim=1).max() <= engine.sensitivity().total
    assert engine.ledger.to_list() == [[0.0, RATE_SIZE / COUNT, 10]]


def test_clipping_inside_counts_in_units_of_one_sample():
    # the loss is divided by the batch size, and a layer that clips cotangents must not notice
    net = nn.Sequential(ClipNorm(1.0), nn.Linear(16, 8), ClipCotangent(0.05), nn.Linear(8, 3))
    with torch.no_grad():
        net[3].weight.copy_(torch.eye(3, 8))
    found, engine = released(net, steps=20, noise_multiplier=0.0)
    weight = found[:, slices(net)["1.weight"]].norm(dim=1)
    assert engine.sensitivity().parameters["1.weight"] <= 0.05 * (1 + 1e-4)
    assert weight.max() <= 0.05 * COUNT / RATE_SIZE
    assert weight.max() > 0.05 / RATE_SIZE  # and it does not vanish either


def test_neighbours_differ_by_at_most_the_sensitivity():
    # at q = 1 both runs take every sample: what is released differs by one sample's gradient
    x, y = data().tensors
    huge = 1e4 * x[:1]
    not_finite = torch.full_like(huge, math.nan)
    for outlier, shift in ((huge, 0.05), (not_finite, 0.0)):
        seen = []
        for more in (False, True):
            rows = (torch.cat([x, outlier]), torch.cat([y, y[:1]])) if more else (x, y)
            size = len(rows[0])
            found, engine = released(
                network(),
                steps=1,
                noise_multiplier=0.0,
                dataset=TensorDataset(*rows),
                expected_batch_size=size,
            )
            seen.append(found[0] * size)
            bounds = engine.sensitivity()
        difference = seen[1] - seen[0]
        for name, part in slices(network()).items():
            assert difference[part].norm() <= bounds.parameters[name] + 1e-5, name
        assert difference.norm() >= shift


def test_bounds_follow_the_weights():
    def scale(factor):
        net = network()
        with torch.no_grad():
            net[5].weight.mul_(factor)
        found, engine = released(net, steps=40, skip_backward=True)
        return found.std() * RATE_SIZE, engine.sensitivity().total

    for factor in (0.1, 10.0):
        found, bound = scale(factor)
        assert found == pytest.approx(bound, rel=5e-2)
    assert scale(10.0)[1] > 5 * scale(0.1)[1]


def test_projection_follows_every_step():
    net = network()
    engine = CliplessEngine(seed=1)
    model, optimizer, criterion, loader = engine.make_private(
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=5.0, momentum=0.9, weight_decay=0.1),
        criterion=CrossEntropy(),
        data_loader=DataLoader(data(), batch_size=RATE_SIZE),
        noise_multiplier=2.0,
        constraint="spectral",
    )
    noises = []
    for x, y in loader:
        criterion(model(x), y).backward()
        optimizer.step()
        assert torch.linalg.matrix_norm(net[5].weight.detach().double(), 2) <= 1.0
        bounds = engine.sensitivity()
        assert bounds.rows[2].cotangent_out <= math.sqrt(2.0) * (1 + 1e-3)
        noises.append(bounds.total)
    assert len(set(noises)) > 1  # biases are not projected, and their growth is part of the bounds
