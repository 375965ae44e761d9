"""Figures of the representer theorem: functions with their knots; gap, error and knots against lambda."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lablib.plots.theme import BLUE, GREY, ORANGE, SKY, new_figure, theme

MODELS = {"spline": "one spline", "l2": "network, l2 weights", "linf": "network, l∞ weights"}
LOOKS = {  # coordinates that training moves: text, colour, dash, marker
    "values": ("values moved", BLUE, "solid", "o"),
    "bends": ("bends moved", ORANGE, "dashed", "s"),
}
ROWS = {"knots": "knots", "mse": "mean squared error", "gap": "objective / bound − 1"}
SMALLEST_GAP = 1e-5  # smaller ones are drawn there: below what float32 tells apart


def draw_functions(
    x: np.ndarray, y: np.ndarray, shown: np.ndarray, panels: Sequence[Mapping[str, Any]]
) -> Figure:
    """Return the data and the fitted functions, a panel per lambda, the optimum's knots marked.

    Args:
        x, y: (N,) the data.
        shown: (T,) places of the curves.
        panels: ``weight`` (lambda), ``knots`` (2, M) positions and values, ``lines``: text -> (T,), the optimum
            first.

    Raises:
        ValueError: if there are no panels.
    """
    if not panels:
        raise ValueError("there is no function to draw; run the experiment first")
    looks = [("black", "solid", 2.4), (ORANGE, "dashed", 1.5), (SKY, "dotted", 1.8)]
    with theme():
        figure = new_figure(7.4, 3.1)
        axes_row = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axes, panel in zip(axes_row, panels):
            axes.plot(x, y, ".", color=GREY, markersize=4, alpha=0.7, label="data")
            for (colour, dash, width), (text, line) in zip(looks, panel["lines"].items()):
                axes.plot(shown, line, color=colour, linestyle=dash, linewidth=width, label=text)
            positions, values = panel["knots"]
            mark = {"color": "white", "markeredgecolor": "black", "markersize": 5.5, "zorder": 4}
            axes.plot(positions, values, "o", label="knot of the optimum", **mark)
            axes.set(title=f"λ = {panel['weight']:g}: {len(positions)} knots", xlabel="x")
        axes_row[0].set_ylabel("y, f(x)")
        handles, labels = axes_row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, columnspacing=1.2)
    return figure


def draw_path(
    optima: Mapping[str, np.ndarray],
    grids: Sequence[int],
    models: Mapping[str, Mapping[str, np.ndarray]],
    knots_at_most: int,
) -> Figure:
    """Return knots, error and gap to the optimum against lambda: a column for each trained model, one for grids.

    Args:
        optima: ``weight`` (L,), ``mse`` (L,), ``knots`` (L,), ``grid_gap`` (L, grids).
        grids: how many knots the uniform grids have.
        models: "MODEL COORDINATES" of :data:`MODELS` and :data:`LOOKS` -> ``mse``, ``knots`` and ``gap``, each
            (L, seeds).
        knots_at_most: the theorem's bound.

    Raises:
        ValueError: if there are no models.
    """
    if not models:
        raise ValueError("there is no model to draw; run the experiment first")
    shown = [model for model in MODELS if any(name.split()[0] == model for name in models)]
    weights = optima["weight"]
    with theme():
        figure = new_figure(7.6, 6.4)
        panels = figure.subplots(3, len(shown) + 1, sharex=True, sharey="row", squeeze=False)
        for column, model in zip(panels.T, shown):
            column[0].set_title(MODELS[model], fontsize=9.5)
            for axes, key in zip(column, ROWS):
                if key in optima:
                    axes.plot(weights, optima[key], color="black", linewidth=2.6, label="convex optimum")
                for coordinates in LOOKS:
                    if f"{model} {coordinates}" in models:
                        _seeds(axes, weights, models[f"{model} {coordinates}"][key], key, coordinates)
            bound = {"color": GREY, "linestyle": "dotted", "label": f"at most N − 2 = {knots_at_most}"}
            column[0].axhline(knots_at_most, linewidth=1.4, **bound)
        lines = _grids(panels[2, -1], weights, grids, optima["grid_gap"])
        panels[1, -1].legend(
            handles=lines, fontsize=8, loc="lower left", title="below: grids", title_fontsize=8
        )
        for axes, key in zip(panels[:, 0], ROWS):
            axes.set(ylabel=ROWS[key], xscale="log", yscale="symlog" if key == "knots" else "log")
        panels[0, 0].set_ylim(-0.3, None)
        for axes in panels[2]:
            axes.set_xlabel("λ")
        for axes in panels[:2, -1]:
            axes.set_axis_off()
        handles, labels = panels[0, 0].get_legend_handles_labels()
        panels[0, -1].legend(handles, labels, fontsize=8, loc="upper left", title="lines: medians; marks: seeds",
                             title_fontsize=8)  # fmt: skip
        title = "As λ grows knots vanish and the error rises; last row: how far the fit is from the optimum"
        figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    return figure


def _grids(axes: Axes, weights: np.ndarray, grids: Sequence[int], gaps: np.ndarray) -> list[Line2D]:
    """Draw how far the best functions with knots on uniform grids are from the optimum; return the lines."""
    lines = []
    for number, count in enumerate(grids):
        shade = str(0.75 - 0.75 * number / max(1, len(grids) - 1))
        values = np.maximum(gaps[:, number], SMALLEST_GAP)
        lines += axes.plot(weights, values, color=shade, linewidth=1.4, label=f"{count} knots")
    axes.set_title("best on a uniform grid", fontsize=9.5)
    return lines


def _seeds(axes: Axes, weights: np.ndarray, values: np.ndarray, key: str, coordinates: str) -> None:
    """Draw the median over the seeds as a line and every seed as a marker."""
    text, colour, dash, marker = LOOKS[coordinates]
    drawn = np.maximum(values, SMALLEST_GAP) if key == "gap" else values
    axes.plot(weights, np.median(drawn, axis=1), color=colour, linestyle=dash, linewidth=1.4, label=text)
    axes.plot(weights, drawn, marker, color=colour, markersize=2.8, alpha=0.6)
