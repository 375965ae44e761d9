"""The scoreboard in the terminal: each claim of the papers, what was measured here, and the verdict.

Every claim is checked against its result files, tests and notebooks; the exit status is 1 if one of them does not
say what the scoreboard says. The claims themselves are in figures/claims.toml.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence

from lablib.experiments.claim_text import describe, table
from lablib.experiments.claims import ROOT, VERDICTS, Claim, Scoreboard, claims_file, problems, read_claims

HELP = "what the papers claim, what was measured here, and the verdict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lablib claims``."""
    parser.add_argument(
        "--paper", metavar="KEY", help="only claims of one paper (keys stand above its claims)"
    )
    parser.add_argument("--verdict", metavar="V", help=f"only one verdict: {', '.join(VERDICTS)}")
    parser.add_argument("--id", metavar="ID", help="everything about one claim, and how to check it")
    parser.add_argument("--update", action="store_true", help="write numbers and verdicts as measured now")
    parser.add_argument(
        "--fill",
        nargs="+",
        metavar=("ID", "EVIDENCE"),
        help="give a claim its evidence: RESULT:metrics.path (or an expression of such); or tests/FILE.py::TEST, "
        "followed by the text in it that states the number, if one is claimed",
    )
    parser.add_argument("--readme", action="store_true", help="write the table of counts into README.md")


def main(args: argparse.Namespace) -> int:
    """Print what was asked for; 0, or 1 if the check of what was printed fails."""
    from lablib.experiments.claim_edits import fill, update

    board = read_claims()
    if args.fill:
        if len(args.fill) not in (2, 3):
            raise ValueError(
                "--fill takes an id, the evidence, and for a number in a test the text that states it"
            )
        print(fill(claims_file(), board, *args.fill))
    if args.update:
        print("\n".join(update(claims_file(), board := read_claims())) or "all as measured")
    if args.readme:
        _write_readme(read_claims())
    if args.fill or args.update or args.readme:
        return _report(read_claims().claims)
    if args.id:
        claim = next((claim for claim in board.claims if claim.id == args.id), None)
        if claim is None:
            raise ValueError(f"no claim {args.id!r}; list them: python -m lablib claims")
        print(describe(claim, board))
        return _report([claim])
    chosen = board.choose(args.paper, args.verdict)
    print(table(chosen, board, shutil.get_terminal_size((140, 40)).columns))
    return _report(chosen)


def _report(claims: Sequence[Claim]) -> int:
    wrong = problems(claims)
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _write_readme(board: Scoreboard) -> None:
    from lablib.experiments.claim_edits import with_table
    from lablib.files import atomic_write

    path = ROOT / "README.md"
    text = with_table(path.read_text(encoding="utf-8"), board)
    with atomic_write(path) as file:
        file.write(text)
