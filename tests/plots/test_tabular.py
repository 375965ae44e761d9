"""Figures of tables: legends stay inside the figure, medians and calibration errors are those of the numbers."""

import itertools

import numpy as np
import pytest

from lablib.plots.tabular import draw_calibration, draw_scores

LABELS = {
    "monotone": "Monotone network (ours)",
    "package": "monotonicnetworks, README kinds",
    "package_default": "monotonicnetworks, default kinds",
    "mlp": "Unconstrained network",
    "hist": "Monotone trees (scikit-learn)",
    "xgboost": "Monotone trees (XGBoost)",
    "lightgbm": "Monotone trees (LightGBM)",
}


def _inside(figure, legends):
    figure.draw_without_rendering()
    page, boxes = figure.bbox, [legend.get_window_extent() for legend in legends]
    apart = all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))
    return apart and all(b.x0 >= 0 and b.x1 <= page.x1 and b.y0 >= 0 and b.y1 <= page.y1 for b in boxes)


@pytest.mark.parametrize("tables", [1, 3])
def test_legends_fit(tables):
    names = [f"table {number}" for number in range(tables)]
    values = {method: np.array([0.5, 0.6]) for method in LABELS}
    scores = {name: dict.fromkeys(("official", "repeated", "published"), values) for name in names}
    tasks, titles = dict.fromkeys(names, "classification"), {name: name for name in names}
    figure = draw_scores(scores, tasks, titles, LABELS)
    assert _inside(figure, figure.legends)
    bins = (np.array([0.2, 0.8]), np.array([0.1, 0.9]), np.array([50, 50]))
    figure = draw_calibration(dict.fromkeys(names, dict.fromkeys(LABELS, bins)), LABELS)
    assert _inside(figure, [axes.get_legend() for axes in figure.axes])


def test_bars_are_medians_and_a_method_without_published_runs_says_so():
    seeds = {"mlp": np.array([0.5, 0.6, 0.1])}
    table = {"official": seeds | {"package_default": np.array([0.4])}, "published": seeds}
    figure = draw_scores({"t": table}, {"t": "classification"}, {"t": "T"}, LABELS)
    bars = [line.get_xdata() for line in figure.axes[0].lines if line.get_color() == "black"]
    np.testing.assert_allclose(bars, [[40, 40], [50, 50], [50, 50]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["not in the published scripts"]


def test_calibration_is_the_difference_and_its_weighted_mean():
    bins = (np.array([0.2, 0.8, 0.9]), np.array([0.1, 0.85, 0.0]), np.array([60, 39, 1]))
    axes = draw_calibration({"t": {"mlp": bins}}, LABELS).axes[0]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [-10, 5])  # one row is no bin
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Unconstrained network: 8.8 %"]
    np.testing.assert_allclose(axes.collections[0].get_sizes(), [120, 78])


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_scores({}, {}, {}, LABELS)
    with pytest.raises(ValueError, match="no predicted probabilities"):
        draw_calibration({}, LABELS)
