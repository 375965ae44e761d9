import numpy as np
import pytest
import torch

from lablib.experiments import activation_gallery
from lablib.experiments.activation_study import (
    ACTIVATIONS,
    WIDTH,
    gradients,
    random_network,
    study,
)
from lablib.plots.activations import histogram_shares

CASES = [
    (name, value, norm)
    for name, entry in ACTIVATIONS.items()
    for value in (
        entry.parameter.choices or (entry.parameter.low, entry.parameter.default, entry.parameter.high)
        if entry.parameter
        else (0.0,)
    )
    for norm in entry.norms
]


@pytest.mark.parametrize(("name", "value", "norm"), CASES)
def test_no_slope_and_no_gradient_above_one(name, value, norm):
    for depth in (1, 5):
        made = study(name, value, norm=norm, depth=depth)
        assert np.abs(made.derivative).max() <= 1 + 1e-12
        assert made.gradient_norms.max() <= 1 + 1e-9
        assert np.abs(np.diff(made.line) / np.diff(made.line_at)).max() <= 1 + 1e-9
        assert np.isfinite(made.field).all()


@pytest.mark.parametrize(("name", "value", "norm"), CASES)
def test_derivative_is_the_slope_of_the_graph(name, value, norm):
    made = study(name, value, norm=norm, depth=1)
    steps = np.diff(made.graph, axis=1) / np.diff(made.inputs)
    smooth = made.derivative[:, 1:] == made.derivative[:, :-1]
    assert smooth.mean() > 0.9
    assert np.allclose(steps[smooth], made.derivative[:, 1:][smooth], atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["absolute value", "MaxMin", "FullSort"])
def test_these_keep_the_gradient_and_relu_does_not(name, norm):
    assert study(name, norm=norm, depth=8).gradient_norms == pytest.approx(1, abs=1e-9)
    assert study("ReLU", norm=norm, depth=8).gradient_norms.mean() < 0.2


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.5])
def test_householder_keeps_the_l2_gradient(angle):
    assert study("Householder", angle, norm="l2", depth=6).gradient_norms == pytest.approx(1, abs=1e-9)


def test_budgets():
    for name in ("ReLU", "absolute value", "leaky ReLU"):
        made = study(name, -0.5)
        assert np.allclose(made.budget_after, made.budget_before)
    assert made.budget_before.sum() == pytest.approx(1)
    for size in (2, 4, 8):
        made = study("GroupSort", size)
        assert 1 < made.budget_after.sum() <= size
        assert (made.budget_after >= made.budget_before - 1e-12).all()
        assert made.budget_after.max() <= 1
    assert np.allclose(study("GroupSort", 8).budget_after, study("FullSort").budget_after)
    assert np.allclose(study("SortNet neuron", 1.0).budget_after, study("linf distance").budget_after)


def test_leaky_relu_at_its_ends_is_abs_relu_and_nothing():
    for slope, other in ((-1.0, "absolute value"), (0.0, "ReLU")):
        ends, known = study("leaky ReLU", slope), study(other)
        assert np.array_equal(ends.graph, known.graph)
        assert np.allclose(ends.field, known.field)
    assert np.array_equal(study("leaky ReLU", 1.0).graph[0], study("ReLU").inputs)


def test_gradients_against_finite_differences():
    network = random_network(ACTIVATIONS["MaxMin"], 0.0, "l2", 3, 1)
    point, step = np.full((1, WIDTH), 0.3), 1e-6
    exact = gradients(network, point)[:, 0]
    for j in range(WIDTH):
        moved = point + step * np.eye(WIDTH)[j]
        with torch.no_grad():
            rise = (network(torch.from_numpy(moved)) - network(torch.from_numpy(point))).numpy()[0]
        assert np.allclose(rise / step, exact[:, j], atol=1e-6)


def test_a_study_is_quick_enough_for_a_slider():
    study("SortNet neuron", 0.75, depth=12)
    times = [study("SortNet neuron", 0.7, depth=12, seed=seed).seconds for seed in range(5)]
    assert np.median(times) < 0.1


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="choose from"):
        study("GELU")
    with pytest.raises(ValueError, match="not 1-Lipschitz in linf"):
        study("Householder", 1.0, norm="linf")
    with pytest.raises(ValueError, match="at least one layer"):
        study("ReLU", depth=0)


def test_gallery_runs_and_draws(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    record = activation_gallery.RECIPE.make("quick")
    assert all(row["largest_gradient_norm"] <= 1 + 1e-9 for row in record["metrics"]["rows"])
    names = activation_gallery.RECIPE.redraw("quick")
    assert len(names) == 2
    assert all(
        (tmp_path / "quick" / f"activation_gallery.{kind}").stat().st_size < 5e5 for kind in ("svg", "png")
    )


def test_histogram_counts_everyone():
    shares = histogram_shares(np.array([0.0, 0.5, 1.0, 1.0 + 1e-12]))
    assert shares.sum() == 1
    assert shares[-1] == 0.5
