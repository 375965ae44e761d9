"""Figures of training runs, from records as an old or a stopped run may have left them."""

import math

import numpy as np
import pytest

from lablib.plots import training as plots

HISTORY = [
    {"clean": 0.5},
    {"clean": None, "held_out_margin": 0.1},
    {"clean": 0.9, "held_out_margin": math.nan},
    {},
]


def test_curve_leaves_out_what_was_not_measured():
    progress, values = plots.curve(HISTORY, "clean")
    assert progress.tolist() == [0.25, 0.75]
    assert values.tolist() == [0.5, 0.9]
    assert [len(part) for part in plots.curve(HISTORY, "attacked")] == [0, 0]


def test_every_figure_draws():
    p = np.array([8.0, 100.0, 1000.0, math.inf])
    rows = [{"name": "a", "certified": 0.8, "attacked": 0.85, "clean": 0.9}]
    figures = [
        plots.draw_schedules(np.arange(4), {"p": p, "rate": np.linspace(1, 0, 4)}),
        plots.draw_curves({"a": HISTORY, "b": HISTORY}, {"clean": "Clean", "held_out_margin": "Margin"}),
        plots.draw_epoch_cost(["a"], [3.0], ["cpu"]),
        plots.draw_certified_curves(np.linspace(0, 1, 5), {"a": np.array([0.0, 0.5], np.float32)}, "digits"),
        plots.draw_losses(np.arange(4.0), {"ramp": np.ones(4)}, 0.3),
        plots.draw_scores([*rows, rows[0] | {"attacked": None}], ("certified", "attacked", "clean")),
    ]
    assert figures[0].axes[0].get_yscale() == "log"
    assert figures[0].axes[1].get_yscale() == "linear"
    for figure in figures:
        assert all(axis.get_title(loc="left") for axis in figure.axes)
        figure.savefig("/dev/null", format="png")


def test_a_panel_without_a_measurement_says_so():
    figure = plots.draw_curves({"a": HISTORY, "old": [{"clean": 0.1}]}, {"clean": "Clean", "x": "X"})
    assert [len(axis.texts) for axis in figure.axes] == [0, 1]
    assert figure.axes[1].texts[0].get_text() == "not measured"


@pytest.mark.parametrize(
    "call",
    [
        lambda: plots.draw_schedules(np.arange(2), {}),
        lambda: plots.draw_curves({}, {"clean": "Clean"}),
        lambda: plots.draw_losses(np.arange(2), {}, 0.3),
        lambda: plots.draw_certified_curves(np.arange(2), {}, "digits"),
        lambda: plots.draw_epoch_cost(["a"], [], ["cpu"]),
        lambda: plots.draw_scores([], ("certified", "attacked", "clean")),
    ],
)
def test_nothing_to_draw_is_said(call):
    with pytest.raises(ValueError, match=r"nothing to draw|give one"):
        call()
