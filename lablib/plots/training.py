"""Pictures of training runs: schedules, learning curves of finished runs, cost per epoch, settings against scores."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, COLOURS, DASHES, GREY, PAGE_WIDTH, new_figure, theme


def draw_schedules(epochs: np.ndarray, schedules: Mapping[str, np.ndarray]) -> Figure:
    """Draw one panel per schedule: value (N,) against epochs (N,), logarithmic where it spans a factor of 20.

    Infinite values (p at the end) are a shaded phase.
    """
    if not schedules:
        raise ValueError("nothing to draw; give at least one schedule")
    with theme():
        figure = new_figure(2.3 * len(schedules), 2.4)
        axes = figure.subplots(1, len(schedules), squeeze=False)[0]
        for axis, (name, values) in zip(axes, schedules.items(), strict=True):
            finite = np.isfinite(values)
            axis.plot(epochs[finite], values[finite], color=BLUE)
            if not finite.all():
                axis.axvspan(epochs[~finite][0], epochs[-1], color="#E4E4E4")
                axis.text(epochs[~finite][0], values[finite].min(), "∞ ", ha="right", va="bottom")
            if _wide(values[finite]):
                axis.set_yscale("log")
            axis.set(title=name, xlabel="epoch", xlim=(epochs[0], epochs[-1]))
    return figure


def draw_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], keys: Mapping[str, str]) -> Figure:
    """Draw learning curves: one panel per key, one line per run.

    Args:
        runs: name -> history, one mapping per epoch; epochs that lack a key are left out of its line, and a panel
            whose key no run has says so.
        keys: key of the history -> title of its panel; shares (0 to 1). ``train_margin`` and ``held_out_margin``
            count margins, without float rounding, the first in the training form: neither is "certified".
    """
    if not runs or not keys:
        raise ValueError("nothing to draw; give at least one run and one key")
    with theme():
        figure = new_figure(min(9.6, 3.6 * len(keys) + 0.6), 3.2)
        axes = figure.subplots(1, len(keys), squeeze=False, sharey=True)[0]
        for axis, (key, title) in zip(axes, keys.items(), strict=True):
            for number, (name, history) in enumerate(runs.items()):
                progress, values = curve(history, key)
                axis.plot(progress, values, label=name, **_style(number))
            if not any(len(line.get_xdata()) for line in axis.get_lines()):
                axis.text(0.5, 0.5, "not measured", ha="center", color=GREY)
            axis.set(title=title, xlabel="share of the run", xlim=(0, 1), ylim=(0, 1.02))
        axes[0].set_ylabel("share of the images")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", fontsize=8, ncols=2)
    return figure


def draw_certified_curves(epsilons: np.ndarray, radii: Mapping[str, np.ndarray], data: str) -> Figure:
    """Draw the share of images with a certified radius above eps (E,), one line per name -> radii (N,).

    ``data`` names the test images in the title.
    """
    if not radii:
        raise ValueError("nothing to draw; give the radii of at least one run")
    with theme():
        figure = new_figure(PAGE_WIDTH, 3.6)
        axis = figure.add_subplot()
        for number, (name, values) in enumerate(radii.items()):
            shares = (np.asarray(values)[:, None] > epsilons).mean(axis=0)
            axis.plot(epsilons, shares, label=name, **_style(number))
        axis.set(
            title=f"Certified accuracy, {data}",
            xlabel="radius ε, in pixel units",
            ylabel="share of the test images",
        )
        axis.set(xlim=(epsilons[0], epsilons[-1]), ylim=(0, 1))
        axis.legend(fontsize=8)
    return figure


def draw_losses(margins: np.ndarray, losses: Mapping[str, np.ndarray], eps: float) -> Figure:
    """Draw losses (N,) of one image against its margin f_y - max f_j (N,); 2 eps is marked."""
    if not losses:
        raise ValueError("nothing to draw; give at least one loss")
    with theme():
        figure = new_figure(PAGE_WIDTH, 2.8)
        axis = figure.add_subplot()
        for number, (name, values) in enumerate(losses.items()):
            axis.plot(margins, values, label=name, **_style(number))
        axis.axvline(2 * eps, color=GREY, linewidth=1)
        axis.text(2 * eps, 1.9, " certified from 2ε on", va="top")
        axis.set(title="What one image contributes", xlabel="margin of the true class", ylabel="loss")
        axis.set(ylim=(-0.05, 2), xlim=(margins[0], margins[-1]))
        axis.legend(loc="lower left")
    return figure


def curve(history: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return progress (share of the run, 0 to 1) and values of one key, epochs without it left out."""
    total = len(history)
    found = [((i + 1) / total, row[key]) for i, row in enumerate(history) if _is_number(row.get(key))]
    if not found:
        return np.zeros(0), np.zeros(0)
    progress, values = zip(*found, strict=True)
    return np.array(progress), np.array(values, dtype=float)


def draw_epoch_cost(names: Sequence[str], seconds: Sequence[float], notes: Sequence[str]) -> Figure:
    """Draw the seconds an epoch took, one bar per run, with the device beside it."""
    if not len(names) == len(seconds) == len(notes) or not names:
        raise ValueError("give one duration and one note for each name, and at least one")
    with theme():
        figure = new_figure(PAGE_WIDTH, 0.9 + 0.36 * len(names))
        axis = figure.add_subplot()
        places = np.arange(len(names))
        axis.barh(places, seconds, 0.6, color=BLUE)
        for place, value, note in zip(places, seconds, notes, strict=True):
            axis.text(value, place, f"  {value:.2g} s, {note}", va="center")
        axis.set_yticks(places, labels=names, fontsize=8)
        axis.invert_yaxis()
        axis.set(title="Seconds per epoch", xlabel="seconds", xlim=(0, 1.45 * max(seconds)))
        axis.grid(axis="y", visible=False)
    return figure


def draw_scores(rows: Sequence[Mapping[str, Any]], levels: Sequence[str]) -> Figure:
    """Draw the bracket of each run: a bar from the certified to the attacked share, a tick at the clean one.

    Args:
        rows: ``name``, and for each run the three shares named by ``levels``: certified, attacked, clean.
        levels: their keys, in this order.
    """
    if not rows:
        raise ValueError("nothing to draw; give at least one run")
    certified, attacked, clean = levels
    with theme():
        figure = new_figure(PAGE_WIDTH, 1.0 + 0.36 * len(rows))
        axis = figure.add_subplot()
        for place, row in enumerate(rows):
            low, high = row[certified], row.get(attacked)
            axis.plot(low, place, "o", color=BLUE, label="certified" if place == 0 else None)
            if _is_number(high):
                axis.plot([low, high], [place, place], color=GREY, linewidth=3, alpha=0.5, zorder=1)
                axis.plot(high, place, "D", color=COLOURS[1], label="attacked" if place == 0 else None)
            axis.plot(row[clean], place, "|", color="black", markersize=12, label=None if place else "clean")
        axis.set_yticks(range(len(rows)), labels=[row["name"] for row in rows], fontsize=8)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set(title="The truth lies between proof and attack", xlabel="share of the test images")
        axis.set_xlim(0, 1.01)
        axis.legend(loc="lower left", fontsize=8)
    return figure


def _style(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}


def _wide(values: np.ndarray) -> bool:
    return len(values) > 0 and values.min() > 0 and values.max() > 20 * values.min()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
