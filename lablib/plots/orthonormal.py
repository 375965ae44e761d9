"""How far from orthonormal each method ends, beside what a step of it costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, GREY, ORANGE, PURPLE, RED, SKY, new_figure, theme

MARKERS = {"well scaled": ("o", BLUE, -0.17), "badly scaled": ("s", RED, 0.17)}  # and where in the row
BARS = (SKY, ORANGE, PURPLE)
LIMITS = (3e-8, 3.0)  # of the axis of deviations; what is not finite stands at the right edge


def draw_methods(rows: Sequence[Mapping[str, Any]], times: Sequence[Mapping[str, Any]]) -> Figure:
    """Return panels: largest |singular value - 1| of each method, and its time over that of the first.

    Args:
        rows: ``shape``, ``input``, ``method`` and ``deviation`` (None: not finite). The two largest shapes are drawn.
        times: ``shape`` and ``over_ours``, method -> ratio.

    Raises:
        ValueError: if there are no rows or no times.
    """
    if not rows or not times:
        raise ValueError("there is nothing to draw; run the recipe orthonormal_methods first")
    shapes = sorted({tuple(row["shape"]) for row in rows}, key=lambda shape: shape[0] * shape[1])[-2:]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with theme():
        figure = new_figure(3.9 + 2.6 * len(shapes), 0.36 * len(methods) + 1.3)
        *left, right = figure.subplots(1, len(shapes) + 1, sharey=True)
        for axis, shape in zip(left, shapes, strict=True):
            _deviations(axis, [row for row in rows if tuple(row["shape"]) == shape], methods)
            axis.set_title(f"Error at {shape[0]} × {shape[1]}")
        _ratios(right, times, methods)
        left[0].set_yticks(range(len(methods)), methods)
        left[0].set_ylim(len(methods) - 0.5, -0.5)
        handles = left[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower left", ncols=2)
    return figure


def _deviations(axis: Axes, rows: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> None:
    for kind, (marker, colour, shift) in MARKERS.items():
        own = [row for row in rows if row["input"] == kind]
        places = [methods.index(row["method"]) + shift for row in own]
        sizes = [min(row["deviation"] or LIMITS[1], LIMITS[1]) for row in own]
        axis.plot(
            sizes, places, marker, color=colour, label=f"input {kind}", markersize=5, clip_on=False, zorder=3
        )
        for row, place in zip(own, places, strict=True):
            if row["deviation"] is None:
                note = {"xytext": (-6, 0), "textcoords": "offset points", "va": "center", "ha": "right"}
                axis.annotate("diverges", (LIMITS[1], place), color=colour, fontsize=8.5, **note)
    axis.set_xscale("log")
    axis.set_xlim(*LIMITS)
    axis.set_xlabel("largest |singular value − 1|")


def _ratios(axis: Axes, times: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> None:
    thickness = 0.8 / len(times)
    for number, entry in enumerate(times):
        places = [row + (number - (len(times) - 1) / 2) * thickness for row in range(len(methods))]
        ratios = [entry["over_ours"][method] for method in methods]
        name = "{} × {}".format(*entry["shape"])
        axis.barh(places, ratios, 0.9 * thickness, color=BARS[number % len(BARS)], label=name)
    axis.axvline(1.0, color=GREY, linewidth=1.0)
    axis.set_xlabel("time of a step / time of ours")
    axis.set_title("What a step costs")
    axis.legend(loc="best")
