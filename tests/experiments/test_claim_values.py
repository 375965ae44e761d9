"""Expressions over result files against what they say, and refusals of what says nothing."""

import numpy as np
import pytest

from lablib.experiments.claim_values import evaluate, results_of

RECORD = {
    "seconds": 3.5,
    "metrics": {
        "rows": [
            {"name": "a, b", "size": 2, "x": [1.0, 3.0], "ok": True, "shape": [2, 3]},
            {"name": "c", "size": 2, "x": [5.0, None], "ok": False, "shape": [3, 4]},
            {"name": "d", "size": 4, "x": [7.0, 9.0], "ok": True, "shape": [4, 5]},
        ],
        "at": {"0.3": 0.25},
        "α β": 4,
        "word": "text",
    },
    "arrays": {"grid": np.arange(6.0).reshape(2, 3)},
}


def value(expression):
    return evaluate(expression, {"r": RECORD, "r-0.1_b": {"metrics": {"y": 10}}}.__getitem__)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("r:seconds", 3.5),
        ('r:metrics.at."0.3"', 0.25),
        ('r:metrics."α β"', 4.0),
        ("r:metrics.rows[0].x[1]", 3.0),
        ("sum(r:metrics.rows[*].size)", 8.0),
        ("sum(r:metrics.rows[name=d].x)", 16.0),
        ('sum(r:metrics.rows[name="a, b"].x)', 4.0),
        ("max(r:metrics.rows[shape=[2, 3]].x)", 3.0),
        ("mean(r:metrics.rows[size=2, name!=c].x)", 2.0),
        ("median(r:metrics.rows[ok=true].x)", 5.0),
        ("missing(r:metrics.rows[*].x)", 1.0),
        ("count(r:metrics.rows[*].name)", 3.0),
        ("count(r:metrics.rows[x!=null].x)", 6.0),
        ("max(r:arrays.grid)", 5.0),
        ("r:arrays.grid[1][2]", 5.0),
        ("std(r:arrays.grid[0])", float(np.std([0, 1, 2]))),
        ("2 + 3 * 4 - 6 / 4", 12.5),
        ("(2 + 3) * 4", 20.0),
        ("10 - 4 - 3", 3.0),
        ("1e-3 * r-0.1_b:metrics.y", 0.01),
        ("100 * r-0.1_b:metrics.y - r:seconds", 996.5),
        ("max(r:metrics.rows[0].x / r:metrics.rows[2].x)", 3 / 9),
        ("max(abs(r:metrics.rows[0].x - r:metrics.rows[2].x))", 6.0),
        ("max(r:metrics.rows[0].x) - min(r:metrics.rows[2].x)", -4.0),
        ("all(r:metrics.rows[*].ok)", False),
        ("any(r:metrics.rows[*].ok)", True),
        ("r:metrics.rows[name=d].ok", True),
        ("mean(r:metrics.rows[*].ok)", 2 / 3),
    ],
)
def test_values(expression, expected):
    found = value(expression)
    assert found == pytest.approx(expected, rel=1e-12)
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "an expression is empty"),
        ("r:", "cannot be read from 'r:'"),
        ("r:metrics.", "cannot be read from '.'"),
        ("r:metrics.nothing", "no 'nothing'; there are: rows, at"),
        ("r:metrics.rows.x", "no 'x'"),
        ("r:metrics.rows[7].x", r"\[7\] of 3"),
        ("r:metrics.rows[name=z].x", r"nothing has \[name=z\]"),
        ("r:metrics.rows[?].x", r"cannot be read: \[\?\]"),
        ("r:metrics.word[0]", "of what is no list"),
        ("r:metrics.word", "is no number"),
        ("r:metrics.rows[*].size", "is 3 numbers; reduce them by one of min, max"),
        ("max(r:metrics.rows[1].x)", "is nan"),
        ("1 / 0", "is inf"),
        ("max(r:seconds", "a parenthesis is not closed"),
        ("r:seconds r:seconds", "goes on with 'r:seconds' where it should end"),
        ("most(r:seconds)", "'most' stands where a path"),
        ("2 +", "'the end' stands where a path"),
        ("max(r:metrics.rows[*].x - r:metrics.rows[*].size)", "6 and 3 numbers cannot be combined"),
    ],
)
def test_what_says_nothing_is_refused(expression, says):
    with pytest.raises(ValueError, match=says):
        value(expression)


def test_results_are_named_once_each():
    assert results_of("max(a-0.1:metrics.x) - b:seconds / a-0.1:metrics.y") == ["a-0.1", "b"]
    assert results_of("2 * 3") == []
