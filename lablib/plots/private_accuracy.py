"""Accuracy against epsilon by method, and accuracy that is both private and certified."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from lablib.plots.theme import BLUE, GREEN, GREY, ORANGE, PAGE_WIDTH, PURPLE, RED, SKY, new_figure, theme


class Style(NamedTuple):
    """Colour, dash and marker of a way to train."""

    colour: str
    dash: Any
    marker: str


METHODS = {"clipless": "no clipping", "per sample": "Opacus, per sample", "ghost": "Opacus, ghost"}
STYLES = {  # design, method
    ("filters", "clipless"): Style(BLUE, "solid", "o"),
    ("filters", "ghost"): Style(GREEN, "dashed", "s"),
    ("filters", "per sample"): Style(ORANGE, "dotted", "^"),
    ("lipschitz", "clipless"): Style(SKY, "dashdot", "D"),
    ("cnn", "per sample"): Style(RED, (0, (5, 1.5)), "v"),
}
PUBLISHED = (Style("black", "none", "o"), Style("black", "none", "D"), Style(GREY, "none", "s"))
EPSILONS = (BLUE, ORANGE, GREEN, PURPLE, RED)
DATASETS = {"digits": "digits", "mnist": "MNIST", "cifar10": "CIFAR-10"}
SHIFT = 0.03  # of log epsilon, between lines that would cover one another
TICKS = 0.14  # of log epsilon, between labels


def draw_accuracy(
    rows: Sequence[Mapping[str, Any]],
    published: Mapping[str, Mapping[float, float]],
    data: str,
    delta: float,
) -> Figure:
    """Draw mean test accuracy against epsilon, a line for each network and method, bars from worst to best seed.

    Args:
        rows: one for each run: ``design``, ``label``, ``method``, ``epsilon``, ``accuracy`` (a share).
        published: name -> {epsilon: accuracy in %}, hollow marks.
        data: name of the data set. delta: of every epsilon.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("there is nothing to draw; run the recipe private_accuracy first")
    with theme():
        figure = new_figure(PAGE_WIDTH, 4.0)
        axis = figure.subplots()
        kinds = list(dict.fromkeys((row["design"], row["method"]) for row in rows))
        for place, kind in enumerate(kinds):
            own = [row for row in rows if (row["design"], row["method"]) == kind]
            shift = np.exp(SHIFT * (place - (len(kinds) - 1) / 2))
            _line(axis, own, STYLES[kind], shift)
        for style, (name, points) in zip(PUBLISHED, published.items(), strict=False):
            marks = {
                "color": style.colour,
                "marker": style.marker,
                "markerfacecolor": "none",
                "markersize": 7,
            }
            axis.plot(list(points), list(points.values()), linestyle="none", label=name, **marks)
        own = sorted({row["epsilon"] for row in rows})
        ticks = _apart([*own, *sorted(e for points in published.values() for e in points)])
        axis.set(
            xscale="log",
            xlabel=f"ε at δ = {delta:g} (logarithmic)",
            ylabel="test accuracy in %",
            title=f"{DATASETS.get(data, data)}: accuracy of private training",
        )
        _number(axis, ticks)
        seeds = len({row["seed"] for row in rows})
        note = f"mean, worst and\nbest of {seeds} seeds;\nmarks of one ε are\nset side by side"
        figure.legend(loc="outside right center", title=note, fontsize=8)
    return figure


def draw_robust(radii: Mapping[str, np.ndarray], published: Mapping[str, Mapping[float, float]]) -> Figure:
    """Draw the share of test images with a proven l2 radius above r, a panel for each data set and network.

    Args:
        radii: "data, design, epsilon" -> (N,) in units of pixels.
        published: data -> {radius in 1/255: certified accuracy in %}, hollow marks.

    Raises:
        ValueError: if there are none.
    """
    if not radii:
        raise ValueError("there is nothing to draw; run the recipe private_accuracy first")
    keys = [key.split(", ") for key in radii]
    datasets = list(dict.fromkeys(key[0] for key in keys))
    designs = list(dict.fromkeys(key[1] for key in keys))
    epsilons = {data: list(dict.fromkeys(key[2] for key in keys if key[0] == data)) for data in datasets}
    names = {"filters": "fixed filters, linear", "lipschitz": "Lipschitz network"}
    with theme():
        figure = new_figure(PAGE_WIDTH, 0.6 + 2.5 * len(datasets))
        axes = figure.subplots(len(datasets), len(designs), squeeze=False, sharex=True, sharey="row")
        for axis, (data, design) in zip(axes.flat, [(a, b) for a in datasets for b in designs], strict=True):
            for colour, epsilon in zip(EPSILONS, epsilons[data], strict=False):
                values = np.asarray(radii[", ".join((data, design, epsilon))], dtype=float)
                reach = np.unique(np.append(255 * values, [0.0, 256.0]))  # where shares change
                shares = (255 * values[:, None] > reach).mean(axis=0)
                axis.step(reach, 100 * shares, where="post", color=colour, label=f"ε = {epsilon}")
            if data in published:
                points = published[data]
                label = "paper, ε ≤ 20"
                axis.plot(*zip(*points.items()), "o", color="black", markerfacecolor="none", label=label)
            axis.set(title=f"{DATASETS.get(data, data)}: {names.get(design, design)}", ylim=(0, None))
            axis.set_xscale("symlog", linthresh=1.0, linscale=0.4)
            axis.set_xlim(0, 256)
            _number(axis, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256])
        for axis in axes[-1]:
            axis.set_xlabel("l2 radius in 1/255 of a pixel's range")
        for axis in axes[:, 0]:
            axis.set_ylabel("certified accuracy in %")
        axes[0, 0].get_figure().suptitle(
            "Private and certified: share of test images proven within the radius"
        )
        for axis in axes[:, -1]:
            axis.legend(fontsize=8)
    return figure


def _line(axis: Axes, rows: Sequence[Mapping[str, Any]], style: Style, shift: float) -> None:
    epsilons = sorted({row["epsilon"] for row in rows})
    scores = [[100 * row["accuracy"] for row in rows if row["epsilon"] == epsilon] for epsilon in epsilons]
    means = np.array([np.mean(own) for own in scores])
    spread = [means - [min(own) for own in scores], [max(own) for own in scores] - means]
    axis.errorbar(
        shift * np.array(epsilons),
        means,
        yerr=spread,
        color=style.colour,
        linestyle=style.dash,
        marker=style.marker,
        markersize=4.5,
        capsize=2.5,
        label=f"{rows[0]['label']}:\n{METHODS[rows[0]['method']]}",
    )


def _apart(ticks: Sequence[float]) -> list[float]:
    """Leave out values too close to an earlier one for their labels."""
    kept: list[float] = []
    for tick in ticks:
        if all(abs(np.log(tick / other)) > TICKS for other in kept):
            kept.append(tick)
    return sorted(kept)


def _number(axis: Axes, ticks: Sequence[float]) -> None:
    axis.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axis.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axis.xaxis.set_minor_locator(NullLocator())
