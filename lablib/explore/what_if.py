"""Take one person's or one event's features, move them, and see what can happen to the answer, and what cannot."""

from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import hints, picker, rows, slider, watch, wide
from lablib.explore.monotone import put_paths, ticks_of
from lablib.plots.slope_bands import DIRECTION_COLOURS, PROMISES, area, around, folded, padded, sticks
from lablib.plots.theme import BLUE, GREY, RED, plotly_template

MARKS = {1: "↑", -1: "↓", 0: ""}


class WhatIfExplorer:
    """Pickers for a network and a row, a slider for each feature; the answer, its decision and what is proven.

    Args:
        models: name -> fitted network with ``rows`` (x, features, target, classes), ``directions``, ``threshold``,
            ``predict`` and ``what_if(x, feature, reach)``; see :mod:`lablib.experiments.live_monotone`.
        row: the row to begin with.

    Attributes:
        box: the widget to display; ``model``, ``row``, ``shown``, ``reach``: its controls; ``features``: one slider
            for each feature.
        x: (I,) the features as the sliders stand. ``view``: what is known of them.
    """

    def __init__(self, models: Mapping[str, Any], row: int = 0) -> None:
        if not models:
            raise ValueError("give at least one fitted network")
        self._models = dict(models)
        names = list(models)
        self.model = picker("table", names, names[0], "whose network answers")
        self.row = slider("row", row, 0, row + 1, 1, "a row of the table to begin with")
        self.shown = picker("shown", [("", 0)], 0, "the feature of the left panel")
        self.reach = slider("reach", 0.25, 0.0, 1.0, 0.05, "how far every feature may be off, in its spreads")
        self.features: list[widgets.Widget] = []
        self._feature_box = widgets.VBox()
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_figure())
        self.figure._config = {**self.figure._config, "displayModeBar": False}
        self._loading = False
        controls = (self.model, self.row, self.shown, self.reach)
        parts = [rows(controls[:2], controls[2:]), hints(controls), self._feature_box, self.readout]
        self.box = widgets.VBox([*parts, self.figure])
        self.model.observe(lambda _change: self._choose_model(), names="value")
        self.row.observe(lambda _change: self._choose_row(), names="value")
        watch((self.shown, self.reach), self._answer)
        self._choose_model()

    def _choose_model(self) -> None:
        made = self._models[self.model.value]
        self._loading = True
        self.features = [
            _feature_slider(name, column, MARKS[int(wish)])
            for name, column, wish in zip(made.rows.features, made.rows.x.T, made.directions, strict=True)
        ]
        lines = [self.features[start : start + 3] for start in range(0, len(self.features), 3)]
        self._feature_box.children = rows(*lines).children
        self.shown.options = [(name, number) for number, name in enumerate(made.rows.features)]
        self.row.value = min(self.row.value, len(made.rows.x) - 1)
        self.row.max = len(made.rows.x) - 1
        watch(self.features, self._answer)
        self._loading = False
        self._choose_row()

    def _choose_row(self) -> None:
        """Set every slider, then answer once."""
        if self._loading:
            return
        self._loading = True
        for control, value in zip(
            self.features, self._models[self.model.value].rows.x[self.row.value], strict=True
        ):
            control.value = control.min + control.step * round((value - control.min) / control.step)
        self._loading = False
        self._answer()

    def _answer(self) -> None:
        if self._loading:
            return
        made = self._models[self.model.value]
        self.x = np.array([float(control.value) for control in self.features])
        self.view = made.what_if(self.x, self.shown.value, self.reach.value)
        self._draw(made)
        self.readout.value = self._words(made)

    def _draw(self, made: Any) -> None:
        view, feature, names = self.view, self.shown.value, list(made.rows.features)
        ends = [view.edges[0], view.edges[-1]]
        paths = [
            area(view.edges, *view.cone),
            area(view.edges, view.floor, view.roof),
            (view.edges, view.curve),
            (ends, [made.threshold] * 2),
        ]
        paths.append(([self.x[feature]], [view.score]))
        for wish in DIRECTION_COLOURS:
            paths.append(sticks(np.flatnonzero(made.directions == wish), *view.raised))
        paths.append((view.measured, np.arange(len(names))))
        put_paths(self.figure, paths)
        self.figure.layout.xaxis.update(ticks_of(made.rows.x[:, feature]))
        self.figure.layout.xaxis.title.text = names[feature]
        shown = around(view.curve, view.floor, view.roof, [made.threshold])
        self.figure.layout.yaxis.range = shown  # the cone of all inputs may leave the panel
        self.figure.layout.xaxis2.range = padded(view.raised, view.measured)
        self.figure.layout.yaxis.title.text = (
            f"logit of {made.rows.target}" if made.rows.classes else made.rows.target
        )
        self.figure.layout.yaxis2.update(
            tickvals=list(range(len(names))), ticktext=[folded(name).replace("\n", "<br>") for name in names]
        )
        self.figure.layout.yaxis2.range = (len(names) - 0.5, -0.5)

    def _words(self, made: Any) -> str:
        view, target = self.view, made.rows.target
        low, high = view.score - view.change, view.score + view.change
        if made.rows.classes:
            shown, low, high = (1 / (1 + np.exp(-value)) for value in (view.score, low, high))
            answer = f"probability of {target} <b>{shown:.2f}</b>, {'yes' if view.score > 0 else 'no'}"
        else:
            side = "above" if view.score > made.threshold else "below"
            answer = f"{target} <b>{view.score:.3g}</b>, {side} the mean {made.threshold:.3g}"
        low, high = _outward(low, high)
        radius = {norm: np.floor(1000 * value) / 1000 for norm, value in view.radius.items()}
        return (
            f"{answer}. If every feature is off by up to {self.reach.value:.2f} spreads, proven between "
            f"<b>{low:.4g}</b> and <b>{high:.4g}</b>. This side of the threshold is certain within "
            f"<b>{radius['linf']:.3f}</b> spreads in every feature at once (l∞), or "
            f"<b>{radius['l1']:.3f}</b> in all of them together (l1)."
        )


def _outward(low: float, high: float) -> tuple[float, float]:
    """Return an interval whose ends have some three digits and which holds the one given."""
    step = 10.0 ** (np.floor(np.log10(max(abs(low), abs(high), 1e-12))) - 2)
    return float(np.floor(low / step) * step), float(np.ceil(high / step) * step)


def _feature_slider(name: str, column: np.ndarray, mark: str) -> widgets.Widget:
    """Return a slider over the values of a column: in whole steps for counts, else in fifty to five hundred."""
    low, high = float(column.min()), float(column.max())
    hint = f"{name}, from {low:g} to {high:g}"
    label = f"{name} {mark}".strip()
    if np.array_equal(column, np.round(column)) and high - low < 500:
        return wide(slider(label, int(low), int(low), int(max(high, low + 1)), 1, hint))
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-9) / 50))
    ends = float(np.floor(low / step) * step), float(np.ceil(high / step) * step)
    made = wide(slider(label, ends[0], *ends, float(step), hint))
    made.readout_format = f".{max(0, int(-np.floor(np.log10(step))))}f"
    return made


def _figure() -> go.Figure:
    titles = ("Along one feature; shaded: proven", "Change of the score if a feature is raised by the reach")
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=titles, column_widths=[0.5, 0.5], horizontal_spacing=0.14
    )
    shades = {
        "proven, slopes of all inputs": "rgba(86,180,233,0.2)",
        "proven, slopes along this line": "rgba(0,114,178,0.35)",
    }
    for name, colour in shades.items():
        shade = {"fill": "toself", "fillcolor": colour, "line": {"width": 0}, "hoverinfo": "skip"}
        figure.add_trace(go.Scatter(mode="lines", name=name, **shade), row=1, col=1)
    parts = (
        {"mode": "lines", "line": {"color": BLUE, "width": 3}},
        {"mode": "lines", "line": {"color": GREY, "dash": "dash"}},
        {"mode": "markers", "marker": {"color": RED, "size": 12, "symbol": "diamond"}},
    )
    for style in parts:
        figure.add_trace(go.Scatter(showlegend=False, hoverinfo="skip", **style), row=1, col=1)
    for wish, colour in DIRECTION_COLOURS.items():
        line = {"color": colour, "width": 9}
        figure.add_trace(go.Scatter(mode="lines", line=line, name=PROMISES[wish]), row=1, col=2)
    dots = {"color": "black", "size": 7}
    figure.add_trace(go.Scatter(mode="markers", marker=dots, name="what does happen"), row=1, col=2)
    figure.add_vline(x=0, line={"color": GREY, "dash": "dot"}, row=1, col=2)
    figure.update_xaxes(title="proven change of the score", row=1, col=2)
    figure.update_xaxes(title_standoff=4)
    figure.update_yaxes(zeroline=False, row=1, col=2)  # the first feature is no zero
    figure.update_layout(template=plotly_template(), width=1000, height=400)
    figure.update_layout(legend={"orientation": "h", "x": 0.0, "y": -0.2, "font": {"size": 12}})
    figure.update_layout(margin={"l": 55, "r": 15, "t": 40, "b": 80})
    return figure.update_annotations(font_size=14)
