"""Figures of the spline recipes: what is missing is marked, and nothing to draw is said."""

import numpy as np
import pytest

from lablib.plots import spline_fitting, spline_representer

LABELS = {"relu": "ReLU", "householder": "Householder"}
ERRORS = {
    ("l2", "relu"): np.array([[1e-3, 2e-3], [1e-4, 3e-4]]),
    ("l2", "householder"): np.array([[1e-4, 2e-3], [1e-3, 3e-3]]),
    ("linf", "relu"): np.array([[1e-3], [1e-4]]),
}


def test_errors_show_every_seed_and_name_the_winner():
    figure = spline_fitting.draw_errors(ERRORS, LABELS, ("f1", "f2"))
    assert figure.axes[0].lines[0].get_ydata().tolist() == [1e-3, 2e-3]
    assert [text.get_text() for text in figure.axes[2].texts] == ["no guarantee in l∞"]
    assert "4 panels: ReLU in 3, Householder in 1" in figure.get_suptitle()
    figure.savefig("/dev/null", format="png")


@pytest.mark.parametrize(
    "call",
    [
        lambda: spline_fitting.draw_errors({}, LABELS, ("f1",)),
        lambda: spline_fitting.draw_courses([], {}, LABELS, ("f1",)),
        lambda: spline_fitting.draw_fits(np.zeros(2), np.zeros((1, 2)), {}, {}, LABELS, ("f1",)),
        lambda: spline_representer.draw_functions(np.zeros(2), np.zeros(2), np.zeros(2), []),
        lambda: spline_representer.draw_path({}, (), {}, 3),
    ],
)
def test_nothing_to_draw_is_said(call):
    with pytest.raises(ValueError, match="run the experiment"):
        call()
