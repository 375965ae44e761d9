"""Figures of one-dimensional fitting: errors of all seeds, median networks, errors in the course of training."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lablib.plots.theme import GREY, activation_look, new_figure, theme

NORM_TEXT = {"l2": "l2: orthonormal weights", "linf": "l∞: rows of l1 norm 1"}
Key = tuple[str, str]  # (norm, activation)


def draw_errors(
    errors: Mapping[Key, np.ndarray], labels: Mapping[str, str], targets: Sequence[str]
) -> Figure:
    """Return a panel per norm and target: a dot per seed, the median as a bar, the best as a diamond.

    Args:
        errors: (norm, activation) -> mean squared errors (targets, seeds).
        labels: activation -> text, in the order of the columns; those without errors in a norm are marked.
        targets: names.

    Raises:
        ValueError: if there are no errors.
    """
    norms = _norms(errors)
    with theme():
        figure = new_figure(7.4, 2.5 * len(norms) + 0.6)
        panels = figure.subplots(len(norms), len(targets), sharex=True, sharey="col", squeeze=False)
        for row, norm in zip(panels, norms):
            for number, (axes, target) in enumerate(zip(row, targets)):
                for place, name in enumerate(labels):
                    values = errors.get((norm, name))
                    if values is None:
                        text = "no guarantee in l∞"
                        at = axes.get_xaxis_transform()
                        axes.text(
                            place, 0.5, text, rotation=90, ha="center", va="center", color=GREY, transform=at
                        )
                    else:
                        _strip(axes, place, values[number], activation_look(name).colour)
                axes.set(
                    yscale="log", title=target if norm == norms[0] else "", xlim=(-0.6, len(labels) - 0.4)
                )
                axes.grid(False, axis="x")
            row[0].set_ylabel(f"{NORM_TEXT[norm]}\nmean squared error", fontsize=8.5)
        for axes in panels[-1]:
            axes.set_xticks(range(len(labels)), labels.values(), rotation=40, ha="right", fontsize=8)
        marks = [
            Line2D([], [], marker=".", linestyle="none", color=GREY, label="one seed"),
            Line2D([], [], color="black", linewidth=1.6, label="median"),
            Line2D(
                [],
                [],
                marker="D",
                linestyle="none",
                color="white",
                markeredgecolor="black",
                label="best seed",
            ),
        ]
        figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=8.5)
        figure.suptitle(_title(errors, labels), fontsize=10.5, x=0.01, ha="left")
    return figure


def draw_fits(
    x: np.ndarray,
    wanted: np.ndarray,
    fits: Mapping[str, np.ndarray],
    errors: Mapping[str, np.ndarray],
    labels: Mapping[str, str],
    targets: Sequence[str],
) -> Figure:
    """Return the network of median error over its target, a row per activation and a column per target.

    Args:
        x: (T,).
        wanted: (targets, T).
        fits: activation -> (targets, T).
        errors: activation -> (targets,) median mean squared error (MSE), written above each panel.
        labels: activation -> text.
        targets: names.

    Raises:
        ValueError: if there are no fits.
    """
    if not fits:
        raise ValueError("there is no network to draw; run the experiment first")
    with theme():
        figure = new_figure(7.4, 1.3 * len(fits) + 0.5)
        panels = figure.subplots(len(fits), len(targets), sharex=True, sharey="col", squeeze=False)
        for place, (row, (name, curves)) in enumerate(zip(panels, fits.items())):
            for axes, target, curve, fitted, error in zip(row, targets, wanted, curves, errors[name]):
                axes.plot(x, curve, color=GREY, linewidth=3.0, alpha=0.45)
                axes.plot(x, fitted, color=activation_look(name).colour, linewidth=1.3)
                axes.set_title(f"MSE {error:.1e}", loc="right", fontsize=7.5, pad=3)
                axes.set_title(target if place == 0 else "", pad=3)
                axes.tick_params(labelsize=7.5)
            row[0].set_ylabel(labels[name], fontsize=8.5)
        for axes in panels[-1]:
            axes.set_xlabel("x")
        title = "Networks of median error (l2 weights) over their targets (grey)"
        figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    return figure


def draw_courses(
    steps: Sequence[int], courses: Mapping[Key, np.ndarray], labels: Mapping[str, str], targets: Sequence[str]
) -> Figure:
    """Return the median error against the step, a panel per norm and target, a line per activation.

    Args:
        steps: (checks,).
        courses: (norm, activation) -> median errors (checks, targets).
        labels: activation -> text.
        targets: names.

    Raises:
        ValueError: if there are no courses.
    """
    norms = _norms(courses)
    with theme():
        figure = new_figure(7.4, 2.1 * len(norms) + 0.7)
        panels = figure.subplots(len(norms), len(targets), sharex=True, sharey="col", squeeze=False)
        for row, norm in zip(panels, norms):
            for number, (axes, target) in enumerate(zip(row, targets)):
                for name, label in labels.items():
                    if (norm, name) in courses:
                        line = label if (norm, number) == (norms[0], 0) else None
                        look = activation_look(name).line() | {"linewidth": 1.4, "label": line}
                        axes.plot(steps, courses[norm, name][:, number], **look)
                axes.set(yscale="log", title=target if norm == norms[0] else "")
            row[0].set_ylabel(f"{NORM_TEXT[norm]}\nmedian squared error", fontsize=8.5)
        for axes in panels[-1]:
            axes.set_xlabel("step")
        figure.legend(
            loc="outside upper center", ncols=len(labels), fontsize=8, columnspacing=1.2, handlelength=3
        )
    return figure


def _norms(values: Mapping[Key, np.ndarray]) -> list[str]:
    if not values:
        raise ValueError("there is nothing to draw; run the experiment first")
    return list(dict.fromkeys(norm for norm, _ in values))


def _strip(axes: Axes, place: int, values: np.ndarray, colour: str) -> None:
    spread = np.linspace(-0.26, 0.26, len(values)) if len(values) > 1 else np.zeros(1)
    axes.plot(place + spread, values, ".", color=colour, markersize=3.5, alpha=0.75, zorder=2)
    axes.hlines(np.median(values), place - 0.36, place + 0.36, color="black", linewidth=1.6, zorder=3)
    axes.plot(place, values.min(), "D", color="white", markeredgecolor="black", markersize=4.2, zorder=4)


def _title(errors: Mapping[Key, np.ndarray], labels: Mapping[str, str]) -> str:
    """Count in how many panels each activation has the lowest median: the ranking, in words."""
    wins = dict.fromkeys(labels, 0)
    panels = 0
    for norm in _norms(errors):
        medians = {name: np.median(errors[norm, name], axis=1) for name in labels if (norm, name) in errors}
        best = np.stack(list(medians.values())).argmin(0)
        panels += len(best)
        for winner in best:
            wins[list(medians)[winner]] += 1
    ranked = sorted((name for name in labels if wins[name]), key=lambda name: -wins[name])
    counts = ", ".join(f"{labels[name]} in {wins[name]}" for name in ranked)
    return f"Lowest median error in {panels} panels: {counts}"
