"""Pictures of splines: paths that are drawn, and figures that say what they show."""

import numpy as np

from lablib.plots import splines as plots


def test_paths():
    t, v = np.array([-1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.5])
    x, y = plots.extended(t, v, (-2, 3))
    assert (x.tolist(), y.tolist()) == ([-2, -1, 0, 1, 3], [2, 1, 0, 0.5, 1.5])
    x, y = plots.steps(t, np.array([-1.0, 0.5]), (-2, 3))
    assert (x.tolist(), y.tolist()) == ([-2, 0, 0, 3], [-1, -1, 0.5, 0.5])
    x, y = plots.pieces(t, v, np.array([False, True]))
    assert np.array_equal(x, [0, 1, np.nan], equal_nan=True)
    assert np.array_equal(y, [0, 0.5, np.nan], equal_nan=True)


def test_figures_say_what_they_show():
    t, raw = np.linspace(-1, 1, 5), np.array([0.0, 2.0, 0.0, 0.1, 0.0])
    figure = plots.draw_projection(t, raw, raw / 4)
    assert "2 of 4 pieces" in figure.axes[0].get_title(loc="left")
    figure = plots.draw_vanishing_knots(t, raw, {0.1: (t, raw), 1.0: (t[[0, 2, 4]], raw[[0, 2, 4]])})
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["λ = 0.1: 3 knots", "λ = 1: 1 knot"]
    figure = plots.draw_fits(t, raw, t, {"ReLU": (raw, raw, 0.01), "learned spline": (raw, raw, 0.1)})
    assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == [
        "ReLU: MSE 1.0e-02",
        "learned spline: MSE 1.0e-01",
    ]
    assert len(plots.draw_inits(t, {"a": [raw], "b": [raw, t]}).axes) == 2
    lines = (
        plots.draw_loss_of_gradient((1, 2), {"absolute value": [1, 1], "leaky ReLU": [1, 0.5]}).axes[0].lines
    )
    assert [line.get_label() for line in lines] == ["absolute value", "leaky ReLU"]
