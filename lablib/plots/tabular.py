"""Figures of models on tables: scores of all seeds under each protocol, and how far probabilities can be trusted."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from lablib.plots.theme import BLUE, GREEN, GREY, ORANGE, method_look, new_figure, theme

PROTOCOLS = {  # protocol -> (text, colour, marker)
    "official": ("honest, official test rows", BLUE, "o"),
    "repeated": ("honest, new test rows for each seed", GREEN, "s"),
    "published": ("published: best epoch and threshold on test rows", ORANGE, "D"),
}
LEAST = 30  # rows of a bin that is drawn
STRONG = (
    "ours",
    "unconstrained",
    "lightgbm",
)  # what labels of lines that stand out hold; the others are faint
LEGEND_COLUMNS = 2  # more do not fit the page: constrained layout lets a wide legend run over both edges


def draw_scores(
    scores: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
    tasks: Mapping[str, str],
    titles: Mapping[str, str],
    labels: Mapping[str, str],
) -> Figure:
    """Return a panel per table, a row per method and in it a strip per protocol: dots are seeds, bars are medians.

    Args:
        scores: table -> protocol -> method -> (seeds,) accuracies or squared errors.
        tasks: table -> "classification" or "regression".
        titles, labels: texts of tables and methods, in their order. A method that the published scripts lack says
            so in each panel.

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
                if shown and "published" in table and method not in table["published"]:
                    note = {"color": GREY, "fontsize": 7, "ha": "right", "va": "center"}
                    axes.text(
                        0.99, place + 0.31, "not in the published scripts", **note,
                        transform=axes.get_yaxis_transform(),
                    )  # fmt: skip
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
    """Return a panel per table and split: by how much the share that came true differs from what was predicted.

    Dots grow with the rows of their bin. The legend of each panel gives the expected calibration error,
    sum over bins of rows |share - mean| / sum of rows, of all seeds together.

    Args:
        held: title -> method -> (mean probability, share that came true, rows) of each bin, all seeds together.
        labels: texts of the methods, in their order, as :func:`lablib.plots.theme.method_look` knows them.

    Raises:
        ValueError: if there are no predictions of classes.
    """
    if not held:
        raise ValueError("there are no predicted probabilities to draw; run a table with classes")
    with theme():
        figure = new_figure(max(7.4, 3.4 * len(held)), 4.9)
        panels = figure.subplots(1, len(held), squeeze=False)[0]
        for axes, (title, methods) in zip(panels, held.items()):
            axes.axhline(0, color="black", linewidth=1.0)
            for method, text in labels.items():
                if method in methods:
                    _calibration(axes, text, *methods[method])
            axes.set(xlim=(0, 1), title=title, xlabel="predicted probability")
            below = axes.transAxes + ScaledTranslation(0, -0.5, figure.dpi_scale_trans)  # inches
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, fontsize=8,
                title="method: calibration error", title_fontsize=8.5,
            )  # fmt: skip
        panels[0].set_ylabel("share that came true − predicted\n[percentage points]")
        title = "On the black line probabilities mean what they say (all seeds together; larger: more rows)"
        figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    return figure


def _calibration(axes: Axes, text: str, mean: np.ndarray, share: np.ndarray, rows: np.ndarray) -> None:
    look, strong, drawn = method_look(text), any(key in text.lower() for key in STRONG), rows >= LEAST
    error = 100 * (np.abs(share - mean) * rows).sum() / max(rows.sum(), 1)
    gap = 100 * (share - mean)
    width, opacity, front = (1.6, 1.0, 3) if strong else (0.9, 0.35, 2)
    shown = {"alpha": opacity, "zorder": front}
    axes.plot(
        mean[drawn], gap[drawn], linewidth=width, **look.line(), **shown, label=f"{text}: {error:.1f} %"
    )
    area = 120 * rows[drawn] / max(rows.max(), 1)
    axes.scatter(mean[drawn], gap[drawn], area, color=look.colour, marker=look.marker, linewidths=0, **shown)


def _flattery(scores: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], tasks: Mapping[str, str]) -> str:
    """Count how often the published median is better than the honest one: the message, in words."""
    better, pairs = 0, 0
    for name, table in scores.items():
        sign = 1 if tasks[name] == "classification" else -1
        honest = next((table[kind] for kind in ("official", "repeated") if kind in table), {})
        for method, values in table.get("published", {}).items():
            if method in honest:
                pairs += 1
                better += bool(sign * (np.median(values) - np.median(honest[method])) > 0)
    counts = f"{better} of {pairs} cases"
    marks = "black bars: medians of the seeds; triangles: seeds off the axis"
    return f"The published protocol looks better in {counts}\n({marks})"


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
    middle = np.median(values)
    if ends[0] <= middle <= ends[1]:
        axes.plot([middle] * 2, [at - 0.11, at + 0.11], color="black", linewidth=1.6, zorder=3)
