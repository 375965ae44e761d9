"""Figures of models on tables: scores of all seeds under each protocol, and how far probabilities can be trusted."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lablib.plots.theme import BLUE, COLOURS, DASHES, GREEN, GREY, ORANGE, new_figure, theme

PROTOCOLS = {  # protocol -> (text, colour, marker)
    "official": ("honest, official test rows", BLUE, "o"),
    "repeated": ("honest, new test rows for each seed", GREEN, "s"),
    "published": ("published: best epoch and threshold on test rows", ORANGE, "D"),
}
LEAST = 30  # rows of a bin that is drawn
MARKERS = "os^DvPX"  # of the methods
LEGEND_COLUMNS = 2  # more do not fit the page: constrained layout lets a wide legend run over both edges


def draw_scores(
    scores: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
    tasks: Mapping[str, str],
    titles: Mapping[str, str],
    labels: Mapping[str, str],
) -> Figure:
    """Return a panel per table, a row per method and in it a strip per protocol: dots are seeds, bars are means.

    Args:
        scores: table -> protocol -> method -> (seeds,) accuracies or squared errors.
        tasks: table -> "classification" or "regression".
        titles, labels: texts of tables and methods, in their order.

    Raises:
        ValueError: if there are no scores.
    """
    if not scores:
        raise ValueError("there is nothing to draw; run the experiment first")
    used = [name for name in PROTOCOLS if any(name in table for table in scores.values())]
    with theme():
        figure = new_figure(7.4, 0.52 * len(labels) + 1.5)
        panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
        for axes, (name, table) in zip(panels, scores.items()):
            classes = tasks[name] == "classification"
            factor = 100 if classes else 1
            ends = _ends(np.concatenate([v for kind in table.values() for v in kind.values()]) * factor)
            for place, method in enumerate(labels):
                shown = [protocol for protocol in used if method in table.get(protocol, {})]
                for number, protocol in enumerate(shown):
                    at = place + 0.24 * (number - (len(shown) - 1) / 2)
                    _strip(axes, at, table[protocol][method] * factor, protocol, ends)
            axes.set_xlim(*ends)
            better = "right is better" if classes else "left is better"
            axes.set_title(titles[name])
            axes.set_xlabel(f"accuracy in %\n({better})" if classes else f"mean squared error\n({better})")
            axes.grid(False, axis="y")
        panels[0].set_yticks(range(len(labels)), labels.values(), fontsize=8.5)
        panels[0].set_ylim(len(labels) - 0.5, -0.5)
        figure.suptitle(_flattery(scores, tasks), fontsize=10.5, x=0.01, ha="left")
        marks = [
            Line2D([], [], marker=m, linestyle="none", color=c, markersize=4, label=text)
            for text, c, m in (PROTOCOLS[name] for name in used)
        ]
        figure.legend(
            handles=marks, loc="outside lower center", ncols=LEGEND_COLUMNS, fontsize=8, handletextpad=0.2
        )
    return figure


def draw_calibration(
    held: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]], labels: Mapping[str, str]
) -> Figure:
    """Return a panel per table and split: the share that came true against the probability that was predicted.

    Args:
        held: title -> method -> (mean probability, share that came true, rows) of each bin, all seeds together.
        labels: texts of the methods, in their order.

    Raises:
        ValueError: if there are no predictions of classes.
    """
    if not held:
        raise ValueError("there are no predicted probabilities to draw; run a table with classes")
    with theme():
        figure = new_figure(max(7.4, 2.45 * len(held)), 4.1)
        panels = figure.subplots(1, len(held), sharey=True, squeeze=False)[0]
        for axes, (title, methods) in zip(panels, held.items()):
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.0)
            for number, (method, text) in enumerate(labels.items()):
                if method not in methods:
                    continue
                mean, share, rows = methods[method]
                look = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
                drawn = rows >= LEAST
                axes.plot(
                    mean[drawn], share[drawn], marker=MARKERS[number % len(MARKERS)], markersize=3.5,
                    linewidth=1.2, **look,
                    label=text if axes is panels[0] else None,
                )  # fmt: skip
            axes.set(
                xlim=(0, 1), ylim=(-0.02, 1.02), title=title, xlabel="predicted probability", aspect="equal"
            )
        panels[0].set_ylabel("share that came true")
        title = "On the grey line probabilities mean what they say (all seeds together)"
        figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
        figure.legend(loc="outside lower center", ncols=LEGEND_COLUMNS, fontsize=8)
    return figure


def _flattery(scores: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], tasks: Mapping[str, str]) -> str:
    """Count how often the published mean is better than the honest one: the message, in words."""
    better, pairs = 0, 0
    for name, table in scores.items():
        sign = 1 if tasks[name] == "classification" else -1
        honest = next((table[kind] for kind in ("official", "repeated") if kind in table), {})
        for method, values in table.get("published", {}).items():
            if method in honest:
                pairs += 1
                better += bool(sign * (values.mean() - honest[method].mean()) > 0)
    counts = f"{better} of {pairs} cases"
    return f"The published protocol looks better in {counts}\n(black bars: means; triangles: off the axis)"


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of an axis that a failed seed does not stretch: three quartile ranges beyond the quartiles."""
    low, high = np.quantile(values, [0.25, 0.75])
    reach = 3 * max(high - low, 1e-9)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    margin = 0.06 * max(np.ptp(inside), 1e-9)
    return float(inside.min() - margin), float(inside.max() + margin)


def _strip(axes: Axes, at: float, values: np.ndarray, protocol: str, ends: tuple[float, float]) -> None:
    _, colour, marker = PROTOCOLS[protocol]
    look = {"color": colour, "markersize": 3.2, "alpha": 0.45, "markeredgewidth": 0}
    axes.plot(values, np.full(len(values), at), marker, **look)
    for end, beyond, arrow in ((ends[0], values < ends[0], "<"), (ends[1], values > ends[1], ">")):
        if beyond.any():
            axes.plot(end, at, arrow, **look | {"markersize": 6, "alpha": 1.0, "clip_on": False})
    mean = values.mean()
    if ends[0] <= mean <= ends[1]:
        axes.plot([mean] * 2, [at - 0.11, at + 0.11], color="black", linewidth=1.6, zorder=3)
