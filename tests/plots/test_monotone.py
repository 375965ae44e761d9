"""Figures of monotone networks: bands hold what they should, every value shown, nothing to draw is said."""

import numpy as np
import pytest
from matplotlib.patches import StepPatch

from lablib.plots import monotone, monotone_toys
from lablib.theory.budget import budget
from lablib.theory.network import affine


def test_a_value_band_holds_every_curve_whose_slopes_are_within():
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.uniform(0.1, 1.0, 30))
    low = rng.uniform(-2, 1, 29)
    high = low + rng.uniform(0, 1, 29)
    for anchor in (0, 13, 29):
        lower, upper = monotone.value_band(x, low, high, anchor, 0.7)
        assert lower[anchor] == upper[anchor] == 0.7
        for share in (0.0, 0.3, 1.0, rng.uniform(0, 1, 29)):
            curve = np.concatenate([[0.0], np.cumsum((low + share * (high - low)) * np.diff(x))])
            curve += 0.7 - curve[anchor]
            assert (curve >= lower - 1e-12).all()
            assert (curve <= upper + 1e-12).all()


def test_outlines_are_the_gradients_that_the_budget_allows():
    """A linear function whose gradient lies on the outline spends exactly lambda, in the dual norm."""
    for norm, order in (("l1", np.inf), ("l2", 2), ("linf", 1)):
        outline = monotone.gradient_outline(norm, 1.5)
        assert np.array_equal(outline[0], outline[-1]) or np.allclose(outline[0], outline[-1])
        for gradient in outline:
            spent = budget([affine(gradient[None])], 2)[0]
            assert np.linalg.norm(spent, ord=order) == pytest.approx(1.5)


def test_slopes_are_drawn_within_their_band():
    x = np.linspace(0, 1, 11)
    fits = {
        "network": {"values": x**2, "low": np.zeros(10), "high": np.full(10, 2.0), "others": [x, -x]},
        "trees": {"values": np.round(x)},
    }
    figure = monotone.draw_slope_bands(x, fits, data=(x, x), truth=x, trained_on=(0.2, 0.6), title="t")
    slopes = [patch for patch in figure.axes[2].patches if isinstance(patch, StepPatch)][-1].get_data().values
    np.testing.assert_allclose(slopes, np.diff(x**2) / np.diff(x))
    assert [text.get_text() for text in figure.axes[3].texts] == ["a step function"]
    bottom, top = figure.axes[2].get_ylim()
    assert bottom < 0 < 1.9 < top
    figure.savefig("/dev/null", format="png")


def test_a_bold_seed_stands_out_beside_the_one_whose_slopes_are_shown():
    x = np.linspace(0, 1, 11)
    fit = {"values": x, "low": np.zeros(10), "high": np.ones(10), "others": [x, 2 * x, x / 2], "bold": 1}
    figure = monotone.draw_slope_bands(x, {"network": fit | {"colour": "red"}})
    np.testing.assert_array_equal(figure.axes[0].lines[3].get_ydata(), 2 * x)
    handles = figure.legends[0].legend_handles
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["median seed", "first seed, slopes below", "certified slopes"]
    assert all(handle.get_color() == monotone.GREY for handle in handles[:2])
    assert figure.axes[0].get_ylim()[1] > 2


def test_partial_dependence_shows_the_band_the_direction_and_the_rows():
    x = np.linspace(-1, 1, 9)
    up = {"name": "age", "x": x, "values": x, "low": 0.0, "high": 2.0, "direction": 1, "rows": [0.1, 0.2]}
    free = {
        "name": "sex",
        "x": x,
        "values": -x,
        "low": -np.ones(8),
        "high": np.ones(8),
        "others": [x],
        "at": 2,
    }
    figure = monotone.draw_partial_dependence([up, free, up], columns=2, output="risk")
    assert [axes.get_title("left") for axes in figure.axes[:3]] == ["age ↑", "sex", "age ↑"]
    assert figure.axes[1].get_xlabel() == "slope per unit in [-1, 1]"
    low, high = figure.axes[0].get_ylim()
    assert low < -1
    assert high > 1
    figure.savefig("/dev/null", format="png")


def test_gradient_sets_show_every_measured_gradient():
    rng = np.random.default_rng(0)
    gradients = {norm: rng.uniform(-0.5, 0.5, (7, 2)) for norm in ("l1", "l2", "linf")}
    shares = {norm: np.array([0.5, 0.25]) for norm in gradients}
    figure = monotone.draw_gradient_sets(gradients, 1.0, wanted=np.eye(2), shares=shares, title="t")
    assert len(figure.axes) == 4
    for axes, measured in zip(figure.axes, gradients.values()):
        np.testing.assert_array_equal(axes.lines[-1].get_xydata(), measured)
    tops = [bar.get_y() + bar.get_height() for bar in figure.axes[3].patches]
    assert max(tops) == 0.75
    figure.savefig("/dev/null", format="png")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: monotone.value_band(np.zeros(3), 0, 1, 0, 0.0), "increasing order"),
        (lambda: monotone.value_band(np.arange(3), 1, 0, 0, 0.0), "exceeds"),
        (lambda: monotone.value_band(np.arange(3), np.nan, 0, 0, 0.0), "NaN"),
        (lambda: monotone.gradient_outline("l3", 1.0), "not one of"),
        (lambda: monotone.gradient_outline("l1", -1.0), "positive"),
        (lambda: monotone.draw_slope_bands(np.arange(3), {}), "no fit"),
        (lambda: monotone.draw_slope_bands(np.arange(3), {"a": {"values": [1.0], "low": 0, "high": 1}}), "as many"),
        (lambda: monotone.draw_partial_dependence([]), "no feature"),
        (lambda: monotone.draw_gradient_sets({}, 1.0), "no gradients"),
        (lambda: monotone_toys.draw_log_errors({}, {}), "run the experiment"),
        (lambda: monotone_toys.draw_outlier(np.arange(2), (0, 0), {}, [], {}, {}), "run the experiment"),
        (lambda: monotone_toys.draw_flower_scores({}, {}, {}, 0.9), "run the experiment"),
        (lambda: monotone_toys.draw_flowers(np.arange(2), {}, np.zeros((2, 2)), 0.5), "run the experiment"),
        (lambda: monotone_toys.draw_forced([], {}, {}, 0.66), "run the experiment"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_said(call, says):
    with pytest.raises(ValueError, match=says):
        call()
