"""Train a small 1-Lipschitz network on a function of one number and watch its fit and its slopes."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import hints, picker, pressed, rows, slider
from lablib.plots.theme import BLUE, GREY, ORANGE, plotly_template

REDRAW_SECONDS = 0.4
AT = np.linspace(-1, 1, 401)
NO_PENALTY = -8.0  # log10 of lambda at and below which there is none


class LiveFitExplorer:
    """Pickers for target, activation and norm; a Train button; fit, slopes, and the error of every network so far.

    Args:
        fit: (target, activation=, norm=, weight=, steps=, seed=, keep_on_interrupt=, on_progress=) -> network with
            ``evaluate`` ((M,) -> values, slopes), ``mse``, ``knots``, ``x``, ``y``, ``step`` and ``seconds``. It
            calls ``on_progress(network)`` a few times a second.
        targets: name -> function, array to array.
        activations: name -> label and norms, the default norm first.
        steps: training steps to start with.

    Attributes:
        box: the widget to display; ``target``, ``activation``, ``norm``, ``steps``, ``weight``, ``seed``: its
            controls.
        made: the network shown, None before training. ``errors``: label -> mean squared error, of this target.
    """

    def __init__(
        self,
        fit: Callable[..., Any],
        targets: Mapping[str, Callable[[np.ndarray], np.ndarray]],
        activations: Mapping[str, tuple[str, tuple[str, ...]]],
        steps: int = 200,
    ) -> None:
        if not targets or not activations:
            raise ValueError("give at least one target and one activation")
        self._fit, self._targets, self._activations = fit, dict(targets), dict(activations)
        options = [(label, name) for name, (label, _) in self._activations.items()]
        last, norms = options[-1][1], self._activations[options[-1][1]][1]
        self.target = picker(
            "target", list(targets), next(iter(targets)), "what to fit; its slopes fill [−1, 1]"
        )
        self.activation = picker("activation", options, last, "between the layers")
        self.norm = picker("norm", norms, norms[0], "of the affine layers: l2 orthonormal, linf rows")
        self.steps = slider("steps", steps, 50, 1000, 50, "training steps")
        price = "log₁₀ of λ, the price of the splines' TV(2); −8 is none"
        self.weight = slider("price", NO_PENALTY, NO_PENALTY, -3.0, 0.5, price)
        self.seed = slider("seed", 0, 0, 20, 1, "draws other weights and data")
        self.button = widgets.Button(description="Train", button_style="primary", tooltip="start training")
        self.progress = widgets.IntProgress(value=0, max=1, layout=widgets.Layout(width="260px"))
        self.status = widgets.Label("not trained yet: press Train")
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_live_figure([label for label, _ in options]))
        self.figure._config = {**self.figure._config, "displayModeBar": False}
        self.made: Any = None
        self.errors: dict[str, float] = {}
        controls = (self.target, self.activation, self.norm, self.steps, self.weight, self.seed)
        training = widgets.HBox([self.button, self.progress, self.status])
        self.box = widgets.VBox(
            [rows(controls[:3], controls[3:]), hints(controls), training, self.readout, self.figure]
        )
        self.activation.observe(lambda _change: self._choose_activation(), names="value")
        self.target.observe(lambda _change: self._choose_target(), names="value")
        self.button.on_click(lambda _button: self.train())
        self._choose_target()

    def train(self) -> None:
        """Train from the start with the chosen settings; an interrupt keeps what was reached so far."""
        self.progress.max, self.progress.value, self._drawn_at = self.steps.value, 0, 0.0
        with pressed(self.button, self.status):
            made = self._fit(
                self._targets[self.target.value],
                activation=self.activation.value,
                norm=self.norm.value,
                weight=0.0 if self.weight.value <= NO_PENALTY else 10**self.weight.value,
                steps=self.steps.value,
                seed=self.seed.value,
                keep_on_interrupt=True,
                on_progress=self._progress,
            )
            self._progress(made, last=True)
            self.errors[self._activations[self.activation.value][0]] = made.mse
            self._draw_errors()
            word = "trained" if made.step == self.steps.value else "stopped"
            self.status.value = f"{word}: {made.step} steps in {made.seconds:.1f} s"

    def _choose_activation(self) -> None:
        norms = self._activations[self.activation.value][1]
        kept = self.norm.value if self.norm.value in norms else norms[0]
        if self.norm.options != norms:
            self.norm.options = norms
            self.norm.value = kept

    def _choose_target(self) -> None:
        """Show the other target, and forget the networks: they were trained for another one."""
        self.made, self.errors = None, {}
        self.progress.value, self.status.value, self.readout.value = 0, "not trained yet: press Train", ""
        truth = self._targets[self.target.value](AT)
        wanted, network, wanted_slopes, slopes, _ = self.figure.data
        with self.figure.batch_update():
            wanted.x, wanted.y = AT, truth
            network.x, network.y = [], []
            wanted_slopes.x, wanted_slopes.y = (AT[1:] + AT[:-1]) / 2, np.diff(truth) / np.diff(AT)
            slopes.x, slopes.y = [], []
        room = 0.2 * np.ptp(truth)
        self.figure.layout.yaxis.range = (truth.min() - room, truth.max() + room)
        self._draw_errors()

    def _progress(self, made: Any, last: bool = False) -> None:
        self.made, self.progress.value = made, made.step
        self.status.value = f"step {made.step} of {self.steps.value}, {made.seconds:.1f} s"
        if last or time.perf_counter() - self._drawn_at > REDRAW_SECONDS:
            self._draw(made)
            self._drawn_at = time.perf_counter()

    def _draw(self, made: Any) -> None:
        values, slopes = made.evaluate(AT)
        with self.figure.batch_update():
            self.figure.data[1].x, self.figure.data[1].y = AT, values
            self.figure.data[3].x, self.figure.data[3].y = AT, slopes
        knots = "" if made.knots is None else f"; <b>{made.knots[0]}</b> of {made.knots[1]} spline knots bend"
        self.readout.value = (
            f"<b>{self._activations[self.activation.value][0]}</b>: mean squared error <b>{made.mse:.2e}</b>; "
            f"steepest slope {np.abs(slopes).max():.3f}{knots}"
        )

    def _draw_errors(self) -> None:
        labels = [label for label, _ in self._activations.values()]
        with self.figure.batch_update():
            self.figure.data[4].x = [self.errors.get(label) for label in labels]
            self.figure.data[4].y = labels


def _live_figure(labels: list[str]) -> go.Figure:
    titles = ("Fit (grey: target)", "Slopes", "Error of each activation tried")
    figure = make_subplots(
        rows=1, cols=3, subplot_titles=titles, column_widths=[0.37, 0.37, 0.26], horizontal_spacing=0.09
    )
    for column in (1, 2):
        grey, blue = {"color": "#BDBDBD", "width": 5}, {"color": BLUE, "width": 2}
        figure.add_trace(go.Scatter(mode="lines", line=grey, hoverinfo="skip"), row=1, col=column)
        figure.add_trace(go.Scatter(mode="lines", line=blue, hoverinfo="skip"), row=1, col=column)
        figure.update_xaxes(range=(-1, 1), title="x", title_standoff=4, row=1, col=column)
    dots = {"color": ORANGE, "size": 12}
    figure.add_trace(go.Scatter(x=[None] * len(labels), y=labels, mode="markers", marker=dots), row=1, col=3)
    for bound in (-1, 1):
        figure.add_hline(y=bound, line={"color": GREY, "dash": "dot"}, row=1, col=2)
    figure.update_yaxes(range=(-1.3, 1.3), row=1, col=2)
    figure.update_xaxes(type="log", range=(-5, -1.5), dtick=1, title="mean squared error", row=1, col=3)
    categories = {"type": "category", "categoryorder": "array", "categoryarray": labels}
    figure.update_yaxes(**categories, range=(len(labels) - 0.5, -0.5), row=1, col=3)
    figure.update_layout(template=plotly_template(), width=1000, height=340, showlegend=False)
    figure.update_layout(margin={"l": 55, "r": 15, "t": 40, "b": 50})
    return figure.update_annotations(font_size=14)
