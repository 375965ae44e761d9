"""Budgets of a private network by its sliders, and epsilon of a run by its own."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import hints, picker, rows, slider, watch
from lablib.plots.private_training import ACCOUNTANT_LOOKS, power_of_ten
from lablib.plots.sensitivity import KINDS
from lablib.plots.theme import BLUE, ORANGE, plotly_template

DATA_SETS = (("digits: 1,437", 1437), ("CIFAR-10: 50,000", 50_000), ("MNIST: 60,000", 60_000))
HALF = 0.38  # between two bars of one layer
_DASHES = {"solid": "solid", "dashed": "dash", "dotted": "dot"}
_DIAMOND = {"color": "white", "symbol": "diamond", "size": 9, "line": {"color": "black", "width": 1.4}}


class FlowExplorer:
    """Sliders for the network and its loss; the budgets X, G and Delta of every layer, and what samples attain.

    Args:
        budgets: (architecture, depth, width, bias=, constraint=, input_bound=, temperature=, loss_clip=) -> found
            with ``bounds`` (``rows``, ``total``) and ``measured`` as
            :func:`lablib.plots.sensitivity.sensitivity_figure` takes them.
        architectures, constraints: names to choose from, the default first.
        loss_lipschitz: the largest cotangent that the loss sends, where the slider of ``loss_clip`` ends.

    Attributes:
        box: the widget to display; ``found``: what it shows; ``architecture``, ``depth``, ``width``, ``bias``,
            ``constraint``, ``input_bound``, ``temperature``, ``loss_clip``: its controls.
    """

    def __init__(
        self,
        budgets: Callable[..., Any],
        architectures: Sequence[str],
        constraints: Sequence[str],
        loss_lipschitz: float,
    ) -> None:
        self._budgets = budgets
        self.architecture = picker("layers", architectures, architectures[0], "of the network")
        self.depth = slider("depth", 2, 1, 5, 1, "layers before the last")
        self.width = slider("width", 32, 8, 128, 8, "neurons of a dense layer; a quarter of it in channels")
        self.bias = picker("bias", (("without", False), ("with", True)), False, "in all layers but the last")
        self.constraint = picker("weights", constraints, constraints[0], "what they are projected onto")
        self.input_bound = slider("X₀", 1.0, 0.25, 4.0, 0.25, "norm to which samples are clipped")
        self.temperature = slider("τ", 8.0, 1.0, 50.0, 1.0, "temperature of the cross entropy")
        top = math.ceil(20 * loss_lipschitz) / 20
        self.loss_clip = slider("C", top, 0.05, top, 0.05, "clips each sample's cotangent at the logits")
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_flow_figure())
        self.figure._config = {**self.figure._config, "displayModeBar": False}
        self.found: Any = None
        lines = (self.architecture, self.depth, self.width), (self.bias, self.constraint, self.input_bound)
        controls = (*lines[0], *lines[1], self.temperature, self.loss_clip)
        parts = [rows(*lines, controls[6:]), hints(controls), self.readout, self.figure]
        self.box = widgets.VBox(parts)
        watch(controls, self._answer)
        self._answer()

    def _answer(self) -> None:
        self.found = self._budgets(
            self.architecture.value,
            self.depth.value,
            self.width.value,
            bias=self.bias.value,
            constraint=self.constraint.value,
            input_bound=self.input_bound.value,
            temperature=self.temperature.value,
            loss_clip=self.loss_clip.value,
        )
        layers, seen = self.found.bounds.rows, self.found.measured
        places = list(range(len(layers)))
        paths = [
            (places, [layer.output_norm for layer in layers]),
            (places, [seen["features"][layer.name] for layer in layers]),
            (places, [layer.cotangent_out for layer in layers]),
            (places, [seen["cotangents"][layer.name] for layer in layers]),
        ]
        bars = {kind: ([], []) for kind in KINDS}
        diamonds = ([], [])
        for place, layer in enumerate(layers):
            for number, (name, bound) in enumerate(sorted(layer.parameters.items(), reverse=True)):
                where = place + (number - (len(layer.parameters) - 1) / 2) * HALF
                for path, value in (
                    (bars[name.rpartition(".")[2]], bound),
                    (diamonds, seen["gradients"][name]),
                ):
                    path[0].append(where)
                    path[1].append(value)
        with self.figure.batch_update():
            for trace, (x, y) in zip(self.figure.data, [*paths, *bars.values(), diamonds], strict=True):
                trace.x, trace.y = x, y
        texts = [f"{layer.name}<br>{layer.kind}" for layer in layers]
        self.figure.layout.xaxis3.update(tickvals=places, ticktext=texts, range=(-0.6, len(layers) - 0.4))
        every = self.found.bounds.parameters.values()
        lowest = math.log10(max(min(diamonds[1]), 1e-5))
        self.figure.layout.yaxis3.range = (math.floor(lowest - 0.1), math.log10(1.6 * max(every)))
        self.readout.value = self._words()

    def _words(self) -> str:
        bounds, seen = self.found.bounds, self.found.measured["gradients"]
        largest = max(bounds.parameters, key=bounds.parameters.get)
        tightest = max(seen, key=lambda name: seen[name] / bounds.parameters[name])
        share = f"{100 * seen[tightest] / bounds.parameters[tightest]:.0f} %"
        return (
            f"all parameters together: Δ = <b>{bounds.total:.3f}</b>; largest: {largest}, "
            f"Δ = {bounds.parameters[largest]:.3f}; samples come closest to their bound in {tightest}: <b>{share}</b>"
        )


class EpsilonExplorer:
    """Sliders for noise, batch, epochs, delta and releases; epsilon by three accountants while it is spent.

    Args:
        curves: (noise multiplier, sample rate, steps, delta, releases) -> curves, profile, final and effective as in
            :class:`lablib.experiments.live_epsilon.EpsilonCurves`.

    Attributes:
        box: the widget to display; ``samples``, ``batch``, ``epochs``, ``noise``, ``power``, ``releases``: its
            controls; ``found``: what it shows.
    """

    def __init__(self, curves: Callable[[float, float, int, float, int], Any]) -> None:
        self._curves = curves
        self.samples = picker("samples", DATA_SETS, 60_000, "how many there are to learn from")
        self.batch = slider("log₂ batch", 10, 4, 13, 1, "of the expected batch size")
        self.epochs = slider("epochs", 10, 1, 60, 1, "one epoch is as many steps as batches make up the data")
        self.noise = slider("σ", 1.5, 0.5, 8.0, 0.1, "noise multiplier: noise in units of the sensitivity")
        self.power = slider("log₁₀ δ", -5, -8, -3, 1, "of the delta that epsilon is for")
        hint = "Gaussians of this σ in each step: 1 for global noise, one per layer otherwise"
        self.releases = slider("releases", 1, 1, 8, 1, hint)
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_epsilon_figure())
        self.figure._config = {**self.figure._config, "displayModeBar": False}
        self.found: Any = None
        controls = (self.samples, self.batch, self.epochs, self.noise, self.power, self.releases)
        parts = [rows(controls[:3], controls[3:]), hints(controls), self.readout, self.figure]
        self.box = widgets.VBox(parts)
        watch(controls, self._answer)
        self._answer()

    @property
    def rate(self) -> float:
        """q, each sample's chance to be in a batch."""
        return min(1.0, 2.0**self.batch.value / self.samples.value)

    @property
    def steps(self) -> int:
        """Steps in all epochs together."""
        return max(1, round(self.epochs.value / self.rate))

    def _answer(self) -> None:
        delta = 10.0**self.power.value
        sigma, releases = self.noise.value, self.releases.value
        self.found = found = self._curves(sigma, self.rate, self.steps, delta, releases)
        nothing: tuple[list[float], list[float]] = ([], [])
        prv = found.final.get("PRV")
        paths = [
            *(found.curves.get(name, nothing) for name in ("RDP", "PLD")),
            nothing if prv is None else ([self.steps], [prv]),
            *(found.profile.get(name, nothing) for name in ("RDP", "PLD")),
            ([0, 2 * max(found.profile["RDP"][0])], [delta, delta]),
        ]
        with self.figure.batch_update():
            for trace, (x, y) in zip(self.figure.data, paths, strict=True):
                trace.x, trace.y = (list(values) for values in (x, y))
        layout = self.figure.layout
        layout.yaxis.title.text = f"ε at {power_of_ten(delta)}"
        layout.xaxis.range, layout.yaxis.range = (0, 1.04 * self.steps), (0, 1.1 * found.final["RDP"])
        layout.xaxis2.range = (0, 1.05 * max(found.profile["RDP"][0]))
        said = ", ".join(f"{name} <b>{value:.3f}</b>" for name, value in found.final.items())
        together = "" if releases == 1 else f"; together they act as σ = {found.effective:.3f}"
        self.readout.value = (
            f"q = {self.rate:.4f}, {self.steps:,} steps{together}; noise in the mean gradient: σΔ / batch = "
            f"{sigma / (self.rate * self.samples.value):.2e} Δ<br>ε at {power_of_ten(delta)}: {said}"
        )


def _flow_figure() -> go.Figure:
    titles = (
        "→ X, norm of what a layer passes on",
        "← G, norm of the cotangent that comes back to it",
        "Δ, largest gradient of one sample (log)",
    )
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.09)
    for row, colour in ((1, BLUE), (2, ORANGE)):
        figure.add_trace(go.Bar(marker_color=colour, width=0.6, showlegend=False), row=row, col=1)
        figure.add_trace(go.Scatter(mode="markers", marker=_DIAMOND, showlegend=False), row=row, col=1)
        figure.update_yaxes(rangemode="tozero", row=row, col=1)
    for kind, colour in KINDS.items():
        figure.add_trace(go.Bar(marker_color=colour, width=HALF - 0.04, name=f"bound, {kind}"), row=3, col=1)
    seen = "largest of 64 digits"
    figure.add_trace(go.Scatter(mode="markers", marker=_DIAMOND, name=seen), row=3, col=1)
    figure.update_yaxes(type="log", dtick=1, row=3, col=1)
    figure.update_xaxes(zeroline=False, showgrid=False)
    figure.update_layout(template=plotly_template(), barmode="overlay", width=980, height=540)
    figure.update_layout(margin={"l": 55, "r": 15, "t": 30, "b": 60}, legend={"x": 1.01, "y": 0.2})
    return figure.update_annotations(font_size=14)


def _epsilon_figure() -> go.Figure:
    titles = ("Epsilon as it is spent", "The whole run: pairs (ε, δ) that are true")
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.12)
    for column in (1, 2):
        for name in ("RDP", "PLD"):
            colour, dash, _ = ACCOUNTANT_LOOKS[name]
            line = {"color": colour, "dash": _DASHES[dash]}
            mode = "lines+markers" if name == "PLD" else "lines"
            trace = go.Scatter(mode=mode, line=line, name=name, showlegend=column == 1)
            figure.add_trace(trace, row=1, col=column)
        if column == 1:
            star = {"color": ACCOUNTANT_LOOKS["PRV"][0], "symbol": "star", "size": 14}
            figure.add_trace(go.Scatter(mode="markers", marker=star, name="PRV"), row=1, col=1)
    line = {"color": "black", "dash": "dash", "width": 1}
    figure.add_trace(go.Scatter(mode="lines", line=line, showlegend=False), row=1, col=2)
    figure.update_xaxes(title="steps", row=1, col=1)
    figure.update_xaxes(title="ε", row=1, col=2)
    figure.update_yaxes(
        type="log", title="δ", range=(-11.3, -1.7), dtick=2, exponentformat="power", row=1, col=2
    )
    figure.update_layout(template=plotly_template(), width=980, height=370)
    figure.update_layout(legend={"x": 0.02, "y": 0.98}, margin={"l": 60, "r": 15, "t": 40, "b": 50})
    return figure.update_annotations(font_size=14)
