"""The recipe private_accuracy: its public layers, its three ways to train, its certificates, and its resumed runs."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lablib.certify import estimate_operator_norm
from lablib.experiments import private_accuracy
from lablib.experiments.private_accuracy_certificates import certified_radii
from lablib.experiments.private_accuracy_designs import DESIGNS, linear, lipschitz
from lablib.experiments.private_accuracy_training import CLIPLESS, METHODS, Settings, accuracy, train
from lablib.experiments.private_filters import features, local_averages, oriented_filters
from lablib.layers import LipschitzSequential
from lablib.privacy import certifiable

TINY = Settings(rate=2.0, clip=1.0, epochs=2, batches=5)
SHAPES = [(1, 8, 8), (3, 8, 8)]


def images(shape, count=6, seed=0):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    monkeypatch.setenv("LABLIB_MODE", "standard")  # the config names the mode
    return tmp_path


@pytest.fixture
def tiny(monkeypatch):
    """Digits alone, one network trained by all three methods."""
    pytest.importorskip("opacus")
    pytest.importorskip("dp_accounting")
    design = DESIGNS["digits"]["filters"]
    settings = {method: dataclasses.replace(own, epochs=1) for method, own in design.settings.items()}
    monkeypatch.setitem(DESIGNS, "digits", {"filters": dataclasses.replace(design, settings=settings)})
    return private_accuracy.Config("quick", {"digits": (8.0,)}, 1e-4, seeds=1, certified=20)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_filters_are_public_and_one_lipschitz(shape):
    torch.manual_seed(1)
    first = oriented_filters(shape)
    torch.manual_seed(2)
    second = oriented_filters(shape)
    assert not any(p.requires_grad for p in first.parameters())
    x = images(shape)
    assert torch.equal(features(first, x), features(second, x))
    assert first.lipschitz == 1.0
    with parametrize.cached():
        assert 0.1 < estimate_operator_norm(first.double(), x[0].double(), "l2", steps=10) <= 1.0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_filters_keep_the_local_means_of_pixels_as_linear_features(shape):
    layers, (x, y) = oriented_filters(shape), images(shape, 2)
    outputs = features(layers, torch.stack([x, y, (x + y) / 2, torch.full_like(x, 0.7)]))
    maps = outputs.unflatten(1, (-1, shape[1] // 4, shape[2] // 4))
    pixels = maps[:, -shape[0] :]
    torch.testing.assert_close(pixels[2], (pixels[0] + pixels[1]) / 2, rtol=0, atol=1e-6)
    assert maps[3, : -shape[0]].abs().amax() < 1e-6  # no filter sees an even image
    assert not torch.allclose(maps[2, 0], (maps[0, 0] + maps[1, 0]) / 2, atol=1e-4)  # filters are not linear


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 8, 12), (3, 10, 10)], ids=str)
def test_filters_refuse_images_that_do_not_fit(shape):
    with pytest.raises(ValueError, match="square images"):
        oriented_filters(shape)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_local_averages_are_centred_sums_over_patches(side):
    x = images((3, 8, 8))
    patches = x.unfold(2, side, side).unfold(3, side, side).sum((-1, -2)) / side
    flat = patches.flatten(1)
    expected = flat - flat.mean(1, keepdim=True)
    torch.testing.assert_close(features(local_averages((3, 8, 8), side), x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_training_spends_the_target_and_no_more(method):
    pytest.importorskip("opacus")
    pytest.importorskip("dp_accounting")
    x, y = images((16,), 200), torch.arange(200) % 10
    head = linear(1.0)((16,))
    spent = train(method, head, x, y, TINY, target=3.0, delta=1e-3, seed=0)
    assert 2.99 <= spent["epsilon"] <= 3.0
    assert (spent["steps"], spent["q"]) == (10, 0.2)
    assert head[1].weight.abs().amax() > 0


def test_a_seed_repeats_a_clipless_run():
    pytest.importorskip("dp_accounting")
    x, y = images((16,), 100), torch.arange(100) % 10
    heads = [linear(1.0)((16,)) for _ in range(3)]
    for head, seed in zip(heads, (0, 0, 1), strict=True):
        train(CLIPLESS, head, x, y, TINY, target=3.0, delta=1e-3, seed=seed)
    assert torch.equal(heads[0][1].weight, heads[1][1].weight)
    assert not torch.equal(heads[0][1].weight, heads[2][1].weight)


def test_training_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="methods are"):
        train("none", nn.Identity(), torch.zeros(2, 1), torch.zeros(2), TINY, target=1.0, delta=1e-5, seed=0)


@pytest.mark.parametrize("kind", ["filters", "lipschitz"])
def test_certified_images_withstand_attacks(kind):
    torch.manual_seed(0)
    shape = (1, 8, 8)
    front = oriented_filters(shape) if kind == "filters" else local_averages(shape, 1)
    x = images(shape, 40)
    inner = features(front, x)
    head = (linear(0.5) if kind == "filters" else lipschitz(2.0, 16))(tuple(inner.shape[1:]))
    nn.init.normal_(head[-1].weight)
    labels = head(inner).argmax(1)
    radii = certified_radii(front, head, x, labels)
    assert (radii > 0).all()
    assert accuracy(head, inner, labels) == 1.0
    assert (certified_radii(front, head, x, (labels + 1) % 10) == 0).all()
    network = certifiable(nn.Sequential(front, head)).double()
    moved, start = x.double(), x.double()
    with parametrize.cached():
        for _ in range(30):
            moved = moved.detach().requires_grad_()
            logits = network(moved)
            own = logits.gather(1, labels[:, None])[:, 0]
            other = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
            (slope,) = torch.autograd.grad((other - own).sum(), moved)
            step = moved + 0.2 * torch.tensor(radii)[:, None, None, None] * slope / slope.flatten(1).norm(
                dim=1
            ).clamp(min=1e-30).reshape(-1, 1, 1, 1)
            away = step - start
            size = away.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
            moved = start + away * (torch.tensor(radii).reshape(-1, 1, 1, 1) / size).clamp(max=1.0)
    assert (network(moved).argmax(1) == labels).all()


def test_a_factor_of_the_logits_changes_no_radius():
    front = local_averages((1, 8, 8), 2)
    x = images((1, 8, 8), 20)
    head = lipschitz(2.0, 8)((16,))
    labels = head(features(front, x)).argmax(1)
    before = certified_radii(front, head, x, labels)
    with torch.no_grad():
        head[-1].weight.mul_(1e3)
    np.testing.assert_allclose(certified_radii(front, head, x, labels), before, rtol=1e-4)


def test_every_design_fits_its_data():
    shapes = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
    for data, designs in DESIGNS.items():
        for design in designs.values():
            x = images(shapes[data], 2)
            inner = x if design.front is None else features(design.front(shapes[data]), x)
            head = design.head(tuple(inner.shape[1:]))
            assert head(inner).shape == (2, 10)
            assert not design.certified or isinstance(
                certifiable(nn.Sequential(design.front(shapes[data]), head)), LipschitzSequential
            )


def test_the_recipe_resumes_and_draws(tiny, results, monkeypatch):
    calls = []
    original = private_accuracy.train

    def counted(method, *args, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(method)
        return original(method, *args, **options)

    monkeypatch.setattr(private_accuracy, "train", counted)
    with pytest.raises(KeyboardInterrupt, match="2 of 3 parts"):
        private_accuracy.run(tiny)
    monkeypatch.setattr(private_accuracy, "train", original)
    metrics, arrays = private_accuracy.run(tiny)
    assert {path.parent for path in results.rglob("*.json")} == {results / "quick" / "results"}
    assert [row["method"] for row in metrics["rows"]] == list(DESIGNS["digits"]["filters"].settings)
    assert all(row["spent"] <= 8.0 and 0.2 < row["accuracy"] <= 1.0 for row in metrics["rows"])
    (radii,) = arrays.values()
    assert metrics["rows"][0]["certified"][0] == (radii > 0).mean()
    assert metrics["rows"][1]["certified"] is None
    assert radii.shape == (20,)
    assert radii.dtype == np.float32
    record = {"metrics": metrics, "config": dataclasses.asdict(tiny), "arrays": arrays}
    assert set(private_accuracy.draw(record)) == {"private_accuracy_digits", "private_robust"}


def test_figures_refuse_empty_results():
    from lablib.plots.private_accuracy import draw_accuracy, draw_robust

    with pytest.raises(ValueError, match="nothing to draw"):
        draw_accuracy([], {}, "mnist", 1e-5)
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_robust({}, {})
