"""Explorers of order statistics: one flip against the budget, and the best plane under the maximum."""

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go

from lablib.explore.controls import hints, rows, slider, watch
from lablib.plots.order_statistics import steepest_ramp, vertex_steps
from lablib.plots.theme import BLUE, GREY, RED, plotly_template
from lablib.theory.network import affine
from lablib.theory.order_statistics import error_bound, error_surface

MOST_INPUTS = 12


class StaircaseExplorer:
    """Sliders for d, k and the number of MaxMin layers: x_(k) at the vertices, and the best line the budget
    allows.

    Attributes:
        box: the widget to display; ``inputs``, ``order``, ``sorts``: the sliders; ``error``: the error shown.
    """

    def __init__(self, d: int = 6, k: int = 1, sorts: int = 0) -> None:
        self.inputs = slider("inputs d", d, 2, MOST_INPUTS, 1, "how many numbers go in")
        self.order = slider("order k", k, 1, d, 1, "1 is the maximum, d the minimum")
        self.sorts = slider(
            "sorts", sorts, 0, 4, 1, "each MaxMin layer doubles the budget; none is a standard network"
        )
        self.readout = widgets.HTML()
        self.error = np.nan
        self.figure = go.FigureWidget(_staircase_figure())
        self.box = widgets.VBox(
            [rows(self._controls), hints(self._controls), self.readout, self.figure],
        )
        watch(self._controls, self._answer)
        self._answer()

    @property
    def _controls(self) -> tuple[widgets.Widget, ...]:
        return self.inputs, self.order, self.sorts

    def _answer(self) -> None:
        d = self.inputs.value
        if self.order.max != d:
            self.order.max = d  # lowers the value where it is too large, and answers again
        budget = min(2**self.sorts.value, d)
        k = self.order.value
        ones, step = vertex_steps(d, k)
        ramp_at, ramp, self.error = steepest_ramp(d, k, budget)
        vertices, line, gaps = self.figure.data
        with self.figure.batch_update():
            vertices.x, vertices.y = ones, step
            line.x, line.y = ramp_at, ramp
            gaps.x, gaps.y = [k - 1, k - 1, None, k, k], [0, self.error, None, 1 - self.error, 1]
        bound = error_bound(d, self.sorts.value + 1, 2)
        self.readout.value = (
            f"budget {budget} over {d} inputs: one flip lifts the output by at most "
            f"{budget / d:.3f} where 1 is wanted; <b>error at least {bound} = {self.error:.4f}</b>"
        )


class PlaneExplorer:
    """Two sliders tilt and lift w x1 + (1 - w) x2 + c under max(x1, x2); the error over the square follows.

    Attributes:
        box: the widget to display; ``weight``, ``lift``: the sliders; ``error``: the largest error.
    """

    def __init__(self, weight: float = 0.5, lift: float = 0.25) -> None:
        self.weight = slider("weight w", weight, 0.0, 1.0, 0.05, "budget spent on x1; the rest goes to x2")
        self.lift = slider("lift c", lift, 0.0, 0.5, 0.05, "the constant")
        self.readout = widgets.HTML()
        self.error = np.nan
        self.figure = go.FigureWidget(_plane_figure())
        controls = (self.weight, self.lift)
        self.box = widgets.VBox([rows(controls), hints(controls), self.readout, self.figure])
        watch(controls, self._answer)
        self._answer()

    def _answer(self) -> None:
        w, c = self.weight.value, self.lift.value
        surface = error_surface([affine([[w, 1 - w]], [c])])
        self.error = float(np.abs(surface["error"]).max())
        with self.figure.batch_update():
            self.figure.data[0].z = surface["error"]
        self.readout.value = (
            f"f = {w:.2f} x1 + {1 - w:.2f} x2 + {c:.2f}: <b>largest error {self.error:.3f}</b>; "
            "no standard network of any depth gets below 0.250"
        )


def _staircase_figure() -> go.Figure:
    figure = go.Figure(
        [
            go.Scatter(mode="markers", marker={"color": GREY, "size": 10}, name="x(k) at the vertices"),
            go.Scatter(
                mode="lines", line={"color": BLUE, "width": 3}, name="steepest step the budget allows"
            ),
            go.Scatter(mode="lines", line={"color": RED, "dash": "dash"}, name="error"),
        ]
    )
    return figure.update_layout(
        template=plotly_template(),
        width=680,
        height=360,
        xaxis={
            "title": {"text": "number of ones of the vertex"},
            "range": [-0.3, MOST_INPUTS + 0.3],
            "dtick": 1,
        },
        yaxis={"title": {"text": "value"}, "range": [-0.1, 1.1]},
        legend={"orientation": "h", "y": 1.15},
    )


def _plane_figure() -> go.Figure:
    axis = np.linspace(0, 1, 41)
    heat = go.Heatmap(
        x=axis, y=axis, z=np.zeros((41, 41)), zmin=-0.75, zmax=0.75, colorscale="RdBu_r",
        colorbar={"title": {"text": "f − max"}},
        hovertemplate="error at (%{x:.2f}, %{y:.2f}): %{z:.3f}<extra></extra>",
    )  # fmt: skip
    return go.Figure(heat).update_layout(
        template=plotly_template(),
        width=480,
        height=400,
        xaxis={"title": {"text": "x1"}, "constrain": "domain"},
        yaxis={"title": {"text": "x2"}, "scaleanchor": "x"},
    )
