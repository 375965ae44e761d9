"""The audit's parts: canaries at the bound, a simulator that is the engine, what each flaw changes."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from lablib.experiments import private_audit as audit
from lablib.experiments import private_audit_cases as cases
from lablib.experiments.private_audit_cases import Case, claimed_epsilon, refuted_epsilon
from lablib.experiments.private_audit_engine import data_set, engine_run, run_engine
from lablib.experiments.private_audit_models import (
    SUBJECTS,
    claimed_sensitivity,
    criterion,
    find_canary,
    gradients,
    trained,
)
from lablib.experiments.private_audit_simulator import (
    Setting,
    current_bounds,
    draw_steps,
    noise_levels,
    simulate,
)
from lablib.privacy.auditing import Audit
from lablib.privacy.noise import GAUSSIAN, NOISES, SAMPLING, Randomness, noise_scales
from lablib.privacy.sensitivity import sensitivity


@pytest.fixture(scope="module")
def canaries():
    return {name: find_canary(subject) for name, subject in SUBJECTS.items()}


def moved(subject, runs=3, size=0.05):
    """Weights (R, ...) near those at the start."""
    start = {name: value.detach() for name, value in trained(subject.build()).items()}
    return start, {
        name: value + size * torch.randn(runs, *value.shape) / value.numel() ** 0.5
        for name, value in start.items()
    }


def module_at(subject, weights, run):
    module = subject.build()
    with torch.no_grad():
        for name, value in trained(module).items():
            value.copy_(weights[name][run])
    return module


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_canary_is_at_the_bound_but_never_above(name, canaries):
    record, share = canaries[name]
    assert (0.94 if name == "convolution" else 0.9999) < share <= 1.0
    assert record.x.shape == (1, *SUBJECTS[name].shape)
    assert float(record.x.norm()) <= 1.0 + 1e-6


@pytest.mark.parametrize("name", SUBJECTS)
def test_batched_gradients_are_those_of_the_loss(name, canaries):
    subject, (record, _) = SUBJECTS[name], canaries[name]
    _, weights = moved(subject)
    found = gradients(subject.build(), weights, record)
    for run in range(3):
        module = module_at(subject, weights, run)
        criterion()(module(record.x), record.y).sum().backward()
        for parameter, value in trained(module).items():
            assert torch.allclose(found[parameter][run], value.grad, atol=1e-5)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", SUBJECTS)
def test_noise_is_that_of_the_engine_at_the_current_weights(name, noise):
    subject = SUBJECTS[name]
    start, weights = moved(subject)
    bounds = current_bounds(subject, claimed_sensitivity(subject, subject.build()), start, weights)
    sizes = {name: value.numel() for name, value in start.items()}
    levels = noise_levels(Setting(1.7, 1, noise=noise), bounds, sizes)
    for run in range(3):
        proven = sensitivity(module_at(subject, weights, run), subject.shape, criterion().lipschitz)
        for parameter, scale in noise_scales(proven, sizes, 1.7, noise).items():
            assert float(levels[parameter][run]) == pytest.approx(scale, rel=1e-5)


def engine_draws(case, data, seed):
    """What the engine draws with this seed, as the simulator takes it: the canary is the last record."""
    randomness, shapes = Randomness(seed), trained(SUBJECTS[case.subject].build())
    for step in range(case.setting.steps):
        chosen = randomness.generator(SAMPLING, step).random(len(data)) < case.setting.sample_rate
        noise = randomness.generator(GAUSSIAN, step)
        normals = {
            name: torch.from_numpy(noise.standard_normal((1, *value.shape), np.float32))
            for name, value in shapes.items()
        }
        yield torch.tensor([float(chosen[:-1].sum())]), torch.tensor([float(chosen[-1])]), normals


@pytest.mark.parametrize(
    "case",
    [
        Case("dense", "dense", Setting(1.0, 4, others=2, kind="copies", noise="per-layer")),
        Case("two dense", "two dense", Setting(1.0, 4, others=2, noise="balanced")),
        Case("convolution", "convolution", Setting(1.0, 3, 0.5, others=5, kind="copies"), micro=2),
        Case(
            "bias",
            "bias of a map",
            Setting(0.8, 6, 0.25, others=7, kind="mirrored", noise="per-layer"),
            micro=1,
        ),
    ],
    ids=lambda case: case.label,
)
def test_a_simulated_run_is_a_run_of_the_engine(case, canaries):
    """Same random numbers: same weights at the end, and the noisy sums are what the weights' movement tells."""
    canary = canaries[case.subject][0]
    other, subject = audit.other_record(case, canary), SUBJECTS[case.subject]
    data = data_set(case, canary, other, True)
    steps, last = engine_run(case, data, 5)
    _, weights = simulate(subject, case.setting, canary, other, True, 1, 0, draws=engine_draws(case, data, 5))
    rate = case.setting.learning_rate(math.hypot(*claimed_sensitivity(subject, subject.build()).values()))
    start = trained(subject.build())
    for name, value in last.items():
        assert torch.allclose(weights[name][0], value.detach(), atol=2e-6)
        assert not torch.allclose(start[name], value, atol=1e-3)
        noisy = sum(released[name] for _, released in steps)
        movement = (start[name] - value).detach() * case.setting.expected / rate
        assert torch.allclose(movement, noisy, rtol=1e-3, atol=1e-3 * float(noisy.abs().max()))


def test_engine_scores_are_the_simulators(canaries):
    case = Case("dense", "dense", Setting(1.0, 2))
    canary = canaries["dense"][0]
    other = audit.other_record(case, canary)
    scores = run_engine(case, canary, other, 3, 0)
    for present, own in zip((False, True), scores, strict=True):
        seeds = np.random.SeedSequence([0, int(present)]).generate_state(3)
        data = data_set(case, canary, other, present)
        for seed, score in zip(seeds, own, strict=True):
            draws = [(n, k * present, z) for n, k, z in engine_draws(case, data, int(seed))]
            slow, _ = simulate(SUBJECTS["dense"], case.setting, canary, other, present, 1, 0, draws=draws)
            assert float(slow[0]) == pytest.approx(float(score), abs=1e-3)


def test_shuffled_batches_are_full_but_for_the_last():
    setting = Setting(1.0, 8, 0.25, others=7, kind="copies", flaw="shuffled")
    for present in (False, True):
        others, drawn = map(
            torch.stack,
            zip(*(d[:2] for d in draw_steps(setting, present, 50, {}, torch.Generator())), strict=True),
        )
        assert (others + drawn == torch.tensor([2.0, 2.0, 2.0, 2.0 if present else 1.0] * 2)[:, None]).all()
        assert (drawn.reshape(2, 4, 50).sum(1) == float(present)).all()


def test_the_score_is_the_log_likelihood_ratio(canaries):
    """With q = 1 and quiet others it has mean -+ mu^2 / 2 and variance mu^2."""
    canary, _ = canaries["dense"]
    case = Case("dense", "dense", Setting(2.0, 4))
    for present, sign in ((False, -1), (True, 1)):
        scores = audit.simulated_scores(case, canary, present, 20_000, 0)
        assert scores.mean() == pytest.approx(sign * 0.5, abs=0.03)
        assert scores.var() == pytest.approx(1.0, abs=0.05)


def test_refuted_epsilon_lies_between_nothing_and_the_claim():
    setting = Setting(3.0, 2, 0.5)
    claim = claimed_epsilon(setting, 1e-5)
    assert refuted_epsilon(setting, Audit(0.0, 1.0, 1.0, 0.0, 5), 1e-5) == 0.0
    weak, strong = (refuted_epsilon(setting, Audit(0.0, alpha, 0.5, 0.0, 5), 1e-5) for alpha in (0.45, 0.1))
    assert 0 < weak < claim < strong


def test_cases_are_told_apart():
    every = (*cases.SIMULATED, *cases.BROKEN, *cases.ENGINE)
    assert len({case.label for case in every}) == len(every)
    assert all(case.sound for case in (*cases.SIMULATED, *cases.ENGINE))
    assert not any(case.sound for case in cases.BROKEN)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="noise is one of"):
        Setting(1.0, 1, noise="none")
    with pytest.raises(ValueError, match="subjects are"):
        Case("x", "x", Setting(1.0, 1))


def test_the_recipe_runs_draws_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    monkeypatch.setattr(audit, "SIMULATED", cases.SIMULATED[:2])
    monkeypatch.setattr(audit, "BROKEN", cases.BROKEN[2:3])
    monkeypatch.setattr(audit, "ENGINE", cases.ENGINE[:1])
    config = audit.Config("quick", runs=3000, engine_runs=4)
    found = audit.run(config)
    assert not (tmp_path / "results").exists()  # the config names the mode, not the environment
    assert (found["sound"], found["sound_below"], found["broken"], found["broken_caught"]) == (3, 3, 1, 1)
    monkeypatch.setattr(audit, "judge", None)  # all parts are kept
    assert audit.run(config) == found
    figure = audit.draw({"metrics": found, "config": dataclasses.asdict(config)})["private_audit"]
    assert "L / batch size" in {text.get_text() for text in figure.legends[0].get_texts()}
    with pytest.raises(ValueError, match="nothing to draw"):
        audit.draw({"metrics": {"rows": []}, "config": {"delta": 1e-5}})
