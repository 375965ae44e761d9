"""Pick a Boolean function: its cube, sensitive edges, relevant variables, witness points and bound."""

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go

from lablib.explore.controls import WIDTH, picker, rows, slider, watch
from lablib.plots.boolean import LABEL_COLOURS, cube_edges, vertex_positions
from lablib.plots.theme import COLOURS, plotly_template
from lablib.theory.boolean import BooleanFunction

MOST_VARIABLES = 4
KINDS = ("threshold", "parity", "exactly k", "expression")
MARKERS = ("circle", "square")


class BooleanExplorer:
    """Pickers for the kind of function, sliders for d and k, a line for an expression; the cube beside them.

    Attributes:
        box: the widget to display; ``kind``, ``variables``, ``ones``, ``expression``: its controls; ``function``:
            the function on display.
    """

    def __init__(self) -> None:
        self.kind = picker("g", KINDS, "threshold", "the kind of function")
        self.variables = slider("variables d", 3, 1, MOST_VARIABLES, 1, "inputs of g")
        self.ones = slider("k", 2, 0, MOST_VARIABLES, 1, "ones that are asked for")
        self.expression = widgets.Text(
            value="x1 & (x2 | ~x3)",
            description="g(x) =",
            tooltip="x1, x2, ... with & | ^ ~ and brackets",
            continuous_update=False,
            style={"description_width": "84px"},
            layout=widgets.Layout(width=WIDTH),
        )
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_empty_figure())
        self.figure._config = {**self.figure._config, "displayModeBar": False}
        self.function = BooleanFunction.threshold(3, 2)
        self._answer()
        controls = (self.kind, self.variables, self.ones, self.expression)
        self.box = widgets.VBox([rows(controls), self.readout, self.figure])
        watch(controls, self._answer)

    def _chosen(self) -> BooleanFunction:
        d, k = self.variables.value, min(self.ones.value, self.variables.value)
        if self.kind.value == "threshold":
            return BooleanFunction.threshold(d, max(k, 1))
        if self.kind.value == "parity":
            return BooleanFunction.parity(d)
        if self.kind.value == "exactly k":
            return BooleanFunction.symmetric(np.arange(d + 1) == k)
        function = BooleanFunction.from_expression(self.expression.value)
        if function.variables > MOST_VARIABLES:
            raise ValueError(
                f"cubes are drawn for at most {MOST_VARIABLES} variables, not {function.variables}"
            )
        return function

    def _answer(self) -> None:
        formula = self.kind.value == "expression"
        self.expression.layout.display = "" if formula else "none"
        self.variables.layout.display = "none" if formula else ""
        self.ones.layout.display = "" if self.kind.value in ("threshold", "exactly k") else "none"
        try:
            self.function = self._chosen()
        except ValueError as error:
            self.readout.value = f"<b>not drawn:</b> {error}"
            return
        self._draw()
        self.readout.value = _readout(self.function)

    def _draw(self) -> None:
        table = self.function.table.astype(int)
        places = vertex_positions(self.function.variables)
        ends, variable, sensitive = cube_edges(table)
        ringed = [] if self.function.is_constant else _numbers(self.function.witness().points)
        names = [
            "".join(str(number >> j & 1) for j in range(self.function.variables))
            for number in range(len(places))
        ]
        data = self.figure.data
        with self.figure.batch_update():
            data[0].x, data[0].y = _segments(places, ends[~sensitive])
            for j in range(MOST_VARIABLES):
                data[1 + j].x, data[1 + j].y = _segments(places, ends[sensitive & (variable == j)])
            rings = data[1 + MOST_VARIABLES]
            rings.x, rings.y = places[ringed].T if len(ringed) else ([], [])
            for label in (0, 1):
                chosen = table == label
                points = data[2 + MOST_VARIABLES + label]
                points.x, points.y = places[chosen].T
                points.text = [name for name, keep in zip(names, chosen) if keep]


def _readout(function: BooleanFunction) -> str:
    if function.is_constant:
        return "<b>g is constant</b>: no edge is sensitive, and a constant network is robust to every radius"
    relevant = function.relevant()
    names = ", ".join(f"x{j + 1}" for j in relevant)
    return (
        f"relevant variables: {names} (m = {len(relevant)}); no standard network is certified beyond "
        f"<b>1/(2m) = {function.bound} = {float(function.bound):.4f}</b>, and the optimum is 1/2. "
        f"The {2 * len(relevant)} ends of one sensitive edge per variable (rings) are enough to show it."
    )


def _numbers(points: np.ndarray) -> np.ndarray:
    """Return the row numbers of vertices (n, d), each once."""
    return np.unique(np.asarray(points).astype(int) @ (1 << np.arange(points.shape[1])))


def _segments(places: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return edges (n, 2) as one broken line: x and y with NaN between the edges."""
    broken = np.full((len(ends), 3, 2), np.nan)
    broken[:, :2] = places[ends]
    return broken[..., 0].ravel(), broken[..., 1].ravel()


def _empty_figure() -> go.Figure:
    figure = go.Figure()
    figure.add_scatter(
        mode="lines", line={"color": "#C8C8C8", "width": 1.5}, name="other edges", hoverinfo="skip"
    )
    for j in range(MOST_VARIABLES):
        line = {"color": COLOURS[j], "width": 5}
        figure.add_scatter(mode="lines", line=line, name=f"sensitive in x{j + 1}", hoverinfo="skip")
    ring = {"size": 26, "color": "rgba(0,0,0,0)", "line": {"color": "black", "width": 2}}
    figure.add_scatter(mode="markers", marker=ring, name="witness points", hoverinfo="skip")
    for label in (0, 1):
        marker = {"size": 15, "color": LABEL_COLOURS[label], "symbol": MARKERS[label]}
        text = {"mode": "markers+text", "textposition": "bottom right", "marker": marker}
        figure.add_scatter(name=f"g = {label}", **text)
    figure.update_layout(template=plotly_template(), width=820, height=460, margin={"t": 20, "b": 20})
    figure.update_xaxes(range=[-0.3, 3.6], visible=False)
    figure.update_yaxes(range=[-0.3, 2.2], visible=False, scaleanchor="x")
    return figure
