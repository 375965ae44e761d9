"""What an attack proves of the claimed epsilon: sound mechanisms below the diagonal, broken ones above it."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, GREY, RED, SKY, new_figure, theme

GROUPS = (  # of the rows: label, colour, marker
    ("sound, every record in every step", BLUE, "o"),
    ("sound, Poisson samples", SKY, "s"),
    ("broken", RED, "X"),
)


def draw_audit(rows: Sequence[Mapping[str, Any]], delta: float) -> Figure:
    """Return audited against claimed epsilon, a pair of points for each mechanism.

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
        figure = new_figure(7.0, 4.6)
        axis = figure.subplots()
        ends = _limits(rows)
        axis.plot(ends, ends, color=GREY, linewidth=1.2)
        axis.fill_between(ends, ends, [ends[1]] * 2, color=RED, alpha=0.06, linewidth=0)
        axis.annotate("the claim is refuted", (ends[0] * 1.12, ends[1] / 1.25), color=RED, va="top")
        for row in rows:
            _point(axis, row, ends[0])
        _name_broken(axis, [row for row in rows if not row["sound"]])
        axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30, 100) if ends[0] <= tick <= ends[1]]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axis.minorticks_off()
        axis.set_xlabel(f"claimed ε at δ = {delta:g}")
        axis.set_ylabel("ε that the attack proves")
        axis.set_title("No attack proves more than is claimed, unless something is broken")
        _legend(axis)
    return figure


def _limits(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    least = min(row["claimed"] for row in rows)
    most = max(max(row["claimed"], row["bound"], row["refuted"]) for row in rows)
    return least / 2.5, most * 1.4


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
    axis.plot(row["claimed"], high, marker, color=colour, markeredgecolor=edge, markersize=6.5, zorder=4)


def _name_broken(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        place = (row["claimed"], max(row["bound"], row["refuted"]))
        note = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
        axis.annotate(row["label"], place, color=RED, **note)


def _legend(axis: Axes) -> None:
    plain = {"linestyle": "none", "color": GREY}
    handles = [axis.plot([], [], marker, color=colour, label=label)[0] for label, colour, marker in GROUPS]
    handles += [
        axis.plot([], [], marker="o", label="from the noise multiplier refuted", **plain)[0],
        axis.plot(
            [], [], marker="o", markerfacecolor="white", label="from one (ε, δ), any mechanism", **plain
        )[0],
        axis.plot([], [], marker="o", markeredgecolor="black", label="runs of the engine itself", **plain)[0],
    ]
    axis.legend(handles=handles, loc="lower right", fontsize=8)
