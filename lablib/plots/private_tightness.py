"""How much of its bound each sample's gradient uses, layer by layer, for one design of network after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from lablib.plots.theme import BLUE, GREY, ORANGE, PAGE_WIDTH, SKY, new_figure, theme

LOOKS = {"first": (BLUE, "o"), "hidden": (SKY, "D"), "last": (ORANGE, "s")}  # layer -> colour, marker
STEP = 0.17  # between the layers of a row
NAMES = {"mnist": "MNIST"}
FAMILIES = {"dense": "dense"}  # all others are convolutions


def draw_tightness(
    rows: Sequence[Mapping[str, Any]], levels: Sequence[float], epsilon: float, data: str
) -> Figure:
    """Return the ratios of all layers at the end of training (left), signal to noise and accuracy (right).

    Args:
        rows: ``design``, ``family`` and ``seeds``, each with ``moments`` (``layers`` with ``quantiles``,
            ``signal_to_noise``) and ``accuracy``.
        levels: of the quantiles, 0.5, 0.05, 0.95, 0.25, 0.75 and 1 among them.
        epsilon: of every run.
        data: name of the data set.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("there is nothing to draw; run the recipe private_tightness first")
    with theme():
        figure = new_figure(PAGE_WIDTH, 0.42 * len(rows) + 1.6)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.6, 1.0))
        places = _places(rows)
        for place, row in zip(places, rows, strict=True):
            _ratios(left, place, row, levels)
            _signal(right, place, row)
        left.set_yticks(places, [row["design"] for row in rows])
        left.set_ylim(places[-1] + 0.6, -0.6)
        left.set(xscale="log", xlabel="gradient norm of a sample / its bound", xlim=(None, 1.15))
        left.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        left.axvline(1.0, color=GREY, linewidth=1.0)
        left.grid(axis="y", visible=False)
        right.set(xscale="log", xlabel="signal to noise\n(at the edge: test accuracy)")
        right.grid(axis="y", visible=False)
        right.margins(x=0.15)
        _name_families(left, places, rows)
        figure.suptitle(_title(rows, levels, epsilon, data), x=0.01, ha="left", fontsize=10.5)
        handles = [
            Line2D([], [], color=colour, marker=marker, label=f"{name} layer" + "s" * (name == "hidden"))
            for name, (colour, marker) in LOOKS.items()
        ]
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=3,
            title="marker: median; bars: middle half, and 5 to 95 %; tick: largest",
            title_fontsize=8.5,
        )
    return figure


def _places(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """One unit per row, and a gap before the convolutions."""
    return [number + 0.7 * (row["family"] not in FAMILIES) for number, row in enumerate(rows)]


def _name_families(axis: Axes, places: Sequence[float], rows: Sequence[Mapping[str, Any]]) -> None:
    for dense, text in ((True, "dense layers"), (False, "convolutions")):
        own = [place for place, row in zip(places, rows) if (row["family"] in FAMILIES) == dense]
        if own:
            spot = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": 8.5}
            axis.annotate(
                text,
                (0.0, own[0] - 0.47),
                xycoords=("axes fraction", "data"),
                color=GREY,
                style="italic",
                **spot,
            )


def _ratios(axis: Axes, place: float, row: Mapping[str, Any], levels: Sequence[float]) -> None:
    ends = [seed["moments"][-1]["layers"] for seed in row["seeds"]]
    count = len(ends[0])
    for number in range(count):
        name = "first" if number == 0 else "last" if number == count - 1 else "hidden"
        colour, marker = LOOKS[name]
        quantiles = np.median([layers[number]["quantiles"] for layers in ends], axis=0)
        at = dict(zip(levels, quantiles))
        y = place + (number - (count - 1) / 2) * STEP
        axis.plot([at[0.05], at[0.95]], [y, y], color=colour, linewidth=1.0, solid_capstyle="butt")
        axis.plot([at[0.25], at[0.75]], [y, y], color=colour, linewidth=3.0, solid_capstyle="butt")
        axis.plot(at[0.5], y, marker, color=colour, markersize=4.5, mec="white", mew=0.5, zorder=3)
        axis.plot(max(layers[number]["quantiles"][-1] for layers in ends), y, "|", color=colour, markersize=5)


def _signal(axis: Axes, place: float, row: Mapping[str, Any]) -> None:
    found = [seed["moments"][-1]["signal_to_noise"] for seed in row["seeds"]]
    middle = float(np.median(found))
    axis.plot([min(found), max(found)], [place, place], color=BLUE, linewidth=1.5)
    axis.plot(middle, place, "o", color=BLUE, markersize=5)
    accuracy = [100 * seed["accuracy"] for seed in row["seeds"]]
    spread = f" ± {np.std(accuracy, ddof=1):.1f}" if len(accuracy) > 1 else ""
    words = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8, "color": GREY}
    edge = {"xycoords": ("axes fraction", "data"), "annotation_clip": False}
    axis.annotate(f"{np.mean(accuracy):.1f}{spread} %", (1.0, place), **words, **edge)


def _title(rows: Sequence[Mapping[str, Any]], levels: Sequence[float], epsilon: float, data: str) -> str:
    def typical(row: Mapping[str, Any]) -> float:
        half = list(levels).index(0.5)
        layers = [seed["moments"][-1]["layers"] for seed in row["seeds"]]
        return float(np.median([layer["quantiles"][half] for own in layers for layer in own]))

    dense = [row for row in rows if row["family"] in FAMILIES]
    best = max(typical(row) for row in dense)
    return (
        f"{NAMES.get(data, data)}, epsilon {epsilon:g} for all: what makes the bound tight "
        f"\ntakes the median ratio of a dense layer from {typical(dense[0]):.0%} to {best:.0%}"
    )
