"""Turn one activation's parameter: its graph, its budget, and what is left of a deep network's gradient."""

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import LABEL_WIDTH, WIDTH, hints, picker, rows, slider, watch
from lablib.plots.activations import (
    EDGES,
    GRAPH_LIMIT,
    LINE_LIMIT,
    NORM_SIGNS,
    SLOPE_LIMIT,
    histogram_shares,
)
from lablib.plots.theme import BLUE, COLOURS, DASHES, GREY, ORANGE, RED, plotly_template

MOST_OUTPUTS = 8
PANELS = (
    "Graph",
    "Slope: never steeper than 1",
    "Budget of a neuron",
    "The network along a line",
    "… and on a plane through it",
    "Gradient norms of the network",
)
_PLOTLY_DASHES = {"solid": "solid", "dashed": "dash", "dashdot": "dashdot", "dotted": "dot"}


class ActivationExplorer:
    """A picker for the activation, a slider for each parameter an activation has, and six panels.

    Args:
        activations: name -> entry with ``norms``, ``text`` and ``parameter`` (None, or name, default, low,
            high, step, choices, text). An entry added there appears in the picker with its own control.
        study: (name, value, norm=, depth=, seed=) -> the arrays of
            ``lablib.experiments.activation_study.Study``.
        first: the entry shown first.

    Attributes:
        box: the widget to display.
        parameters: parameter name -> its slider.
        shown: the study on display.
    """

    def __init__(
        self, activations: Mapping[str, Any], study: Callable[..., Any], first: str = "leaky ReLU"
    ) -> None:
        if first not in activations:
            raise ValueError(f"no activation {first!r}; choose from {', '.join(activations)}")
        self._activations, self._study = activations, study
        self.activation = picker("activation", list(activations), first, "which one to look at")
        turnable = {
            entry.parameter.name: entry.parameter for entry in activations.values() if entry.parameter
        }
        self.parameters = {name: self._control(parameter) for name, parameter in turnable.items()}
        norms = activations[first].norms
        self.norm = picker("norm", norms, norms[0], "the distance between inputs; gradients take its dual")
        self.depth = slider("depth", 4, 1, 12, 1, "layers of the random network below")
        self.seed = slider("seed", 0, 0, 20, 1, "draws another network")
        self.hints, self.text, self.readout = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.figure = go.FigureWidget(_empty_figure())
        self.figure._config = {**self.figure._config, "displayModeBar": False}
        self.shown: Any = None
        self._choose()
        common = (self.norm, self.depth, self.seed)
        self.box = widgets.VBox(
            [
                rows((self.activation, *self.parameters.values()), common),
                self.hints,
                self.text,
                self.readout,
                self.figure,
            ]
        )
        self.activation.observe(lambda _change: self._choose(), names="value")
        watch((*self.parameters.values(), *common), self._answer)

    @staticmethod
    def _control(parameter: Any) -> widgets.Widget:
        if parameter.choices:
            control = widgets.SelectionSlider(
                options=parameter.choices,
                value=parameter.default,
                description=parameter.name,
                tooltip=parameter.text,
            )
            control.style.description_width, control.layout.width = LABEL_WIDTH, WIDTH
            return control
        return slider(
            parameter.name, parameter.default, parameter.low, parameter.high, parameter.step, parameter.text
        )

    @property
    def value(self) -> float:
        """The parameter of the activation on display; 0 where it has none."""
        parameter = self._activations[self.activation.value].parameter
        return self.parameters[parameter.name].value if parameter else 0.0

    def refresh(self) -> None:
        """Measure and draw again: the activation on display may have been edited elsewhere."""
        self._answer()

    def _choose(self) -> None:
        """Show the parameter of the chosen activation and hide the others; offer the norms it has."""
        entry = self._activations[self.activation.value]
        own = entry.parameter.name if entry.parameter else None
        for name, control in self.parameters.items():
            control.layout.display = "" if name == own else "none"
        kept = self.norm.value if self.norm.value in entry.norms else entry.norms[0]
        if self.norm.options != entry.norms:
            self.norm.options = entry.norms
            self.norm.value = kept
        shown = [self.parameters[own]] if own else []
        self.hints.value = hints([*shown, self.norm, self.depth, self.seed]).value
        self.text.value = entry.text
        self._answer()

    def _answer(self) -> None:
        if self.norm.value not in self._activations[self.activation.value].norms:
            return  # between two activations the picker still holds the norm of the earlier one
        options = {"norm": self.norm.value, "depth": self.depth.value, "seed": self.seed.value}
        self.shown = self._study(self.activation.value, self.value, **options)
        relu = self._study("ReLU", 0.0, **options).gradient_norms
        self._draw(self.shown, relu)
        self.readout.value = _readout(self.shown, relu)

    def _draw(self, study: Any, relu: np.ndarray) -> None:
        data = self.figure.data
        centre = len(study.field_at) // 2
        with self.figure.batch_update():
            for number in range(MOST_OUTPUTS):
                for offset, lines in ((0, study.graph), (MOST_OUTPUTS, study.derivative)):
                    trace = data[offset + number]
                    trace.visible = number < len(lines)
                    if number < len(lines):
                        trace.x, trace.y = study.inputs, lines[number]
            before, after, line, field, share, reference = data[2 * MOST_OUTPUTS :]
            line.x, line.y = study.line_at, study.line - study.line[len(study.line) // 2]
            field.x, field.y, field.z = (
                study.field_at,
                study.field_at,
                study.field - study.field[centre, centre],
            )
        # a batch that sets x somewhere takes it away from its traces that get y alone: those have their own
        with self.figure.batch_update():
            before.y, after.y = study.budget_before, study.budget_after
            share.y, reference.y = histogram_shares(study.gradient_norms), histogram_shares(relu)


def _readout(study: Any, relu: np.ndarray) -> str:
    slope = np.nanmax(np.abs(study.derivative))
    dual = NORM_SIGNS[study.dual]
    return (
        f"<b>{study.title}</b>: steepest slope {slope:.2f}; budget {study.budget_before.sum():.2f} → "
        f"<b>{study.budget_after.sum():.2f}</b>; {dual} norm of the gradient after {study.depth} layers: "
        f"mean <b>{study.gradient_norms.mean():.2f}</b> (ReLU {relu.mean():.2f}), "
        f"largest {study.gradient_norms.max():.2f}"
    )


def _empty_figure() -> go.Figure:
    figure = make_subplots(
        rows=2, cols=3, subplot_titles=PANELS, horizontal_spacing=0.08, vertical_spacing=0.17
    )
    for column in (1, 2):
        for number in range(MOST_OUTPUTS):
            style = {
                "color": COLOURS[number % len(COLOURS)],
                "dash": _PLOTLY_DASHES[DASHES[number % len(DASHES)]],
            }
            figure.add_trace(go.Scatter(mode="lines", line=style, showlegend=False), row=1, col=column)
    neurons, flat = np.arange(1, 9), np.zeros(8)
    figure.add_trace(
        go.Bar(x=neurons, y=flat, name="before", marker_color="#B9B9B9", showlegend=False), row=1, col=3
    )
    figure.add_trace(
        go.Bar(x=neurons, y=flat, name="after", marker_color=BLUE, showlegend=False), row=1, col=3
    )
    figure.add_trace(go.Scatter(mode="lines", line={"color": RED}, showlegend=False), row=2, col=1)
    levels = {"start": -2, "end": 2, "size": 0.25}
    figure.add_trace(
        go.Contour(
            zmin=-2,
            zmax=2,
            colorscale="RdBu_r",
            contours=levels,
            autocontour=False,
            showscale=False,
            line={"width": 0.6, "color": GREY},
        ),
        row=2,
        col=2,
    )
    centres, none = (EDGES[:-1] + EDGES[1:]) / 2, np.zeros(len(EDGES) - 1)
    figure.add_trace(
        go.Bar(x=centres, y=none, name="this", marker_color=ORANGE, showlegend=False), row=2, col=3
    )
    outline = {"color": "#303030", "width": 2, "shape": "hvh"}
    figure.add_trace(
        go.Scatter(x=centres, y=none, mode="lines", name="ReLU", line=outline, showlegend=False), row=2, col=3
    )
    figure.update_layout(template=plotly_template(), width=1000, height=620, barmode="group", bargap=0.15)
    figure.update_layout(margin={"l": 55, "r": 15, "t": 40, "b": 50})
    figure.update_annotations(font_size=14)
    axes = {
        (1, 1): ("moving input", (-2, 2), "output", (-GRAPH_LIMIT, GRAPH_LIMIT)),
        (1, 2): ("moving input", (-2, 2), "slope", (-SLOPE_LIMIT, SLOPE_LIMIT)),
        (1, 3): ("input coordinate (grey before, blue after)", (0.4, 8.6), "budget", (0, 1.3)),
        (2, 1): ("distance from the origin", (-2, 2), "change of the output", (-LINE_LIMIT, LINE_LIMIT)),
        (2, 2): ("first half of the inputs", (-2, 2), "second half", (-2, 2)),
        (2, 3): ("gradient norm (black line: ReLU)", (0, 1.02), "share of inputs", (0, 1.05)),
    }
    for (row, column), (x_title, x_range, y_title, y_range) in axes.items():
        figure.update_xaxes(
            title=x_title, range=x_range, row=row, col=column, title_font_size=12, title_standoff=6
        )
        figure.update_yaxes(
            title=y_title, range=y_range, row=row, col=column, title_font_size=12, title_standoff=4
        )
    return figure
