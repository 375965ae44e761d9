"""Claims of the scoreboard as text: a table, one claim in full, rows for a page."""

import shlex
import textwrap
from collections import Counter
from collections.abc import Iterable

from lablib.experiments.claims import DIRECTIONS, VERDICTS, Claim, Scoreboard, sizes


def number(value: float | bool | str | None) -> str:
    """Return a value for reading: four digits at most."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:.4g}"


def expectation(claim: Claim) -> str:
    """Return what is expected as text, such as "at most 1" or "93.33 ± 0.09 %"."""
    bound = f"{claim.direction} " if claim.direction in ("at most", "at least") else ""
    spread = f" ± {number(claim.tolerance)}" if claim.tolerance else ""
    return f"{bound}{number(claim.expected)}{spread}" + (f" {claim.unit}" if claim.unit else "")


def table(claims: list[Claim], board: Scoreboard, width: int = 110) -> str:
    """Return one line per claim, papers apart, and the counts per verdict below."""
    lines, paper = [], None
    wide = max((len(claim.id) for claim in claims), default=0)
    room = max(width - wide - 44, 20)
    order = list(board.papers)
    for claim in sorted(claims, key=lambda claim: order.index(claim.paper)):
        if claim.paper != paper:
            paper = claim.paper
            lines.append(f"\n{paper}: {board.papers[paper].title} (arXiv {board.papers[paper].arxiv})")
        text = textwrap.shorten(claim.statement, room, placeholder=" …")
        expected = textwrap.shorten(expectation(claim), 19, placeholder="…")
        measured = number(claim.measured)
        lines.append(f"  {claim.id:{wide}}  {text:{room}}  {expected:>19}  {measured:>8}  {claim.verdict}")
    counter = Counter(claim.verdict for claim in claims)
    counts = ", ".join(f"{counter[verdict]} {verdict}" for verdict in VERDICTS if counter[verdict])
    return "\n".join([*lines, "", f"{len(claims)} claims: {counts or 'none'}"]).lstrip("\n")


def describe(claim: Claim, board: Scoreboard) -> str:
    """Return everything about one claim, and the commands that check it."""
    paper = board.papers[claim.paper]
    lines = [
        f"{claim.id}: {claim.verdict}",
        *textwrap.wrap(claim.statement, 100),
        "",
        f"stated     {'here, beyond ' if claim.ours else ''}{paper.title} (arXiv {paper.arxiv}), {claim.place}",
        f"expected   {expectation(claim)}: {DIRECTIONS[claim.direction]}",
    ]
    if claim.result:
        unit = f" {claim.unit}" if claim.unit else ""
        lines.append(f"measured   {claim.measured}{unit} = {claim.result}")
        lines += [f"           figures/results/{name}.json ({size})" for name, size in sizes(claim).items()]
    if claim.asserted:
        lines.append(f"asserted   {claim.asserted}, in the first of what checks it")
    if claim.reason:
        lines += textwrap.wrap(f"reason     {claim.reason}", 100, subsequent_indent=" " * 11)
    check = how_to_check(claim)
    return "\n".join([*lines, *(["", "To check it:"] if check else []), *(f"  {line}" for line in check)])


def how_to_check(claim: Claim) -> list[str]:
    """Return the commands that run the tests of a claim, make its results again and open its notebooks."""
    from lablib.experiments import RECIPES
    from lablib.experiments.claim_values import results_of

    lines = [f"python -m pytest {shlex.quote(test)}" for test in claim.tests]
    for name in results_of(claim.result) if claim.result else []:
        if name in RECIPES:
            lines.append(f"python -m lablib figures {name}")
        elif name.startswith("train_"):
            lines.append(f"python -m lablib train {name.removeprefix('train_')}")
        else:  # of a run whose folder the name holds
            lines.append(f"python -m lablib certify runs/{name.removeprefix('certify_')}")
    return lines + [f"open notebooks/{name}" for name in claim.notebooks]


def rows(claims: Iterable[Claim], board: Scoreboard) -> list[dict[str, str]]:
    """Return claims as text, for tables: paper, id, place, statement, expected, measured, verdict, reason, where."""
    return [
        {
            "paper": board.papers[board.part(claim)].short,
            "id": claim.id,
            "place": f"{claim.place} (ours)" if claim.ours else claim.place,
            "statement": claim.statement,
            "expected": expectation(claim),
            "measured": number(claim.measured),
            "verdict": claim.verdict,
            "reason": claim.reason,
            "where": ", ".join(name.partition("_")[0] for name in claim.notebooks),
        }
        for claim in claims
    ]
