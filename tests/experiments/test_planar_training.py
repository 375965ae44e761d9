import itertools

import numpy as np
import pytest
import torch

from lablib.experiments import decision_boundaries, toy_data
from lablib.experiments.decision_boundaries import count_violations
from lablib.experiments.planar_training import ARCHITECTURES, bound_rounding, build, fit
from lablib.layers import describe
from lablib.theory.budget import budget
from lablib.theory.network import evaluate, fractions

CASES = [(label, norm) for label, norms in ARCHITECTURES.items() for norm in norms]


@pytest.mark.parametrize(("label", "norm"), CASES)
def test_no_point_of_a_certified_region_is_misclassified(label, norm):
    trained = fit(toy_data.moons(30), architecture=label, norm=norm, width=16, depth=2, steps=60)
    assert trained.step == 60
    assert trained.model.lipschitz == 1.0
    assert norm in trained.model.norms
    assert (trained.radii > 0).mean() >= 0.5
    assert count_violations(trained, side=201) == 0


@pytest.mark.parametrize(("label", "norm"), CASES)
def test_networks_are_one_lipschitz_between_random_points(label, norm):
    data = toy_data.load("XOR")
    model = build(label, norm, 16, 3, 1, data.points)
    points = torch.from_numpy(np.random.default_rng(0).uniform(-1, 2, (400, 2)))
    order = np.inf if norm == "linf" else 2
    with torch.no_grad():
        rise = (model(points[:200]) - model(points[200:]))[:, 0].abs()
    assert (rise <= torch.linalg.vector_norm(points[:200] - points[200:], ord=order, dim=1) + 1e-12).all()


@pytest.mark.parametrize(("offset", "spread"), [(0, 1), (1e6, 1), (1e9, 1), (0, 1e-9)])
@pytest.mark.parametrize(("label", "norm"), [case for case in CASES if case[0] != "Householder"])
def test_the_rounding_of_outputs_is_bounded_for_points_of_any_size(label, norm, offset, spread):
    points = np.random.default_rng(0).normal(size=(12, 2)) * spread + offset
    data = toy_data.PlanarData("far", points, np.arange(12) % 2)
    trained = fit(data, architecture=label, norm=norm, steps=10, width=8, depth=3)
    exact = evaluate(describe(trained.model), fractions(points))[:, 0]
    error = max(abs(fractions(trained.evaluate(points)) - exact))
    largest = max(1, np.abs(points).max())
    assert error <= bound_rounding(trained.model, points) <= 1e-10 * largest


@pytest.mark.parametrize("function", ["XOR", "AND", "OR"])
@pytest.mark.parametrize("label", ["standard ReLU", "standard |x|"])
def test_a_standard_network_certifies_at_most_a_quarter_of_every_vertex(function, label):
    trained = fit(toy_data.load(function), architecture=label, steps=150)
    assert trained.radii.min() <= 0.25
    assert budget(describe(trained.model), 2).sum() <= 1 + 1e-9


def test_distances_and_sorting_pass_the_bound_on_xor():
    for label in ("linf distance", "SortNet", "MaxMin"):
        radii = fit(toy_data.load("XOR"), architecture=label, steps=300).radii
        assert 0.3 < radii.min() <= 0.5


def test_training_is_repeatable_and_leaves_the_global_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    runs = [fit(toy_data.load("AND"), architecture="MaxMin", steps=20, seed=3).radii for _ in range(2)]
    assert np.array_equal(*runs)
    assert torch.equal(before, torch.get_rng_state())


def test_an_interrupt_keeps_what_was_learned(monkeypatch):
    ticks = itertools.count()

    def stop(trained):
        assert trained.step > 0
        if next(ticks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("lablib.experiments.planar_training.REPORT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(toy_data.load("XOR"), architecture="MaxMin", steps=500, on_progress=stop)
    ticks = itertools.count()
    trained = fit(
        toy_data.load("XOR"), architecture="MaxMin", steps=500, keep_on_interrupt=True, on_progress=stop
    )
    assert trained.step == 3
    assert trained.radii.shape == (4,)


def test_bad_requests_are_refused():
    data = toy_data.load("XOR")
    for options, message in (
        ({"architecture": "Transformer"}, "choose from"),
        ({"architecture": "SortNet", "norm": "l2"}, "linf"),
        ({"architecture": "MaxMin", "width": 6}, "fours"),
        ({"architecture": "MaxMin", "depth": 0}, "depth"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(data, **options)
    with pytest.raises(ValueError, match="on each other"):
        fit(toy_data.drawn("0 0 1; 0 0 0"), architecture="MaxMin")


def test_recipe_runs_and_draws_small():
    config = decision_boundaries.Config(
        steps=10, seeds=2, data=("XOR", "moons"), linf=("MaxMin", "linf distance"), l2=("Householder",)
    )
    metrics, arrays = decision_boundaries.run(config)
    assert len(metrics["cases"]) == 6
    assert all(case["grid_points_misclassified_inside"] == 0 for case in metrics["cases"])
    record = {
        "config": {"data": config.data, "linf": config.linf, "l2": config.l2},
        "metrics": metrics,
        "arrays": arrays,
    }
    assert len(decision_boundaries.draw(record)) == 4
