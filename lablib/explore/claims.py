"""Look through the scoreboard: pick a paper and a verdict, or type a word; the claims that fit stay."""

import html
from collections.abc import Mapping, Sequence

import ipywidgets as widgets

from lablib.explore.controls import hints, picker, rows, watch

COLUMNS = ("id", "statement", "expected", "measured", "verdict", "reason", "where")
_HEADS = {"id": "claim", "reason": "why, or what was compared", "where": "notebook"}
_ALL = "all"


def html_table(claims: Sequence[Mapping[str, str]], columns: Sequence[str] = COLUMNS) -> str:
    """Return claims as an HTML table that folds on a narrow page; texts are escaped.

    Args:
        claims: per claim, column -> text.
        columns: which, in this order.

    Raises:
        ValueError: if a claim lacks one of the columns.
    """
    for claim in claims:
        if missing := [column for column in columns if column not in claim]:
            raise ValueError(f"a claim has no {', '.join(missing)}; give every column")
    cell = 'style="text-align:left;vertical-align:top;padding:2px 8px"'
    head = "".join(f"<th {cell}>{html.escape(_HEADS.get(column, column))}</th>" for column in columns)
    lines = (
        "".join(f"<td {cell}>{html.escape(claim[column])}</td>" for column in columns) for claim in claims
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table style="font-size:12px"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


class ClaimsExplorer:
    """Pickers for paper and verdict, and a box for a word.

    Args:
        claims: per claim, column -> text; besides :data:`COLUMNS` also ``paper`` and ``place``.
        verdict: the one shown first; without it all.

    Attributes:
        box: the widget to display.
        paper, verdict, word: the controls.
        readout: how many claims fit; table: those, as HTML.
        shown: those, as they came.

    Raises:
        ValueError: if there are no claims, or none has the verdict.
    """

    def __init__(self, claims: Sequence[Mapping[str, str]], verdict: str | None = None) -> None:
        if not claims:
            raise ValueError("there are no claims to show; give at least one")
        self._claims = list(claims)
        papers, verdicts = (
            [_ALL, *dict.fromkeys(claim[key] for claim in claims)] for key in ("paper", "verdict")
        )
        if verdict not in (None, *verdicts):
            raise ValueError(f"no claim has the verdict {verdict!r}; there are: {', '.join(verdicts[1:])}")
        self.paper = picker("paper", papers, _ALL, "one of the four papers, its companions included")
        self.verdict = picker("verdict", verdicts, verdict or _ALL, "what became of the claim")
        self.word = widgets.Text(
            description="word",
            tooltip="in the statement, the place, the reason or the id",
            placeholder="MNIST, Theorem 3.5, ...",
            style={"description_width": self.paper.style.description_width},
            layout=widgets.Layout(width=self.paper.layout.width),
        )
        self.readout, self.table = widgets.HTML(), widgets.HTML()
        controls = (self.paper, self.verdict, self.word)
        self.box = widgets.VBox([rows(controls), hints(controls), self.readout, self.table])
        watch(controls, self._show)
        self._show()

    def _show(self) -> None:
        word = self.word.value.strip().casefold()
        self.shown = [
            claim
            for claim in self._claims
            if self.paper.value in (_ALL, claim["paper"])
            and self.verdict.value in (_ALL, claim["verdict"])
            and any(word in claim[key].casefold() for key in ("statement", "place", "reason", "id"))
        ]
        self.readout.value = f"<b>{len(self.shown)}</b> of {len(self._claims)} claims"
        self.table.value = html_table(self.shown)
