"""Potentials of the Kantorovich-Rubinstein dual: what they reach, and what they look like in the plane."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, LogLocator

from lablib.plots.theme import (
    BLUE,
    COLOURS,
    DASHES,
    DIVERGING,
    GREY,
    PAGE_WIDTH,
    RED,
    activation_look,
    new_figure,
    theme,
)

CLOUD_COLOURS = (RED, BLUE)  # the potential is high on the first cloud and low on the second
CLOUD_MARKERS = ("s", "o")
CLOUDS = ("first cloud P", "second cloud Q")
LEVEL_STEP = 0.05
FIELD_LIMIT = 0.5
RAYS = 60  # drawn of a plan, at most
SMALLEST_SPAN = 2.0  # percent points that an axis of shares covers at least


def centred(field: np.ndarray, axis: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return ``field`` (S, S) less its mean at the points (M, 2): a potential is determined up to a constant.

    The mean is read at the cells of the grid that are nearest to the points.
    """
    step = axis[1] - axis[0]
    cells = np.rint((points - axis[0]) / step).astype(int).clip(0, len(axis) - 1)
    return field - field[cells[:, 1], cells[:, 0]].mean()


def ray_path(rays: np.ndarray, most: int = RAYS) -> np.ndarray:
    """Return evenly chosen rays (N, 2, 2) as one path (M, 2): start, end, a row of NaN, and so on.

    Raises:
        ValueError: for another shape.
    """
    rays = np.asarray(rays, dtype=float)
    if rays.ndim != 3 or rays.shape[1:] != (2, 2):
        raise ValueError(f"rays are (N, 2, 2): start and end of each, got shape {rays.shape}")
    chosen = rays[np.linspace(0, len(rays) - 1, min(most, len(rays))).astype(int)] if len(rays) else rays
    return np.concatenate([chosen, np.full((len(chosen), 1, 2), np.nan)], axis=1).reshape(-1, 2)


def draw_shares(panels: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw what share of the exact distance each activation reaches, one panel per pair of clouds.

    Args:
        panels: each with ``title``, ``exact`` (the distance), ``known`` (in closed form, or None), and ``shares``:
            activation -> shares in percent, one per seed (dots; the bar is the median). Every panel has its own
            scale.

    Raises:
        ValueError: for no panels.
    """
    if not panels:
        raise ValueError("nothing to draw; give at least one pair of clouds")
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    with theme():
        figure = new_figure(PAGE_WIDTH + 0.6, 2.1 * lines + 0.5)
        axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for axis, panel in zip(axes.flat, panels):
            _shares(axis, panel)
        label = "proven value, % of the exact distance (right is better; each panel has its own scale)"
        figure.supxlabel(f"{label}\na dot for each seed, a bar at their median", fontsize=9.5)
    return figure


def _shares(axis: Axes, panel: Mapping[str, Any]) -> None:
    for place, (name, shares) in enumerate(panel["shares"].items()):
        colour = activation_look(name).colour
        axis.plot(shares, [place] * len(shares), "o", color=colour, markersize=4.5, alpha=0.75)
        axis.plot([np.median(shares)] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
    labels = list(panel["shares"])
    distance = f"W₁ = {panel['exact']:.3f}" + (", known" if panel["known"] is not None else "")
    axis.set(yticks=range(len(labels)), yticklabels=labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    low, high = axis.get_xlim()
    if high - low < SMALLEST_SPAN:  # differences that mean nothing should look like it
        middle = (low + high) / 2
        axis.set_xlim(middle - 0.8 * SMALLEST_SPAN, middle + 0.2 * SMALLEST_SPAN)
    axis.locator_params(axis="x", nbins=3)
    axis.ticklabel_format(axis="x", useOffset=False)
    axis.set_title(f"{panel['title']}\n{distance}", fontsize=9)
    axis.grid(visible=False, axis="y")


def draw_potential(axis: np.ndarray, field: np.ndarray, rays: np.ndarray, *, title: str = "") -> Figure:
    """Draw one potential as a contour map, with the clouds and the rays of the exact plan.

    Args:
        axis: (S,) coordinates of both axes.
        field: (S, S) the potential, row = second coordinate.
        rays: (N, 2, 2) a point of the first cloud and where the exact plan carries it.
        title: what to see.
    """
    with theme():
        figure = new_figure(5.2, 4.6)
        panel = figure.subplots()
        filled = _panel(panel, axis, field, rays, small=False)
        panel.set(xlabel="x₁", ylabel="x₂")
        panel.set_title(title or f"Contours are {LEVEL_STEP:g} apart: the closer, the steeper")
        figure.colorbar(filled, ax=panel, label="potential f (mean 0 on the clouds)")
        panel.legend(loc="upper right", fontsize=8, frameon=True)
    return figure


def draw_potentials(pictures: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw potentials of one seed side by side: clouds in rows, activations in columns.

    Args:
        pictures: each with ``row`` (the clouds' name), ``title`` (the activation), ``axis``, ``field``, ``rays`` as
            for :func:`draw_potential`, and ``note``, the line below: the share of the exact distance and the mean
            slope along the rays. All belong to seed 0.

    Raises:
        ValueError: for no pictures.
    """
    if not pictures:
        raise ValueError("nothing to draw; give at least one potential")
    names = list(dict.fromkeys(picture["row"] for picture in pictures))
    lines = [[picture for picture in pictures if picture["row"] == name] for name in names]
    columns = max(len(line) for line in lines)
    with theme(**{"figure.dpi": 85}):  # the pixels of the rasterised panels inside the SVG
        figure = new_figure(1.45 * columns + 0.3, 1.65 * len(lines) + 0.85)
        axes = figure.subplots(len(lines), columns, squeeze=False)
        for row, line, name in zip(axes, lines, names):
            row[0].set_ylabel(name.replace(" and ", "\nand "), fontsize=9)
            for axis, picture in zip(row, line):
                _panel(axis, picture["axis"], picture["field"], picture["rays"], small=True)
                axis.set(xticks=[], yticks=[])
                axis.set_xlabel(picture["note"], fontsize=8)
        for axis, picture in zip(axes[0], lines[0]):
            axis.set_title(picture["title"], fontsize=9.5)
        figure.suptitle(
            "Potentials of seed 0; other seeds may reach more\nBelow each: share of the exact distance that is "
            "proven · mean slope along the rays (1 for an optimal potential)",
            fontsize=9.5, x=0.01, ha="left",
        )  # fmt: skip
        marks = [
            Line2D([], [], marker=marker, linestyle="none", color=colour, markersize=4, label=label)
            for marker, colour, label in zip(CLOUD_MARKERS, CLOUD_COLOURS, CLOUDS)
        ]
        marks.append(Line2D([], [], color=GREY, linewidth=1.0, label="ray: P to Q in the exact plan"))
        marks.append(Line2D([], [], color="#404040", linewidth=0.5, label=f"contours, {LEVEL_STEP:g} apart"))
        figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize=8.5)
    return figure


def draw_learning(steps: np.ndarray, duals: Mapping[str, np.ndarray], exact: float) -> Figure:
    """Draw proven dual values over training, one line per activation, below the exact distance.

    Args:
        steps: (S,) steps done.
        duals: activation, as for :func:`~lablib.plots.theme.activation_look`, -> (S,) values.
        exact: the distance, which none can pass.
    """
    with theme():
        figure = new_figure(PAGE_WIDTH, 3.2)
        axis = figure.subplots()
        axis.axhline(exact, color="black", linewidth=1.2, linestyle="dashed", label="exact (POT)")
        for label, values in duals.items():
            look = activation_look(label)
            axis.plot(steps, values, label=label, marker=look.marker, markersize=3.5, **look.line())
        axis.set(xlabel="training step", ylabel="proven lower bound of W₁", xlim=(0, steps[-1]))
        axis.set_ylim(min(0.0, *(float(np.min(values)) for values in duals.values())), 1.08 * exact)
        axis.legend(loc="lower right", ncols=2)
        axis.set_title("Every potential stays below the exact distance")
    return figure


def draw_sampling(counts: Sequence[int], distances: Mapping[str, Sequence[float]]) -> Figure:
    """Draw exact distances between clouds over the number of points drawn from each measure, on log scales.

    Args:
        counts: (S,) points in each cloud.
        distances: label -> (S,) distances.
    """
    with theme():
        figure = new_figure(PAGE_WIDTH, 3.2)
        axis = figure.subplots()
        for place, (label, values) in enumerate(distances.items()):
            style = {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place % len(DASHES)]}
            axis.loglog(counts, values, marker="o", markersize=4, label=label, **style)
        axis.set(xlabel="points in each cloud", ylabel="exact W₁ of the clouds")
        axis.set_xticks(counts, labels=[str(count) for count in counts], minor=False)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.minorticks_off()
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        axis.set_title("In many dimensions, two samples of one and the same measure stay apart")
    return figure


def _panel(axis: Axes, at: np.ndarray, field: np.ndarray, rays: np.ndarray, small: bool) -> Any:
    shown = centred(field, at, rays.reshape(-1, 2))
    levels = np.arange(-40, 41) * LEVEL_STEP
    colours = {"vmin": -FIELD_LIMIT, "vmax": FIELD_LIMIT, "cmap": DIVERGING}
    low, high = np.searchsorted(levels, [shown.min(), shown.max()])
    filled = axis.contourf(at, at, shown, levels=levels[max(low - 1, 0) : high + 1], alpha=0.7, **colours)
    lines = axis.contour(at, at, shown, levels=levels, colors="#404040", linewidths=0.3 if small else 0.6)
    lines.set_linestyle("solid")
    axis.plot(*ray_path(rays).T, color=GREY, linewidth=0.4 if small else 0.7)
    for place, label in enumerate(CLOUDS):
        style = {"marker": CLOUD_MARKERS[place], "s": 3 if small else 14, "edgecolors": "white"}
        points = rays[:, place]
        axis.scatter(*points.T, color=CLOUD_COLOURS[place], linewidths=0.2, label=label, zorder=3, **style)
    if small:
        axis.set_rasterization_zorder(10)  # as vectors each panel would take 100 kB
    axis.set(xlim=(at[0], at[-1]), ylim=(at[0], at[-1]), aspect="equal")
    axis.grid(visible=False)
    return filled
