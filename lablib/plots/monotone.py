"""Monotone networks: fits over their slopes with certified bands, partial dependence, sets of gradients."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lablib.plots.theme import BLUE, COLOURS, DASHES, GREY, new_figure, theme

INPUT_NORMS = ("l1", "l2", "linf")
SETS = {
    "l1": "box",
    "l2": "disc",
    "linf": "diamond",
}  # shape of the gradients that each norm of the inputs allows
SIGN = {"l1": "ℓ1", "l2": "ℓ2", "linf": "ℓ∞"}
BAND = {"color": GREY, "alpha": 0.28, "linewidth": 0}  # grey: the curves have the colours
SHADE = "#EFEFEF"


def value_band(
    x: np.ndarray, low: np.ndarray, high: np.ndarray, anchor: int, value: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest curve through one point whose slopes stay within bounds.

        lower(x) = value + integral of low from x_a to x  (of high, to the left of x_a)

    Args:
        x: (T,), increasing.
        low, high: (T - 1,), bounds of the slope between neighbours; or numbers.
        anchor, value: index a and the value there.

    Returns:
        lower and upper, (T,) each.

    Raises:
        ValueError: if x does not increase, a bound is missing, or low exceeds high.
    """
    x = np.asarray(x, float)
    if x.ndim != 1 or len(x) < 2 or not (np.diff(x) > 0).all():
        raise ValueError("give at least two positions in increasing order")
    low, high = (np.broadcast_to(np.asarray(bound, float), len(x) - 1) for bound in (low, high))
    if not (low <= high).all():
        raise ValueError("a lower bound of the slope exceeds the upper one, or is NaN")
    rises = [np.concatenate([[0.0], np.cumsum(bound * np.diff(x))]) for bound in (low, high)]
    from_anchor = [rise - rise[anchor] for rise in rises]
    return value + np.minimum(*from_anchor), value + np.maximum(*from_anchor)


def gradient_outline(norm: str, lipschitz: float, corners: int = 120) -> np.ndarray:
    """Return the outline (M, 2) of the gradients that a lambda-Lipschitz function of two inputs can have.

    The dual ball: the box |g_i| <= lambda for l1, the disc for l2, the diamond |g_1| + |g_2| <= lambda for linf.

    Raises:
        ValueError: for another norm, or a constant that is not positive.
    """
    if not 0 < lipschitz < math.inf:
        raise ValueError(f"the constant must be positive and finite, not {lipschitz}")
    if norm == "l1":
        return lipschitz * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]], float)
    if norm == "linf":
        return lipschitz * np.array([[-1, 0], [0, -1], [1, 0], [0, 1], [-1, 0]], float)
    if norm == "l2":
        angle = np.linspace(0, 2 * np.pi, corners + 1)
        return lipschitz * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    raise ValueError(f"norm {norm!r} is not one of {', '.join(INPUT_NORMS)}")


def draw_slope_bands(
    x: np.ndarray,
    fits: Mapping[str, Mapping[str, np.ndarray]],
    *,
    data: tuple[np.ndarray, np.ndarray] | None = None,
    truth: np.ndarray | None = None,
    trained_on: tuple[float, float] | None = None,
    title: str = "",
    names: tuple[str, str] = ("x", "f(x)"),
) -> Figure:
    """Return a column per model: its curve above, its slopes between neighbouring x within the certified band below.

    Args:
        x: (T,), increasing.
        fits: label -> ``values`` (T,), ``low`` and ``high`` (T - 1,), proven bounds of the slope between neighbours
            (left out for a step function). Optionally ``others`` (S, T), curves of other seeds, ``bold``, which of
            them is drawn bold in place of ``values``, and ``colour``. Bands that are much wider than the slopes
            leave the panel.
        data: positions and values of the training points.
        truth: (T,), the function behind the data.
        trained_on: range of the data; outside it is shaded as extrapolation.
        names: of the input and of the output.

    Raises:
        ValueError: if there is no model, or shapes do not match.
    """
    if not fits:
        raise ValueError("there is no fit to draw; give at least one model")
    for label, fit in fits.items():
        if np.shape(fit["values"]) != np.shape(x):
            raise ValueError(
                f"{label}: {len(x)} positions need as many values, not {np.shape(fit['values'])}"
            )
    with theme():
        figure = new_figure(max(3.6, 1.5 * len(fits) + 0.5), 4.2)
        panels = figure.subplots(
            2, len(fits), sharex=True, sharey="row", squeeze=False, height_ratios=(1.3, 1)
        )
        for (label, fit), (upper, lower), colour in zip(fits.items(), panels.T, itertools.cycle(COLOURS)):
            colour = fit.get("colour", colour)
            for curve in fit.get("others", ()):
                upper.plot(x, curve, color=colour, linewidth=0.6, alpha=0.3)
            if truth is not None:
                upper.plot(x, truth, color="black", linewidth=1.1, linestyle="dashed", label="truth")
            if "bold" in fit:
                upper.plot(x, fit["others"][fit["bold"]], color=colour, label="median seed")
                upper.plot(
                    x,
                    fit["values"],
                    color=colour,
                    linewidth=1.4,
                    linestyle="dotted",
                    label="first seed, slopes below",
                )
            else:
                upper.plot(x, fit["values"], color=colour, label="fit")
            if data is not None:
                upper.plot(*data, ".", color=GREY, markersize=5, label="data", zorder=1.5)
            if "low" in fit:
                draw_band(lower, x, fit["values"], fit["low"], fit["high"], colour)
            else:
                lower.text(0.5, 0.5, "a step function", ha="center", transform=lower.transAxes, fontsize=8.5)
            upper.set_title(label, fontsize=9)
            lower.set_xlabel(names[0])
            for axes in (upper, lower):
                _shade_outside(axes, x, trained_on)
        bold = [fit["others"][fit["bold"]] for fit in fits.values() if "bold" in fit]
        _limit(panels[0, 0], [*(fit["values"] for fit in fits.values()), *bold], truth, data)
        slopes = [np.diff(fit["values"]) / np.diff(x) for fit in fits.values() if "low" in fit]
        if slopes:
            bottom, top = np.min(slopes), np.max(slopes)
            room = 0.35 * (top - bottom) + 0.05
            panels[1, 0].set_ylim(min(bottom, 0.0) - room, max(top, 0.0) + room)
        panels[0, 0].set_ylabel(names[1])
        panels[1, 0].set_ylabel("slope")
        shown = [row[0].get_legend_handles_labels() for row in panels]
        pairs = zip(*(itertools.chain(*part) for part in zip(*shown)))
        named = {label: _colourless(handle) for handle, label in pairs if label != "slope"}  # as on the axis
        figure.legend(
            named.values(), named.keys(), loc="outside lower center", ncols=len(named), fontsize=8.5
        )
        if title:
            figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    return figure


def _colourless(handle):
    """Return a copy of a legend handle in grey: the colour is that of each column, the legend tells dashes apart."""
    if isinstance(handle, Line2D) and handle.get_linestyle() != "None":
        line = {"linestyle": handle.get_linestyle(), "linewidth": handle.get_linewidth()}
        return Line2D([], [], color="black" if handle.get_color() == "black" else GREY, **line)
    return handle


def draw_band(axes: Axes, x: np.ndarray, values: np.ndarray, low, high, colour: str = BLUE) -> None:
    """Draw the slopes of a curve (T,) between neighbours within their certified band, (T - 1,) or numbers."""
    low, high = (np.broadcast_to(np.asarray(bound, float), len(x) - 1) for bound in (low, high))
    axes.stairs(high, x, baseline=low, fill=True, label="certified slopes", **BAND)
    for bound in (low, high):
        axes.stairs(bound, x, baseline=None, color=GREY, linewidth=0.9)
    axes.stairs(np.diff(values) / np.diff(x), x, baseline=None, color=colour, linewidth=1.5, label="slope")
    axes.axhline(0, color="black", linewidth=0.8)


def draw_partial_dependence(
    features: Sequence[Mapping], *, output: str = "f", columns: int = 4, title: str = ""
) -> Figure:
    """Return a panel per feature: the curve through one point, and where its certified slopes let it go.

    Args:
        features: one mapping each with ``name``, ``x`` (T,), ``values`` (T,) and the proven ``low`` and ``high``
            of the slope, numbers or (T - 1,). Optionally ``direction`` (+1, 0, -1), ``at`` (the index of the
            point all cones start from, default the middle), ``others`` (S, T) the curves of other rows, and
            ``rows`` (N,), positions of the data, drawn as ticks.
        output: name of the values.
        columns: panels side by side.

    Raises:
        ValueError: if there is no feature, or the bounds do not fit (see :func:`value_band`).
    """
    if not features:
        raise ValueError("there is no feature to draw; give at least one")
    columns = min(columns, len(features))
    count = math.ceil(len(features) / columns)
    with theme():
        figure = new_figure(max(3.4, 1.9 * columns + 0.4), 2.35 * count + 0.5)
        panels = figure.subplots(count, columns, sharey=True, squeeze=False)
        for axes, feature in zip(panels.flat, features):
            _dependence(axes, feature)
        for axes in panels.flat[len(features) :]:
            axes.set_axis_off()
        for row in panels:
            row[0].set_ylabel(output)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8.5)
        if title:
            figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    return figure


def _dependence(axes: Axes, feature: Mapping) -> None:
    x, values = np.asarray(feature["x"], float), np.asarray(feature["values"], float)
    at = feature.get("at", len(x) // 2)
    lower, upper = value_band(x, feature["low"], feature["high"], at, values[at])
    axes.fill_between(x, lower, upper, label="where the certified slopes let it go", **BAND)
    others = feature.get("others", ())
    for number, curve in enumerate(others):
        axes.plot(x, curve, color=GREY, linewidth=0.6, alpha=0.4, label=None if number else "one row")
    axes.plot(x, values, color=BLUE, label="mean of the rows" if len(others) else "network")
    axes.plot(x[at], values[at], "o", color="black", markersize=4, zorder=3)
    if "rows" in feature:
        axes.plot(feature["rows"], np.zeros(len(feature["rows"])), "|", color=GREY, markersize=5,
                  alpha=0.5, transform=axes.get_xaxis_transform(), clip_on=False)  # fmt: skip
    arrow = {1: " ↑", -1: " ↓"}.get(feature.get("direction", 0), "")
    low, high = np.min(feature["low"]), np.max(feature["high"])
    axes.set_title(f"{feature['name']}{arrow}", fontsize=9.5)
    axes.set_xlabel(f"slope per unit in [{_short(low)}, {_short(high)}]", fontsize=8.5)
    spread = np.ptp(np.concatenate([np.ravel(values), *map(np.ravel, feature.get("others", ()))]))
    axes.set_ylim(*_widened(axes, values, 0.35 * spread + 1e-3))


def draw_gradient_sets(
    gradients: Mapping[str, np.ndarray],
    lipschitz: float,
    *,
    wanted: np.ndarray | None = None,
    shares: Mapping[str, np.ndarray] | None = None,
    title: str = "",
) -> Figure:
    """Return a panel per norm: the gradients it allows, those that were measured, and those that were asked for.

    Args:
        gradients: norm of the inputs ("l1", "l2", "linf") -> (N, 2) measured gradients.
        lipschitz: lambda.
        wanted: (M, 2), gradients of the targets.
        shares: norm -> (2,), what one network that was asked for (lambda, lambda) spends on each input; drawn as
            stacked bars in a last panel.

    Raises:
        ValueError: if there is nothing to draw, or as :func:`gradient_outline`.
    """
    if not gradients:
        raise ValueError("there are no gradients to draw; give at least one norm")
    with theme():
        count = len(gradients) + (shares is not None)
        figure = new_figure(1.9 * count + 0.2, 2.8)
        panels = figure.subplots(1, count, squeeze=False)[0]
        reach = 1.15 * max(lipschitz, 0.0 if wanted is None else float(np.abs(wanted).max()))
        for axes, (norm, measured), colour in zip(panels, gradients.items(), COLOURS):
            outline = gradient_outline(norm, lipschitz)
            axes.fill(*outline.T, color=colour, alpha=0.14, linewidth=0)
            axes.plot(*outline.T, color=colour, label="allowed")
            if wanted is not None:
                axes.plot(*wanted.T, "x", color="black", markersize=4, label="wanted")
            axes.plot(
                *measured.T, ".", color=colour, markersize=3, alpha=0.5, label="measured", rasterized=True
            )
            axes.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach), xlabel="∂f/∂x₁")
            axes.set_title(f"{SIGN[norm]}: {SETS[norm]}")
        panels[0].set_ylabel("∂f/∂x₂")
        if shares is not None:
            _shares(panels[-1], shares, lipschitz)
        handles, labels = panels[0].get_legend_handles_labels()
        for handle in (
            figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8.5)
        ).legend_handles:
            handle.set_alpha(1.0)
        if title:
            figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    return figure


def _shares(axes: Axes, shares: Mapping[str, np.ndarray], lipschitz: float) -> None:
    """Stack what one network spends on each input, beside lambda."""
    base, colours = np.zeros(len(shares)), COLOURS[: len(shares)]
    for number, (name, alpha) in enumerate((("x₁", 0.85), ("x₂", 0.45))):
        heights = np.array([spent[number] for spent in shares.values()]) / lipschitz
        axes.bar(
            range(len(shares)), heights, 0.62, bottom=base, color=colours, alpha=alpha, edgecolor="white"
        )
        for place, height in enumerate(heights):
            axes.text(place, base[place] + height / 2, name, ha="center", va="center", fontsize=8.5)
        base = base + heights
    axes.axhline(1, color="black", linewidth=1, linestyle=DASHES[1])
    axes.set_xticks(range(len(shares)), [SIGN[norm] for norm in shares])
    axes.set(title="spent at (λ, λ)", ylabel="slope / λ")
    axes.grid(False, axis="x")


def _shade_outside(axes: Axes, x: np.ndarray, trained_on: tuple[float, float] | None) -> None:
    if trained_on is not None:
        for low, high in ((x[0], trained_on[0]), (trained_on[1], x[-1])):
            if low < high:
                axes.axvspan(low, high, color=SHADE, zorder=0, linewidth=0)
        axes.set_xlim(x[0], x[-1])


def _limit(axes: Axes, curves: Sequence[np.ndarray], truth: np.ndarray | None, data) -> None:
    """Set the limits by the drawn fits, truth and data; other seeds may leave the panel."""
    shown = [np.ravel(curve) for curve in curves]
    shown += [] if truth is None else [np.ravel(truth)]
    shown += [] if data is None else [np.ravel(data[1])]
    low, high = np.min(np.concatenate(shown)), np.max(np.concatenate(shown))
    axes.set_ylim(low - 0.08 * (high - low) - 1e-9, high + 0.08 * (high - low) + 1e-9)


def _widened(axes: Axes, values: np.ndarray, by: float) -> tuple[float, float]:
    """Return limits that hold these values with a margin, and whatever the axes (shared) held before."""
    low, high = values.min() - by, values.max() + by
    if axes.get_autoscaley_on():
        return low, high
    before = axes.get_ylim()
    return min(low, before[0]), max(high, before[1])


def _short(number: float) -> str:
    """Write a bound with three digits, a zero without a sign."""
    return f"{number + 0.0:.3g}" if abs(number) >= 5e-4 or number == 0 else f"{number:.0e}"
