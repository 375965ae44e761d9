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


def test_fits_name_their_target_and_their_error():
    x, line = np.linspace(-1, 1, 3), np.zeros((2, 3))
    errors = {"relu": np.array([1e-3, 2e-3]), "householder": np.array([1e-4, 1.0])}
    figure = spline_fitting.draw_fits(
        x, line, {"relu": line, "householder": line}, errors, LABELS, ("f1", "f2")
    )
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["f1", "f2", "", ""]
    assert [axis.get_title(loc="right") for axis in figure.axes[:2]] == ["MSE 1.0e-03", "MSE 2.0e-03"]


def test_path_has_a_column_for_each_model_and_one_for_grids():
    optima = {
        "weight": np.array([1e-3, 1e-2]),
        "mse": np.array([0.1, 0.2]),
        "knots": np.array([3, 1]),
        "grid_gap": np.array([[0.1, 0.01], [0.2, 0.0]]),
    }
    table = {key: np.ones((2, 3)) for key in ("knots", "mse", "gap")}
    models = {"spline values": table, "spline bends": table, "linf values": table}
    figure = spline_representer.draw_path(optima, (11, 21), models, 8)
    assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == ["one spline", "network, l∞ weights"]
    assert len(figure.axes) == 9
    assert [text.get_text() for text in figure.axes[2].get_legend().get_texts()] == [
        "convex optimum",
        "values moved",
        "bends moved",
        "at most N − 2 = 8",
    ]


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
