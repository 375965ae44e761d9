"""Decision boundaries in the plane: level sets, certified squares or discs, certified-accuracy curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, COLOURS, DASHES, DIVERGING, RED, new_figure, theme

CLASS_COLOURS = (BLUE, RED)  # the low and the high end of the diverging colour map
CLASS_MARKERS = ("o", "s")
FIELD_LIMIT = 0.6  # colour range of the network's output
LEVEL_STEP = 0.1
SHAPES = {"linf": "squares", "l2": "discs"}


def region_path(points: np.ndarray, radii: np.ndarray, norm: str, corners: int = 40) -> np.ndarray:
    """Return the outlines of all certified regions as one path.

    Args:
        points: (N, 2) centres.
        radii: (N,) certified radii; where it is 0 nothing is drawn.
        norm: ``linf`` (squares) or ``l2`` (discs, as polygons *inside* the circle).
        corners: corners of the polygon that stands for a disc.

    Returns:
        (M, 2) corners, each outline closed and followed by one row of NaN.

    Raises:
        ValueError: if a radius is negative or not finite, or the norm is neither of the two.
    """
    points, radii = np.asarray(points, float), np.asarray(radii, float)
    if radii.shape != points.shape[:1] or not np.isfinite(radii).all() or (radii < 0).any():
        raise ValueError("give one finite radius of 0 or more for each point")
    if norm == "linf":
        outline = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]], float)
    elif norm == "l2":
        angle = np.linspace(0, 2 * np.pi, corners + 1)
        outline = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    else:
        raise ValueError(f"norm {norm!r} is not one of l2, linf")
    outline = np.vstack([outline, [[np.nan, np.nan]]])
    drawn = radii > 0
    paths = points[drawn, None, :] + radii[drawn, None, None] * outline
    return paths.reshape(-1, 2)


def certified_share(radii: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return for each radius in ``at`` the share of points with a larger certified one."""
    radii, at = np.asarray(radii, float), np.asarray(at, float)
    return (radii[None, :] > at[:, None]).mean(axis=1)


def draw_boundary(
    data: Any,
    field_at: np.ndarray,
    field: np.ndarray,
    radii: np.ndarray,
    norm: str,
    *,
    radius: float = 0.1,
    title: str = "",
) -> Figure:
    """Draw one trained network: boundary, level sets and certified regions, with the curve below.

    Args:
        data: points (N, 2), labels (N,), frame, and ``half_separation(norm)``, the best radius possible.
        field_at: (S,) coordinates of both axes; field: (S, S) network output, row = second coordinate.
        radii: (N,) certified radii, 0 where the point is classified wrongly.
        norm: ``linf`` or ``l2``.
        radius: the radius read off the curve; its level set is dashed in the upper panel.
    """
    with theme():
        figure = new_figure(5.2, 7.0)
        upper, lower = figure.subplots(2, 1, height_ratios=(3.2, 1))
        _panel(upper, data, field_at, field, radii, norm, radius)
        upper.set_title(title or f"Certified {SHAPES[norm]} never cross the boundary")
        best = data.half_separation(norm)
        top = max(1.15 * best, float(np.max(radii, initial=0.0)) * 1.1, 1e-3)
        _curve(lower, radii, top, COLOURS[0], "solid", None)
        lower.axvline(best, color="#404040", linewidth=1, linestyle="dotted")
        lower.text(best, 1.02, "half the class distance ", ha="right", va="bottom", fontsize=8.5)
        lower.axvline(radius, color="#404040", linewidth=1, linestyle="dashed")
        lower.set(xlabel=f"{_sign(norm)} radius", ylabel="certified accuracy")
    return figure


def draw_grid(panels: Sequence[Sequence[Mapping[str, Any]]], norm: str) -> Figure:
    """Draw data sets (rows) against architectures (columns), every panel with its certified regions.

    Each panel holds ``data``, ``field_at``, ``field``, ``radii``, ``title`` (its column) and ``seconds``.
    """
    if not panels or not panels[0]:
        raise ValueError("nothing to draw; give at least one row with one panel")
    rows, columns = len(panels), len(panels[0])
    with theme(**{"figure.dpi": 85}):  # the pixels of the rasterised panels inside the SVG
        figure = new_figure(1.75 * columns + 0.3, 1.95 * rows + 0.2)
        axes = figure.subplots(rows, columns, squeeze=False)
        for row, line in zip(axes, panels, strict=True):
            for axis, panel in zip(row, line, strict=True):
                _panel(
                    axis,
                    panel["data"],
                    panel["field_at"],
                    panel["field"],
                    panel["radii"],
                    norm,
                    None,
                    small=True,
                )
                axis.set(xticks=[], yticks=[], xlabel="", ylabel="")
                certified = panel["radii"][panel["radii"] > 0]
                mean = certified.mean() if len(certified) else 0.0
                axis.set_xlabel(f"radius {mean:.2f} · {panel['seconds']:.1f} s", fontsize=8.5)
            row[0].set_ylabel(f"{line[0]['data'].name}", fontsize=10)
        for axis, panel in zip(axes[0], panels[0], strict=True):
            axis.set_title(panel["title"], fontsize=9.5)
    return figure


def draw_curves(
    curves: Mapping[str, Mapping[str, np.ndarray]], best: Mapping[str, float], norm: str
) -> Figure:
    """Draw certified accuracy against radius: one panel per data set, one line per architecture.

    Args:
        curves: data set -> architecture -> certified radii (N,).
        best: data set -> the best radius possible, half the distance between the classes.
        norm: ``linf`` or ``l2``.
    """
    if not curves:
        raise ValueError("nothing to draw; give at least one data set")
    with theme():
        figure = new_figure(1.9 * len(curves) + 0.6, 3.1)
        axes = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
        for axis, (name, lines) in zip(axes, curves.items(), strict=True):
            top = max([1.1 * best[name]] + [1.05 * float(np.max(radii)) for radii in lines.values()])
            for number, (label, radii) in enumerate(lines.items()):
                _curve(axis, radii, top, COLOURS[number], DASHES[number % len(DASHES)], label)
            half = {"color": "#404040", "linewidth": 1, "linestyle": (0, (1, 2))}
            axis.axvline(best[name], label="half the class distance", **half)
            axis.set(title=name, xlabel=f"{_sign(norm)} radius")
        axes[0].set_ylabel("certified accuracy")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _sign(norm: str) -> str:
    return {"linf": "ℓ∞", "l2": "ℓ2"}[norm]


def _curve(axis: Axes, radii: np.ndarray, top: float, colour: str, dash: str, label: str | None) -> None:
    at = np.linspace(0, top, 400)
    axis.plot(at, certified_share(radii, at), color=colour, linestyle=dash, label=label)
    axis.set(xlim=(0, top), ylim=(0, 1.04))


def _panel(
    axis: Axes,
    data: Any,
    field_at: np.ndarray,
    field: np.ndarray,
    radii: np.ndarray,
    norm: str,
    radius: float | None,
    small: bool = False,
) -> None:
    levels = np.arange(-20, 21) * LEVEL_STEP  # bands of one colour: their edges are the level sets
    colours = {"vmin": -FIELD_LIMIT, "vmax": FIELD_LIMIT, "cmap": DIVERGING, "alpha": 0.75}
    axis.contourf(field_at, field_at, field, levels=levels, **colours).set_rasterized(True)
    axis.contour(field_at, field_at, field, levels=[0.0], colors="black", linewidths=1.6 if small else 2.2)
    if radius:
        dashed = axis.contour(
            field_at, field_at, field, levels=[-radius, radius], colors="black", linewidths=1.2
        )
        dashed.set_linestyle("dashed")
    for label in (0, 1):
        chosen = data.labels == label
        path = region_path(data.points[chosen], radii[chosen], norm)
        axis.plot(*path.T, color=CLASS_COLOURS[label], linewidth=0.7 if small else 1.2)
        right = chosen & (radii > 0)
        style = {"s": 9 if small else 26, "color": CLASS_COLOURS[label], "edgecolors": "white", "zorder": 3}
        axis.scatter(*data.points[right].T, marker=CLASS_MARKERS[label], linewidths=0.4, **style)
        style |= {"s": 14 if small else 40, "linewidths": 1.0}
        del style["edgecolors"]
        axis.scatter(*data.points[chosen & (radii <= 0)].T, marker="x", **style)
    if small:
        axis.set_rasterization_zorder(10)  # hundreds of outlines: as vectors each panel would take 100 kB
    axis.set(xlim=data.frame, ylim=data.frame, aspect="equal", xlabel="x₁", ylabel="x₂")
    axis.grid(visible=False)
