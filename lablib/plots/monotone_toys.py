"""Figures of the toy recipe for monotone networks: errors of all seeds, an outlier, flowers, forced slopes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, Formatter, LogLocator, NullLocator, PercentFormatter

from lablib.plots.monotone import SIGN
from lablib.plots.theme import (
    COLOURS,
    DASHES,
    DIVERGING,
    GREY,
    ORANGE,
    SKY,
    method_look,
    new_figure,
    theme,
)

LEAST_ERROR = 1e-4  # what training leaves; below it errors are about where the last step fell


def draw_log_errors(errors: Mapping[str, tuple[np.ndarray, np.ndarray]], labels: Mapping[str, str]) -> Figure:
    """Return two panels, inside and outside the range of the data: a dot per seed, the median as a bar.

    Args:
        errors: model -> root mean squared errors (S,) inside and outside.
        labels: model -> text, in the order of the rows, as :func:`lablib.plots.theme.method_look` knows them.

    Raises:
        ValueError: if there are no errors.
    """
    if not errors:
        raise ValueError("there are no errors to draw; run the experiment first")
    with theme():
        figure = new_figure(7.0, 0.46 * len(labels) + 1.2)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, part, title in zip(panels, (0, 1), ("inside [1, 3]", "extrapolated to (3, 6]")):
            for place, (name, text) in enumerate(labels.items()):
                values, colour = errors[name][part], method_look(text).colour
                spread = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
                axes.plot(values, place + spread, ".", color=colour, markersize=5, alpha=0.8)
                axes.vlines(
                    np.median(values), place - 0.33, place + 0.33, color="black", linewidth=1.8, zorder=3
                )
                axes.text(
                    np.median(values), place - 0.36, f"{np.median(values):.3f}", ha="center", fontsize=7.5
                )
            axes.set(xscale="log", xlabel="RMS error against log x", title=title)
            _plain_decades(axes.xaxis, FormatStrFormatter("%g"))
            axes.grid(False, axis="y")
        panels[0].set_yticks(range(len(labels)), labels.values())
        panels[0].set_ylim(len(labels) - 0.5, -0.7)
    return figure


def draw_outlier(
    x: np.ndarray,
    data: tuple[np.ndarray, np.ndarray],
    curves: Mapping[str, np.ndarray],
    lambdas: Sequence[float],
    pulls: Mapping[str, np.ndarray],
    unconstrained: Mapping[str, np.ndarray],
) -> Figure:
    """Return fits with and without the outlier above; below, how far it pulls the fit, against lambda.

    Args:
        x: (T,) positions of the curves.
        data: positions and values of the points, outlier included.
        curves: title -> (2, T), with the outlier and without.
        lambdas: (L,).
        pulls: loss -> (2, L, S), the pull at the outlier and its mean away from it.
        unconstrained: loss -> (2, S), the same of the unconstrained network.
    """
    if not curves:
        raise ValueError("there are no fits to draw; run the experiment first")
    with theme():
        figure = new_figure(7.4, 5.3)
        upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.1))
        panels = upper.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for axes, (title, (with_it, without)) in zip(panels, curves.items()):
            axes.plot(*data, ".", color=GREY, markersize=4.5, label="data")
            axes.plot(x, without, color=SKY, linewidth=2.2, label="trained without the outlier")
            axes.plot(x, with_it, color="black", linewidth=1.3, linestyle="dashed", label="trained with it")
            axes.set_title(title, fontsize=9.5)
            axes.set_xlabel("x")
        handles, labels = panels[0].get_legend_handles_labels()
        upper.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8.5)
        titles = ("pull at the outlier", "mean pull beyond its neighbours")
        for part, (axes, title) in enumerate(zip(lower.subplots(1, 2), titles)):
            for loss, dash in zip(pulls, DASHES):
                name = f"{_loss(loss)}, λ-Lipschitz"
                look = {"color": method_look(name).colour, "linestyle": dash, "marker": "o"}
                _median_band(axes, lambdas, pulls[loss][part], name, **look)
                name = f"{_loss(loss)}, unconstrained ReLU"
                level, colour = np.median(unconstrained[loss][part]), method_look(name).colour
                axes.axhline(level, linewidth=1, linestyle=dash, color=colour, label=name)
            axes.set(xscale="log", title=title, xlabel="λ", ylabel="|f with − f without|")
            _ticks_at(axes, lambdas)
            if part:
                axes.set_yscale("log")
        handles, labels = axes.get_legend_handles_labels()
        lower.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    return figure


def draw_flower_scores(
    settings: Mapping[str, Sequence[float]],
    scores: Mapping[str, Mapping[str, np.ndarray]],
    kept: Mapping[str, float],
    circle: float,
) -> Figure:
    """Return misclassified shares, a panel per swept setting and a line per norm, the seeds' range shaded.

    Args:
        settings: name -> (V,) swept values.
        scores: name -> norm -> accuracies (V, S).
        kept: name -> the value while another setting is swept.
        circle: accuracy of the best circle, for comparison.
    """
    if not scores:
        raise ValueError("there are no scores to draw; run the experiment first")
    with theme():
        figure = new_figure(7.4, 3.1)
        panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
        for axes, (name, lines) in zip(panels, scores.items()):
            for number, (norm, values) in enumerate(lines.items()):
                look = {"color": COLOURS[number], "linestyle": DASHES[number], "marker": "osD"[number]}
                _median_band(axes, settings[name], 1 - values, f"Lipschitz in {SIGN[norm]}", **look)
            axes.axhline(1 - circle, color="black", linewidth=0.9, linestyle=DASHES[3], label="a circle")
            axes.set(xscale="log", yscale="log", xlabel=name)
            _ticks_at(axes, settings[name])
            others = ", ".join(f"{other} {value:g}" for other, value in kept.items() if other != name)
            axes.set_title(others, fontsize=9)
        panels[0].set_ylabel("misclassified")
        _plain_decades(panels[0].yaxis, PercentFormatter(1.0))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def draw_flowers(
    axis: np.ndarray, fields: Mapping[tuple[str, float], np.ndarray], truth: np.ndarray, level: float
) -> Figure:
    """Return a row per norm and a column per lambda: the fitted level, its boundary, and the wanted one.

    Args:
        axis: (side,) coordinates of both axes.
        fields: (norm, lambda) -> (side, side), row = second coordinate.
        truth: (M, 2), the wanted boundary, closed.
        level: of the boundary.
    """
    if not fields:
        raise ValueError("there are no fields to draw; run the experiment first")
    norms, lambdas = (list(dict.fromkeys(key[part] for key in fields)) for part in (0, 1))
    with theme(**{"figure.dpi": 85}):
        figure = new_figure(1.72 * len(lambdas) + 1.2, 1.75 * len(norms) + 0.6)
        panels = figure.subplots(len(norms), len(lambdas), squeeze=False)
        for row, norm in zip(panels, norms):
            for axes, lipschitz in zip(row, lambdas):
                colours = {"vmin": level - 0.8, "vmax": level + 0.8, "cmap": DIVERGING, "alpha": 0.7}
                field = fields[norm, lipschitz]
                drawn = axes.contourf(axis, axis, field, levels=np.arange(-3, 6, 0.1), **colours)
                drawn.set_rasterized(True)
                axes.plot(*truth.T, color=ORANGE, linewidth=1.4)
                axes.contour(axis, axis, field, levels=[level], colors="black", linewidths=1.1)
                axes.set(aspect="equal", xticks=[], yticks=[])
                axes.grid(visible=False)
                if norm == norms[0]:
                    axes.set_title(f"λ = {lipschitz:g}")
            row[0].set_ylabel(f"Lipschitz in {SIGN[norm]}")
        panels[0, 0].plot([], [], color=ORANGE, label="wanted boundary")
        panels[0, 0].plot([], [], color="black", label="boundary of the network")
        figure.legend(loc="outside lower center", ncols=2)
        bar = figure.colorbar(
            ScalarMappable(Normalize(level - 0.8, level + 0.8), DIVERGING), ax=panels, alpha=0.7,
            shrink=0.5, aspect=30, extend="both",
        )  # fmt: skip
        bar.set_label(f"score of the network; white, {level:g}: its boundary")
    return figure


def draw_forced(
    wanted: Sequence[float], fitted: Mapping[str, np.ndarray], labels: Mapping[str, str], forced: float
) -> Figure:
    """Return fitted against wanted slopes, and the error against the wanted slope, a line per residual.

    Args:
        wanted: (T,).
        fitted: model -> (2, T, S), mean slope and root mean squared error.
        labels: model -> text, as :func:`lablib.plots.theme.method_look` knows them.
        forced: the smallest slope that the mismatched residual can have.
    """
    if not fitted:
        raise ValueError("there are no slopes to draw; run the experiment first")
    with theme():
        figure = new_figure(7.0, 3.4)
        left, right = figure.subplots(1, 2)
        left.plot(wanted, wanted, color="#C8C8C8", linewidth=7, label="as wanted")
        left.axhline(forced, color="black", linewidth=0.9)
        left.text(wanted[-1], forced, f"forced: {forced:.2f}", ha="right", va="bottom", fontsize=8.5)
        for name, values in fitted.items():
            found = method_look(labels[name])
            look = {**found.line(), "marker": found.marker}
            _median_band(left, wanted, values[0], labels[name], **look)
            _median_band(right, wanted, np.maximum(values[1], LEAST_ERROR), None, **look)
        left.set(xlabel="slope of the target", ylabel="slope of the fit")
        right.set(
            xlabel="slope of the target",
            ylabel=f"RMS error, or {LEAST_ERROR:g} if less",
            yscale="log",
            ylim=(0.8 * LEAST_ERROR, 2.0),
        )
        figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def _median_band(axes: Axes, at: Sequence[float], values: np.ndarray, label: str | None, **look) -> None:
    """Draw the median over seeds of ``values`` (L, S), and the range of all seeds as a band."""
    axes.fill_between(at, values.min(1), values.max(1), color=look["color"], alpha=0.16, linewidth=0)
    axes.plot(at, np.median(values, axis=1), label=label, markersize=4, linewidth=1.5, **look)


def _ticks_at(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.set_xticks([], minor=True)


def _plain_decades(axis: Axis, formatter: Formatter) -> None:
    """Label 1, 2 and 5 of each decade of a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(formatter)
    axis.set_minor_locator(NullLocator())


def _loss(name: str) -> str:
    return {"l1": "absolute error", "mse": "squared error"}[name]
