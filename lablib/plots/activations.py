"""Pictures of one activation (six panels) and of all of them side by side (one row each)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, COLOURS, DASHES, DIVERGING, GREY, ORANGE, RED, new_figure, theme

EDGES = np.linspace(0.0, 1.0, 21)  # bins of the gradient-norm histogram
NORM_SIGNS = {"linf": "ℓ∞", "l1": "ℓ1", "l2": "ℓ2"}
LINE_LIMIT, GRAPH_LIMIT, SLOPE_LIMIT = 2.0, 2.1, 1.25


def histogram_shares(gradient_norms: np.ndarray) -> np.ndarray:
    """Return the share of inputs in each bin of ``EDGES``; norms of 1 plus rounding fall in the last bin."""
    counts, _ = np.histogram(np.clip(gradient_norms, 0.0, 1.0), bins=EDGES)
    return counts / max(len(gradient_norms), 1)


def draw_activation(study: Any, reference: np.ndarray | None = None) -> Figure:
    """Draw the six panels of the explorer for one activation.

    Args:
        study: arrays and names as in ``lablib.experiments.activation_study.Study``.
        reference: gradient norms (P,) of the ReLU network of the same depth, drawn as an outline.
    """
    with theme():
        figure = new_figure(9.6, 5.6)
        axes = figure.subplots(2, 3)
        _graph(axes[0, 0], study)
        axes[0, 0].set(title="Graph", xlabel="moving input", ylabel="output")
        _derivative(axes[0, 1], study)
        axes[0, 1].set(title="Slope: never steeper than 1", xlabel="moving input", ylabel="slope")
        _budget(axes[0, 2], study)
        axes[0, 2].set(
            title=f"Budget of a neuron: {study.budget_before.sum():.2f} to {study.budget_after.sum():.2f}",
            xlabel="input coordinate",
            ylabel="budget",
        )
        axes[0, 2].legend(loc="upper right", ncols=2)
        _line(axes[1, 0], study)
        _field(axes[1, 1], study)
        _histogram(axes[1, 2], study, reference)
        axes[1, 2].set(
            title=f"Gradient kept: {study.gradient_norms.mean():.2f} on average",
            xlabel=f"{NORM_SIGNS[study.dual]} norm of the gradient",
            ylabel="share of inputs",
        )
        if reference is not None:
            axes[1, 2].legend(loc="upper center")
        sign = NORM_SIGNS[study.norm]
        figure.suptitle(f"{study.title}, {study.depth} layers, {sign}", x=0.01, ha="left", fontsize=12)
    return figure


def draw_gallery(studies: Sequence[Any]) -> Figure:
    """Draw one row per activation: graph, slope, budget, gradient norms of a deep random network."""
    if not studies:
        raise ValueError("nothing to draw; give at least one study")
    with theme():
        figure = new_figure(8.4, 1.35 * len(studies) + 0.6)
        axes = figure.subplots(len(studies), 4, squeeze=False)
        for row, study in zip(axes, studies, strict=True):
            _graph(row[0], study)
            _derivative(row[1], study)
            _budget(row[2], study)
            _histogram(row[3], study, None)
            name = study.title.replace(", ", ",\n")
            row[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8, fontsize=9.5)
            before, after = study.budget_before.sum(), study.budget_after.sum()
            _note(row[2], f"total {before:.1f} → {after:.1f}")
            _note(row[3], f"mean {study.gradient_norms.mean():.2f} ({NORM_SIGNS[study.norm]})")
            for axis in row:
                axis.tick_params(labelsize=8)
            if row is not axes[-1]:
                for axis in row:
                    axis.tick_params(labelbottom=False)
        depth = studies[0].depth
        titles = ("graph", "slope", "budget: grey → blue", f"gradient, {depth} layers")
        units = ("moving input", "moving input", "input coordinate", "dual norm of gradient")
        for top, bottom, title, unit in zip(axes[0], axes[-1], titles, units, strict=True):
            top.set_title(title)
            bottom.set_xlabel(unit)
    return figure


def _note(axis: Axes, text: str) -> None:
    axis.text(0.1, 0.93, text, transform=axis.transAxes, va="top", fontsize=8.5)


def _lines(axis: Axes, inputs: np.ndarray, rows: np.ndarray) -> None:
    for number, row in enumerate(rows):
        style = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
        axis.plot(inputs, row, **style)


def _graph(axis: Axes, study: Any) -> None:
    _lines(axis, study.inputs, study.graph)
    axis.set(xlim=(-2, 2), ylim=(-GRAPH_LIMIT, GRAPH_LIMIT))


def _derivative(axis: Axes, study: Any) -> None:
    axis.axhspan(-1, 1, color="#F1F1F1", zorder=0)
    _lines(axis, study.inputs, study.derivative)
    axis.set(xlim=(-2, 2), ylim=(-SLOPE_LIMIT, SLOPE_LIMIT))


def _budget(axis: Axes, study: Any) -> None:
    position = np.arange(1, len(study.budget_before) + 1)
    axis.bar(position - 0.2, study.budget_before, 0.4, color="#B9B9B9", label="before")
    axis.bar(position + 0.2, study.budget_after, 0.4, color=BLUE, label="after")
    axis.set(ylim=(0, 1.3), xticks=position)
    axis.grid(axis="x", visible=False)


def _line(axis: Axes, study: Any) -> None:
    axis.plot(study.line_at, study.line - study.line[len(study.line) // 2], color=RED)
    axis.set(
        title="The network along a line",
        xlabel="distance from the origin",
        ylabel="change of the output",
        xlim=(-2, 2),
        ylim=(-LINE_LIMIT, LINE_LIMIT),
    )


def _field(axis: Axes, study: Any) -> None:
    field = study.field - study.field[len(study.field_at) // 2, len(study.field_at) // 2]
    style = {"cmap": DIVERGING, "vmin": -2, "vmax": 2, "shading": "gouraud", "rasterized": True}
    mesh = axis.pcolormesh(study.field_at, study.field_at, field, **style)
    levels = {"levels": np.arange(-2, 2.1, 0.25), "colors": GREY, "linewidths": 0.6, "linestyles": "solid"}
    axis.contour(study.field_at, study.field_at, field, **levels)
    axis.set(title="… and on a plane through it", xlabel="first half of inputs", ylabel="second half")
    axis.grid(visible=False)
    axis.figure.colorbar(mesh, ax=axis, shrink=0.9)


def _histogram(axis: Axes, study: Any, reference: np.ndarray | None) -> None:
    shares = histogram_shares(study.gradient_norms)
    axis.bar(EDGES[:-1], shares, np.diff(EDGES), align="edge", color=ORANGE, label="this")
    if reference is not None:
        axis.stairs(histogram_shares(reference), EDGES, color=GREY, linewidth=1.4, label="ReLU")
    axis.set(xlim=(0, 1.02), ylim=(0, 1.05))
