"""Tightness of private training: per-sample gradients against autograd, bounds never passed, designs as they say."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from lablib.experiments import private_tightness
from lablib.experiments.private_tightness import LEVELS, RECIPE, SCALES, draw, moment, read, run, train
from lablib.experiments.private_tightness_designs import DESIGNS, build
from lablib.experiments.private_tightness_gradients import sample_gradients
from lablib.layers import ClipNorm, MaxMin
from lablib.privacy import CrossEntropy, sensitivity
from lablib.privacy.cotangents import ClipCotangent

QUICK = RECIPE.sizes["quick"]
SMALL = dataclasses.replace(QUICK, epochs=1, probe=24)


@pytest.mark.parametrize("clip", [0.3, math.sqrt(2)])
def test_gradients_are_those_of_each_sample_alone(clip, monkeypatch):
    monkeypatch.setattr("lablib.experiments.private_tightness_gradients.CHUNK", 3)
    module = nn.Sequential(
        ClipNorm(1.5), nn.Conv2d(1, 4, 3, stride=2, padding=1), MaxMin(), nn.Flatten(), nn.Linear(16, 3)
    )
    x, y = torch.randn(7, 1, 4, 4), torch.randint(3, (7,))
    criterion = CrossEntropy(2.0)
    norms, sums = sample_gradients(module, criterion, clip, x, y)
    totals = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    for k in range(len(x)):
        loss = criterion(ClipCotangent(clip)(module(x[k : k + 1])), y[k : k + 1]).sum()
        own = torch.autograd.grad(loss, list(module.parameters()))
        for (name, total), gradient in zip(totals.items(), own, strict=True):
            assert float(norms[name][k]) == pytest.approx(float(gradient.norm()), rel=1e-4, abs=1e-7)
            total += gradient
    assert norms.keys() == sums.keys() == totals.keys()
    assert all(torch.allclose(sums[name].float(), total, atol=1e-5) for name, total in totals.items())


def test_other_trained_layers_are_refused():
    module = nn.Sequential(nn.Conv1d(1, 2, 1), nn.Flatten())
    with pytest.raises(ValueError, match="Conv1d is not analysed"):
        sample_gradients(module, CrossEntropy(1.0), 1.0, torch.randn(2, 1, 3), torch.tensor([0, 1]))


@pytest.mark.parametrize("data", SCALES)
@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: f"{d.family}, {d.text}")
def test_designs_have_a_bound_and_only_the_chosen_parts(design, data):
    scale = SCALES[data]
    module = build(design, scale, 10)
    assert sensitivity(module, (1, scale.side, scale.side), 1.0).total > 0
    kinds = [type(part) for part in module]
    assert (nn.ReLU in kinds) != design.orthonormal
    assert kinds.count(ClipNorm) == 1 + 2 * design.clipped_inside
    assert (nn.Conv2d in kinds) == (design.family != "dense")
    assert module(torch.zeros(2, 1, scale.side, scale.side)).shape == (2, 10)


def test_moments_divide_by_the_bound_and_count_signal_without_bias():
    torch.manual_seed(0)
    module = nn.Sequential(ClipNorm(1.0), nn.Linear(5, 2, bias=False))
    bounds = sensitivity(module, (5,), 0.5)
    mean = torch.zeros(2, 5, dtype=torch.float64)
    mean[0, 0] = 0.1
    each = mean + 0.02 * torch.randn(4000, 2, 5, dtype=torch.float64)
    gradients = {"1.weight": each.flatten(1).norm(dim=1)}, {"1.weight": each.sum(0)}
    found = moment(gradients, bounds, module, sigma=2.0, noise="global", batch=10)
    (layer,) = found["layers"]
    assert layer["bound"] == bounds.parameters["1.weight"] == pytest.approx(0.5, rel=1e-4)
    half = float(gradients[0]["1.weight"].median()) / layer["bound"]
    assert layer["quantiles"][LEVELS.index(0.5)] == pytest.approx(half, rel=1e-3)
    wanted = 10 * 0.1 / (2.0 * bounds.total * math.sqrt(10))
    assert (
        layer["signal_to_noise"] == pytest.approx(found["signal_to_noise"]) == pytest.approx(wanted, rel=0.02)
    )


def test_designs_tighten_the_bound_which_is_never_passed():
    pytest.importorskip("dp_accounting")
    images = read("digits")
    config = dataclasses.replace(SMALL, probe=512)
    chosen = {d.text: d for d in DESIGNS if d.family == "dense"}
    first, last = (
        train(chosen[text], images, config, 0) for text in ("ReLU, spectral norm scaled", "noise balanced")
    )
    half = LEVELS.index(0.5)
    for made in (first, last):
        assert made["epsilon"] <= SMALL.epsilon
        assert [m["step"] for m in made["moments"]] == [0, 3, 6]
        assert all(layer["quantiles"][-1] <= 1 for m in made["moments"] for layer in m["layers"])
    before, after = (
        min(layer["quantiles"][half] for layer in made["moments"][-1]["layers"]) for made in (first, last)
    )
    assert before < 0.05
    assert after > 0.5
    assert last["moments"][-1]["signal_to_noise"] > 5 * first["moments"][-1]["signal_to_noise"]


def test_the_recipe_measures_and_draws(tmp_path, monkeypatch):
    pytest.importorskip("dp_accounting")
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    chosen = (DESIGNS[0], DESIGNS[3], DESIGNS[-1])
    monkeypatch.setattr(private_tightness, "DESIGNS", chosen)
    metrics = run(SMALL)
    assert metrics["data"] == "digits"
    assert [row["design"] for row in metrics["rows"]] == [d.text for d in chosen]
    assert (
        len({round(row["seeds"][0]["sigma"], 6) for row in metrics["rows"]}) == 1
    )  # the same epsilon for all
    assert metrics["public"]
    assert metrics["not_free"]
    (figure,) = draw({"metrics": metrics, "config": dataclasses.asdict(SMALL)}).values()
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [d.text for d in chosen]
