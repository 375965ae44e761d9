"""Pictures of trigger classifiers: responses with their cut, efficiencies, what is proven, and time per event."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FormatStrFormatter, MaxNLocator, PercentFormatter

from lablib.plots.theme import BLUE, GREY, PAGE_WIDTH, RED, SKY, method_look, new_figure, theme

Curves = Mapping[str, np.ndarray]  # label, of a method as method_look knows them -> (seeds, points)


def draw_maps(
    maps: Mapping[str, tuple[np.ndarray, float]],
    axes: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    features: Sequence[str],
    farthest: np.ndarray,
) -> Figure:
    """Draw one row per pair of features, one column per classifier: the response and where it cuts.

    Args:
        maps: label -> (scores (pairs, side, side) as log-odds, the cut).
        axes: (features, side), where they were evaluated.
        pairs: (column of the horizontal, of the vertical feature).
        features: names, with units.
        farthest: (features,) largest values of the training signal.

    Raises:
        ValueError: for nothing to draw, or maps that are not of these pairs.
    """
    if not maps or not pairs:
        raise ValueError("nothing to draw; give the maps of at least one classifier and one pair")
    for label, (scores, _) in maps.items():
        if scores.shape != (len(pairs), axes.shape[1], axes.shape[1]):
            raise ValueError(f"maps of {label} have shape {scores.shape}, which is not that of the pairs")
    with theme():
        figure = new_figure(PAGE_WIDTH, 2.05 * len(pairs) + 0.7)
        grid = figure.subplots(len(pairs), len(maps), squeeze=False, sharex="row", sharey="row")
        for row, (first, second) in enumerate(pairs):
            for axis, (label, (scores, cut)) in zip(grid[row], maps.items()):
                x, y = axes[first], axes[second]
                share = 1.0 / (1.0 + np.exp(-np.clip(scores[row], -50.0, 50.0)))
                image = axis.pcolormesh(x, y, share, vmin=0.0, vmax=1.0, shading="nearest", rasterized=True)
                if scores[row].min() < cut < scores[row].max():
                    axis.contour(x, y, scores[row], [cut], colors=[RED], linewidths=1.8)
                _mark_end(axis.axvline, farthest[first], x)
                _mark_end(axis.axhline, farthest[second], y)
                axis.grid(False)
                axis.set_xlabel(_typeset(features[first]), fontsize=8.5)
                if row == 0:
                    axis.set_title(label.replace(", ", ",\n"), fontsize=9.5)
            grid[row, 0].set_ylabel(_typeset(features[second]), fontsize=8.5)
        bar = figure.colorbar(image, ax=grid, location="bottom", shrink=0.5, aspect=40, pad=0.01)
        bar.set_label("response; red: the cut; dotted: the end of the training signal", fontsize=8.5)
        title = "Slices through the response of the first seed, the other features at their medians"
        figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    return figure


def _mark_end(draw_line, value: float, ticks: np.ndarray) -> None:
    if ticks[0] < value < ticks[-1]:
        edge = [withStroke(linewidth=3.2, foreground="white")]
        draw_line(value, color="black", linestyle="dotted", linewidth=1.4, path_effects=edge)


def _typeset(feature: str) -> str:
    return feature.replace("p_T", r"$p_\mathrm{T}$")


def draw_lifetimes(edges: np.ndarray, curves: Curves, rate: float, longest: float) -> Figure:
    """Draw the efficiency in bins of the true lifetime: mean of the seeds, and their range as a band.

    Args:
        edges: (B + 1,) of the bins, ps.
        curves: label -> (S, B) efficiencies; NaN where a bin is empty.
        rate: share of the background that is kept.
        longest: lifetime [ps] of the longest-lived training signal.
    """
    _check(curves)
    centres = np.sqrt(edges[1:] * edges[:-1])
    with theme():
        figure = new_figure(PAGE_WIDTH, 3.8)
        axis = figure.add_subplot()
        axis.axvspan(longest, edges[-1], color="#EEEEEE", zorder=0)
        axis.text(
            edges[-1], 0.02, "longer-lived than \nall training signal ", color=GREY, fontsize=8.5, ha="right"
        )
        _bands(axis, centres, curves)
        axis.set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(0.0, 1.02))
        axis.set(xlabel="true lifetime of the beauty hadron [ps]", ylabel="share of preselected signal kept")
        axis.set_title(f"Efficiency against lifetime, where {100 * rate:g} % of the background is kept")
        _legend(figure, axis)
    return figure


def draw_shares(edges: np.ndarray, shares: Mapping[str, Curves], longest: float) -> Figure:
    """Draw the efficiency against lifetime, one panel per share of long-lived background; as :func:`draw_lifetimes`.

    Args:
        edges: (B + 1,) of the bins, ps.
        shares: title of the panel -> label -> (S, B) efficiencies.
        longest: lifetime [ps] of the longest-lived training signal.
    """
    if not shares or not all(shares.values()):
        raise ValueError("nothing to draw; give at least one share, and classifiers")
    centres = np.sqrt(edges[1:] * edges[:-1])
    with theme():
        figure = new_figure(PAGE_WIDTH, 3.3)
        panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
        for axis, (title, curves) in zip(panels, shares.items()):
            axis.axvspan(longest, edges[-1], color="#EEEEEE", zorder=0)
            _bands(axis, centres, curves)
            axis.set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(0.0, 1.02), xlabel="true lifetime [ps]")
            axis.set_title(title)
        panels[0].set_ylabel("share of preselected signal kept")
        figure.suptitle("Strange hadrons, which fly far, in training and at the cut", x=0.02, ha="left")
        _legend(figure, panels[0])
    return figure


def draw_rates(rates: np.ndarray, curves: Curves, rate: float) -> Figure:
    """Draw the efficiency against the share of background kept, and below it the differences to the first curve.

    Args:
        rates: (R,) shares of the background.
        curves: label -> (S, R) efficiencies; differences are taken seed by seed.
        rate: the share at which everything else is measured.
    """
    _check(curves)
    with theme():
        figure = new_figure(PAGE_WIDTH, 4.9)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _bands(above, rates, curves)
        name, reference = next(iter(curves.items()))
        _bands(below, rates, {label: 100.0 * (values - reference) for label, values in curves.items()})
        for axis in (above, below):
            axis.axvline(rate, color=GREY, linewidth=1.0, linestyle="dotted")
            axis.set(xscale="log", xlim=(rates[0], rates[-1]))
        above.set(ylabel="efficiency", title="Signal kept against background kept")
        below.set_xlabel("share of the background kept")
        below.set_ylabel(f"difference to the\n{name.lower()}\n[percentage points]")
        below.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        _legend(figure, above)
    return figure


def draw_pushes(factors: np.ndarray, curves: Curves) -> Figure:
    """Draw which share (S, F) of the kept signal is still kept with all distances multiplied by ``factors`` (F,).

    Classifiers that lose none lie on each other, so they share one line, and the legend names them.
    """
    _check(curves)
    whole = [label for label, values in curves.items() if (values == 1.0).all()]
    apart = {label: values for label, values in curves.items() if label not in whole or len(whole) == 1}
    with theme():
        figure = new_figure(PAGE_WIDTH, 3.5)
        axis = figure.add_subplot()
        _bands(axis, factors, apart)
        if len(whole) > 1:
            names = "".join(f"\n    {label}" for label in whole)
            axis.plot(factors, np.ones(len(factors)), color="black", label=f"{len(whole)} others:{names}")
        axis.set(xscale="log", xlim=(factors[0], factors[-1]), ylim=(0.0, 1.03))
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.set(xlabel="all distances of a kept candidate multiplied by", ylabel="share still kept")
        axis.set_title(f"Kept signal, displaced further: {len(whole)} of {len(curves)} classifiers lose none")
        _legend(figure, axis)
    return figure


def draw_changes(changes: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> Figure:
    """Draw efficiency and share of background kept for each change of the detector, all at the nominal cut.

    Args:
        changes: change -> label -> (efficiency, share of the background) of every seed. The mean is a point, the
            range of the seeds a line.

    Raises:
        ValueError: for nothing to draw.
    """
    if not changes or not all(changes.values()):
        raise ValueError("nothing to draw; give at least one change of the detector, and classifiers")
    with theme():
        figure = new_figure(PAGE_WIDTH, 0.75 * len(changes) + 1.2)
        panels = figure.subplots(1, 2, sharey=True)
        for axis, number, label in zip(panels, (0, 1), ("efficiency", "share of the background kept")):
            for row, rows in enumerate(changes.values()):
                for place, (name, values) in enumerate(rows.items()):
                    found = np.array(values)[:, number]
                    height = row + 0.13 * (place - (len(rows) - 1) / 2)
                    look, text = method_look(name), name if row == 0 else None
                    axis.plot([found.min(), found.max()], [height] * 2, color=look.colour, linewidth=1.2)
                    axis.plot(found.mean(), height, look.marker, markersize=5, color=look.colour, label=text)
            axis.set_xlabel(label)
            axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        panels[0].set_yticks(range(len(changes)), list(changes))
        panels[0].invert_yaxis()
        panels[0].set_title("Another detector, the same cut")
        _legend(figure, panels[0])
    return figure


def draw_radii(radii: np.ndarray, curves: Curves) -> Figure:
    """Draw the share (S, R) of decisions proven to hold for errors up to ``radii`` (R,) in all features."""
    _check(curves)
    with theme():
        figure = new_figure(PAGE_WIDTH, 3.6)
        axis = figure.add_subplot()
        _bands(axis, radii, curves)
        axis.set(xlim=(radii[0], radii[-1]), ylim=(0.0, 1.02))
        axis.set(
            xlabel="error of all four features at once [standard deviations]", ylabel="share of decisions"
        )
        axis.set_title("Decisions proven to stay the same")
        _legend(figure, axis)
    return figure


def draw_latency(times: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Draw the time per event: one bar per implementation and batch size.

    Args:
        times: label -> batch size -> ``median``, ``lower`` and ``upper`` quartile in microseconds.

    Raises:
        ValueError: for nothing to draw.
    """
    if not times:
        raise ValueError("nothing to draw; give the times of at least one implementation")
    sizes = list(next(iter(times.values())))
    thickness = 0.8 / len(sizes)
    with theme():
        figure = new_figure(PAGE_WIDTH, 0.42 * len(times) + 1.3)
        axis = figure.add_subplot()
        for number, size in enumerate(sizes):
            places = np.arange(len(times)) + thickness * (number - (len(sizes) - 1) / 2)
            median, lower, upper = (
                np.array([row[size][name] for row in times.values()]) for name in ("median", "lower", "upper")
            )
            style = {"color": (BLUE, SKY)[number % 2], "height": thickness, "label": f"batch of {size}"}
            axis.barh(places, median, xerr=(median - lower, upper - median), **style)
            for place, end, value in zip(places, upper, median):
                axis.text(end * 1.12, place, _two_digits(value), va="center", fontsize=8)
        axis.set_yticks(range(len(times)), list(times))
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set(xscale="log", xlabel="time per event [µs], one thread, called from Python")
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.margins(x=0.12)
        axis.set_title("From features to a score")
        _legend(figure, axis)
    return figure


def _bands(axis, x: np.ndarray, curves: Curves) -> None:
    for label, values in curves.items():
        look = method_look(label)
        axis.fill_between(
            x, values.min(axis=0), values.max(axis=0), color=look.colour, alpha=0.18, linewidth=0
        )
        axis.plot(x, values.mean(axis=0), label=label, **look.line())


def _legend(figure: Figure, axis) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8.5)


def _two_digits(value: float) -> str:
    return np.format_float_positional(value, precision=2, fractional=False, trim="-")


def _check(curves: Curves) -> None:
    if not curves:
        raise ValueError("nothing to draw; give the curve of at least one classifier")
