"""Watch a potential learn in the plane: contours, transport rays, and its proven value against the exact distance."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import hints, picker, rows, slider, watch
from lablib.plots.theme import GREY, plotly_template
from lablib.plots.wasserstein import CLOUD_COLOURS, FIELD_LIMIT, LEVEL_STEP, centred, ray_path

SYMBOLS = ("square", "circle")
INK = "#303030"


class WassersteinExplorer:
    """Pickers for clouds and activation, a slider through the training; potential on the left, value on the right.

    A new choice trains once (seconds) and is kept; the slider only moves between stored states.

    Args:
        learn: (name of the clouds, activation) -> what was recorded: ``steps`` (S,), ``duals`` (S,) proven
            values, ``axis`` (N,), ``fields`` (S, N, N) with row = second coordinate, ``rays`` (M, 2, 2), ``exact``
            and ``seconds``.
        clouds: names to choose from.
        activations: name -> label.
        first: the clouds and the activation shown first; default, the first of each.

    Attributes:
        box: the widget to display.
        record: what is shown.

    Raises:
        ValueError: if there is nothing to choose from.
    """

    def __init__(
        self,
        learn: Callable[[str, str], Any],
        clouds: Sequence[str],
        activations: Mapping[str, str],
        first: tuple[str, str] | None = None,
    ) -> None:
        if not clouds or not activations:
            raise ValueError("give at least one pair of clouds and one activation")
        self._learn, self._records = learn, {}
        cloud, activation = first or (clouds[0], next(iter(activations)))
        options = [(label, name) for name, label in activations.items()]
        self.clouds = picker("clouds", list(clouds), cloud, "which two measures")
        self.activation = picker("activation", options, activation, "of the potential")
        self.state = slider("state", 0, 0, 1, 1, "moves through the training, early steps closer together")
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_figure())
        controls = (self.clouds, self.activation, self.state)
        self.box = widgets.VBox([rows(controls), hints(controls), self.readout, self.figure])
        self.record: Any = None
        watch((self.clouds, self.activation), self._choose)
        watch((self.state,), self._answer)
        self._choose()

    def _choose(self) -> None:
        """Show the record of the choice, trained now if it never was, at its last state."""
        key = (self.clouds.value, self.activation.value)
        if key not in self._records:
            self.readout.value = "training ..."
            try:
                self._records[key] = self._learn(*key)
            except KeyboardInterrupt:
                self.readout.value = "stopped before the end; choose again to train anew"
                return
        self.record = self._records[key]
        last = len(self.record.steps) - 1
        with self.figure.batch_update():
            self._draw_fixed()
            if (self.state.max, self.state.value) == (last, last):
                self._answer()
            else:
                self.state.max = last
                self.state.value = last  # answers

    def _draw_fixed(self) -> None:
        """Draw what does not change with the training: clouds, rays, the curve, the exact distance."""
        record = self.record
        path = ray_path(record.rays)
        traces = self.figure.data
        traces[2].x, traces[2].y = path.T
        for place in (0, 1):
            traces[3 + place].x, traces[3 + place].y = record.rays[:, place].T
        traces[5].x, traces[5].y = record.steps, record.duals
        traces[6].x, traces[6].y = record.steps[[0, -1]], [record.exact] * 2
        limits = [float(record.axis[0]), float(record.axis[-1])]
        self.figure.layout.xaxis.range = self.figure.layout.yaxis.range = limits
        low = min(0.0, float(np.min(record.duals)))
        self.figure.layout.yaxis2.range = [low, 1.1 * record.exact]

    def _answer(self) -> None:
        record, place = self.record, self.state.value
        if record is None:
            return
        shown = centred(record.fields[place], record.axis, record.rays.reshape(-1, 2))
        step, dual = int(record.steps[place]), float(record.duals[place])
        with self.figure.batch_update():
            for trace in self.figure.data[:2]:
                trace.x, trace.y, trace.z = record.axis, record.axis, shown
            marker = self.figure.data[7]
            marker.x, marker.y = [step], [dual]
        self.readout.value = (
            f"step {step}: <b>proven lower bound {dual:.4f}</b>, {dual / record.exact:.1%} of the exact distance "
            f"{record.exact:.4f}; trained in {record.seconds:.1f} s"
        )


def _figure() -> go.Figure:
    figure = make_subplots(rows=1, cols=2, column_widths=[0.58, 0.42], horizontal_spacing=0.2)
    skip = {"hoverinfo": "skip", "showlegend": False}
    empty = {"x": [0, 1], "y": [0, 1], "z": [[0, 0], [0, 0]]}
    bar = {"title": "f", "len": 0.8, "x": 0.47, "thickness": 12}
    plane = [
        go.Heatmap(
            **empty,
            zmin=-FIELD_LIMIT,
            zmax=FIELD_LIMIT,
            colorscale="RdBu_r",
            opacity=0.7,
            colorbar=bar,
            zsmooth="best",
            hovertemplate="f(%{x:.2f}, %{y:.2f}) = %{z:.3f}<extra></extra>",
        ),
        go.Contour(
            **empty,
            **skip,
            showscale=False,
            autocontour=False,
            line={"width": 0.8, "color": "#505050"},
            contours={"start": -4, "end": 4, "size": LEVEL_STEP, "coloring": "none"},
        ),
        go.Scatter(x=[], y=[], mode="lines", line={"color": GREY, "width": 0.8}, **skip),
    ]
    for name, colour, symbol in zip(("first cloud P", "second cloud Q"), CLOUD_COLOURS, SYMBOLS):
        marker = {"color": colour, "symbol": symbol, "size": 5, "line": {"color": "white", "width": 0.5}}
        plane.append(go.Scatter(x=[], y=[], mode="markers", name=name, marker=marker, hoverinfo="skip"))
    curve = [
        go.Scatter(x=[], y=[], mode="lines", name="proven value", line={"color": CLOUD_COLOURS[1]}),
        go.Scatter(x=[], y=[], mode="lines", name="exact (POT)", line={"color": INK, "dash": "dash"}),
        go.Scatter(x=[], y=[], mode="markers", marker={"color": INK, "size": 10}, **skip),
    ]
    for trace in plane:
        figure.add_trace(trace, row=1, col=1)
    for trace in curve:
        figure.add_trace(trace, row=1, col=2)
    figure.update_layout(
        template=plotly_template(), width=860, height=470, legend={"orientation": "h", "y": 1.1}
    )
    figure.update_layout(margin={"l": 55, "r": 15, "t": 40, "b": 45})
    still = {"constrain": "domain", "showgrid": False, "zeroline": False}
    figure.update_xaxes(title="x₁", row=1, col=1, **still)
    figure.update_yaxes(title="x₂", scaleanchor="x", row=1, col=1, **still)
    figure.update_xaxes(title="training step", row=1, col=2)
    figure.update_yaxes(title="mean f(P) − mean f(Q)", row=1, col=2)
    return figure
