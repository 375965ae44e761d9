"""The scoreboard: every claim of the four papers, where it is checked, what was measured, and the verdict.

``figures/claims.toml`` holds them. A claim says what a paper (or this lab, ``ours``) states and expects; ``result``
is an expression over result files (see :mod:`lablib.experiments.claim_values`), ``measured`` the number that it gave;
``tests`` and ``notebooks`` check or show it. The verdict follows from these by :func:`verdict_of`; a stored verdict
is there to be read, and :func:`problems` compares it, and the number, with what follows from the files now.
"""

import dataclasses
import functools
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lablib.experiments.claim_values import evaluate, results_of
from lablib.experiments.results import figures_dir, read_result

ROOT = Path(__file__).resolve().parents[2]
VERDICTS = ("better", "reproduced", "holds", "falls short", "not run")
DIRECTIONS = {  # direction -> what a number must do
    "holds": "true whatever the numbers",
    "at most": "a bound: no more than expected",
    "at least": "a bound: no less than expected",
    "equal": "as expected",
    "higher": "as expected, and higher is better",
    "lower": "as expected, and lower is better",
}
DIGITS = 6  # of a measured number that is stored


@dataclasses.dataclass(frozen=True)
class Claim:
    """One row of the scoreboard.

    Attributes:
        id: short name, unique.
        paper: key of the table ``papers`` of the file.
        place: section, theorem or table.
        statement: in our words.
        expected: a number in ``unit``, true, or a word ("theorem", "property") where no number is claimed.
        direction: a key of :data:`DIRECTIONS`.
        tolerance: how far from ``expected`` still counts as equal to it; the spread where one is published.
        ours: stated by this lab, not by the paper that it belongs to.
        result, measured: expression over result files, and its value to :data:`DIGITS` digits.
        asserted: text in the source of the first test that states the number, where no result file has it.
        tests, notebooks: ``file::function`` and file names, from the root and from ``notebooks/``.
        verdict: one of :data:`VERDICTS`; ``reason``: why it falls short or was not run, or what was compared.
    """

    id: str
    paper: str
    place: str
    statement: str
    expected: float | bool | str
    direction: str
    verdict: str
    tolerance: float = 0.0
    unit: str = ""
    ours: bool = False
    result: str = ""
    measured: float | bool | None = None
    asserted: str = ""
    tests: tuple[str, ...] = ()
    notebooks: tuple[str, ...] = ()
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Paper:
    """A paper of the scoreboard, ``short`` in figures; a ``companion`` counts with the paper that it names."""

    key: str
    title: str
    short: str
    arxiv: str
    companion: str = ""


@dataclasses.dataclass(frozen=True)
class Scoreboard:
    """All papers by key, and all claims in the order of the file."""

    papers: Mapping[str, Paper]
    claims: tuple[Claim, ...]

    def part(self, claim: Claim) -> str:
        """Return the key of the one of the four papers that a claim counts with."""
        return self.papers[claim.paper].companion or claim.paper

    def counts(self) -> dict[tuple[str, bool], Counter]:
        """Return (paper, ours) -> how many claims have each verdict, papers in the order of the file."""
        parts = [key for key, paper in self.papers.items() if not paper.companion]
        found = {(part, ours): Counter() for ours in (False, True) for part in parts}
        for claim in self.claims:
            found[self.part(claim), claim.ours][claim.verdict] += 1
        return {key: counter for key, counter in found.items() if counter}

    def choose(self, paper: str | None = None, verdict: str | None = None) -> list[Claim]:
        """Return the claims of a paper (its companions' included, or of one companion) with a verdict.

        Raises:
            ValueError: for a key or a word that there is none of.
        """
        for word, known, what in ((paper, self.papers, "paper"), (verdict, VERDICTS, "verdict")):
            if word is not None and word not in known:
                raise ValueError(f"no {what} {word!r}; choose from: {', '.join(known)}")
        return [
            claim
            for claim in self.claims
            if paper in (None, claim.paper, self.part(claim)) and verdict in (None, claim.verdict)
        ]


def claims_file() -> Path:
    """Return the path of ``claims.toml``: beside the figures."""
    return figures_dir("standard") / "claims.toml"


def read_claims(path: Path | None = None) -> Scoreboard:
    """Return the scoreboard of a file (default :func:`claims_file`).

    Raises:
        FileNotFoundError, ValueError: if it is absent or says something that has no meaning; one sentence.
    """
    path = path or claims_file()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); correct or restore it") from None
    papers = {
        key: _made(Paper, {"key": key, **table}, f"{path.name}: paper {key}")
        for key, table in content.get("papers", {}).items()
    }
    claims = tuple(
        _made(Claim, table, f"{path.name}: claim {table.get('id', 'without id')!r}")
        for table in content.get("claims", [])
    )
    for claim in claims:
        _refuse_words(claim, papers, path.name)
    for name, count in Counter(claim.id for claim in claims).items():
        if count > 1:
            raise ValueError(f"{path.name}: {count} claims are called {name!r}; give each its own id")
    if not claims:
        raise ValueError(f"{path} holds no claims; restore it")
    return Scoreboard(papers, claims)


def _made(kind: type, table: Mapping[str, Any], where: str) -> Any:
    known = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [key for key in table if key not in known]
    needed = [
        key for key, field in known.items() if field.default is dataclasses.MISSING and key not in table
    ]
    if unknown or needed:
        says = [f"unknown {', '.join(unknown)}"] * bool(unknown) + [f"no {', '.join(needed)}"] * bool(needed)
        raise ValueError(f"{where}: {'; '.join(says)}; the keys are {', '.join(known)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    for key, value in values.items():
        default = known[key].default
        if isinstance(default, str | tuple) and type(value) is not type(default):
            raise ValueError(f"{where}: {key} must be {'a list' if default == () else 'text'}")
    return kind(**values)


def _refuse_words(claim: Claim, papers: Mapping[str, Paper], name: str) -> None:
    number = isinstance(claim.expected, int | float) and not isinstance(claim.expected, bool)
    says = ""
    if claim.paper not in papers:
        says = f"no paper {claim.paper!r}; there are: {', '.join(papers)}"
    elif claim.direction not in DIRECTIONS:
        says = f"no direction {claim.direction!r}; choose from: {', '.join(DIRECTIONS)}"
    elif claim.verdict not in VERDICTS:
        says = f"no verdict {claim.verdict!r}; choose from: {', '.join(VERDICTS)}"
    elif number == (claim.direction == "holds"):
        says = 'a number is expected exactly where the direction is not "holds"'
    elif claim.tolerance < 0:
        says = "a tolerance must not be negative"
    if says:
        raise ValueError(f"{name}: claim {claim.id!r}: {says}")


def rounded(value: float | bool) -> float | bool:
    """Return a measured value as it is stored."""
    return value if isinstance(value, bool) else float(f"{value:.{DIGITS}g}")


def verdict_of(claim: Claim, value: float | bool | None) -> str:
    """Return the verdict that follows: from the value of ``result`` where there is one, else from the tests.

    With e expected and t the tolerance: "higher" is better above e + t, reproduced within t of e, and falls short
    below; "lower" the other way round; "equal" is reproduced within t; a bound or a truth value holds or falls short.
    Without a value a statement holds if tests check it (a number only where it is ``asserted`` there).
    """
    if value is None:
        checked = claim.tests if claim.direction == "holds" else claim.asserted
        return "holds" if checked else "not run"
    if claim.direction == "holds":
        return "holds" if value is True else "falls short"
    above = float(value) - float(claim.expected)
    allowed = claim.tolerance + 1e-9 * abs(float(claim.expected))  # decimals are not exact
    if claim.direction in ("at most", "at least"):
        return "holds" if (above if claim.direction == "at most" else -above) <= allowed else "falls short"
    if abs(above) <= allowed:
        return "reproduced"
    gain = {"higher": above, "lower": -above, "equal": -1.0}[claim.direction]
    return "better" if gain > 0 else "falls short"


def measure(claim: Claim) -> float | bool | None:
    """Return the value of ``result`` now, or None where a claim has none.

    Raises:
        FileNotFoundError, ValueError: if a result file is absent, damaged or quick, or holds no such number.
    """
    return evaluate(claim.result, _record) if claim.result else None


@functools.lru_cache(maxsize=64)
def _read(name: str, path: Path, stamp: int) -> dict[str, Any]:
    record = read_result(name, "standard")
    if record["mode"] == "quick":
        raise ValueError(f"{path.name} is of a quick run, which ranks nothing")
    return record


def _record(name: str) -> dict[str, Any]:
    path = figures_dir("standard") / "results" / f"{name}.json"
    return _read(name, path, path.stat().st_mtime_ns if path.exists() else 0)


def sizes(claim: Claim) -> dict[str, str]:
    """Return result name -> "size, device" of the results that a claim rests on."""
    records = {name: _record(name) for name in results_of(claim.result)} if claim.result else {}
    return {name: f"{record['mode']}, {record['device']}" for name, record in records.items()}


def problems(claims: Iterable[Claim], root: Path = ROOT) -> list[str]:
    """Return one sentence per thing that is wrong: nothing is, when the list is empty."""
    return [f"{claim.id}: {says}" for claim in claims for says in _problems(claim, root)]


def _problems(claim: Claim, root: Path) -> list[str]:
    says = [f"{name} has no {function}" for name, function in missing_tests(claim.tests, root)]
    says += [f"no notebook {name}" for name in claim.notebooks if not (root / "notebooks" / name).is_file()]
    if claim.asserted and claim.asserted not in _evidence(claim, root):
        says.append(f"neither its first test nor its first notebook says {claim.asserted!r}")
    if claim.verdict in ("falls short", "not run") and not claim.reason:
        says.append(f"{claim.verdict!r} needs a reason")
    try:
        value = measure(claim)
    except (ValueError, OSError) as error:
        return [*says, str(error)]
    stored = claim.measured
    if value is None and stored is not None:
        says.append(f"measured = {stored} comes from no result")
    elif value is not None and (type(value) is not type(stored) or rounded(value) != stored):
        says.append(f"measured = {stored}, and the result file says {rounded(value)}")
    found = verdict_of(claim, value)
    if found != claim.verdict:
        says.append(
            f"the verdict is stored as {claim.verdict!r}, and {found!r} follows from what was measured"
        )
    return says


def missing_tests(tests: Iterable[str], root: Path = ROOT) -> list[tuple[str, str]]:
    """Return (file, what it lacks) of each test that there is none of."""
    found = []
    for test in tests:
        name, _, function = test.partition("::")
        if not (root / name).is_file():
            found.append((name, "such file"))
        elif not source_of(test, root):
            found.append((name, function or "function named after ::"))
    return found


def source_of(test: str, root: Path = ROOT) -> str:
    """Return the source of a test function ``file::function`` with its decorators; "" if there is none."""
    name, _, function = test.partition("::")
    path = root / name
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    start = re.compile(rf"^def {re.escape(function)}\(", re.M)  # two blank lines part the functions of a file
    return next((part for part in re.split(r"\n{3,}", text) if function and start.search(part)), "")


def _evidence(claim: Claim, root: Path) -> str:
    """Return the text that states a number: of the first test, or without tests of the first notebook."""
    if claim.tests:
        return source_of(claim.tests[0], root)
    path = root / "notebooks" / (claim.notebooks[0] if claim.notebooks else "")
    return path.read_text(encoding="utf-8") if path.is_file() else ""
