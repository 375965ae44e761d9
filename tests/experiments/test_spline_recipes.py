"""The spline recipes: errors, guarantees, optima and figures of tiny runs."""

import dataclasses

import numpy as np
import pytest
import torch

from lablib.experiments import spline_fitting, spline_representer
from lablib.layers import LearnableSpline
from lablib.theory.spline_targets import TARGETS

TINY_FIT = spline_fitting.Config("quick", seeds=2, steps=8, batch=50, checks=2, test_points=300, points=100)
TINY_PATH = spline_representer.Config(
    "quick", (1e-4, 1e-1), (1e-4, 1e-1), (5, 9), seeds=2, steps=20, points=20, knots=11
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))


def test_fitting_reports_every_seed_and_goes_on_where_it_stopped(monkeypatch):
    fit_all, seen = spline_fitting.fit_all, []

    def stop_at_third(config, name, norm, on_step):
        seen.append((norm, name))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return fit_all(config, name, norm, on_step)

    monkeypatch.setattr(spline_fitting, "fit_all", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        spline_fitting.run(TINY_FIT)
    sizes = spline_fitting.SIZES | {"quick": TINY_FIT}
    record = dataclasses.replace(spline_fitting.RECIPE, sizes=sizes).make("quick")
    assert seen[2] == seen[3]
    assert len(seen) == len(set(seen)) + 1 == 12
    rows = record["metrics"]["rows"]
    assert len(rows) == 11 * len(TARGETS)
    for row in rows:
        errors = record["arrays"][f"mse {row['norm']} {row['activation']}"][TARGETS.index(row["target"])]
        assert row["min_mse"] == errors.min() <= row["median_mse"] <= row["max_mse"]
        assert row["steepest_secant"] <= 1 + 1e-9
    assert record["metrics"]["course_at"] == [4, 8]
    figures = spline_fitting.draw(record)
    assert set(figures) == {"spline_fitting", "spline_fitting_curves", "spline_fitting_training"}
    assert [len(figure.axes) for figure in figures.values()] == [6, 18, 6]


def test_the_rate_is_constant_and_then_falls():
    rate = spline_fitting._rate(dataclasses.replace(TINY_FIT, steps=400))
    assert [rate(step) for step in (0, 150, 300)] == [2e-3] * 3
    assert 2e-5 <= rate(399) < 2.1e-5
    published = spline_fitting._rate(spline_fitting.SIZES["full"])
    assert published(99_999) == 2e-3


def test_nothing_trained_is_below_the_lower_bound():
    metrics, arrays = spline_representer.run(TINY_PATH)
    assert len(metrics["models"]) == 6
    for model in metrics["models"].values():
        assert np.min(model["gap"]) >= -1e-6
    for row in metrics["optima"]:
        assert row["knots"] <= row["knots_at_data"] <= metrics["knots_at_most"] == 18
        assert row["grid_gap"][0] >= row["grid_gap"][1] - 1e-7 >= -2e-7
    figures = spline_representer.draw(
        {"config": dataclasses.asdict(TINY_PATH), "metrics": metrics, "arrays": arrays}
    )
    assert [len(figure.axes) for figure in figures.values()] == [2, 12]


def test_bends_are_the_same_splines_in_other_coordinates():
    splines = LearnableSpline(2, knots=11, init="abs", scaling=False)
    x = torch.linspace(-2, 2, 41).expand(2, -1)[None]
    before = splines(x)
    spline_representer.move_bends(splines)
    torch.testing.assert_close(splines(x), before, atol=1e-5, rtol=0)
    original = splines.parametrizations["coefficients"].original
    torch.testing.assert_close(original[:, 1:-1].abs().sum(1), splines.second_variation(), atol=1e-4, rtol=0)
    with torch.no_grad():
        original.add_(torch.randn_like(original))
    assert (splines.coefficients.diff(dim=1).abs() <= 0.2).all()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="not all"):
        dataclasses.replace(TINY_PATH, drawn=(0.5,))
    with pytest.raises(ValueError, match="no model"):
        spline_representer.train_model("tree", "values", np.zeros(2), np.zeros(2), TINY_PATH)
