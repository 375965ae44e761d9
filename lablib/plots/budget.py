"""Budgets flowing through a network: for each neuron, how its budget is shared among the inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lablib.plots.theme import COLOURS, new_figure, theme

LIMIT = 1.0  # the budget of a neuron of a standard network


def flow_figure(steps: Sequence[Any], title: str = "", limit: float = LIMIT) -> Figure:
    """Return one panel per layer; a bar is one neuron, its pieces the shares lambda_j, a diamond what x - y
    did.

    Args:
        steps: of :func:`lablib.theory.budget.flow`: ``name``, ``budget`` (neurons, d), ``difference``
            (neurons,).
        title: above the figure.
        limit: where the line is drawn that no bar of a standard network passes.

    Raises:
        ValueError: if there is no layer.
    """
    if not steps:
        raise ValueError("there is no layer to draw; give the steps of theory.budget.flow")
    with theme():
        figure = new_figure(max(5.0, 1.45 * len(steps)), 3.3)
        panels = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
        tallest = max(limit, *(float(np.asarray(step.budget, float).sum(axis=1).max()) for step in steps))
        for axes, step in zip(panels, steps):
            draw_layer(axes, np.asarray(step.budget, float), np.asarray(step.difference, float), limit)
            axes.set(title=step.name, xlabel="neuron", ylim=(0, 1.08 * tallest))
        panels[0].set_ylabel("budget")
        handles, labels = panels[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=8.5)
        if title:
            figure.suptitle(title, fontsize=10.5)
    return figure


def draw_layer(
    axes: Axes, budget: np.ndarray, difference: np.ndarray | None = None, limit: float = LIMIT
) -> None:
    """Draw the budgets (neurons, d) of one layer as stacked bars with the line at ``limit``."""
    neurons = np.arange(len(budget))
    base = np.zeros(len(budget))
    for j, share in enumerate(budget.T):
        axes.bar(
            neurons, share, 0.72, bottom=base, color=COLOURS[j % len(COLOURS)], label=f"λ{j + 1}", zorder=2
        )
        base = base + share
    axes.axhline(limit, color="black", linewidth=1, linestyle="dashed", zorder=3)
    if difference is not None:
        style = {"color": "white", "edgecolors": "black", "marker": "D", "s": 26, "zorder": 4}
        axes.scatter(neurons, np.abs(difference), label="|f(x) − f(y)|", **style)
    axes.set_xticks(neurons if len(neurons) <= 8 else neurons[::4], minor=False)
    axes.set_xticklabels([str(k + 1) for k in axes.get_xticks()])
    axes.set_xlim(-0.6, len(neurons) - 0.4)
