"""Figures of the representer theorem: functions with their knots; gap, error and knots against lambda."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, new_figure, theme

LOOKS = {  # trained model and coordinates: text, colour, dash, marker
    "spline values": ("one spline, values moved", BLUE, "solid", "o"),
    "spline bends": ("one spline, bends moved", SKY, "dashed", "s"),
    "l2 values": ("network l2, values moved", RED, "solid", "^"),
    "l2 bends": ("network l2, bends moved", ORANGE, "dashed", "v"),
    "linf values": ("network l∞, values moved", GREEN, "solid", "D"),
    "linf bends": ("network l∞, bends moved", PURPLE, "dashed", "P"),
}
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
    looks = [(BLUE, "solid", 2.4), (ORANGE, "dashed", 1.5), (GREEN, "dotted", 1.5)]
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
    """Return knots, error and gap to the optimum against lambda, for the optimum and what was trained.

    Args:
        optima: ``weight`` (L,), ``mse`` (L,), ``knots`` (L,), ``grid_gap`` (L, grids).
        grids: how many knots the uniform grids have.
        models: one of :data:`LOOKS` -> ``mse``, ``knots`` and ``gap``, each (L, seeds).
        knots_at_most: the theorem's bound.

    Raises:
        ValueError: if there are no models.
    """
    if not models:
        raise ValueError("there is no model to draw; run the experiment first")
    weights = optima["weight"]
    with theme():
        figure = new_figure(7.4, 6.0)
        (knots, mse), (gap, grid) = figure.subplots(2, 2, sharex=True)
        for axes, key in ((knots, "knots"), (mse, "mse")):
            axes.plot(weights, optima[key], color="black", linewidth=2.4, zorder=4, label="convex optimum")
        for name, table in models.items():
            for axes, key in ((knots, "knots"), (mse, "mse"), (gap, "gap")):
                _seeds(
                    axes, weights, np.maximum(table[key], SMALLEST_GAP) if key == "gap" else table[key], name
                )
        knots.axhline(knots_at_most, color=GREY, linestyle="dotted", linewidth=1.4)
        knots.text(
            weights[-1], knots_at_most * 1.1, f"at most N − 2 = {knots_at_most}", ha="right", fontsize=8
        )
        knots.set(title="Knots vanish as λ grows", ylabel="knots", yscale="symlog", ylim=(-0.3, None))
        mse.set(title="The price: a larger error", ylabel="mean squared error", yscale="log")
        gap.set(
            title="How far training is from the optimum", ylabel="objective / lower bound − 1", yscale="log"
        )
        for number, count in enumerate(grids):
            shade = str(0.75 - 0.75 * number / max(1, len(grids) - 1))
            values = np.maximum(optima["grid_gap"][:, number], SMALLEST_GAP)
            grid.plot(weights, values, color=shade, linewidth=1.4, label=f"{count} knots")
        grid.set(title="How far uniform grids are from it", yscale="log")
        grid.legend(fontsize=8, loc="lower left")
        for axes in (gap, grid):
            axes.set(xscale="log", xlabel="λ")
        handles, labels = knots.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8)
    return figure


def _seeds(axes: Axes, weights: np.ndarray, values: np.ndarray, name: str) -> None:
    """Draw the median over the seeds as a line and every seed as a marker."""
    text, colour, dash, marker = LOOKS[name]
    axes.plot(weights, np.median(values, axis=1), color=colour, linestyle=dash, linewidth=1.2, label=text)
    axes.plot(weights, values, marker, color=colour, markersize=2.8, alpha=0.7)
