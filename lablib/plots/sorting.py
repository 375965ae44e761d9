"""Pictures of sorting networks: wires and comparators with values on them, and depth against d."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, GREEN, GREY, ORANGE, RED, SEQUENTIAL, SKY, new_figure, theme

Rounds = Sequence[Sequence[tuple[int, int]]]


def columns(rounds: Rounds) -> list[list[tuple[int, int, float]]]:
    """Return every comparator with a place (i, j, x); those of a round that overlap stand side by side."""
    placed, start = [], 1.0
    for pairs in rounds:
        lanes: list[list[tuple[int, int]]] = []
        for pair in sorted(pairs):
            free = next((lane for lane in lanes if all(pair[0] > j or pair[1] < i for i, j in lane)), None)
            if free is None:
                lanes.append([pair])
            else:
                free.append(pair)
        placed.append([(i, j, start + 0.3 * lane) for lane, members in enumerate(lanes) for i, j in members])
        start += 1.0 + 0.3 * (len(lanes) - 1)
    return placed


def run_rounds(rounds: Rounds, values: Sequence[float]) -> np.ndarray:
    """Return the values on the wires before the first round and after each: (rounds + 1, wires)."""
    current = list(values)
    history = [list(current)]
    for pairs in rounds:
        for i, j in pairs:
            current[i], current[j] = min(current[i], current[j]), max(current[i], current[j])
        history.append(list(current))
    return np.array(history)


def draw_network(rounds: Rounds, values: Sequence[float], title: str = "") -> Figure:
    """Draw a comparator network as wires (bottom wire: smallest) with the values that flow through it.

    Args:
        rounds: the comparators, round by round.
        values: one value for each wire, at least two.
    """
    wires = len(values)
    if wires < 2 or any(not 0 <= i < j < wires for pairs in rounds for i, j in pairs):
        raise ValueError("give two or more values, and comparators between their wires")
    history, placed = run_rounds(rounds, values), columns(rounds)
    ends = [0.4, *(max(x for *_, x in group) + 0.35 for group in placed)]
    low, high = float(np.min(values)), float(np.max(values))
    with theme():
        import matplotlib as mpl

        colour = mpl.colormaps[SEQUENTIAL]
        figure = new_figure(min(9.0, 1.6 + 0.62 * ends[-1]), 0.9 + 0.36 * wires)
        axis = figure.add_subplot()
        for step, (left, right) in enumerate(zip([0.0, *ends], [*ends, ends[-1] + 0.5])):
            row = history[max(step - 1, 0)]
            for wire in range(wires):
                share = (row[wire] - low) / (high - low) if high > low else 0.5
                axis.plot([left, right], [wire, wire], color=colour(0.92 * share), linewidth=3, zorder=1)
        for group in placed:
            for i, j, x in group:
                axis.plot([x, x], [i, j], color="black", marker="o", markersize=4, linewidth=1.3, zorder=2)
        for wire in range(wires):
            axis.text(-0.1, wire, f"{history[0][wire]:.2g}", ha="right", va="center")
            axis.text(
                ends[-1] + 0.6, wire, f"{history[-1][wire]:.2g}", ha="left", va="center", fontweight="bold"
            )
        axis.set(xlim=(-0.7, ends[-1] + 1.2), ylim=(-0.6, wires - 0.4), yticks=[], xticks=[])
        axis.set(
            title=title or f"{len(rounds)} rounds of MaxMin sort {wires} values",
            xlabel="rounds, left to right",
        )
        axis.grid(False)
        axis.spines[:].set_visible(False)
    return figure


def draw_depth(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the number of sorts of every construction against d, beside the lower bounds.

    Args:
        rows: as in the result file ``sorting_depth``.
    """
    d = np.array([row["d"] for row in rows])
    with theme():
        figure = new_figure(8.4, 3.8)
        left, right = figure.subplots(1, 2, sharey=True)
        curves = (
            ("transposition", GREY, "dotted", "sorts all: neighbours"),
            ("sort_2", BLUE, "solid", "sorts all: Batcher"),
            ("maximum_2", ORANGE, "dashed", "maximum: tournament"),
        )
        for key, colour, style, name in curves:
            left.step(
                d, [row[key]["sorts"] for row in rows], color=colour, linestyle=style, label=name, where="mid"
            )
        left.plot(d, [row["lower_bound"]["2"] for row in rows], ".", color=RED, label="lower bound log₂ d")
        left.set(title="MaxMin (group size 2)", ylabel="sorts", xlabel="number of inputs d")
        for group, colour, style in (("2", BLUE, "solid"), ("4", GREEN, "dashed"), ("8", SKY, "dashdot")):
            counts = [row[f"sort_{group}"]["sorts"] for row in rows]
            right.step(
                d, counts, color=colour, linestyle=style, label=f"sorts all, size {group}", where="mid"
            )
            bounds = [row["lower_bound"][group] for row in rows]
            right.plot(d, bounds, ".", markersize=3, color=colour, label=f"lower bound, size {group}")
        right.step(
            d,
            [row["full_sort"]["sorts"] for row in rows],
            color=ORANGE,
            label="one sort of size d",
            where="mid",
        )
        right.set(title="Larger groups need fewer sorts", xlabel="number of inputs d", xscale="log")
        right.set_xticks([2, 4, 8, 16, 32, 64], labels=["2", "4", "8", "16", "32", "64"])
        right.minorticks_off()
        highest = 1.15 * max(row["sort_2"]["sorts"] for row in rows)
        left.set(xscale="log", ylim=(0, highest))
        left.set_xticks([2, 4, 8, 16, 32, 64], labels=["2", "4", "8", "16", "32", "64"])
        left.minorticks_off()
        left.set_xlim(d[0], d[-1])
        right.set_xlim(d[0], d[-1])
        left.legend(loc="upper left", fontsize=8)
        right.legend(loc="upper left", fontsize=8)
    return figure


def draw_budgets(budgets: Sequence[np.ndarray], names: Sequence[str]) -> Figure:
    """Draw the budget matrix after each layer, (features, d) each, with the largest total in its title.

    Args:
        budgets: one matrix per layer, entries in [0, 1].
        names: one per matrix.
    """
    if len(budgets) != len(names) or not budgets:
        raise ValueError("give one name for each budget matrix, and at least one")
    with theme():
        figure = new_figure(min(9.6, 1.2 + 1.25 * len(budgets)), 2.9)
        axes = figure.subplots(1, len(budgets), squeeze=False)[0]
        for axis, matrix, name in zip(axes, budgets, names, strict=True):
            image = axis.imshow(matrix, vmin=0, vmax=1, cmap=SEQUENTIAL, aspect="auto", origin="lower")
            axis.set_title(f"{name}\ntotal {matrix.sum(axis=1).max():.3g}", fontsize=9)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
        axes[0].set(xlabel="input", ylabel="neuron")
        figure.colorbar(image, ax=axes, label="budget", shrink=0.9)
    return figure
