"""The figures of certificates: what they draw, and refusal of bad input."""

import numpy as np
import pytest

from lablib.plots.certified import draw_bracket, draw_radii

EPS = np.array([0.0, 0.1, 0.2])


def test_the_bracket_shows_every_curve():
    figure = draw_bracket(
        EPS, 0.98, np.array([0.98, 0.9, 0.7]), {"margins": np.array([0.97, 0.8, 0.5]), "intervals": EPS[::-1]}
    )
    axis = figure.axes[0]
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["clean", "under attack", "certified, margins", "certified, intervals"]
    assert axis.lines[2].get_ydata().tolist() == [97, 80, 50]
    assert draw_bracket(EPS[:1], 0.9, None, {"margins": np.array([0.5])}, norm="l2").axes


def test_radii_lie_against_the_diagonal():
    exact = np.array([0.1, 0.2, 0.3])
    figure = draw_radii(exact, {"margins": exact / 2}, attacked=np.array([0.1, np.inf, 0.31]))
    axis = figure.axes[0]
    assert axis.lines[-1].get_ydata().tolist() == (exact / 2).tolist()
    assert axis.lines[1].get_xdata().tolist() == [0.1, 0.3]


def test_refusals():
    for call in (
        lambda: draw_bracket(EPS[::-1], 0.9, None, {"margins": EPS}),
        lambda: draw_bracket(EPS, 0.9, None, {}),
        lambda: draw_bracket(EPS, 0.9, EPS[:2], {"margins": EPS}),
        lambda: draw_bracket(EPS[:0], 0.9, None, {"margins": EPS[:0]}),
        lambda: draw_radii(EPS, {}),
        lambda: draw_radii(EPS, {"margins": EPS[:2]}),
        lambda: draw_radii(np.array([np.inf]), {"margins": np.ones(1)}),
    ):
        with pytest.raises(ValueError, match=r"give|finite"):
            call()
