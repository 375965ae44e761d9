"""What the private notebook runs live: bounds hold for samples and searches, runs keep to their budget."""

import numpy as np
import pytest
import torch

from lablib.experiments import live_private as live
from lablib.privacy import CrossEntropy, sensitivity


@pytest.mark.parametrize("architecture", live.ARCHITECTURES)
@pytest.mark.parametrize("bias", [False, True])
def test_no_sample_passes_a_bound(architecture, bias):
    found = live.budgets(architecture, depth=2, width=16, bias=bias, temperature=20.0, loss_clip=0.7)
    rows, measured = found.bounds.rows, found.measured
    assert measured["gradients"].keys() == found.bounds.parameters.keys()
    for row in rows:
        assert measured["features"][row.name] <= row.output_norm
        assert measured["cotangents"][row.name] <= row.cotangent_out
    for name, bound in found.bounds.parameters.items():
        assert 0 < measured["gradients"][name] <= bound
    assert found.bounds.loss_lipschitz == 0.7


@pytest.mark.parametrize("architecture", live.ARCHITECTURES)
def test_norms_are_those_of_single_samples(architecture):
    model = live.build(architecture, 1, 16, bias=True)
    x, y = live.digits("test")
    criterion = CrossEntropy(8.0)
    found = live.per_sample_norms(model, x[:3], y[:3], criterion)
    for number in range(3):
        model.zero_grad()
        criterion(model(x[number : number + 1]), y[number : number + 1]).sum().backward()
        for name, parameter in model.named_parameters():
            assert found.gradients[name][number] == pytest.approx(float(parameter.grad.norm()), rel=1e-4)
    last = [name for name, _ in model.named_children()][-1]
    assert torch.allclose(found.features[last], model(x[:3]).norm(dim=1))


def test_the_search_comes_close_to_the_bounds_of_dense_layers():
    model, criterion = live.build("dense", 1, 32), CrossEntropy(8.0)
    bounds = sensitivity(model, (1, 8, 8), criterion.lipschitz).parameters
    longest = live.search(model, (1, 8, 8), criterion, rounds=15).largest()["gradients"]
    start = live.search(model, (1, 8, 8), criterion, rounds=1).largest()["gradients"]
    for name, bound in bounds.items():
        assert start[name] <= longest[name] <= bound
        assert longest[name] > 0.85 * bound


def test_a_run_repeats_with_a_seed_and_reports_what_it_spends():
    reports = []
    made = live.train_private(steps=12, seed=3, on_progress=lambda run: reports.append(run.step))
    again = live.train_private(steps=12, seed=3)
    assert made.step == again.step == made.engine.ledger.steps == 12
    assert not made.spent
    assert all(
        torch.equal(a, b) for a, b in zip(made.model.parameters(), again.model.parameters(), strict=True)
    )
    steps = [row["step"] for row in made.history]
    assert len(steps) >= min(10, made.step)  # a curve, however fast the run is
    assert steps == sorted(set(steps))
    end = made.history[-1]
    assert end["epsilon"] == made.engine.get_epsilon(live.DELTA, "rdp")
    assert 0 <= end["accuracy"] <= 1


def test_a_target_ends_the_run():
    made = live.train_private(steps=100, noise_multiplier=4.0, target_epsilon=1.0, seed=0)
    assert made.spent
    assert 0 < made.step < 100
    assert made.history[-1]["epsilon"] <= 1.0
    with pytest.raises(ValueError, match="not one step"):
        live.train_private(noise_multiplier=0.5, target_epsilon=0.1)


def test_an_interrupt_keeps_what_was_learned(monkeypatch):
    def stop(run):
        raise KeyboardInterrupt

    monkeypatch.setattr(live, "REPORT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        live.train_private(steps=50, on_progress=stop)
    made = live.train_private(steps=50, on_progress=stop, keep_on_interrupt=True)
    assert 0 < made.step < 50
    assert not made.spent


def test_refusals():
    for wrong in ({"architecture": "recurrent"}, {"depth": 0}, {"width": 1}):
        with pytest.raises(ValueError, match="choose from"):
            live.build(**wrong)
    with pytest.raises(ValueError, match="noise"):
        live.train_private(noise="none", steps=1)


def test_constraints_bound_the_weights():
    for constraint in live.CONSTRAINTS:
        model = live.build("dense", 2, 16, constraint=constraint)
        weights = [layer.weight.detach().double() for layer in model if isinstance(layer, torch.nn.Linear)]
        norms = [torch.linalg.matrix_norm(weight, 2) for weight in weights]
        assert np.all(np.array(norms) <= 1 + 1e-5)
