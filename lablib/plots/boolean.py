"""Boolean functions: their cubes, radius against the number of variables, and the gap to the bound."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, COLOURS, GREEN, GREY, ORANGE, PURPLE, RED, SKY, new_figure, theme

# Where a vertex is drawn: the sum of these over its ones. Far enough from each other that no two vertices
# meet.
STEPS = np.array([[1.0, 0.0], [0.0, 1.0], [0.42, 0.34], [1.75, 0.62]])
LABEL_COLOURS = (BLUE, RED)
LABEL_MARKERS = ("o", "s")
STATES = {"closed": (GREEN, "o"), "reached": (SKY, "^"), "open": (RED, "x")}
STATE_TEXT = {
    "closed": "closed: a network in fractions attains the bound",
    "reached": "reached by training to within a thousandth",
    "open": "open: no network found that reaches it",
}
FAMILY_LOOK = {
    "standard, |·|": (BLUE, "solid", "o"),
    "standard, learned spline": (SKY, "dashed", "s"),
    "MaxMin": (ORANGE, "dashdot", "^"),
    "l∞-distance": (GREEN, "solid", "D"),
    "SortNet": (PURPLE, "dashed", "v"),
}


def vertex_positions(variables: int) -> np.ndarray:
    """Return where the vertices are drawn, (2^d, 2); bit j of the row number is coordinate j.

    Raises:
        ValueError: unless 1 <= d <= 4.
    """
    if not 1 <= variables <= len(STEPS):
        raise ValueError(f"cubes are drawn for 1 to {len(STEPS)} variables, not {variables}")
    bits = (np.arange(2**variables)[:, None] >> np.arange(variables)) & 1
    return bits @ STEPS[:variables]


def cube_edges(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ends (n, 2), variable (n,) and whether the edge is sensitive (n,), for a table (2^d,) of 0/1."""
    table = np.asarray(table).astype(bool)
    variables = table.size.bit_length() - 1
    low = np.arange(table.size)
    ends = [np.stack([low, low | 1 << j], axis=1)[(low >> j & 1) == 0] for j in range(variables)]
    ends, variable = np.concatenate(ends), np.repeat(np.arange(variables), table.size // 2)
    return ends, variable, table[ends[:, 0]] != table[ends[:, 1]]


def draw_cube(axes: Axes, table: np.ndarray, witness: np.ndarray | None = None, names: bool = True) -> None:
    """Draw the cube of a function: label by colour and marker, sensitive edges thick in their variable's
    colour.

    Args:
        axes: where to draw.
        table: (2^d,) of 0/1, d from 1 to 4.
        witness: (n,) vertex numbers to ring.
        names: write the coordinates beside each vertex.
    """
    table = np.asarray(table).astype(int)
    variables = table.size.bit_length() - 1
    places = vertex_positions(variables)
    ends, variable, sensitive = cube_edges(table)
    colours = [COLOURS[j] if s else "#C8C8C8" for j, s in zip(variable, sensitive)]
    widths = np.where(sensitive, 3.0, 0.9)
    axes.add_collection(LineCollection(places[ends], colors=colours, linewidths=widths, zorder=1))
    if witness is not None:
        ring = places[np.unique(witness)]
        axes.scatter(*ring.T, s=230, facecolors="none", edgecolors="black", linewidths=1.2, zorder=2)
    for label in (0, 1):
        axes.scatter(
            *places[table == label].T,
            s=75,
            color=LABEL_COLOURS[label],
            marker=LABEL_MARKERS[label],
            edgecolors="white",
            zorder=3,
        )
    if names:
        for number, (x, y) in enumerate(places):
            text = "".join(str(number >> j & 1) for j in range(variables))
            axes.annotate(text, (x, y), (9, -12), textcoords="offset points", fontsize=7.5, color="#303030")
    axes.set(aspect="equal", xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.margins(0.22 if variables > 1 else 0.4)


def cube_figure(table: np.ndarray, title: str, witness: np.ndarray | None = None) -> Figure:
    """Return one function's cube with a legend of the variables that have sensitive edges."""
    _, variable, sensitive = cube_edges(table)
    with theme():
        figure = new_figure(5.4, 3.6)
        axes = figure.subplots()
        draw_cube(axes, table, witness)
        for j in np.unique(variable):
            count = int(sensitive[variable == j].sum())
            text = f"x{j + 1}: {count} sensitive edge{'s' * (count != 1)}"
            axes.plot([], [], color=COLOURS[j] if count else "#C8C8C8", linewidth=3, label=text)
        for label in (0, 1):
            axes.plot([], [], LABEL_MARKERS[label], color=LABEL_COLOURS[label], label=f"g = {label}")
        if witness is not None:
            ring = {"markersize": 11, "markerfacecolor": "none", "markeredgecolor": "black"}
            axes.plot([], [], "o", label="witness point", **ring)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes.set_title(title)
    return figure


def gallery_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Return a wall of cubes, one per function of at most three variables, with bound and best found below
    each.

    Args:
        rows: entries of ``boolean_gap`` with ``table``, ``variables``, ``bound``, ``ratio`` and ``explicit``.

    Raises:
        ValueError: if there is no such function among the rows.
    """
    shown = [row for row in rows if row["variables"] <= 3]
    if not shown:
        raise ValueError("no function of at most three variables among these rows; run boolean_gap first")
    columns = 5
    lines = -(-len(shown) // columns)
    with theme():
        figure = new_figure(7.6, 1.65 * lines + 0.3)
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, row in zip(panels, shown):
            draw_cube(axes, np.array([int(bit) for bit in row["table"]]), names=False)
            state = "exact" if row["explicit"] else "not exact"
            axes.set_title(
                f"bound {row['bound']}, {state}\ntrained {100 * row['ratio']:.2f} %", fontsize=8, loc="center"
            )
            axes.set(xlim=(-0.25, 1.67), ylim=(-0.25, 1.6))
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        figure.suptitle("Every Boolean function of 1 to 3 variables, up to symmetry", fontsize=10.5)
    return figure


def state_of(row: Mapping[str, Any], reached: float) -> str:
    """Return ``closed``, ``reached`` or ``open`` for a row of ``boolean_gap``."""
    if row["explicit"] is not None:
        return "closed"
    return "reached" if row["ratio"] >= reached else "open"


def gap_figure(
    rows: Sequence[Mapping[str, Any]], summary: Sequence[Mapping[str, Any]], reached: float
) -> Figure:
    """Return found / bound for every function, by group, above the counts of closed, reached and open
    ones."""
    groups = [line["group"] for line in summary]
    with theme():
        figure = new_figure(7.6, 4.9)
        axes, table = figure.subplots(2, 1, height_ratios=[3, 1.15])
        for position, group in enumerate(groups):
            members = sorted((row for row in rows if row["group"] == group), key=lambda row: row["ratio"])
            spread = np.linspace(-0.36, 0.36, len(members)) if len(members) > 1 else np.zeros(1)
            for state, (colour, marker) in STATES.items():
                chosen = [state_of(row, reached) == state for row in members]
                ratios = np.array([row["ratio"] for row in members])[chosen]
                axes.scatter(position + spread[chosen], ratios, color=colour, marker=marker, s=16, zorder=3)
        for state, (colour, marker) in STATES.items():
            axes.scatter([], [], color=colour, marker=marker, s=22, label=STATE_TEXT[state])
        axes.axhline(1, color="black", linewidth=1)
        axes.text(len(groups) - 0.45, 1.012, "bound 1/(2m)", ha="right", fontsize=8.5)
        axes.set(
            xticks=range(len(groups)),
            xticklabels=[_group_name(group) for group in groups],
            xlim=(-0.5, len(groups) - 0.5),
            ylabel="best trained radius / bound",
            title="Best trained standard network of every Boolean function, against its bound",
        )
        axes.set_ylim(min(0.78, min(row["ratio"] for row in rows) - 0.03), 1.05)
        axes.legend(loc="lower left", fontsize=8)
        _counts(table, summary)
    return figure


def _group_name(group: str) -> str:
    kind, variables = group.split()
    return f"{kind}\nd = {variables}"


def _counts(axes: Axes, summary: Sequence[Mapping[str, Any]]) -> None:
    """Write the counts as a table whose columns stand under the groups of the panel above."""
    axes.set(xlim=(-0.5, len(summary) - 0.5), ylim=(-3.6, 0.6))
    axes.axis("off")
    names = {"functions": "functions", "closed": "closed", "reached": "trained to it", "open": "open"}
    for line, (key, name) in enumerate(names.items()):
        axes.text(-0.55, -line, name, ha="right", va="center", fontsize=8.5)
        for position, entry in enumerate(summary):
            text = str(entry[key])
            bold = "bold" if key == "open" and entry[key] else "normal"
            axes.text(position, -line, text, ha="center", va="center", fontsize=8.5, fontweight=bold)


def radius_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Return radius against d, one panel per function: best over the seeds as a line, the seeds' range as a
    band."""
    functions = list(dict.fromkeys(row["function"] for row in rows))
    with theme():
        figure = new_figure(7.6, 3.7)
        panels = figure.subplots(1, len(functions), sharey=True, squeeze=False)[0]
        for axes, function in zip(panels, functions):
            chosen = [row for row in rows if row["function"] == function]
            d = np.array(sorted({row["d"] for row in chosen}))
            axes.fill_between(d, 0, 1 / (2 * d), color="#DCE9F3", zorder=0)
            axes.plot(d, 1 / (2 * d), color="black", linewidth=1.2, label="bound 1/(2d), standard networks")
            axes.axhline(0.5, color=GREY, linestyle="dotted", linewidth=1.2, label="optimum 1/2")
            for family in dict.fromkeys(row["family"] for row in chosen):
                _draw_family(axes, [row for row in chosen if row["family"] == family])
            axes.set(title=function, xlabel="variables d", ylim=(0, 0.53), xticks=d[1::2])
        panels[0].set_ylabel("certified l∞ radius, all vertices")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8.5)
        figure.suptitle("Standard networks climb to 1/(2d) and stop; the others go past it", fontsize=10.5)
    return figure


def _draw_family(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    family = rows[0]["family"]
    colour, dash, marker = FAMILY_LOOK.get(family, (GREY, "solid", "."))
    d = [row["d"] for row in rows]
    low, high = (np.clip([row[key] for row in rows], 0, None) for key in ("worst", "best"))
    axes.fill_between(d, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(
        d, high, color=colour, linestyle=dash, marker=marker, markersize=3.5, linewidth=1.4, label=family
    )


def climb_figure(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], bound: float, title: str) -> Figure:
    """Return the radius during training on a logarithmic axis, one thin line per seed.

    Args:
        curves: family -> steps (n,) and radii (seeds, n); radii of networks that are still wrong are
            negative.
        bound: of standard networks.
        title: which function.
    """
    floor = bound / 10
    with theme():
        figure = new_figure(7.0, 3.5)
        axes = figure.subplots()
        for family, (steps, radii) in curves.items():
            colour, dash, _ = FAMILY_LOOK.get(family, (GREY, "solid", "."))
            shown = np.where(radii > floor, radii, np.nan)
            axes.plot(steps, shown.T, color=colour, linestyle=dash, linewidth=1.1)
            axes.plot([], [], color=colour, linestyle=dash, label=family)
        axes.axhline(bound, color="black", linewidth=1.2)
        axes.axhline(0.5, color=GREY, linewidth=1.2, linestyle="dotted")
        last = max(steps[-1] for steps, _ in curves.values())
        axes.text(last, bound * 1.06, f"bound {bound:.4g}", ha="right", fontsize=8.5)
        axes.text(last, 0.53, "optimum 1/2", ha="right", fontsize=8.5)
        axes.set(
            yscale="log",
            ylim=(floor, 0.65),
            xlabel="training step",
            ylabel="certified l∞ radius",
            title=f"{title}: each line one seed",
        )
        ticks = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if tick > floor]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    return figure
