"""The dot plot of the soundness battery: measured Lipschitz constant over the claimed one, layer by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, GREY, RED, theme

LIMITS = (0.2, 4.0)  # of the axis; larger ratios are drawn as arrows with their value


def constants_against_claims(rows: Sequence[Mapping[str, Any]], versions: Mapping[str, str]) -> Figure:
    """Return one panel per package: a dot per layer at measured / claimed, a cross where it breaks.

    Args:
        rows: ``package``, ``layer``, ``claim``, ``measured``, ``verdict`` ("holds" or "breaks").
        versions: package -> version, also the order of the panels.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("there is nothing to draw; run the battery first")
    panels = {name: [row for row in rows if row["package"] == name] for name in versions}
    panels = {name: own for name, own in panels.items() if own}
    with theme():
        columns = [list(panels)[::2], list(panels)[1::2]]
        columns = [column for column in columns if column]
        tallest = max(sum(len(panels[name]) + 3 for name in column) for column in columns)
        figure = Figure(figsize=(9.5, 0.165 * tallest + 0.9), layout="constrained")
        for part, column in zip(figure.subfigures(1, len(columns), squeeze=False)[0], columns):
            heights = [len(panels[name]) + 3 for name in column]
            axes = part.subplots(len(column), 1, squeeze=False, height_ratios=heights)[:, 0]
            for axis, name in zip(axes, column):
                _panel(axis, f"{name} {versions[name]}", panels[name])
        broken = sum(row["verdict"] == "breaks" for row in rows)
        figure.suptitle(
            f"{broken} of {len(rows)} claimed constants are refuted by a measurement",
            x=0.01,
            ha="left",
            fontsize=11,
        )
    return figure


def _panel(axis, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    axis.axvline(1.0, color=GREY, linewidth=1.0)
    for place, row in enumerate(rows):
        breaks = row["verdict"] == "breaks"
        ratio = row["measured"] / row["claim"] if row["claim"] else float("inf")
        shown = min(max(ratio, LIMITS[0]), LIMITS[1])
        marker, colour = ("X", RED) if breaks else ("o", BLUE)
        axis.plot(
            shown,
            place,
            marker if shown == ratio else ">",
            color=colour,
            markersize=5.5,
            clip_on=False,
            zorder=3,
        )
        if breaks:
            text = f"{row['measured']:.3g}" + (f" for {row['claim']:g}" if row["claim"] != 1 else "")
            side = -1 if shown == LIMITS[1] else 1
            axis.annotate(
                text,
                (shown, place),
                (7 * side, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                ha="left" if side > 0 else "right",
                color=RED,
            )
    axis.set_yticks(range(len(rows)), [row["layer"] for row in rows], fontsize=7.5)
    axis.set_ylim(len(rows) - 0.3, -0.7)
    axis.set_xscale("log")
    axis.set_xlim(*LIMITS)
    axis.set_xticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
    axis.minorticks_off()
    axis.set_xlabel("largest constant found / constant claimed", fontsize=8)
    axis.set_title(title, fontsize=9)
