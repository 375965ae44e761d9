"""Private training: what one sample changes, epsilon as it is spent, noise by strategy, one run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, COLOURS, ORANGE, RED, new_figure, theme

ACCOUNTANT_LOOKS = {"RDP": (ORANGE, "dashed", "s"), "PRV": (RED, "dotted", "*"), "PLD": (BLUE, "solid", "o")}


def draw_mechanism(noise_multiplier: float, epsilon: float) -> Figure:
    """Draw the densities of a noisy sum without and with one more sample, and what delta is.

    The sum moves by 1 (the sensitivity) at most, so its noise has standard deviation ``noise_multiplier``. Shaded:
    where the density with the sample exceeds e^epsilon times the one without; that area is delta.
    """
    with theme():
        figure = new_figure(7.4, 2.6)
        axes = figure.subplots()
        at = np.linspace(-3.2 * noise_multiplier, 1 + 3.4 * noise_multiplier, 600)
        without, with_it = (
            np.exp(-0.5 * ((at - middle) / noise_multiplier) ** 2)
            / (noise_multiplier * math.sqrt(2 * math.pi))
            for middle in (0.0, 1.0)
        )
        raised = math.exp(epsilon) * without
        axes.plot(at, without, color=BLUE, label="without the sample")
        axes.plot(at, with_it, color=ORANGE, linestyle="dashed", label="with it")
        axes.plot(at, raised, color=BLUE, linestyle="dotted", linewidth=1.3, label="without, times $e^ε$")
        axes.fill_between(
            at, raised, with_it, where=with_it > raised, color=RED, alpha=0.45, label="δ: this area"
        )
        axes.set(
            xlabel="noisy sum that is published, in units of Δ",
            ylabel="density",
            title="What one sample changes",
        )
        axes.set_ylim(0, 1.15 * with_it.max())
        figure.legend(loc="outside right center")
    return figure


def power_of_ten(delta: float) -> str:
    """Return "δ = 10⁻⁵" for 1e-5, and decimals for what is no power of ten."""
    power = round(math.log10(delta))
    if not math.isclose(delta, 10.0**power):
        return f"δ = {delta:g}"
    return "δ = 10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def draw_epsilon(found: Any, delta: float, title: str = "") -> Figure:
    """Draw epsilon as it is spent, and the (epsilon, delta) pairs of the whole run, by accountant.

    Args:
        found: :class:`lablib.experiments.live_epsilon.EpsilonCurves`.
        delta: that of the left panel; a line in the right one.
    """
    with theme():
        figure = new_figure(7.4, 3.1)
        left, right = figure.subplots(1, 2)
        for name, (steps, epsilons) in found.curves.items():
            colour, dash, marker = ACCOUNTANT_LOOKS[name]
            marker = marker if len(steps) < 20 else None
            left.plot(steps, epsilons, color=colour, linestyle=dash, marker=marker, label=name)
        for name, (epsilons, deltas) in found.profile.items():
            colour, dash, _ = ACCOUNTANT_LOOKS[name]
            right.plot(epsilons, deltas, color=colour, linestyle=dash, label=name)
        if "PRV" in found.final:
            colour, _, marker = ACCOUNTANT_LOOKS["PRV"]
            last = max(steps[-1] for steps, _ in found.curves.values())
            mark = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 10, "label": "PRV"}
            left.plot([last], [found.final["PRV"]], **mark)
            right.plot([found.final["PRV"]], [delta], **mark)
        left.set(
            xlabel="steps", ylabel=f"ε at {power_of_ten(delta)}", title="Spent: fast at first, then slowly"
        )
        left.set(xlim=(0, None), ylim=(0, None))
        right.axhline(delta, color="black", linewidth=0.8, linestyle="dashed")
        right.set(
            yscale="log", xlabel="ε", ylabel="δ", title="One run, many true pairs (ε, δ)", xlim=(0, None)
        )
        left.legend(loc="lower right")
        if title:
            figure.suptitle(title, fontsize=10.5)
    return figure


def draw_noise(noise: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the expected squared noise of each strategy, layer by layer, in percent of the first strategy's.

    Args:
        noise: strategy -> parameter -> expected squared norm of its noise, all at one effective noise multiplier.

    Raises:
        ValueError: if there is no strategy.
    """
    if not noise:
        raise ValueError("there is no strategy to draw")
    whole = sum(next(iter(noise.values())).values())
    parameters = list(next(iter(noise.values())))
    with theme():
        figure = new_figure(6.6, 0.75 + 0.42 * len(noise))
        axes = figure.subplots()
        left = np.zeros(len(noise))
        for number, name in enumerate(parameters):
            shares = np.array([100 * parts[name] / whole for parts in noise.values()])
            colour = COLOURS[number % len(COLOURS)]
            axes.barh(range(len(noise)), shares, 0.62, left=left, color=colour, label=name, zorder=2)
            left = left + shares
        for place, length in enumerate(left):
            axes.text(length, place, f" {length:.0f} %", va="center", fontsize=9)
        axes.set_yticks(range(len(noise)), list(noise))
        axes.set(xlabel="expected squared noise, % of the first", xlim=(0, 1.12 * left.max()))
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        figure.legend(loc="outside right center", fontsize=8.5)
    return figure


def draw_run(history: Sequence[Mapping[str, float]], target: float = math.inf) -> Figure:
    """Draw test accuracy and the epsilon spent in the course of one private run.

    Args:
        history: ``step``, ``epsilon`` and ``accuracy`` (0 to 1) of each report.
        target: an epsilon that the run must not pass; a line if it is finite.

    Raises:
        ValueError: if there is no report.
    """
    if not history:
        raise ValueError("the run has not reported anything yet")
    steps = [row["step"] for row in history]
    with theme():
        figure = new_figure(7.0, 2.7)
        left, right = figure.subplots(1, 2)
        left.plot(steps, [100 * row["accuracy"] for row in history], color=BLUE, marker="o", markersize=3.5)
        right.plot(steps, [row["epsilon"] for row in history], color=ORANGE, marker="s", markersize=3.5)
        left.set(xlabel="steps", ylabel="% of test images right", ylim=(0, 102), title="What was learned")
        right.set(xlabel="steps", ylabel="ε", title="What it cost")
        if math.isfinite(target):
            right.axhline(target, color="black", linewidth=1, linestyle="dashed", label="target")
            right.legend(loc="lower right")
        right.set_ylim(0, None)
    return figure
