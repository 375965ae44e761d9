"""Figures of the trigger from made-up numbers."""

import numpy as np
import pytest

from lablib.plots import trigger as plots

FREE, RISING = "Unconstrained network", "Monotone network, λ = 2"
CURVES = {FREE: np.array([[1.0, 0.5, 0.2], [1.0, 0.6, 0.1]]), RISING: np.ones((2, 3))}
X = np.array([1.0, 10.0, 100.0])
AXES = np.stack([np.linspace(0, 10, 9)] * 4)
TIME = {"median": 2.0, "lower": 1.5, "upper": 4.0}


def test_every_figure_draws():
    scores = np.add.outer(np.arange(9.0), np.arange(9.0))[None] - 8.0
    gaps = {FREE: CURVES[FREE][:, :2] * np.array([1.0, np.nan]), RISING: CURVES[RISING][:, :2]}
    changed = {"worse": {FREE: [(0.8, 0.02), (0.7, 0.03)], RISING: [(0.9, 0.02)]}}
    figures = [
        plots.draw_maps(
            {"a, b": (scores, 1.0), "c": (scores, 99.0)},
            AXES,
            [(0, 3)],
            ["p_T [GeV]", *"xyz"],
            np.full(4, 5.0),
        ),
        plots.draw_lifetimes(X, gaps, 0.022, 20.0),
        plots.draw_rates(X / 1000, CURVES, 0.022),
        plots.draw_pushes(X, CURVES),
        plots.draw_changes(changed),
        plots.draw_radii(X, CURVES),
        plots.draw_shares(X, {"none": gaps, "some": gaps}, 20.0),
        plots.draw_latency({"torch": {"1": TIME, "1024": TIME}, "C": {"1": TIME, "1024": TIME}}),
    ]
    for figure in figures:
        figure.savefig("/dev/null", format="png")
    left, right, *_ = figures[0].axes
    assert (left.get_title(loc="left"), right.get_title(loc="left")) == ("a,\nb", "c")
    assert len(left.collections) == len(right.collections) + 1  # only the first cut is inside
    assert "1 of 2" in figures[3].axes[0].get_title(loc="left")
    assert left.get_xlabel() == r"$p_\mathrm{T}$ [GeV]"
    assert "unconstrained network\n[percentage points]" in figures[2].axes[1].get_ylabel()
    assert [text.get_text() for text in figures[7].axes[0].texts] == ["2"] * 4


def test_classifiers_that_lose_none_share_a_line_that_names_them():
    figure = plots.draw_pushes(X, CURVES | {"Monotone trees (LightGBM)": np.ones((2, 3))})
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [FREE, f"2 others:\n    {RISING}\n    Monotone trees (LightGBM)"]
    assert len(figure.axes[0].lines) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: plots.draw_maps({}, AXES, [(0, 1)], list("wxyz"), np.zeros(4)),
        lambda: plots.draw_lifetimes(X, {}, 0.1, 1.0),
        lambda: plots.draw_rates(X, {}, 0.1),
        lambda: plots.draw_pushes(X, {}),
        lambda: plots.draw_changes({}),
        lambda: plots.draw_changes({"worse": {}}),
        lambda: plots.draw_radii(X, {}),
        lambda: plots.draw_latency({}),
        lambda: plots.draw_shares(X, {"none": {}}, 1.0),
    ],
)
def test_nothing_to_draw_is_said(call):
    with pytest.raises(ValueError, match="nothing to draw"):
        call()


def test_maps_of_other_pairs_are_refused():
    with pytest.raises(ValueError, match="shape"):
        plots.draw_maps({"a": (np.zeros((2, 9, 9)), 0.0)}, AXES, [(0, 1)], list("wxyz"), np.zeros(4))
