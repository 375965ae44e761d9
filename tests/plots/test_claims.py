"""The figure of the scoreboard counts what it is given."""

import pytest

from lablib.experiments.claims import VERDICTS
from lablib.plots.claims import LOOKS, draw_scoreboard


def test_every_verdict_has_a_look_of_its_own():
    assert tuple(LOOKS) == VERDICTS
    assert len({colour for colour, _, _ in LOOKS.values()}) == len(VERDICTS)


def test_bars_stack_to_the_number_of_claims():
    counts = [{"better": 2, "holds": 30, "not run": 1}, {"falls short": 4, "reproduced": 6}]
    figure = draw_scoreboard(["a", "b"], counts)
    axes = figure.axes[0]
    ends = [0, 0]
    for bar in axes.patches:
        at = round(bar.get_y() + bar.get_height() / 2)
        ends[at] = max(ends[at], bar.get_x() + bar.get_width())
    assert ends == [33, 10]
    assert {text.get_text() for text in axes.texts} == {"2", "30", "1", "4", "6"}
    assert "Of 43 claims 4 fall short" in axes.get_title("left")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.yaxis_inverted()


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(ValueError, match="give one of each per bar"):
        draw_scoreboard(["a"], [])
    with pytest.raises(ValueError, match="no look for true; the verdicts are better"):
        draw_scoreboard(["a"], [{"true": 1}])
