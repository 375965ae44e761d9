"""Outlines of bands, intervals as lines, and the two figures made of them."""

from types import SimpleNamespace

import numpy as np

from lablib.plots.slope_bands import area, band, draw_intervals, draw_what_if, folded, sticks

EDGES, LOW, HIGH = np.array([0.0, 1.0, 3.0]), np.array([-1.0, 0.0]), np.array([2.0, 1.0])


def test_a_band_goes_round_its_cells():
    x, y = band(EDGES, LOW, HIGH)
    assert np.array_equal(x, [0, 1, 1, 3, 3, 1, 1, 0])
    assert np.array_equal(y, [-1, -1, 0, 0, 1, 1, 2, 2])
    x, y = area(EDGES, -EDGES, EDGES)
    assert np.array_equal(x, [0, 1, 3, 3, 1, 0])
    assert np.array_equal(y, [0, -1, -3, 3, 1, 0])


def test_sticks_are_the_chosen_intervals():
    x, y = sticks(np.array([1]), LOW, HIGH)
    assert np.array_equal(x, [0, 1, np.nan], equal_nan=True)
    assert np.array_equal(y, [1, 1, np.nan], equal_nan=True)
    assert len(sticks(np.array([], int), LOW, HIGH)[0]) == 0


def test_long_names_fold_in_the_middle():
    assert folded("bmi") == "bmi"
    assert folded("log smallest IP χ²", "<br>") == "log smallest<br>IP χ²"
    assert folded("unbreakablylongname") == "unbreakablylongname"


def test_figures_show_what_they_are_given():
    row = SimpleNamespace(
        here=1.0,
        score=0.5,
        edges=EDGES,
        curve=EDGES / 2,
        floor=EDGES / 4,
        roof=EDGES,
        cone=np.stack([EDGES * 0, EDGES * 2]),
        raised=np.array([[0.0, -1.0], [1.0, 1.0]]),
        measured=np.array([0.5, 0.0]),
    )
    left, right = draw_what_if(["a", "b"], [1, 0], 0, row, 0.0).axes
    assert left.get_xlabel() == "a"
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "must rise",
        "free",
        "what does happen",
    ]
    assert right.get_xlim()[0] < -1
    assert right.get_xlim()[1] > 1
    (axes,) = draw_intervals(["a", "b"], {"proven": (LOW, HIGH), "exact": (LOW, HIGH)}, "t", "slope").axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b"]
    assert len(axes.lines) == 3
