"""The scoreboard as one figure: for each paper, how many claims have which verdict."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, GREEN, ORANGE, PAGE_WIDTH, SKY, new_figure, theme

LOOKS = {  # verdict -> colour, hatch, colour of the number; told apart by lightness and hatch as well
    "better": (BLUE, "", "white"),
    "reproduced": (GREEN, "", "white"),
    "holds": (SKY, "", "black"),
    "falls short": (ORANGE, "////", "black"),
    "not run": ("#DDDDDD", "....", "black"),
}
_ROOM = 0.022  # a number is written where its part of the bar is at least this share of the longest bar


def draw_scoreboard(names: Sequence[str], counts: Sequence[Mapping[str, int]]) -> Figure:
    """Return stacked bars, first name on top.

    Args:
        names: of the bars.
        counts: per bar, verdict -> number of claims; verdicts are keys of :data:`LOOKS`.

    Raises:
        ValueError: if there are no bars, names and counts differ in number, or a verdict is unknown.
    """
    if not names or len(names) != len(counts):
        raise ValueError(
            f"{len(names)} names and {len(counts)} counts; give one of each per bar, at least one"
        )
    if unknown := {verdict for counter in counts for verdict in counter} - set(LOOKS):
        raise ValueError(f"no look for {', '.join(sorted(unknown))}; the verdicts are {', '.join(LOOKS)}")
    longest = max(sum(counter.values()) for counter in counts)
    with theme():
        figure = new_figure(PAGE_WIDTH, 1.3 + 0.36 * len(names))
        axes = figure.subplots()
        left = [0] * len(names)
        for verdict, (colour, hatch, ink) in LOOKS.items():
            widths = [counter.get(verdict, 0) for counter in counts]
            axes.barh(
                range(len(names)),
                widths,
                0.72,
                left,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                label=verdict,
            )
            for at, (width, start) in enumerate(zip(widths, left)):
                if width > _ROOM * longest:
                    box = {"boxstyle": "round,pad=0.12", "facecolor": colour, "edgecolor": "none"}
                    where = (start + width / 2, at)
                    axes.text(*where, str(width), color=ink, ha="center", va="center", fontsize=8.5, bbox=box)
            left = [start + width for start, width in zip(left, widths)]
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.02 * longest)
        axes.set_xlabel("claims")
        axes.grid(False, axis="y")
        total = sum(map(sum, (counter.values() for counter in counts)))
        short = sum(counter.get("falls short", 0) for counter in counts)
        axes.set_title(f"Of {total} claims {short} fall short here, and the scoreboard says why")
        figure.legend(loc="outside lower center", ncols=len(LOOKS))
    return figure
