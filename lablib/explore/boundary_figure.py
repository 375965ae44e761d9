"""The one live figure of the boundary explorer: plane above, certified-accuracy curve below."""

from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.plots.boundary import CLASS_COLOURS, FIELD_LIMIT, LEVEL_STEP, certified_share, region_path
from lablib.plots.theme import plotly_template

SIDE = 61  # background cells a side; a click lands in the middle of one
INK = "#303030"


class BoundaryFigure:
    """A FigureWidget whose traces are made once; afterwards only their data change, in one batch.

    Only the background answers to the mouse: every other trace skips hovering, so a click anywhere gives the
    coordinates of the cell under it.
    """

    def __init__(self) -> None:
        plain = make_subplots(rows=2, cols=1, row_heights=[0.76, 0.24], vertical_spacing=0.11)
        skip = {"hoverinfo": "skip", "showlegend": False}
        empty = {"x": [0, 1], "y": [0, 1], "z": [[0, 0], [0, 0]]}
        contour = {**empty, **skip, "showscale": False, "autocontour": False}
        self._traces = {
            "field": go.Heatmap(
                **empty,
                zmin=-FIELD_LIMIT,
                zmax=FIELD_LIMIT,
                colorscale="RdBu_r",
                opacity=0.7,
                colorbar={"title": "output", "len": 0.72, "y": 0.64},
                hoverinfo="none",
            ),
            "levels": go.Contour(
                **contour,
                line={"width": 0.6, "color": "#707070"},
                contours={"start": -2, "end": 2, "size": LEVEL_STEP, "coloring": "none"},
            ),
            "boundary": go.Contour(
                **contour,
                line={"width": 3, "color": "black"},
                contours={"start": 0, "end": 0, "size": 1, "coloring": "none"},
            ),
            "inner": _dashed(contour),
            "outer": _dashed(contour),
        }
        for label, colour in enumerate(CLASS_COLOURS):
            self._traces[f"regions {label}"] = go.Scatter(
                x=[], y=[], mode="lines", line={"color": colour, "width": 1.3}, **skip
            )
        for label, colour in enumerate(CLASS_COLOURS):
            marker = {"color": colour, "size": 8, "line": {"color": "white", "width": 1}}
            self._traces[f"points {label}"] = go.Scatter(x=[], y=[], mode="markers", marker=marker, **skip)
        for trace in self._traces.values():
            plain.add_trace(trace, row=1, col=1)
        below = {
            "curve": {"line": {"color": CLASS_COLOURS[0], "width": 2.5}, "hoverinfo": "x+y"},
            "best": {"line": {"color": INK, "width": 1.5, "dash": "dot"}, "hoverinfo": "skip"},
            "radius": {"line": {"color": INK, "width": 1.5, "dash": "dash"}, "hoverinfo": "skip"},
        }
        for style in below.values():
            plain.add_trace(go.Scatter(x=[], y=[], mode="lines", showlegend=False, **style), row=2, col=1)
        self._order = {name: number for number, name in enumerate([*self._traces, *below])}
        plain.update_layout(template=plotly_template(), width=640, height=720, hovermode="closest")
        plain.update_layout(margin={"l": 60, "r": 20, "t": 20, "b": 50})
        plain.update_xaxes(
            title="x₁", title_standoff=4, row=1, col=1, constrain="domain", showgrid=False, zeroline=False
        )
        plain.update_yaxes(
            title="x₂", row=1, col=1, scaleanchor="x", constrain="domain", showgrid=False, zeroline=False
        )
        plain.update_xaxes(title="certified radius", title_standoff=8, row=2, col=1)
        plain.update_yaxes(title="certified accuracy", row=2, col=1, range=[0, 1.05], title_font_size=12)
        self.widget = go.FigureWidget(plain)
        self.widget._config = {**self.widget._config, "displayModeBar": False, "scrollZoom": False}

    def trace(self, name: str) -> Any:
        """Return a trace: field, levels, boundary, inner, outer, regions 0 or 1, points 0 or 1, curve, ..."""
        return self.widget.data[self._order[name]]

    def on_click(self, answer: Callable[[float, float], None]) -> None:
        """Call ``answer(x, y)`` for a click on the plane."""

        def handle(_trace: Any, points: Any, _state: Any) -> None:
            if points.xs:
                answer(float(points.xs[0]), float(points.ys[0]))

        self.trace("field").on_click(handle)

    def show_points(self, data: Any) -> None:
        """Show the points alone, on an empty ground."""
        axis = np.linspace(*data.frame, SIDE)
        with self.widget.batch_update():
            self._ground(axis, np.zeros((SIDE, SIDE)), lines=False)
            self._frame(data)
            for label in (0, 1):
                self._path(f"regions {label}", np.empty((0, 2)))
                self._points(data, label, np.ones(len(data.points), bool))
            self._path("curve", np.empty((0, 2)))

    def show(self, data: Any, axis: np.ndarray, field: np.ndarray, radii: np.ndarray, norm: str) -> None:
        """Show a network: axis (S,), field (S, S), certified radii (N,), 0 where classified wrongly."""
        at = np.linspace(0, largest_radius(data), 241)
        with self.widget.batch_update():
            self._ground(axis, field, lines=True)
            self._frame(data)
            for label in (0, 1):
                chosen = data.labels == label
                self._path(f"regions {label}", region_path(data.points[chosen], radii[chosen], norm))
                self._points(data, label, radii > 0)
            self._path("curve", np.stack([at, certified_share(radii, at)], axis=1))

    def mark(self, radius: float, data: Any, norm: str, trained: bool) -> None:
        """Move the dashed lines to ``radius``, and the dotted one to the best radius possible."""
        best = data.half_separation(norm) if _both_classes(data) else 0.0
        with self.widget.batch_update():
            for name, level in (("inner", -radius), ("outer", radius)):
                trace = self.trace(name)
                trace.contours.start = trace.contours.end = level
                trace.visible = trained and radius > 0
            self._path("radius", np.array([[radius, 0], [radius, 1.05]]))
            self._path("best", np.array([[best, 0], [best, 1.05]]))

    def _ground(self, axis: np.ndarray, field: np.ndarray, lines: bool) -> None:
        for name in ("field", "levels", "boundary", "inner", "outer"):
            trace = self.trace(name)
            trace.x, trace.y, trace.z = axis, axis, field
            if name != "field":
                trace.visible = lines

    def _frame(self, data: Any) -> None:
        self.widget.layout.xaxis.range = self.widget.layout.yaxis.range = data.frame
        self.widget.layout.xaxis2.range = (0, largest_radius(data))

    def _path(self, name: str, path: np.ndarray) -> None:
        trace = self.trace(name)
        trace.x, trace.y = path[:, 0], path[:, 1]

    def _points(self, data: Any, label: int, right: np.ndarray) -> None:
        chosen = data.labels == label
        trace = self.trace(f"points {label}")
        trace.x, trace.y = data.points[chosen].T
        trace.marker.symbol = np.where(right[chosen], ("circle", "square")[label], "x")


def largest_radius(data: Any) -> float:
    """Return where the radius axis ends: four times the best radius for all points, and at most 0.6."""
    return min(0.6, round(4 * data.half_separation("linf") + 0.02, 2)) if _both_classes(data) else 0.6


def _both_classes(data: Any) -> bool:
    return 0 < data.labels.sum() < len(data.labels)


def _dashed(contour: dict[str, Any]) -> go.Contour:
    return go.Contour(
        **contour,
        line={"width": 1.5, "color": "black", "dash": "dash"},
        contours={"start": 0.1, "end": 0.1, "size": 1, "coloring": "none"},
    )
