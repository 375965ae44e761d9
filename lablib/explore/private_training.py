"""Train a small network privately while one looks: what is learned, what it costs, and how runs compare."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import hints, picker, pressed, rows, slider
from lablib.plots.theme import BLUE, GREY, ORANGE, plotly_template

REDRAW_SECONDS = 0.4


class PrivateRunExplorer:
    """Sliders for a private run, a Train button; accuracy and epsilon by step, and the ends of all runs so far.

    Args:
        train: (noise_multiplier=, batch_size=, learning_rate=, loss_clip=, noise=, target_epsilon=, steps=,
            keep_on_interrupt=, on_progress=) -> run with ``history`` (mappings with ``step``, ``epsilon``,
            ``accuracy``), ``step``, ``seconds`` and ``spent``. It calls ``on_progress(run)`` a few times a second.
        noises: names of the noise strategies, the default first.
        delta: what epsilon is for, as text.

    Attributes:
        box: the widget to display; ``noise_multiplier``, ``batch``, ``rate``, ``loss_clip``, ``noise``, ``target``,
            ``steps``: its controls.
        made: the run shown, None before training. ``ends``: (epsilon, accuracy, settings as text) of every run.
    """

    def __init__(self, train: Callable[..., Any], noises: Sequence[str], delta: str) -> None:
        self._train = train
        hint = "noise multiplier: noise in units of the sensitivity"
        self.noise_multiplier = slider("σ", 2.0, 0.5, 8.0, 0.25, hint)
        self.batch = slider("batch", 256, 32, 1024, 32, "expected size of a Poisson batch")
        self.steps = slider("steps", 120, 20, 400, 20, "at most so many")
        self.rate = slider("log₂ rate", -3, -5, 4, 1, "of the learning rate")
        self.loss_clip = slider("C", 0.5, 0.1, 1.4, 0.1, "clips each sample's cotangent at the logits")
        self.noise = picker("noise", noises, noises[0], "how it is shared among the layers")
        self.target = slider("target ε", 8.0, 0.5, 16.0, 0.5, "the run ends before it would pass this")
        self.button = widgets.Button(description="Train", button_style="primary", tooltip="start training")
        self.progress = widgets.IntProgress(value=0, max=1, layout=widgets.Layout(width="260px"))
        self.status = widgets.Label("not trained yet: press Train")
        self.figure = go.FigureWidget(_run_figure(delta))
        self.figure._config = {**self.figure._config, "displayModeBar": False}
        self.made: Any = None
        self.ends: list[tuple[float, float, str]] = []
        controls = (self.noise_multiplier, self.batch, self.steps, self.rate, self.loss_clip, self.noise)
        training = widgets.HBox([self.button, self.progress, self.status])
        lines = rows(controls[:3], controls[3:], (self.target,))
        self.box = widgets.VBox([lines, hints((*controls, self.target)), training, self.figure])
        self.button.on_click(lambda _button: self.train())

    def train(self) -> None:
        """Train from the start with the chosen settings; an interrupt keeps what was reached so far."""
        self.progress.max, self.progress.value, self._drawn_at = self.steps.value, 0, 0.0
        self._target = self.target.value  # the slider may move while this run is drawn
        with pressed(self.button, self.status):
            made = self._train(
                noise_multiplier=self.noise_multiplier.value,
                batch_size=self.batch.value,
                learning_rate=2.0**self.rate.value,
                loss_clip=self.loss_clip.value,
                noise=self.noise.value,
                target_epsilon=self._target,
                steps=self.steps.value,
                keep_on_interrupt=True,
                on_progress=self._progress,
            )
            self._progress(made, last=True)
            end = made.history[-1]
            settings = (
                f"σ {self.noise_multiplier.value:g}, batch {self.batch.value}, {self.noise.value} noise"
            )
            self.ends.append((end["epsilon"], 100 * end["accuracy"], settings))
            self._draw_ends()
            why = "the budget is spent" if made.spent else "trained"
            self.status.value = (
                f"{why}: {made.step} steps in {made.seconds:.1f} s, ε = {end['epsilon']:.2f}, "
                f"{end['accuracy']:.1%} of the test images right"
            )

    def _progress(self, made: Any, last: bool = False) -> None:
        self.made, self.progress.value = made, made.step
        self.status.value = f"step {made.step} of {self.steps.value}, {made.seconds:.1f} s"
        if last or time.perf_counter() - self._drawn_at > REDRAW_SECONDS:
            steps = [row["step"] for row in made.history]
            learned, cost, limit, _ = self.figure.data
            with self.figure.batch_update():
                learned.x, learned.y = steps, [100 * row["accuracy"] for row in made.history]
                cost.x, cost.y = steps, [row["epsilon"] for row in made.history]
                limit.x, limit.y = [0, steps[-1]], [self._target] * 2
            self._drawn_at = time.perf_counter()

    def _draw_ends(self) -> None:
        ends = self.figure.data[3]
        with self.figure.batch_update():
            ends.x, ends.y, ends.text = (list(values) for values in zip(*self.ends, strict=True))


def _run_figure(delta: str) -> go.Figure:
    titles = ("What is learned", "What it costs; dashed: target", "All runs so far")
    figure = make_subplots(rows=1, cols=3, subplot_titles=titles, horizontal_spacing=0.09)
    for column, colour in ((1, BLUE), (2, ORANGE)):
        figure.add_trace(go.Scatter(mode="lines+markers", line={"color": colour}), row=1, col=column)
        figure.update_xaxes(title="step", rangemode="tozero", row=1, col=column)
    dashed = {"color": "black", "dash": "dash", "width": 1}
    figure.add_trace(go.Scatter(mode="lines", line=dashed, hoverinfo="skip"), row=1, col=2)
    dots = {"color": GREY, "size": 11, "symbol": "diamond"}
    figure.add_trace(go.Scatter(mode="markers", marker=dots), row=1, col=3)
    for column in (1, 3):
        figure.update_yaxes(title="% of test images right", range=(0, 102), row=1, col=column)
    figure.update_yaxes(title=f"ε at {delta}", rangemode="tozero", row=1, col=2)
    figure.update_xaxes(title="ε", rangemode="tozero", row=1, col=3)
    figure.update_layout(template=plotly_template(), width=1000, height=330, showlegend=False)
    figure.update_layout(margin={"l": 55, "r": 15, "t": 40, "b": 50})
    return figure.update_annotations(font_size=14)
