"""Exact transport against slow references; proven dual values against exact arithmetic and the exact distance."""

import itertools
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import nn

from lablib.experiments import wasserstein
from lablib.experiments.activation_zoo import ACTIVATIONS
from lablib.experiments.wasserstein import RECIPE, Config, Training, check_below, ray_slope
from lablib.experiments.wasserstein_clouds import TOYS, Clouds, Transport, exact_transport, toy
from lablib.experiments.wasserstein_history import record_toy
from lablib.experiments.wasserstein_training import bound_dual, build, fit
from lablib.layers import Abs, LipschitzSequential, OrthonormalLinear, describe
from lablib.theory.network import evaluate, fractions

SMALL = Config(
    mode="quick",
    seeds=1,
    data="digits",
    pool=1,
    points=60,
    matched=40,
    images=Training((8,), steps=3, batch=20),
    plane=Training((8,), steps=3, batch=20),
    problems=("offset", "generator"),
    toys=("translated blob",),
    toy_points=30,
)


def random_clouds(seed, points=40, features=3):
    rng = np.random.default_rng(seed)
    return Clouds("random", rng.normal(size=(points, features)), rng.normal(size=(points, features)) + 0.5)


@given(st.integers(0, 1000))
@settings(max_examples=15)
def test_the_plan_is_the_best_of_all_permutations(seed):
    clouds = random_clouds(seed, points=6, features=2)
    cost = cdist(clouds.first.astype(float), clouds.second.astype(float))
    best = min(cost[range(6), order].mean() for order in itertools.permutations(range(6)))
    found = exact_transport(clouds)
    assert found.distance == pytest.approx(best, abs=1e-14)
    assert best - 1e-12 <= found.lower <= best + 1e-14


def test_the_plan_agrees_with_another_solver_and_with_sorting_on_a_line():
    clouds = random_clouds(0, points=150, features=5)
    cost = cdist(clouds.first.astype(float), clouds.second.astype(float))
    found = exact_transport(clouds)
    assert found.distance == pytest.approx(cost[linear_sum_assignment(cost)].mean(), rel=1e-12)
    assert sorted(found.target) == list(range(150))
    line = random_clouds(1, points=80, features=1)
    gaps = np.abs(np.sort(line.first[:, 0].astype(float)) - np.sort(line.second[:, 0].astype(float)))
    assert exact_transport(line).distance == pytest.approx(gaps.mean(), rel=1e-12)


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_drawn_within_their_frame_and_known_distances_hold(name):
    clouds = toy(name, 100, seed=3)
    assert clouds.first.shape == (100, 2)
    for points in (clouds.first, clouds.second):
        assert points.min() > clouds.frame[0] - 0.05
        assert points.max() < clouds.frame[1] + 0.05
    if clouds.known is not None:
        assert exact_transport(clouds).distance == pytest.approx(clouds.known, rel=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_trained_potentials_stay_below_the_exact_distance_and_reach_a_translation(activation):
    blob = fit(toy("translated blob", 60), activation, widths=(8, 8), steps=60)
    exact = exact_transport(blob.clouds).distance
    assert 0.98 * exact < blob.bound_dual() <= exact
    for seed in range(2):
        clouds = random_clouds(seed)
        exact = exact_transport(clouds).distance
        assert bound_dual(build(activation, 3, (8, 8), seed), clouds) <= exact
        trained = fit(clouds, activation, widths=(8, 8), steps=30, seed=seed)
        assert 0 < trained.bound_dual() <= exact
        assert trained.slopes(clouds.first).max() <= 1 + 1e-12


@pytest.mark.parametrize("activation", ["relu", "abs", "prelu", "groupsort", "spline"])
def test_the_dual_value_is_a_lower_bound_in_exact_arithmetic_and_tight(activation):
    clouds = random_clouds(5, points=6)
    model = build(activation, 3, (4, 4), seed=2).double().eval()
    outputs = [
        evaluate(describe(model), fractions(points.astype(float)))[:, 0]
        for points in (clouds.first, clouds.second)
    ]
    value = (outputs[0].sum() - outputs[1].sum()) / 6  # constant 1: the network itself is admissible
    bound = bound_dual(model, clouds)
    assert (
        bound <= value + abs(value) * 1e-5
    )  # singular values are 1 - O(1e-6), and the bound divides by them
    assert bound == pytest.approx(float(value), rel=1e-5, abs=1e-9)


def test_a_network_of_any_constant_gives_a_valid_value():
    clouds = random_clouds(7)
    exact = exact_transport(clouds).distance
    for scale in (1.0, 50.0):
        network = nn.Sequential(nn.Linear(3, 16), Abs(), nn.Linear(16, 1))
        with torch.no_grad():
            network[0].weight *= scale
            points = torch.from_numpy(clouds.first), torch.from_numpy(clouds.second)
            raw = float(network(points[0]).mean() - network(points[1]).mean())
        assert bound_dual(network, clouds) <= exact
    assert abs(raw) > exact  # what the division by the constant is for


def test_a_value_above_the_exact_one_stops_the_run():
    transport = Transport(1.0, 1.0, np.arange(2))
    check_below(1.0, transport, "fine")
    with pytest.raises(AssertionError, match=r"abs on toy reaches 1\.1.*guarantee"):
        check_below(1.1, transport, "abs on toy")


def test_networks_without_a_guarantee_or_with_two_outputs_are_refused():
    clouds = random_clouds(0)
    with pytest.raises(ValueError, match="one output"):
        bound_dual(LipschitzSequential(OrthonormalLinear(3, 2)), clouds)
    with pytest.raises(ValueError, match="Lipschitz"):
        bound_dual(nn.Sequential(nn.Linear(3, 1), nn.Softplus()), clouds)


def test_rays_of_an_optimal_potential_have_full_slope():
    blob = fit(toy("translated blob", 50), "abs", widths=(8, 8), steps=80)
    assert 0.99 < ray_slope(blob, blob.clouds, exact_transport(blob.clouds)) <= 1 + 1e-12


def test_training_repeats_and_leaves_the_global_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    clouds = toy("moons and circle", 40)
    first, second = (fit(clouds, "spline", widths=(8,), steps=5, batch=10, seed=3) for _ in range(2))
    assert np.array_equal(first.evaluate(clouds.first), second.evaluate(clouds.first))
    assert torch.equal(before, torch.get_rng_state())


def test_an_interrupt_keeps_what_was_learned_only_if_asked():
    def stop(step, _model):
        if step == 4:
            raise KeyboardInterrupt

    options = {"widths": (8,), "steps": 9, "on_step": stop}
    with pytest.raises(KeyboardInterrupt):
        fit(random_clouds(0), "abs", **options)
    assert fit(random_clouds(0), "abs", keep_on_interrupt=True, **options).step == 4


def test_bad_requests_are_refused(monkeypatch):
    clouds = random_clouds(0)
    for options, message in (
        ({"activation": "sine"}, "choose from"),
        ({"activation": "abs", "widths": ()}, "hidden layer"),
        ({"activation": "abs", "steps": 0}, "positive"),
        ({"activation": "abs", "rate": float("nan")}, "positive"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(clouds, **options)
    for first, second, message in (
        (np.zeros((2, 3)), np.zeros((3, 3)), "equally many"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "at least one point"),
        (np.zeros(3), np.zeros(3), r"\(N, D\)"),
        (np.full((2, 2), np.nan), np.zeros((2, 2)), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            Clouds("bad", first, second)
    with pytest.raises(ValueError, match="choose from"):
        toy("three moons")
    with pytest.raises(ValueError, match="two states"):
        record_toy("translated blob", "abs", states=1)
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ValueError, match="install"):
        exact_transport(clouds)


def test_a_history_ends_where_the_training_does():
    history = record_toy("moons and circle", "abs", points=40, steps=20, states=6, side=11, widths=(8,))
    assert history.steps[0] == 0
    assert history.steps[-1] == 20
    assert history.fields.shape == (len(history.steps), 11, 11)
    assert history.rays.shape == (40, 2, 2)
    trained = fit(toy("moons and circle", 40), "abs", widths=(8,), steps=20)
    assert history.duals[-1] == pytest.approx(trained.bound_dual(), rel=1e-9)
    assert history.duals.max() <= history.exact


@pytest.fixture
def own_figures(tmp_path, monkeypatch):
    """Keep the tree's figures out of it."""
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    monkeypatch.setenv("LABLIB_MODE", "quick")


@pytest.mark.usefixtures("own_figures")
def test_the_recipe_runs_resumes_and_draws(monkeypatch):
    whole = wasserstein.fit
    made = []

    def counted(clouds, activation, **options):
        if len(made) == 8:
            raise KeyboardInterrupt
        made.append(activation)
        return whole(clouds, activation, **options)

    recipe = wasserstein.Recipe(
        name="wasserstein",
        question="?",
        sizes=dict.fromkeys(RECIPE.sizes, SMALL),
        run=RECIPE.run,
        draw=RECIPE.draw,
    )
    monkeypatch.setattr(wasserstein, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        recipe.make()
    made.clear()
    monkeypatch.setattr(wasserstein, "fit", lambda *a, **b: made.append(a[1]) or whole(*a, **b))
    record = recipe.make()
    assert len(made) == 3 * len(ACTIVATIONS) - 8  # the finished ones were kept
    assert set(recipe.draw(record)) == {"wasserstein", "wasserstein_plane"}
    assert record["metrics"]["data"] == "digits"
    for row in record["metrics"]["problems"]:
        assert row["exact_lower"] <= row["exact"] * (1 + 1e-12)
        assert row["matched"] == min(40, row["points"])
        for runs in row["runs"].values():
            assert all(dual <= row["exact"] for dual in runs["dual"])
            assert min(runs["gap_percent"]) >= -1e-7
    assert record["metrics"]["problems"][0]["known"] == pytest.approx(0.8)
    assert record["metrics"]["another_sample"] > 1
