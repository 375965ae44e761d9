"""The toys of monotone networks: the batched form is the lab's network, and what the recipe states holds."""

import dataclasses

import numpy as np
import pytest
import torch

from lablib.certify import certify_slopes
from lablib.experiments import monotone_lines, monotone_plane, monotone_toys
from lablib.experiments.monotone_population import GRADIENT_NORM, Population, evaluate, train
from lablib.layers import MonotoneNetwork, MonotonicWrapper
from lablib.plots.monotone import gradient_outline

TINY = monotone_toys.Config(
    "quick",
    monotone_lines.LogConfig(seeds=2, steps=3, width=4, cells=6, span=2, trees=3),
    monotone_lines.OutlierConfig(2, 3, 4, lambdas=(1.0, 16.0), drawn=(1.0,), losses=("mse",)),
    monotone_plane.FlowerConfig(1, 2, (1.0, 4.0), (4, 8), (2, 4), width=8, group=4, tests=50, side=7),
    monotone_plane.GradientConfig(1, 3, reach=2, points=8, widths=(4,), measured=3),
    monotone_lines.ForcedConfig(2, 3, slopes=(0.0, 1.0)),
)


@pytest.mark.parametrize("kind", GRADIENT_NORM)
@pytest.mark.parametrize("residual", ["certified", "lipschitz"])
def test_a_batched_member_is_the_monotone_network(kind, residual):
    options = {"inputs": 2, "widths": (8, 8), "group_size": 4, "directions": (1, -1), "residual": residual}
    population = Population(kind, [0.5, 3.0], [0, 1], **options)
    with torch.no_grad():
        for weight in population.free:
            weight *= 3  # beyond the caps
    x = np.random.default_rng(0).standard_normal((40, 2))
    batched = population(torch.tensor(x, dtype=torch.float32)).detach().numpy()
    for member, values in zip(population.members(), batched):
        assert isinstance(member, MonotoneNetwork)
        made, slopes = evaluate(member, x)
        np.testing.assert_allclose(made, values, atol=3e-6)
        assert (slopes[:, 0] >= 0).all()
        assert (slopes[:, 1] <= 0).all()


def test_members_do_not_influence_each_other():
    x, y = np.linspace(-1, 1, 16)[:, None], np.linspace(0, 1, 16)
    alone = Population("one-inf", [2.0], [7], widths=(4,))
    train(alone, x, y, steps=20, rate=0.05, batch=5)
    beside = Population("one-inf", [1.0, 2.0], [3, 7], widths=(4,))
    train(beside, x, np.stack([-5 * y, y]), steps=20, rate=0.05, batch=5)
    for one, both in zip(alone.parameters(), beside.parameters()):
        torch.testing.assert_close(one[0], both[1], atol=1e-6, rtol=1e-5)


def test_a_mismatched_residual_forces_a_slope_and_the_certified_one_does_not():
    config = monotone_lines.ForcedConfig(seeds=2, steps=300, slopes=(0.0,), rate=3e-2)
    made = {
        model: monotone_lines.fit_forced(config, model, lambda _: None) for model in ("mismatch", "certified")
    }
    assert config.mismatched - config.lipschitz == pytest.approx(0.659, abs=1e-3)
    assert made["mismatch"]["smallest"].min() >= config.mismatched - config.lipschitz - 1e-9
    assert made["mismatch"]["low"].min() >= config.mismatched - config.lipschitz - 1e-9
    assert made["certified"]["mean"].max() < 0.1
    assert made["certified"]["low"].min() >= 0
    population = Population("one-inf", [2.0], [0], residual="lipschitz", strength=[3.0])
    assert isinstance(population.members()[0], MonotonicWrapper)


def test_the_flower_is_the_level_set_it_is_said_to_be():
    config = monotone_plane.FlowerConfig(1, 1)
    points, levels = monotone_plane.flower_points(config)
    assert points.shape == (1200, 2)
    tests, wanted = monotone_plane.flower_tests(config)
    for at, level in ((points, levels), (tests, wanted)):
        radius = np.hypot(*at.T) / (1 - 0.1 * np.cos(20 * np.arctan2(at[:, 1], at[:, 0])))
        np.testing.assert_allclose(radius - 1, level, atol=1e-12)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_nearest_gradients_are_nearest(norm):
    rng = np.random.default_rng(0)
    wanted = rng.standard_normal((20, 2)) * 2
    found = monotone_plane.nearest(wanted, norm, 1.3)
    assert (monotone_plane.dual_norm(found, norm) <= 1.3 * (1 + 1e-12)).all()
    corners = gradient_outline(norm, 1.3, corners=400)
    edges = np.concatenate(
        [corners[:-1] + share * np.diff(corners, axis=0) for share in np.linspace(0, 1, 201)]
    )
    outside = monotone_plane.dual_norm(wanted, norm) > 1.3
    slow = np.linalg.norm(wanted[outside, None] - edges, axis=2).min(1)
    np.testing.assert_allclose(np.linalg.norm(wanted - found, axis=1)[outside], slow, atol=0.02)
    np.testing.assert_allclose(found[~outside], wanted[~outside], atol=1e-12)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A tiny run that is stopped once and goes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABLIB_FIGURES", str(tmp_path_factory.mktemp("figures")))
        seen, fit = [], monotone_toys.FIT["flower"]

        def stop_once(config, part, on_step):
            seen.append(part)
            if len(seen) == 2:
                raise KeyboardInterrupt
            return fit(config, part, on_step)

        patch.setitem(monotone_toys.FIT, "flower", stop_once)
        with pytest.raises(KeyboardInterrupt):
            monotone_toys.run(TINY)
        sizes = monotone_toys.RECIPE.sizes | {"quick": TINY}
        made = dataclasses.replace(monotone_toys.RECIPE, sizes=sizes).make("quick")
        assert seen[1] == seen[2]
        assert len(seen) == len(set(seen)) + 1
    return made


def test_every_row_has_its_spread_and_every_bound_holds(record):
    rows = record["metrics"]["rows"]
    assert {row["experiment"] for row in rows} == set(monotone_toys.FIT)
    for row in rows:
        for measure in (value for value in row.values() if isinstance(value, dict)):
            assert measure["low"] <= measure["median"] <= measure["high"]
        if row["experiment"] == "gradients" and row["wanted"] == "all":
            assert row["longest"]["high"] <= 1 + 1e-12
        if row["experiment"] == "log" and row["part"] in ("published", "certified", "boosting"):
            assert row["decreasing"]["high"] == 0
    for model in ("unconstrained", "lipschitz", "published", "certified"):
        low, high = record["arrays"][f"log/{model}/band"].T
        slopes = np.diff(record["arrays"][f"log/{model}/curves"][0]) / np.diff(np.linspace(1, 6, 7))
        assert (slopes >= low - 1e-9).all()
        assert (slopes <= high + 1e-9).all()


def test_budgets_bound_certified_slopes_in_turn_bound_gradients(record):
    for kind in GRADIENT_NORM:
        get = {
            key: record["arrays"][f"gradients/{kind}/{key}"] for key in ("gradients", "certified", "budget")
        }
        assert (np.abs(get["gradients"]) <= get["certified"][:, :, None] + 1e-12).all()
        assert (get["certified"] <= get["budget"] + 1e-12).all()


def test_figures_are_drawn(record):
    figures = monotone_toys.draw(record)
    parts = ("log", "extrapolation", "outlier", "flower", "flower_scores", "gradients", "forced")
    assert set(figures) == {f"monotone_toys_{part}" for part in parts}
    assert [len(figures[f"monotone_toys_{part}"].axes) for part in parts] == [10, 2, 4, 7, 3, 4, 2]


def test_unconstrained_members_are_certified_too():
    network = Population("unconstrained", [1.0], [0], widths=(4,)).members()[0]
    slopes = evaluate(network, np.linspace(-3, 3, 50)[:, None])[1]
    bound = certify_slopes(network)
    assert bound.low[0, 0] <= slopes.min()
    assert slopes.max() <= bound.high[0, 0]


def one_step(x, y, **options):
    train(Population("inf", [1.0], [0]), np.asarray(x), np.asarray(y), steps=1, rate=1.0, **options)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Population("three", [1.0], [0]), "no kind"),
        (lambda: Population("inf", [1.0], [0], residual="none"), "no residual"),
        (lambda: Population("inf", [1.0], []), "seeds"),
        (lambda: Population("inf", [1.0], [0], directions=(1, 1)), "directions"),
        (lambda: one_step(np.zeros((3, 2)), np.zeros(3)), "shape"),
        (lambda: one_step(np.zeros((3, 1)), np.zeros(2)), "values"),
        (lambda: one_step(np.full((3, 1), np.nan), np.zeros(3)), "NaN"),
        (lambda: one_step(np.zeros((3, 1)), np.zeros(3), loss="l3"), "loss"),
        (lambda: monotone_plane.FlowerConfig(1, 1, lipschitz=3.0), "not among"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
