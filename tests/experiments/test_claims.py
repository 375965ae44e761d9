"""The scoreboard says what its files say; whatever is forged in it is found."""

import dataclasses
import json
import re
import shutil

import pytest

from lablib.__main__ import main
from lablib.experiments import claim_edits, claim_text
from lablib.experiments.claims import (
    DIRECTIONS,
    ROOT,
    VERDICTS,
    Claim,
    claims_file,
    measure,
    problems,
    read_claims,
    rounded,
    source_of,
    verdict_of,
)
from lablib.experiments.training_recipes import recipe_config

FOUR = ("2210.01787", "2210.16222", "2112.00038", "2305.16202")


@pytest.fixture(scope="module")
def board():
    """The scoreboard as stored."""
    return read_claims()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A copy of the scoreboard and of two small results in a folder of its own."""
    (tmp_path / "results").mkdir()
    shutil.copy(claims_file(), tmp_path)
    for name in ("sorting_depth", "peer_battery"):
        shutil.copy(ROOT / "figures" / "results" / f"{name}.json", tmp_path / "results")
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    return tmp_path


def claim(**fields):
    """A claim with the least that one needs."""
    least = {
        "id": "c",
        "paper": "p",
        "place": "here",
        "statement": "so",
        "expected": 1.0,
        "direction": "equal",
    }
    return Claim(**(least | {"verdict": "reproduced"} | fields))


def test_every_claim_is_what_its_files_say(board):
    assert problems(board.claims) == []


def test_the_four_papers_have_claims_and_the_sheets_anchors_are_among_them(board):
    assert {paper.arxiv for paper in board.papers.values() if not paper.companion} == set(FOUR)
    assert {board.part(one) for one in board.claims} == {
        k for k, p in board.papers.items() if not p.companion
    }
    assert {one.paper for one in board.claims} == set(board.papers)
    places = " ".join(one.place for one in board.claims)
    assert all(f"{kind} {number}" in places for kind, number in (("Theorem", "3.5"), ("Theorem", "3.6")))
    assert all(number in places for number in ("3.8", "3.9", "3.10", "3.11"))
    numbers = {one.expected for one in board.claims if not isinstance(one.expected, str)}
    assert numbers >= {
        98.14,
        93.4,
        56.67,
        40.39,
        18.18,
        9.54,
        98.43,
        41.78,
        69.3,
        89.6,
        7.58,
        -3.02,
        1.82824,
        91.3,
    }
    assert len(board.claims) > 300


def test_statements_are_sentences_of_their_own(board):
    for one in board.claims:
        assert not one.statement.startswith(("...", "The same")), one.id
        assert re.fullmatch(r"[a-z0-9.-]+", one.id), one.id


def test_readme_has_the_counts_of_today(board):
    text = (ROOT / "README.md").read_text()
    assert claim_edits.with_table(text, board) == text, "run: python -m lablib claims --readme"


@pytest.mark.parametrize(
    ("forged", "says"),
    [
        ({"verdict": "better", "reason": ""}, "'falls short' follows from what was measured"),
        ({"verdict": "reproduced"}, "'falls short' follows"),
        ({"measured": 93.4}, "measured = 93.4, and the result file says 87.98"),
        ({"measured": None}, "measured = None, and the result file says 87.98"),
        ({"reason": ""}, "'falls short' needs a reason"),
        ({"tests": ("tests/test_nothing.py::test_it",)}, "tests/test_nothing.py has no such file"),
        ({"tests": ("tests/test_cli.py::test_it",)}, "tests/test_cli.py has no test_it"),
        ({"tests": ("tests/test_cli.py",)}, "has no function named after ::"),
        ({"notebooks": ("99_nothing.ipynb",)}, "no notebook 99_nothing.ipynb"),
        ({"result": "no_such_result:metrics.x"}, "make it: python -m lablib figures no_such_result"),
        ({"result": "train_sortnet-mnist-0.3:metrics.nothing"}, "leads nowhere: no 'nothing'"),
        ({"result": "", "verdict": "not run"}, "measured = 87.98 comes from no result"),
        ({"asserted": "93.4"}, "neither its first test nor its first notebook says '93.4'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_planted_errors_are_found(board, forged, says):
    honest = next(one for one in board.claims if one.id == "mnist-0.3-certified")
    found = problems([dataclasses.replace(honest, **forged)])
    assert any(says in line for line in found), found
    assert all(line.startswith("mnist-0.3-certified: ") for line in found)


def test_no_claim_may_be_marked_above_or_below_what_was_measured(board):
    for one in board.claims:
        others = [verdict for verdict in VERDICTS if verdict != one.verdict]
        forged = [dataclasses.replace(one, verdict=verdict, reason="because") for verdict in others]
        assert all(problems([made]) for made in forged), one.id


@pytest.mark.parametrize(
    ("direction", "value", "verdict"),
    [
        ("higher", 1.2, "better"),
        ("higher", 1.1, "reproduced"),
        ("higher", 0.9, "reproduced"),
        ("higher", 0.89, "falls short"),
        ("lower", 0.8, "better"),
        ("lower", 1.05, "reproduced"),
        ("lower", 1.2, "falls short"),
        ("equal", 1.1, "reproduced"),
        ("equal", 1.2, "falls short"),
        ("equal", 0.8, "falls short"),
        ("at most", -5.0, "holds"),
        ("at most", 1.1, "holds"),
        ("at most", 1.2, "falls short"),
        ("at least", 5.0, "holds"),
        ("at least", 0.8, "falls short"),
    ],
)
def test_verdicts_follow_from_numbers(direction, value, verdict):
    assert direction in DIRECTIONS
    assert verdict_of(claim(direction=direction, tolerance=0.1), value) == verdict


def test_verdicts_without_numbers_follow_from_tests():
    theorem = claim(expected="theorem", direction="holds")
    assert verdict_of(theorem, None) == "not run"
    assert verdict_of(dataclasses.replace(theorem, tests=("a::b",)), None) == "holds"
    assert verdict_of(theorem, True) == "holds"
    assert verdict_of(theorem, False) == "falls short"
    number = claim(tests=("a::b",))  # a test that passes says nothing about a number that it does not state
    assert verdict_of(number, None) == "not run"
    assert verdict_of(dataclasses.replace(number, asserted="1.0"), None) == "holds"


def test_a_quick_result_ranks_nothing(elsewhere, board):
    path = elsewhere / "results" / "sorting_depth.json"
    record = json.loads(path.read_text())
    depth = next(one for one in board.claims if one.id == "groupsort-depth-log")
    assert problems([depth]) == []
    path.write_text(json.dumps(record | {"mode": "quick", "name": "another size"}))
    assert "quick run" in problems([depth])[0]


def test_the_source_of_a_test_is_its_own():
    source = source_of("tests/experiments/test_claims.py::test_stored_numbers_have_six_digits")
    assert source.startswith("def test_stored_numbers_have_six_digits(board):")
    assert source.rstrip().endswith("assert rounded(True) is True")
    source = source_of("tests/experiments/test_claims.py::test_full_runs_have_the_settings_of_the_table")
    assert source.startswith("@pytest.mark.parametrize")
    assert source.count("def test_") == 1
    assert source_of("tests/experiments/test_claims.py::test_markers") == ""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('id = "radius-scalar"', 'id = "budget-lemma"', "2 claims are called 'budget-lemma'"),
        ('direction = "holds"', 'direction = "up"', "no direction 'up'; choose from: holds"),
        ('verdict = "holds"', 'verdict = "true"', "no verdict 'true'; choose from: better"),
        ('paper = "sortnet"', 'paper = "nets"', "no paper 'nets'; there are: sortnet"),
        ('expected = "theorem"', "expected = 1", "a number is expected exactly where"),
        ('place = "Setting"\n', "", "no place; the keys are id"),
        ('place = "Setting"', 'palce = "Setting"', "unknown palce; no place"),
        ('id = "radius-scalar"', "id =", "is damaged"),
        ("tests = [", 'tests = "a" #', "tests must be a list"),
        ("[[claims]]", "[[rows]]", "holds no claims"),
    ],
)
def test_a_file_without_meaning_is_refused(tmp_path, old, new, says):
    path = tmp_path / "claims.toml"
    text = claims_file().read_text()
    assert old in text
    path.write_text(text.replace(old, new) if new == "[[rows]]" else text.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(says)):
        read_claims(path)


def test_update_writes_what_was_measured_and_nothing_else(elsewhere, capsys):
    path = elsewhere / "claims.toml"
    kept = [one for one in read_claims().claims if one.id in ("groupsort-depth-log", "package-default")]
    blocks = re.split(r"^(?=\[\[claims\]\])", path.read_text(), flags=re.M)
    own = [block for block in blocks if any(f'id = "{one.id}"\n' in block for one in kept)]
    text = blocks[0] + "# a remark\n" + "".join(own)
    forged = text.replace("measured = 6.0\n", "measured = 7.0\n").replace(
        'verdict = "reproduced"', 'verdict = "better"'
    )
    assert forged != text
    path.write_text(forged)
    assert main(["claims"]) == 1
    assert "says 6.0" in capsys.readouterr().err
    assert main(["claims", "--update"]) == 0
    assert path.read_text() == text
    assert "groupsort-depth-log: 7.0, better -> 6.0, reproduced" in capsys.readouterr().out
    assert main(["claims", "--update"]) == 0
    assert capsys.readouterr().out == "all as measured\n"


def test_fill_gives_evidence_and_drops_the_reason_why_there_was_none(elsewhere, capsys):
    path = elsewhere / "claims.toml"
    head = path.read_text().partition("\n[[claims]]")[0] + "\n"
    least = 'id = "{}"\npaper = "private"\nplace = "x"\nstatement = "s"\nexpected = {}\ndirection = "{}"\n'
    rest = 'verdict = "not run"\nreason = "no result yet"\n'
    made = (("a", 6, "higher"), ("b", '"theorem"', "holds"), ("c", 6, "equal"))
    path.write_text(head + "".join("[[claims]]\n" + least.format(*words) + rest for words in made))
    assert main(["claims", "--fill", "a", 'sorting_depth:metrics.rows[d=64].lower_bound."2"']) == 0
    assert main(["claims", "--fill", "b", "tests/test_cli.py::test_ctrl_c_is_130"]) == 0
    assert capsys.readouterr().out == "a: 6.0, reproduced\nb: holds\n"
    stated = ("tests/experiments/test_claims.py::test_stored_numbers_have_six_digits", "is True")
    assert main(["claims", "--fill", "c", *stated]) == 0
    assert capsys.readouterr().out == "c: holds\n"
    first, second, third = read_claims().claims
    assert (first.measured, first.verdict, first.reason) == (6.0, "reproduced", "")
    assert (second.tests, second.verdict, second.reason) == (
        ("tests/test_cli.py::test_ctrl_c_is_130",),
        "holds",
        "",
    )
    assert (third.tests, third.asserted, third.reason) == (stated[:1], stated[1], "")
    before = path.read_text()
    for words, says in (
        (("a",), "--fill takes an id, the evidence"),
        (("d", "sorting_depth:seconds"), "no claim 'd'"),
        (("a", "tests/test_cli.py::test_it"), "tests/test_cli.py has no test_it"),
        (("a", "sorting_depth:metrics.rows[*].d"), "reduce them by one of min"),
        (("a", "private_none:metrics.x"), "python -m lablib figures private_none"),
    ):
        assert main(["claims", "--fill", *words]) == 2
        assert says in capsys.readouterr().err
    assert path.read_text() == before


def test_markers_must_be_there(board):
    with pytest.raises(ValueError, match="once each, around the table"):
        claim_edits.with_table("no markers", board)
    text = f"a {claim_edits.BEGIN} old {claim_edits.END} b"
    assert claim_edits.with_table(text, board).startswith(f"a {claim_edits.BEGIN}\n| | claims |")


def test_the_command_lists_filters_and_explains(board, capsys):
    assert main(["claims"]) == 0
    text = capsys.readouterr().out
    assert all(one.id in text for one in board.claims)
    assert text.splitlines()[-1].startswith(f"{len(board.claims)} claims: ")
    assert main(["claims", "--paper", "splines", "--verdict", "falls short"]) == 0
    chosen = board.choose("splines", "falls short")
    assert capsys.readouterr().out.splitlines()[-1] == f"{len(chosen)} claims: {len(chosen)} falls short"
    assert main(["claims", "--id", "symmetric-bound"]) == 0
    text = capsys.readouterr().out
    for part in (
        "Theorem 3.5",
        "at most 1",
        "boolean_curves.json (standard, cpu)",
        "python -m pytest tests/",
        "01_",
    ):
        assert part in text
    for words, says in (
        (["--paper", "nets"], "no paper 'nets'; choose from: sortnet"),
        (["--verdict", "good"], "no verdict 'good'; choose from: better"),
        (["--id", "none"], "no claim 'none'"),
    ):
        assert main(["claims", *words]) == 2
        assert says in capsys.readouterr().err


def test_how_to_check_names_the_command_of_each_kind_of_result():
    both = claim(
        result="train_sortnet-mnist-0.3:metrics.x - certify_ibp-mnist-standard-seed0:metrics.y + trigger:seconds"
    )
    assert claim_text.how_to_check(both) == [
        "python -m lablib train sortnet-mnist-0.3",
        "python -m lablib certify runs/ibp-mnist-standard-seed0",
        "python -m lablib figures trigger",
    ]


def test_companions_count_with_their_paper_and_ours_apart(board):
    counts = board.counts()
    assert sum(counter.total() for counter in counts.values()) == len(board.claims)
    assert set(counts) == {
        (part, ours) for part in ("sortnet", "splines", "monotone", "private") for ours in (0, 1)
    }
    assert {one.paper for one in board.choose("monotone")} == {"monotone", "expressive-monotone"}
    row = claim_text.rows(board.choose("distance-nets"), board)[0]
    assert (row["paper"], row["verdict"]) == ("SortNet", "holds")
    assert all(isinstance(text, str) for text in row.values())


def test_stored_numbers_have_six_digits(board):
    for one in board.claims:
        if one.measured is not None:
            assert rounded(measure(one)) == one.measured
    assert rounded(True) is True


@pytest.mark.parametrize(
    ("run", "keep", "weights", "eps", "epochs"),
    [
        ("mnist-0.1", 0.70, (0.1, 0.001), 0.3, (0, 100, 1450, 1500)),
        ("mnist-0.3", 0.75, (0.02, 0.0002), 0.45, (0, 100, 1450, 1500)),
        ("cifar10-2", 0.75, (1, 0.01), 0.03137, (0, 200, 2950, 3000)),
        ("cifar10-8", 0.85, (0.2, 0.002), 0.09411, (0, 200, 2950, 3000)),
        ("cifar10-2-mlp", 0.70, (1, 0.01), 0.008627, (500, 200, 2950, 3000)),
        ("cifar10-8-mlp", 0.60, (1, 0.01), 0.03451, (500, 200, 2950, 3000)),
    ],
)
def test_full_runs_have_the_settings_of_the_table(run, keep, weights, eps, epochs):
    """Keep probability, lambda at both ends, eps of training, and epochs: eps ends, p starts, p ends, all."""
    config = recipe_config(f"sortnet-{run}", "full")
    assert (config.model.width, config.model.keep, config.loss.eps) == (5120, keep, eps)
    assert (config.loss.lam, config.loss.lam_end) == weights
    assert (config.loss.eps_end, config.p.begin, config.p.end, config.optim.epochs) == epochs
