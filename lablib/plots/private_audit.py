"""What an attack proves of the claimed epsilon: sound mechanisms below the diagonal, broken ones above it."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lablib.plots.theme import BLUE, GREY, PAGE_WIDTH, RED, SKY, new_figure, theme

GROUPS = (  # of the rows: label, colour, marker
    ("sound, all records in every step", BLUE, "o"),
    ("sound, Poisson samples", SKY, "s"),
    ("broken", RED, "X"),
)


def draw_audit(rows: Sequence[Mapping[str, Any]], delta: float) -> Figure:
    """Return audited against claimed epsilon, a pair of points for each mechanism; broken ones have letters.

    Args:
        rows: ``label``, ``claimed``, ``bound`` (on epsilon of any mechanism), ``refuted`` (epsilon of the smallest
            noise multiplier that the runs refute), ``sound``, ``by`` and ``setting`` with ``sample_rate``.
        delta: of all of them.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("there is nothing to draw; run the recipe private_audit first")
    with theme():
        figure = new_figure(PAGE_WIDTH, 4.4)
        axis = figure.subplots()
        ends = _limits(rows)
        axis.plot(ends, ends, color=GREY, linewidth=1.2)
        axis.fill_between(ends, ends, [ends[1]] * 2, color=RED, alpha=0.06, linewidth=0)
        axis.annotate("the claim\nis refuted", (ends[0] * 1.12, ends[1] / 1.25), color=RED, va="top")
        for row in rows:
            _point(axis, row, ends[0])
        broken = _name_broken(
            axis, sorted((r for r in rows if not r["sound"]), key=lambda row: row["claimed"])
        )
        axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30, 100) if ends[0] <= tick <= ends[1]]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axis.minorticks_off()
        axis.set_xlabel(f"claimed ε at δ = {_power(delta)}")
        axis.set_ylabel("ε that the attack proves")
        title = "No attack proves more than is claimed, unless something is broken"
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5)
        figure.legend(handles=[*_looks(), *broken], loc="outside right center", fontsize=8.5)
    return figure


def _limits(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    least = min(row["claimed"] for row in rows)
    most = max(max(row["claimed"], row["bound"], row["refuted"]) for row in rows)
    return least / 2.5, most * 1.4


def _power(value: float) -> str:
    """1e-5 -> 10^-5 as matplotlib writes it."""
    digits, exponent = f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else (f"{value:.3g}", "")
    if not exponent:
        return digits
    return ("" if digits == "1" else f"{digits} × ") + f"$10^{{{int(exponent)}}}$"


def _group(row: Mapping[str, Any]) -> tuple[str, str, str]:
    if not row["sound"]:
        return GROUPS[2]
    return GROUPS[0] if row["setting"]["sample_rate"] == 1.0 else GROUPS[1]


def _point(axis: Axes, row: Mapping[str, Any], floor: float) -> None:
    _, colour, marker = _group(row)
    low, high = (max(row[key], floor) for key in ("bound", "refuted"))
    axis.plot([row["claimed"]] * 2, [low, high], color=colour, linewidth=0.9, alpha=0.6)
    axis.plot(row["claimed"], low, marker, color=colour, markerfacecolor="white", markersize=5.5, zorder=3)
    edge = "black" if row["by"] == "engine" else colour
    axis.plot(
        row["claimed"],
        high,
        marker,
        color=colour,
        markeredgecolor=edge,
        markeredgewidth=1.5,
        markersize=6,
        zorder=4,
    )


def _name_broken(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> list[Line2D]:
    """Put a letter beside each broken mechanism; return what explains them."""
    handles = []
    for letter, row in zip(string.ascii_lowercase, rows, strict=False):
        place = (row["claimed"], max(row["bound"], row["refuted"]))
        note = {
            "xytext": (-7, 2),
            "ha": "right",
            "textcoords": "offset points",
            "fontweight": "bold",
            "color": RED,
        }
        axis.annotate(letter, place, **note)
        look = {"marker": f"$\\mathbf{{{letter}}}$", "color": RED, "linestyle": "none", "markeredgewidth": 0}
        handles.append(Line2D([], [], label=row["label"], **look))
    return handles


def _looks() -> list[Line2D]:
    plain = {"linestyle": "none", "color": GREY, "marker": "o"}
    handles = [
        Line2D([], [], linestyle="none", marker=mark, color=colour, label=text)
        for text, colour, mark in GROUPS
    ]
    return [
        *handles,
        Line2D([], [], label="by the noise multiplier refuted", **plain),
        Line2D([], [], markerfacecolor="white", label="by one (ε, δ), any mechanism", **plain),
        Line2D(
            [], [], markeredgecolor="black", markeredgewidth=1.5, label="runs of the engine itself", **plain
        ),
    ]
