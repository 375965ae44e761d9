"""Pictures of order statistics: errors against d, surfaces on the unit square, why the mean is best."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lablib.plots.theme import (
    BLUE,
    DIVERGING,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    new_figure,
    plotly_template,
    theme,
)

SURFACE_TITLES = {
    "standard": "mean + 1/4",
    "trained": "trained standard",
    "maxmin": "one MaxMin",
    "distance": "ℓ∞-distance",
}


def draw_errors(rows: Sequence[Mapping[str, Any]], depth: int) -> Figure:
    """Draw bounds, explicit networks and trained networks against the number of inputs.

    Args:
        rows: as in the result file ``order_statistics``.
        depth: affine layers of the MaxMin networks.
    """
    d = np.array([row["d"] for row in rows])
    with theme():
        figure = new_figure(7.0, 3.8)
        axis = figure.add_subplot()
        kinds = (
            ("standard", BLUE, "o", "solid", "standard"),
            ("maxmin", ORANGE, "s", "dashed", f"MaxMin, {depth - 1} sorts"),
            ("distance", GREEN, "^", "dotted", "ℓ∞-distance, 2 layers"),
        )
        for kind, colour, marker, style, name in kinds:
            bound = [row["bound"].get(kind, 0.0) for row in rows]
            axis.plot(d, bound, color=colour, linestyle=style, label=f"{name}: proven lower bound")
            trained = [min(row["trained"][kind]) for row in rows]
            axis.plot(
                d, trained, linestyle="none", marker=marker, mfc="white", mec=colour, label=f"{name}: trained"
            )
        exact = [row["constructed"]["standard"] for row in rows]
        axis.plot(d, exact, linestyle="none", marker="x", color=BLUE, label="mean + constant: exact")
        exact = [row["constructed"]["maxmin"] for row in rows]
        axis.plot(d, exact, linestyle="none", marker="+", color=ORANGE, label="averaged tournament: exact")
        axis.axhline(0.5, color=GREY, linewidth=0.8)
        axis.annotate("a constant", (d[-1], 0.5), ha="right", va="bottom", color=GREY, fontsize=8.5)
        axis.set(
            title="No standard network gets below 1/2 − 1/(2d)",
            xlabel="number of inputs d",
            ylabel="largest error for the maximum",
            ylim=(-0.02, 0.55),
            xticks=d,
        )
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_surfaces(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Draw f - max(x1, x2) on the unit square, one panel per network, in one colour scale.

    Args:
        arrays: ``NAME/error`` (n, n) for the names of ``SURFACE_TITLES`` that are there, and ``axis`` (n,).
    """
    names = [name for name in SURFACE_TITLES if f"{name}/error" in arrays]
    if not names:
        raise ValueError("nothing to draw; give at least one array NAME/error")
    with theme():
        figure = new_figure(1.6 + 1.7 * len(names), 2.8)
        axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axis, name in zip(axes, names, strict=True):
            error = arrays[f"{name}/error"]
            image = axis.imshow(
                error, origin="lower", extent=(0, 1, 0, 1), cmap=DIVERGING, vmin=-0.26, vmax=0.26
            )
            axis.set(
                title=f"{SURFACE_TITLES[name]}\n{np.abs(error).max():.3f}", xlabel="x1", xticks=(0, 0.5, 1)
            )
            axis.grid(False)
        axes[0].set(ylabel="x2", yticks=(0, 0.5, 1))
        figure.colorbar(image, ax=axes, label="f − max", shrink=0.9)
        figure.suptitle("Error on the square, and the largest", x=0.01, ha="left", fontsize=10.5)
    return figure


def draw_staircase(d: int, k: int, budget: float = 1.0) -> Figure:
    """Draw x_(k) at the vertices over the number of ones, the steepest output a budget allows, the mean.

    Args:
        d: number of inputs.
        k: which order statistic.
        budget: total budget, spread evenly; 1 for a standard network.
    """
    ones, step = vertex_steps(d, k)
    ramp_at, ramp, error = steepest_ramp(d, k, budget)
    with theme():
        figure = new_figure(6.4, 3.4)
        axis = figure.add_subplot()
        axis.plot(ones, step, "o", color=GREY, label=f"x({k}) at the vertices")
        axis.plot(ones, ones / d + (d - 2 * k + 1) / (2 * d), ":", color=GREEN, label="mean + constant")
        axis.plot(ramp_at, ramp, "-", color=BLUE, label=f"the steepest step with budget {budget:g}")
        axis.plot([k - 1, k - 1], [0, error], color=RED, linestyle="dashed")
        axis.plot([k, k], [1 - error, 1], color=RED, linestyle="dashed", label=f"error {error:.3f}")
        axis.set(
            title=f"One flip must lift the output by 1 but may only lift it by {budget:g}/{d}",
            xlabel="number of ones of the vertex",
            ylabel="value",
            ylim=(-0.1, 1.75),
        )
        axis.legend(loc="upper left", ncols=2)
    return figure


def vertex_steps(d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of ones 0..d and x_(k) at a vertex with that many."""
    if d < 1 or not 1 <= k <= d:
        raise ValueError(f"the k-th largest of d coordinates needs 1 <= k <= d, not k = {k}, d = {d}")
    ones = np.arange(d + 1)
    return ones, (ones >= k).astype(float)


def steepest_ramp(d: int, k: int, budget: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the output closest to the step that rises by at most budget / d per flip, and its error.

    Returns:
        Its corners, (4,) numbers of ones and (4,) values, and the error (1 - budget / d) / 2, at least 0.
    """
    error = max(0.0, (1 - budget / d) / 2)
    return np.array([0.0, k - 1, k, d]), np.array([error, error, 1 - error, 1 - error]), error


def plotly_surfaces(arrays: Mapping[str, np.ndarray]):
    """Return a plotly figure that can be turned: max over the square, and one network at a time over it.

    Args:
        arrays: ``NAME/output`` and ``NAME/error`` (n, n) for names of ``SURFACE_TITLES``, and ``axis`` (n,).
    """
    import plotly.graph_objects as go

    axis = arrays["axis"]
    names = [name for name in SURFACE_TITLES if f"{name}/output" in arrays]
    maximum = np.maximum(axis[:, None], axis[None, :])
    figure = go.Figure(
        go.Surface(
            x=axis, y=axis, z=maximum, colorscale=[[0, PURPLE], [1, PURPLE]], opacity=0.35, showscale=False,
            name="max", hovertemplate="max(%{x:.2f}, %{y:.2f}) = %{z:.2f}<extra></extra>",
        )
    )  # fmt: skip
    for number, name in enumerate(names):
        figure.add_surface(
            x=axis, y=axis, z=arrays[f"{name}/output"], surfacecolor=arrays[f"{name}/error"],
            colorscale="RdBu_r", cmin=-0.26, cmax=0.26, visible=number == 0, name=SURFACE_TITLES[name],
            colorbar={"title": {"text": "f − max"}},
            hovertemplate="f(%{x:.2f}, %{y:.2f}) = %{z:.2f}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        template=plotly_template(),
        width=680,
        height=540,
        title={"text": _surface_title(arrays, names[0]), "x": 0.03},
        margin={"l": 0, "r": 0, "t": 90, "b": 0},
        scene={
            "xaxis": {"title": {"text": "x1"}},
            "yaxis": {"title": {"text": "x2"}},
            "zaxis": {"title": {"text": "output"}, "range": [-0.05, 1.3]},
            "camera": {"eye": {"x": -1.6, "y": -1.5, "z": 0.9}},
        },
        updatemenus=[
            {
                "type": "buttons",
                "direction": "right",
                "x": 0.02,
                "y": 1.0,
                "xanchor": "left",
                "yanchor": "bottom",
                "buttons": [
                    {
                        "label": SURFACE_TITLES[name],
                        "method": "update",
                        "args": [
                            {"visible": [True, *(other == name for other in names)]},
                            {"title.text": _surface_title(arrays, name)},
                        ],
                    }
                    for name in names
                ],
            }
        ],
    )
    return figure


def _surface_title(arrays: Mapping[str, np.ndarray], name: str) -> str:
    worst = np.abs(arrays[f"{name}/error"]).max()
    return f"{SURFACE_TITLES[name]} over the maximum (pale): largest error {worst:.3f}; drag to turn"
