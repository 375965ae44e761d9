"""Figures of tables: legends stay inside the figure, whatever the number of panels."""

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


def _inside(figure):
    figure.draw_without_rendering()
    box, page = figure.legends[0].get_window_extent(), figure.bbox
    return box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1


@pytest.mark.parametrize("tables", [1, 3])
def test_legends_fit(tables):
    names = [f"table {number}" for number in range(tables)]
    values = {method: np.array([0.5, 0.6]) for method in LABELS}
    scores = {name: dict.fromkeys(("official", "repeated", "published"), values) for name in names}
    tasks, titles = dict.fromkeys(names, "classification"), {name: name for name in names}
    assert _inside(draw_scores(scores, tasks, titles, LABELS))
    bins = (np.array([0.2, 0.8]), np.array([0.1, 0.9]), np.array([50, 50]))
    assert _inside(draw_calibration(dict.fromkeys(names, dict.fromkeys(LABELS, bins)), LABELS))


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_scores({}, {}, {}, LABELS)
    with pytest.raises(ValueError, match="no predicted probabilities"):
        draw_calibration({}, LABELS)
