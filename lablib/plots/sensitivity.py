"""Sensitivity going through a network: features forward, cotangents backward, and what each layer owes to both."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, COLOURS, GREEN, GREY, ORANGE, SKY, new_figure, theme

WIDTH = 0.72  # of a bar, as in the budget picture
KINDS = {"weight": GREEN, "bias": SKY}  # of parameters; others take the next colours


def sensitivity_figure(
    rows: Sequence[Any],
    loss_lipschitz: float,
    title: str = "",
    measured: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Return three panels over one axis of layers; a bar is a bound, a diamond what a sample did.

    Top: norms of features, grown from the left. Middle: norms of cotangents, grown from the right, where the dashed
    line is what the loss sends. Bottom: sensitivities of the trained layers, about the product of the features that
    come in and the cotangents that come back; the dashed line is that of all together.

    Args:
        rows: of :class:`lablib.privacy.Sensitivity`: ``name``, ``kind``, ``output_norm``, ``cotangent_out``,
            ``parameters``.
        loss_lipschitz: L, positive.
        title: above the figure.
        measured: "features" and "cotangents" by layer name, "gradients" by full parameter name; any may be missing.

    Raises:
        ValueError: if there is no layer, or something was measured in a layer or parameter that is not there.
    """
    if not rows:
        raise ValueError("there is no layer to draw; give the rows of a sensitivity")
    measured = _check_measured(rows, measured or {})
    names = [row.name for row in rows]
    with theme():
        figure = new_figure(max(6.0, 0.62 * len(rows) + 1.6), 5.0)
        features, cotangents, gradients = figure.subplots(3, 1, sharex=True)
        found = [measured["features"].get(name, math.nan) for name in names]
        _draw_bounds(features, [row.output_norm for row in rows], BLUE, found)
        features.set(ylabel="features ≤ X", title="Forward: what a layer passes on, from left to right")
        found = [measured["cotangents"].get(name, math.nan) for name in names]
        _draw_bounds(cotangents, [row.cotangent_out for row in rows], ORANGE, found)
        _draw_limit(cotangents, loss_lipschitz, "loss: L")
        cotangents.set(ylabel="cotangents ≤ G", title="Backward: what comes back to it, from right to left")
        _draw_parameters(gradients, rows, measured["gradients"])
        total = math.hypot(*(value for row in rows for value in row.parameters.values()))
        _draw_limit(gradients, total, "all layers")
        gradients.set(ylabel="gradients ≤ Δ", title="Sensitivity: what one sample can add to a gradient")
        gradients.set_xticks(
            range(len(rows)), [f"{row.name} {row.kind}".strip() for row in rows], rotation=30, ha="right"
        )
        gradients.set_xlim(-0.6, len(rows) - 0.4)
        _draw_legend(figure, (features, cotangents, gradients), any(map(len, measured.values())))
        if title:
            figure.suptitle(title, fontsize=10.5)
    return figure


def _draw_bounds(axes: Axes, bounds: Sequence[float], colour: str, found: Sequence[float]) -> None:
    """Draw a bar for each bound, the sign of infinity where there is none, and diamonds."""
    heights = np.array(bounds, float)
    finite = np.isfinite(heights)
    places = np.arange(len(heights))
    axes.bar(places[finite], heights[finite], WIDTH, color=colour, zorder=2)
    for place in places[~finite]:
        axes.annotate("∞", (place, 0), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=12)
    found = np.where(finite, np.array(found, float), math.nan)  # there is no scale where there is no bound
    _draw_found(axes, places, found)
    tallest = max([0.0, *heights[finite], *np.nan_to_num(found)])
    axes.set_ylim(0, 1.15 * tallest if tallest > 0 else 1.0)
    axes.grid(axis="x", visible=False)


def _draw_parameters(axes: Axes, rows: Sequence[Any], found: Mapping[str, float]) -> None:
    """Draw each layer's sensitivities side by side, one colour for each kind of parameter."""
    kinds = list(dict.fromkeys(_kind(name) for row in rows for name in row.parameters))
    rest = iter(colour for colour in COLOURS if colour not in (*KINDS.values(), BLUE, ORANGE, GREY))
    colours = {kind: KINDS.get(kind) or next(rest, GREY) for kind in kinds}
    tallest, seen = 0.0, set()
    for place, row in enumerate(rows):
        width = WIDTH / max(1, len(row.parameters))
        for n, (name, bound) in enumerate(sorted(row.parameters.items(), reverse=True)):  # weight, bias
            kind, x = _kind(name), place + (n - (len(row.parameters) - 1) / 2) * width
            label = None if kind in seen else kind
            seen.add(kind)
            axes.bar(x, bound, width, color=colours[kind], label=label, zorder=2)
            _draw_found(axes, [x], [found.get(name, math.nan)])
            tallest = max(tallest, bound, found.get(name, 0.0))
    axes.set_ylim(0, 1.15 * tallest if tallest > 0 else 1.0)
    axes.grid(axis="x", visible=False)


def _draw_found(axes: Axes, places: Sequence[float], found: Sequence[float]) -> None:
    axes.scatter(places, found, color="white", edgecolors="black", marker="D", s=26, zorder=4)


def _draw_limit(axes: Axes, value: float, text: str) -> None:
    axes.axhline(value, color="black", linewidth=1, linestyle="dashed", zorder=3)
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.15 * value))
    axes.annotate(
        f"{text} = {value:.3g}",
        (1.0, value),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        annotation_clip=False,
    )


def _draw_legend(figure: Figure, panels: Sequence[Axes], diamonds: bool) -> None:
    """Name the parameters' colours where there are several kinds, and the diamonds where there are any."""
    handles, labels = panels[-1].get_legend_handles_labels()
    if diamonds:
        marker = panels[0].scatter([], [], color="white", edgecolors="black", marker="D", s=26)
        handles, labels = [*handles, marker], [*labels, "measured"]
    if len(handles) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), fontsize=8.5)


def _kind(parameter: str) -> str:
    return parameter.rpartition(".")[2]


def _check_measured(
    rows: Sequence[Any], measured: Mapping[str, Mapping[str, float]]
) -> dict[str, Mapping[str, float]]:
    """Return all three mappings; refuse names that no row has, which would silently not be drawn."""
    layers = {row.name for row in rows}
    known = {
        "features": layers,
        "cotangents": layers,
        "gradients": {name for row in rows for name in row.parameters},
    }
    if unknown := sorted(measured.keys() - known.keys()):
        raise ValueError(f"measured {unknown[0]!r} cannot be drawn; give {', '.join(known)}")
    for what, names in known.items():
        if unknown := sorted(measured.get(what, {}).keys() - names):
            raise ValueError(f"{what} were measured at {unknown[0]!r}, which is in no row")
    return {what: measured.get(what, {}) for what in known}
