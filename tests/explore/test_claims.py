"""The explorer of claims shows those that fit, with texts escaped."""

import pytest

from lablib.explore.claims import COLUMNS, ClaimsExplorer, html_table


def row(**texts):
    return dict.fromkeys((*COLUMNS, "paper", "place"), "") | texts


CLAIMS = [
    row(id="a", paper="SortNet", place="Theorem 3.5", statement="a bound <b>", verdict="holds"),
    row(
        id="b",
        paper="SortNet",
        place="Table",
        statement="accuracy on MNIST",
        verdict="falls short",
        reason="size",
    ),
    row(id="c", paper="splines", place="Layer", statement="slopes stay", verdict="holds"),
]


def shown(explorer):
    return "".join(claim["id"] for claim in explorer.shown)


def test_controls_choose():
    explorer = ClaimsExplorer(CLAIMS)
    assert shown(explorer) == "abc"
    explorer.verdict.value = "holds"
    assert shown(explorer) == "ac"
    explorer.paper.value = "SortNet"
    assert shown(explorer) == "a"
    assert explorer.readout.value == "<b>1</b> of 3 claims"
    assert "a bound &lt;b&gt;" in explorer.table.value
    explorer.paper.value = explorer.verdict.value = "all"
    for word, ids in (("mnist", "b"), (" theorem 3.5 ", "a"), ("SIZE", "b"), ("c", "bc"), ("zzz", "")):
        explorer.word.value = word
        assert set(shown(explorer)) >= set(ids), word
        assert bool(shown(explorer)) == bool(ids)
    assert "<td" not in explorer.table.value


def test_it_starts_with_the_given_verdict():
    assert shown(ClaimsExplorer(CLAIMS, verdict="falls short")) == "b"


def test_refusals():
    with pytest.raises(ValueError, match="no claims to show"):
        ClaimsExplorer([])
    with pytest.raises(ValueError, match="no claim has the verdict 'better'; there are: holds"):
        ClaimsExplorer(CLAIMS, verdict="better")
    with pytest.raises(ValueError, match="a claim has no reason"):
        html_table([{"id": "a"}], ("id", "reason"))


def test_columns_and_heads():
    table = html_table(CLAIMS, ("statement", "where"))
    assert table.count("<th ") == 2
    assert table.count("<tr>") == 4
    assert ">notebook</th>" in table
