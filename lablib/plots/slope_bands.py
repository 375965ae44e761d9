"""What is proven of slopes, feature by feature: intervals as lines and bands, and one row that is moved."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, GREEN, GREY, ORANGE, RED, SKY, new_figure, theme

DIRECTION_COLOURS = {1: GREEN, -1: ORANGE, 0: GREY}
PROMISES = {1: "must rise", -1: "must fall", 0: "free"}
Path = tuple[np.ndarray, np.ndarray]


def folded(name: str, line_end: str = "\n", longest: int = 14) -> str:
    """Return a name in two lines if it is longer than ``longest`` and has a blank to break at."""
    blanks = [place for place, letter in enumerate(name) if letter == " "]
    if len(name) <= longest or not blanks:
        return name
    middle = min(blanks, key=lambda place: abs(place - len(name) / 2))
    return name[:middle] + line_end + name[middle + 1 :]


def area(at: np.ndarray, floor: np.ndarray, roof: np.ndarray) -> Path:
    """Return the outline of what lies between two curves (K,)."""
    return np.concatenate([at, at[::-1]]), np.concatenate([floor, roof[::-1]])


def band(edges: np.ndarray, low: np.ndarray, high: np.ndarray) -> Path:
    """Return the outline of the intervals [low, high] (K,) over the cells between ``edges`` (K + 1,)."""
    return area(np.repeat(edges, 2)[1:-1], np.repeat(low, 2), np.repeat(high, 2))


def sticks(places: np.ndarray, low: np.ndarray, high: np.ndarray) -> Path:
    """Return the intervals [low, high] (I,) of the chosen ``places`` as horizontal lines, a NaN after each."""
    across, up = np.full((len(places), 3), np.nan), np.full((len(places), 3), np.nan)
    across[:, 0], across[:, 1] = low[places], high[places]
    up[:, :2] = np.asarray(places)[:, None]
    return across.ravel(), up.ravel()


def padded(*values: np.ndarray, share: float = 0.08) -> tuple[float, float]:
    """Return an axis that holds all values and 0, with a ``share`` of its length to spare at both ends."""
    return around([0.0], *values, share=share)


def around(*values: np.ndarray, share: float = 0.2) -> tuple[float, float]:
    """Return an axis that holds all values, with a ``share`` of its length to spare at both ends."""
    every = np.concatenate([np.ravel(value) for value in values])
    room = share * max(float(np.ptp(every)), 1e-9)
    return float(every.min() - room), float(every.max() + room)


def draw_what_if(
    names: Sequence[str], directions: Sequence[int], feature: int, row, threshold: float
) -> Figure:
    """Draw one row moved along one feature, and what is proven if each feature is raised a little.

    Args:
        names, directions: of the I features. ``feature``: which one the left panel follows.
        row: with ``here``, ``score``, ``edges``, ``curve``, ``floor``, ``roof`` (K,), ``cone`` (2, K), ``raised``
            (2, I) and ``measured`` (I,), see :class:`lablib.experiments.live_monotone.WhatIf`.
        threshold: score at which the decision changes.
    """
    with theme():
        figure = new_figure(9.0, 0.9 + max(2.4, 0.26 * len(names)))
        left, right = figure.subplots(1, 2, width_ratios=[0.55, 0.45])
        light = {"color": SKY, "alpha": 0.2, "linewidth": 0, "label": "proven, slopes of all inputs"}
        left.fill(*area(row.edges, *row.cone), **light)
        dark = {"color": BLUE, "alpha": 0.35, "linewidth": 0, "label": "proven, slopes along this line"}
        left.fill(*area(row.edges, row.floor, row.roof), **dark)
        left.plot(row.edges, row.curve, color=BLUE, label="network")
        left.axhline(threshold, color=GREY, linestyle="dashed", label="decision changes")
        left.plot([row.here], [row.score], "D", color=RED, label="this row")
        left.set(xlabel=names[feature], ylabel="score")
        left.set_ylim(*around(row.curve, row.floor, row.roof, [threshold]))  # the cone may leave the panel
        left.set_title("Wherever this feature goes, the score stays in the shade")
        left.legend(fontsize=8)
        for wish, colour in DIRECTION_COLOURS.items():
            places = np.flatnonzero(np.asarray(directions) == wish)
            if len(places):
                look = {
                    "color": colour,
                    "linewidth": 6,
                    "solid_capstyle": "butt",
                }  # a cap would reach beyond 0
                right.plot(*sticks(places, *row.raised), label=PROMISES[wish], **look)
        right.plot(
            row.measured, range(len(names)), "o", color="black", markersize=4, label="what does happen"
        )
        right.axvline(0, color="black", linestyle="dotted", linewidth=1)
        right.set_xlim(*padded(row.raised, row.measured))
        right.set_yticks(range(len(names)), [folded(name) for name in names])
        right.set(ylim=(len(names) - 0.5, -0.5), xlabel="change of the score")
        right.set_title("Proven change if a feature is raised")
        right.legend(fontsize=8)
    return figure


def draw_intervals(
    names: Sequence[str], intervals: dict[str, tuple[np.ndarray, np.ndarray]], title: str, unit: str
) -> Figure:
    """Draw several kinds of interval for each feature under each other, such as proven and exact slopes.

    Args:
        names: (I,) of the features. ``intervals``: kind -> low, high (I,).
        title: of the picture. ``unit``: label of the axis.
    """
    places, kinds = np.arange(len(names)), list(intervals)
    with theme():
        figure = new_figure(6.4, 0.9 + 0.42 * len(names))
        axes = figure.subplots()
        for number, (kind, colour) in enumerate(zip(kinds, (GREY, BLUE, ORANGE, GREEN))):
            low, high = intervals[kind]
            shift = 0.24 * (number - (len(kinds) - 1) / 2)
            across, up = sticks(places, low, high)
            axes.plot(across, up + shift, color=colour, linewidth=5, label=kind, solid_capstyle="butt")
        axes.axvline(0, color="black", linestyle="dotted", linewidth=1)
        axes.set_yticks(places, [folded(name) for name in names])
        axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=unit)
        axes.set_xlim(*padded(*(end for ends in intervals.values() for end in ends)))
        axes.set_title(title)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
