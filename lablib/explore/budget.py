"""Edit a small standard network and watch the budgets flow: 3 inputs, 3 hidden neurons, 1 output."""

from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import picker, rows, slider, watch
from lablib.plots.theme import COLOURS, GREEN, RED, plotly_template
from lablib.theory.boolean import BooleanFunction
from lablib.theory.budget import budget, budgets
from lablib.theory.network import Layer, activation, affine, evaluate

INPUTS, HIDDEN = 3, 3
STEP = 1 / 12  # a browser rounds a slider's value to its step: thirds, quarters and sixths must survive that
ACTIVATIONS = ("abs", "relu", "identity", "tanh")
FUNCTIONS = {
    "all equal": "~(x1 ^ x2) & ~(x2 ^ x3)",
    "AND": "x1 & x2 & x3",
    "OR": "x1 | x2 | x3",
    "majority": "(x1 & x2) | (x1 & x3) | (x2 & x3)",
    "parity": "x1 ^ x2 ^ x3",
    "x3 chooses x1 or x2": "(x3 & x1) | (~x3 & x2)",
    "x1 and (x2 or x3)": "x1 & (x2 | x3)",
}
# (hidden weights, hidden biases, output weights, output bias, activation, function); the last two reach the bound.
PRESETS: dict[str, tuple[Any, ...]] = {
    "equal shares": ([[0.25] * 3] * 3, [0, 0, 0], [0.25] * 3, 0.0, "identity", "AND"),
    "one input each": (np.eye(3).tolist(), [-0.5] * 3, [0.25] * 3, 0.0, "abs", "majority"),
    "AND at its bound": (
        [[1 / 3] * 3, [1 / 3] * 3, [1 / 3] * 3],
        [0, 0, 0],
        [1, 0, 0],
        -5 / 6,
        "identity",
        "AND",
    ),
    "choice at its bound": (
        [[1, 0, 0], [0, 1, 0], [0.25, -0.25, -0.5]],
        [0, 0, 0.25],
        [1 / 6, 1 / 6, -2 / 3],
        0.0,
        "abs",
        "x3 chooses x1 or x2",
    ),
}


def project(weight: np.ndarray) -> np.ndarray:
    """Divide each row whose l1 norm exceeds one by that norm: w / max(1, sum |w_i|)."""
    weight = np.asarray(weight, float)
    return weight / np.maximum(1.0, np.abs(weight).sum(axis=-1, keepdims=True))


def small_network(weight: Any, bias: Any, out_weight: Any, out_bias: float, kind: str) -> list[Layer]:
    """Return the standard network with these numbers, rows projected: (3, 3), (3,), (3,) and a number."""
    return [
        affine(project(weight), np.asarray(bias, float)),
        activation(kind),
        affine(project([out_weight]), np.array([float(out_bias)])),
    ]


class BudgetExplorer:
    """Sliders for every weight and bias, pickers for the activation and for g; budgets and margins beside them.

    Attributes:
        box: the widget to display; ``weights`` (9 sliders, row by row), ``biases``, ``out_weights``, ``out_bias``,
            ``kind``, ``function``, ``preset``: its controls; ``layers``: the network on display; ``radius``: its
            certified radius, negative where a vertex is wrong.
    """

    def __init__(self, preset: str = "choice at its bound") -> None:
        if preset not in PRESETS:
            raise ValueError(f"no preset {preset!r}; choose from {', '.join(PRESETS)}")
        self.preset = picker("start from", list(PRESETS), preset, "a network to begin with")
        self.kind = picker("activation", ACTIVATIONS, "abs", "between the two layers")
        self.function = picker("g", list(FUNCTIONS), "AND", "the Boolean function to classify")
        self.weights = [
            slider(
                f"h{k + 1} ← x{j + 1}",
                0.0,
                -1.0,
                1.0,
                STEP,
                f"weight of input {j + 1} in hidden neuron {k + 1}",
            )
            for k in range(HIDDEN)
            for j in range(INPUTS)
        ]
        self.biases = [
            slider(f"h{k + 1} bias", 0.0, -1.0, 1.0, STEP, f"bias of hidden neuron {k + 1}")
            for k in range(HIDDEN)
        ]
        self.out_weights = [
            slider(f"f ← h{k + 1}", 0.0, -1.0, 1.0, STEP, f"weight of hidden neuron {k + 1}")
            for k in range(HIDDEN)
        ]
        self.out_bias = slider("f bias", 0.0, -1.0, 1.0, STEP, "bias of the output")
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_empty_figure())
        self.figure._config = {**self.figure._config, "displayModeBar": False}
        self.layers: list[Layer] = []
        self.radius = 0.0
        self._loading = False
        self._load()
        neurons = [(*self.weights[3 * k : 3 * k + 3], self.biases[k]) for k in range(HIDDEN)]
        self.box = widgets.VBox(
            [
                rows((self.preset, self.kind, self.function)),
                self.readout,
                self.figure,
                rows(*neurons, (*self.out_weights, self.out_bias)),
            ]
        )
        self.preset.observe(lambda _change: self._load(), names="value")
        watch((self.kind, self.function, *self._sliders()), self._answer)

    def _sliders(self) -> list[widgets.Widget]:
        return [*self.weights, *self.biases, *self.out_weights, self.out_bias]

    def _load(self) -> None:
        """Set every control to the preset's value, then answer once."""
        weight, bias, out_weight, out_bias, kind, function = PRESETS[self.preset.value]
        self._loading = True
        for control, value in zip(self._sliders(), [*np.ravel(weight), *bias, *out_weight, out_bias]):
            control.value = float(value)
        self.kind.value, self.function.value = kind, function
        self._loading = False
        self._answer()

    def _answer(self) -> None:
        if self._loading:
            return
        self.layers = small_network(
            np.reshape([control.value for control in self.weights], (HIDDEN, INPUTS)),
            [control.value for control in self.biases],
            [control.value for control in self.out_weights],
            self.out_bias.value,
            self.kind.value,
        )
        function = BooleanFunction.from_expression(FUNCTIONS[self.function.value], INPUTS)
        values = evaluate(self.layers, function.vertices().astype(float))[:, 0]
        margins = np.where(function.table, values, -values)
        self.radius = float(margins.min())
        hidden, shares = budgets(self.layers, INPUTS)[1], budget(self.layers, INPUTS)
        self._draw(np.vstack([hidden, shares]), margins, float(function.bound))
        self.readout.value = _readout(shares[0], self.radius, function)

    def _draw(self, shares: np.ndarray, margins: np.ndarray, bound: float) -> None:
        with self.figure.batch_update():
            for j in range(INPUTS):
                self.figure.data[j].y = shares[:, j]
            bars, line = self.figure.data[INPUTS], self.figure.data[INPUTS + 1]
            bars.y = margins
            line.y = [bound, bound]
        # Apart: in JupyterLab a batch that sets a property of one trace resets it on the others.
        bars.marker.color = [GREEN if margin > 0 else RED for margin in margins]


def _readout(shares: np.ndarray, radius: float, function: BooleanFunction) -> str:
    parts = " + ".join(f"{share:.3f}" for share in shares)
    verdict = f"certified radius <b>{radius:.4f}</b>" if radius > 0 else "a vertex is <b>wrong</b>: radius 0"
    smallest = min(shares[j] for j in function.relevant())
    return (
        f"budget of f: {parts} = <b>{shares.sum():.3f}</b> ≤ 1; half the smallest share of a relevant input: "
        f"{smallest / 2:.4f}<br>{verdict}; bound 1/(2m) = {function.bound} = {float(function.bound):.4f}"
    )


def _empty_figure() -> go.Figure:
    figure = make_subplots(
        rows=1,
        cols=2,
        column_widths=[0.42, 0.58],
        horizontal_spacing=0.1,
        subplot_titles=("Budget of each neuron, by input", "Margin at each vertex, against the bound"),
    )
    neurons = [*(f"h{k + 1}" for k in range(HIDDEN)), "f"]
    for j in range(INPUTS):
        bar = go.Bar(x=neurons, y=[0] * len(neurons), name=f"from x{j + 1}", marker_color=COLOURS[j])
        figure.add_trace(bar, row=1, col=1)
    # Numbered, with the vertices as tick labels: a browser takes "010", and "0 1 0" too, for the number ten.
    places = list(range(2**INPUTS))
    vertices = ["".join(str(number >> j & 1) for j in range(INPUTS)) for number in places]
    figure.add_trace(go.Bar(x=places, y=[0] * len(places), showlegend=False), row=1, col=2)
    line = {"color": "black", "dash": "dash"}
    ends = [-0.5, len(places) - 0.5]
    figure.add_trace(go.Scatter(x=ends, y=[0, 0], mode="lines", line=line, name="bound 1/(2m)"), row=1, col=2)
    figure.add_hline(1, line=line, row=1, col=1)
    figure.update_layout(template=plotly_template(), barmode="stack", width=980, height=380)
    figure.update_layout(legend={"orientation": "h", "y": -0.22}, margin={"t": 40, "b": 40})
    figure.update_yaxes(range=[0, 1.1], title="budget", row=1, col=1)
    figure.update_yaxes(range=[-0.55, 0.55], title="y f(x)", row=1, col=2)
    figure.update_xaxes(title="vertex x1 x2 x3", tickvals=places, ticktext=vertices, row=1, col=2)
    return figure
