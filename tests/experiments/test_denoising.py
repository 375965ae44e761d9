"""Denoisers: firmly nonexpansive to the last pair, the same start for all, stored and found again, resumed."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from lablib.experiments import denoiser, denoising
from lablib.experiments.activation_zoo import ACTIVATIONS
from lablib.experiments.denoiser import Architecture, averaged, build_denoiser, load_denoiser, model_file
from lablib.experiments.denoising_training import Config, sample_patches, stack, train
from lablib.experiments.results import read_result
from lablib.layers import guarantee

TINY = Config("quick", 4, 1, 3, 4, 16, 1e-2, 1, 1, pictures=1, activations=("relu", "spline"))


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Keep runs and figures out of the tree, and use the bundled pictures."""
    for name in ("LABLIB_RUNS", "LABLIB_FIGURES", "LABLIB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("LABLIB_DATA", raising=False)
    monkeypatch.setenv("LABLIB_MODE", "quick")


@pytest.fixture(scope="module")
def patches():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (5, 24, 30)).astype(np.uint8))


def _moved(activation, target="averaged"):
    """A denoiser far from its start, in float64: large random weights and activations."""
    torch.manual_seed(3)
    model = build_denoiser(Architecture(activation, 6, 2), target, noise=1.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model.double()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_averaged_operator_is_firmly_nonexpansive(activation):
    model = _moved(activation)
    assert guarantee(model) == (("l2",), 1.0)
    x = torch.rand(16, 1, 9, 12, dtype=torch.float64)
    y = torch.cat([x[:8] + 1e-3 * torch.randn_like(x[:8]), torch.randn_like(x[8:])])
    step = (x - y).requires_grad_()
    for _ in range(6):  # look for a violating pair: raise ||Td||^2 - <Td, d> over ||d||^2
        moved = (model(y + step) - model(y)).flatten(1)
        excess = (moved.square().sum(1) - (moved * step.flatten(1)).sum(1)) / step.flatten(1).square().sum(1)
        assert excess.max() <= 1e-9
        (gradient,) = torch.autograd.grad(excess.sum(), step)
        size = step.flatten(1).norm(dim=1) / gradient.flatten(1).norm(dim=1).clamp(min=1e-30)
        step = (step + 0.3 * size[:, None, None, None] * gradient).detach().requires_grad_()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_starts_at_the_identity(activation):
    model = build_denoiser(Architecture(activation, 6, 3), "network", noise=0.0)
    x = torch.rand(2, 1, 11, 14)
    torch.testing.assert_close(model(x), x, atol=2e-5, rtol=0)


def test_canonical_state_is_the_same_function_in_half_the_numbers():
    model = _moved("spline")
    state = denoiser.canonical_state(model)
    free = state["branch.2.parametrizations.weight.original"]
    assert (free.triu() == 0).all()
    other = build_denoiser(Architecture("spline", 6, 2)).double()
    other.load_state_dict(state)
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(other(x), model(x), atol=1e-12, rtol=0)


def test_training_lowers_the_error_and_is_repeatable(patches):
    config = dataclasses.replace(TINY, steps=25)
    clean = sample_patches(patches, 4, 16, torch.Generator().manual_seed(1))
    assert clean.shape == (4, 1, 16, 16)
    assert 0.0 <= clean.min() <= clean.max() <= 1.0
    flat = torch.full_like(patches, 90)
    noisy = 90 / 255 + 15 / 255 * torch.randn(3, 1, 24, 24, generator=torch.Generator().manual_seed(2))
    first, second = (train(config, flat, "groupsort", 15, "network", 0) for _ in range(2))
    with parametrize.cached(), torch.no_grad():
        made = first(noisy)
        assert (made - 90 / 255).square().mean() < 0.8 * (noisy - 90 / 255).square().mean()
        torch.testing.assert_close(second(noisy), made)


def test_stack_turns_upright_pictures():
    rng = np.random.default_rng(0)
    lying, upright = rng.integers(0, 256, (4, 6)), rng.integers(0, 256, (6, 4))
    made = stack([lying.astype(np.uint8), upright.astype(np.uint8)])
    assert made.shape == (2, 4, 6)
    assert sorted(made[1].flatten().tolist()) == sorted(upright.flatten().tolist())


def test_recipe_writes_results_resumes_and_stores_denoisers(monkeypatch, capsys):
    recipe = dataclasses.replace(denoising.RECIPE, sizes=dict.fromkeys(("quick", "standard", "full"), TINY))
    calls = []
    original = denoising.train

    def stop_at_third(config, pictures, *job, **options):
        calls.append(job)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(config, pictures, *job, **options)

    monkeypatch.setattr(denoising, "train", stop_at_third)
    monkeypatch.setattr(denoising, "TUNED_ON", 1)
    with pytest.raises(KeyboardInterrupt):
        recipe.make("quick")
    record = recipe.make("quick")
    assert len(calls) == 9, "8 denoisers, and the one that was stopped a second time"
    metrics = record["metrics"]
    assert len(metrics["rows"]) == 8
    assert metrics["data"] == "pictures"
    for row in metrics["rows"]:
        assert 0.0 < row["firmness"] <= 1.0 + 1e-6
        assert ("active_knots" in row) == (row["activation"] == "spline")
    for base in metrics["baselines"]:
        assert base["tv"]["psnr"] > base["noisy"]["psnr"] + 1
    assert read_result("denoising", "quick")["arrays"]["picture_noisy"].shape == (128, 128)
    assert set(recipe.draw(record)) == {"denoising_quality", "denoising_pictures", "denoising_splines"}
    stored = load_denoiser("spline", 15)
    model_file("quick", "spline", 15, "averaged", 0).unlink()
    packed = load_denoiser("spline", 15)
    x = torch.rand(1, 1, 12, 12)
    torch.testing.assert_close(packed(x), stored(x))
    capsys.readouterr()


def test_load_denoiser_trains_a_small_one_where_nothing_is_stored(monkeypatch, capsys):
    sizes = dict.fromkeys(("quick", "standard", "full"), TINY)
    monkeypatch.setattr(denoising, "RECIPE", dataclasses.replace(denoising.RECIPE, sizes=sizes))
    denoiser._train_quick.cache_clear()
    model = load_denoiser("abs", 5, "standard")
    denoiser._train_quick.cache_clear()
    assert guarantee(model.branch) == (("l2",), 1.0)
    assert "training a small one" in capsys.readouterr().err


def test_load_denoiser_says_where_the_standard_one_serves(capsys):
    architecture = Architecture("abs", 4, 1)
    denoiser._say_once.cache_clear()
    denoiser.write_model(
        model_file("standard", "abs", 5, "averaged", 0),
        build_denoiser(architecture),
        architecture,
        "averaged",
    )
    load_denoiser("abs", 5, "standard")
    assert capsys.readouterr().err == ""
    for _ in range(2):
        load_denoiser("abs", 5, "full")
    said = "no full denoiser (abs, sigma 5) is stored: taking the standard one\n"
    assert capsys.readouterr().err == said


def test_bad_arguments_and_damaged_files_say_what_to_do():
    with pytest.raises(ValueError, match="sigma is one of 5, 15"):
        load_denoiser("spline", 7)
    for mode in ("foo", ""):
        with pytest.raises(ValueError, match="mode is one of quick, standard, full, not"):
            load_denoiser("spline", 5, mode)
    with pytest.raises(ValueError, match="activation is one of relu"):
        load_denoiser("tanh", 5)
    with pytest.raises(ValueError, match="even number of channels"):
        Architecture("relu", 3)
    with pytest.raises(ValueError, match="target is one of network, averaged"):
        build_denoiser(Architecture("relu", 4, 1), "half")
    path = model_file("quick", "relu", 5, "averaged", 0)
    denoiser.write_model(
        path, build_denoiser(Architecture("relu", 4, 1)), Architecture("relu", 6, 1), "averaged"
    )
    with pytest.raises(ValueError, match=r"relu_5_averaged_seed0\.pt is no denoiser of this version"):
        load_denoiser("relu", 5)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        load_denoiser("relu", 5)


def test_averaging_keeps_the_network_and_halves_its_change():
    network = _moved("abs", "network")
    operator = averaged(network)
    x = torch.rand(1, 1, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(operator(x), (x + network(x)) / 2)
