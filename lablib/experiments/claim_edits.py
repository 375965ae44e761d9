"""Writing into the scoreboard's files: one line at a time, so that comments and order stay as they are."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lablib.experiments.claims import (
    VERDICTS,
    Claim,
    Paper,
    Scoreboard,
    measure,
    missing_tests,
    rounded,
    verdict_of,
)
from lablib.files import atomic_write

# that are written here, in the order of their lines
FIELDS = ("asserted", "tests", "result", "measured", "verdict", "reason")
BEGIN, END = "<!-- scoreboard -->", "<!-- /scoreboard -->"


def with_fields(text: str, claim_id: str, fields: Mapping[str, Any]) -> str:
    """Return the text of ``claims.toml`` with these :data:`FIELDS` of one claim set; None removes one.

    Raises:
        ValueError: if there is no such claim, or it has one of these fields on more than one line.
    """
    blocks = re.split(r"^(?=\[\[claims\]\])", text, flags=re.M)
    own = [n for n, block in enumerate(blocks) if re.search(rf'^id = "{re.escape(claim_id)}"$', block, re.M)]
    if len(own) != 1:
        raise ValueError(f"no claim {claim_id!r}; list them: python -m lablib claims")
    lines = blocks[own[0]].split("\n")
    for key, value in fields.items():
        at = [n for n, line in enumerate(lines) if line.startswith(f"{key} = ")]
        if len(at) > 1 or (at and lines[at[0]].endswith("[")):
            raise ValueError(f"claim {claim_id!r}: write {key} on one line")
        line = [] if value is None else [f"{key} = {_toml(value)}"]
        if at:
            lines[at[0] : at[0] + 1] = line
        elif line:  # before the next of the fields that there is, the verdict at the latest
            later = FIELDS[FIELDS.index(key) + 1 :]
            place = next(n for n, old in enumerate(lines) if old.partition(" = ")[0] in later)
            lines[place:place] = line
    blocks[own[0]] = "\n".join(lines)
    return "".join(blocks)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        plain = '"' in value and "'" not in value
        return f"'{value}'" if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def update(path: Path, board: Scoreboard) -> list[str]:
    """Write every measured number and verdict as the result files give them now; return what changed, a line each.

    Raises:
        FileNotFoundError, ValueError: where a result is absent or damaged; nothing is written then.
    """
    text, changes = path.read_text(encoding="utf-8"), []
    for claim in board.claims:
        value = measure(claim)
        stored = None if value is None else rounded(value)
        verdict = verdict_of(claim, value)
        if (type(stored), stored, verdict) != (type(claim.measured), claim.measured, claim.verdict):
            text = with_fields(text, claim.id, _outcome(claim, stored, verdict))
            changes.append(f"{claim.id}: {claim.measured}, {claim.verdict} -> {stored}, {verdict}")
    if changes:
        with atomic_write(path) as file:
            file.write(text)
    return changes


def fill(path: Path, board: Scoreboard, claim_id: str, evidence: str, asserted: str = "") -> str:
    """Give a claim its evidence: an expression over result files, or a test ``file::function``; return a line.

    With ``asserted`` the test, which becomes the first of the claim, states its number by this text.

    Raises:
        FileNotFoundError, ValueError: if there is no such claim, test, result or number; nothing is written then.
    """
    claim = next((claim for claim in board.claims if claim.id == claim_id), None)
    if claim is None:
        raise ValueError(f"no claim {claim_id!r}; list them: python -m lablib claims")
    if "::" in evidence:
        if absent := missing_tests([evidence]):
            raise ValueError("{} has no {}".format(*absent[0]))
        fields: dict[str, Any] = {"tests": (*claim.tests, evidence)}
        if asserted:
            fields = {"tests": (evidence, *claim.tests), "asserted": asserted}
    else:
        fields = {"result": evidence}
    claim = dataclasses.replace(claim, **fields)
    value = measure(claim)
    fields |= _outcome(claim, None if value is None else rounded(value), verdict_of(claim, value))
    with atomic_write(path) as file:
        file.write(with_fields(path.read_text(encoding="utf-8"), claim_id, fields))
    number = "" if fields["measured"] is None else f"{fields['measured']}, "
    return f"{claim_id}: {number}{fields['verdict']}"


def _outcome(claim: Claim, measured: float | bool | None, verdict: str) -> dict[str, Any]:
    """Return the fields of a new outcome; why a claim was not run is no reason once it was."""
    fields: dict[str, Any] = {"measured": measured, "verdict": verdict}
    ran = claim.verdict == "not run" and verdict != "not run"
    return fields | {"reason": None} if ran else fields


def readme_table(board: Scoreboard) -> str:
    """Return the counts per paper and verdict as a Markdown table."""
    lines = [f"| | claims | {' | '.join(VERDICTS)} |", "|---" * (2 + len(VERDICTS)) + "|"]
    rows = list(board.counts().items())
    for (part, ours), counter in rows:
        paper = board.papers[part]
        name = f"{paper.short}, beyond the paper" if ours else _link(paper)
        lines.append(_row(name, counter))
    total = sum((counter for _, counter in rows), start=type(rows[0][1])())
    return "\n".join([*lines, _row("**all**", total)])


def _link(paper: Paper) -> str:
    return f"[{paper.short}](https://arxiv.org/abs/{paper.arxiv})"


def _row(name: str, counter: Mapping[str, int]) -> str:
    cells = [sum(counter.values()), *(counter.get(verdict, 0) for verdict in VERDICTS)]
    return f"| {name} | {' | '.join(str(cell) if cell else '' for cell in cells)} |"


def with_table(readme: str, board: Scoreboard) -> str:
    """Return the text of the README with the table between its two markers made anew.

    Raises:
        ValueError: if the markers are not there, once each and in order.
    """
    parts = re.split(f"{re.escape(BEGIN)}|{re.escape(END)}", readme)
    if len(parts) != 3 or not parts[0] + BEGIN + parts[1] + END + parts[2] == readme:
        raise ValueError(f"README.md must hold {BEGIN} and {END} once each, around the table")
    return f"{parts[0]}{BEGIN}\n{readme_table(board)}\n{END}{parts[2]}"
