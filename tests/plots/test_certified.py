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


def test_between_the_given_radii_only_what_follows_from_them_is_drawn():
    """A certified share holds up to its eps, an attacked one from its eps on: the band keeps to both."""
    attacked, certified = np.array([0.9, 0.8, 0.6]), np.array([0.85, 0.7, 0.5])
    axis = draw_bracket(EPS, 0.9, attacked, {"margins": certified}).axes[0]
    left, proved = axis.lines[1], axis.lines[2]
    assert (left.get_drawstyle(), proved.get_drawstyle()) == ("steps-post", "steps-pre")
    corners = {(round(x, 9), round(y, 9)) for x, y in axis.collections[0].get_paths()[0].vertices}
    below = {(0.0, 70.0), (0.1, 70.0), (0.1, 50.0), (0.2, 50.0)}
    assert corners == below | {(0.0, 90.0), (0.1, 90.0), (0.1, 80.0), (0.2, 80.0)}


def test_few_radii_are_marked_and_certificates_differ_from_the_attack():
    proofs = {"margins": EPS[::-1], "intervals": EPS[::-1]}
    lines = draw_bracket(EPS, 0.9, EPS[::-1], proofs).axes[0].lines[1:]
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}) == 3
    assert len({line.get_color() for line in lines}) == len({line.get_linestyle() for line in lines}) == 3
    many = np.linspace(0, 1, 81)
    lines = draw_bracket(many, 0.9, 1 - many, {"margins": 1 - many}).axes[0].lines[1:]
    assert {line.get_marker() for line in lines} == {""}


def test_radii_lie_against_the_diagonal():
    exact = np.array([0.1, 0.2, 0.3])
    figure = draw_radii(exact, {"margins": exact / 2}, attacked=np.array([0.1, np.inf, 0.31]))
    axis = figure.axes[0]
    assert axis.lines[-1].get_ydata().tolist() == (exact / 2).tolist()
    assert axis.lines[1].get_xdata().tolist() == [0.1, 0.3]
    assert "attack" in axis.get_ylabel()


def test_the_figure_of_radii_names_its_network():
    axis = draw_radii(EPS, {"margins": EPS / 2}, network="ReLU").axes[0]
    assert axis.get_title(loc="left").startswith("ReLU:")
    assert axis.get_ylabel() == "certified radius"


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
