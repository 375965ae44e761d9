"""Pictures of linear splines: a projection onto bounded slopes, knots that vanish, a fit and its slopes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, COLOURS, DASHES, GREY, RED, activation_look, new_figure, theme

LIMIT = 1.5  # of both axes of a drawn spline
SLOPE_LIMIT = 2.7


def steps(edges: np.ndarray, heights: np.ndarray, ends: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a staircase whose first and last step go on to ``ends``.

    Args:
        edges: (K,) where the height may change: the first and last segment go on beyond the outer ones.
        heights: (K - 1,) between them.
    """
    inner = edges[1:-1]
    across = np.concatenate([[ends[0]], np.repeat(inner, 2), [ends[1]]])
    return across, np.repeat(heights, 2)


def extended(
    positions: np.ndarray, values: np.ndarray, ends: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a broken line (K,) that goes on straight to ``ends`` where these lie outside."""
    slopes = np.diff(values) / np.diff(positions)
    left, right = min(ends[0], positions[0]), max(ends[1], positions[-1])
    low = values[0] + slopes[0] * (left - positions[0])
    high = values[-1] + slopes[-1] * (right - positions[-1])
    return np.concatenate([[left], positions, [right]]), np.concatenate([[low], values, [high]])


def pieces(positions: np.ndarray, values: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the chosen segments (K - 1,) of a broken line as one path, a NaN after each."""
    at, up = np.full((int(chosen.sum()), 3), np.nan), np.full((int(chosen.sum()), 3), np.nan)
    number = np.flatnonzero(chosen)
    at[:, 0], at[:, 1] = positions[number], positions[number + 1]
    up[:, 0], up[:, 1] = values[number], values[number + 1]
    return at.ravel(), up.ravel()


def draw_projection(positions: np.ndarray, raw: np.ndarray, projected: np.ndarray) -> Figure:
    """Draw a spline before and after its slopes are clipped to [-1, 1]: graphs left, slopes right.

    Args:
        positions: (K,) knots.
        raw, projected: (K,) values there.
    """
    before, after = (np.diff(values) / np.diff(positions) for values in (raw, projected))
    clipped = np.abs(before) > 1
    with theme():
        figure = new_figure(8.4, 3.4)
        graph, slopes = figure.subplots(1, 2)
        graph.plot(
            *extended(positions, raw, (-LIMIT, LIMIT)), color=GREY, linestyle="dashed", label="as edited"
        )
        graph.plot(*extended(positions, projected, (-LIMIT, LIMIT)), color=BLUE, label="projected")
        graph.plot(
            *pieces(positions, projected, clipped), color=RED, linewidth=4, alpha=0.6, label="clipped piece"
        )
        graph.plot(positions, projected, "o", color=BLUE, markersize=4)
        graph.set(xlim=(-LIMIT, LIMIT), xlabel="x", ylabel="s(x)")
        graph.set_title(f"{clipped.sum()} of {len(clipped)} pieces are too steep: they are clipped")
        graph.legend(loc="best")
        slopes.axhspan(-1, 1, color="#F1F1F1", zorder=0)
        for heights, colour, dash in ((before, GREY, "dashed"), (after, BLUE, "solid")):
            slopes.plot(*steps(positions, heights, (-LIMIT, LIMIT)), color=colour, linestyle=dash)
        slopes.set(xlim=(-LIMIT, LIMIT), ylim=(-SLOPE_LIMIT, SLOPE_LIMIT), xlabel="x", ylabel="slope")
        slopes.set_title("Slopes: the grey band is [−1, 1]")
    return figure


def draw_vanishing_knots(
    x: np.ndarray, y: np.ndarray, fits: Mapping[float, tuple[np.ndarray, np.ndarray]]
) -> Figure:
    """Draw the best 1-Lipschitz fit for several penalties, a panel each, its knots marked.

    Args:
        x, y: (N,) data.
        fits: lambda -> positions and values (M,) of the fit, the two ends included.
    """
    with theme():
        figure = new_figure(3.0 * len(fits), 2.9)
        for axis, (weight, (positions, values)) in zip(
            figure.subplots(1, len(fits), sharey=True, squeeze=False)[0], fits.items(), strict=True
        ):
            axis.plot(x, y, ".", color=GREY, markersize=4)
            axis.plot(positions, values, color=BLUE)
            axis.plot(positions[1:-1], values[1:-1], "D", color=RED, markersize=5, zorder=3)
            axis.set(xlabel="x", xlim=(-1.05, 1.05))
            count = len(positions) - 2
            axis.set_title(f"λ = {weight:g}: {count} knot{'' if count == 1 else 's'}")
        figure.axes[0].set_ylabel("f(x)")
    return figure


def draw_fits(
    x: np.ndarray, y: np.ndarray, at: np.ndarray, made: Mapping[str, tuple[np.ndarray, np.ndarray, float]]
) -> Figure:
    """Draw several trained networks over the data, a column each: the fit above, its slopes below.

    Args:
        x, y: (N,) data, x increasing.
        at: (M,) where the networks were evaluated.
        made: activation, as for :func:`~lablib.plots.theme.activation_look`, -> values (M,), slopes (M,), mean
            squared error on the data.
    """
    wanted = np.diff(y) / np.diff(x)
    with theme():
        figure = new_figure(2.5 * len(made), 4.2)
        rows = figure.subplots(2, len(made), sharex=True, sharey="row", squeeze=False)
        for column, (name, (values, slopes, mse)) in enumerate(made.items()):
            above, below = rows[:, column]
            colour = activation_look(name).colour
            above.plot(x, y, color=GREY, linewidth=3, alpha=0.5)
            above.plot(at, values, color=colour)
            above.set_title(f"{name}: MSE {mse:.1e}", fontsize=9)
            below.axhspan(-1, 1, color="#F1F1F1", zorder=0)
            below.plot((x[1:] + x[:-1]) / 2, wanted, color=GREY, linewidth=3, alpha=0.5)
            below.plot(at, slopes, color=colour)
            below.set(ylim=(-1.3, 1.3), xlabel="x")
        rows[0, 0].set_ylabel("f(x), data in grey")
        rows[1, 0].set_ylabel("slope")
    return figure


def draw_inits(at: np.ndarray, curves: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """Draw the splines that each initialisation starts from, a panel each, one line per channel.

    Args:
        at: (M,).
        curves: name -> one array (M,) per channel.
    """
    with theme():
        figure = new_figure(1.9 * len(curves), 2.1)
        for axis, (name, lines) in zip(
            figure.subplots(1, len(curves), sharey=True, squeeze=False)[0], curves.items(), strict=True
        ):
            for number, line in enumerate(lines):
                axis.plot(at, line, color=COLOURS[number], linestyle=DASHES[number])
            axis.set_title(name)
            axis.set_xlabel("x")
        figure.axes[0].set_ylabel("s(x)")
    return figure


def draw_loss_of_gradient(depths: Sequence[int], kept: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the mean slope that is left of a deep norm-preserving network, one line per activation.

    Args:
        depths: (D,) layers.
        kept: activation, as for :func:`~lablib.plots.theme.activation_look`, -> mean gradient norm at each depth.
    """
    with theme():
        figure = new_figure(6.4, 3.0)
        axis: Axes = figure.subplots()
        for name, values in kept.items():
            look = activation_look(name)
            axis.plot(depths, values, marker=look.marker, markersize=5, label=name, **look.line())
        axis.set(xlabel="layers", ylabel="mean gradient norm", ylim=(0, 1.08))
        axis.set_title("What is left of the slope")
        figure.legend(loc="outside right upper")
    return figure
