"""Choose which features a prediction must rise or fall with, fit it, and see the slopes that are proven."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import hints, picker, pressed, rows, slider, wide
from lablib.plots.slope_bands import DIRECTION_COLOURS, PROMISES, Path, around, band, folded, padded, sticks
from lablib.plots.theme import BLUE, GREY, plotly_template

REDRAW_SECONDS = 0.4
LEFT_OUT = "left out"
CHOICES = (("↑ rises", 1), ("↓ falls", -1), ("free", 0), (LEFT_OUT, LEFT_OUT))


class MonotoneExplorer:
    """Pickers for a table and for what each feature must do, a slider for lambda, a Fit button; certified slopes.

    Args:
        fit: (table, directions, lipschitz=, steps=, seed=, keep_on_interrupt=, on_progress=) -> fitted network with
            ``partial(feature)`` (edges, scores, mean, slope, low, high), ``slopes()`` (2, I), ``quality(held_out)``,
            ``directions``, ``step`` and ``seconds``. It calls ``on_progress(network)`` a few times a second.
        tables: name -> table with ``features``, ``directions``, ``target``, ``classes``, ``notes`` and
            ``keep(columns)``.
        steps: training steps to start with.

    Attributes:
        box: the widget to display; ``table``, ``lipschitz``, ``steps``, ``seed``, ``shown``: its controls;
            ``wishes``: one picker for each feature.
        made: the network shown, None before training.
    """

    def __init__(self, fit: Callable[..., Any], tables: Mapping[str, Any], steps: int = 150) -> None:
        if not tables:
            raise ValueError("give at least one table")
        self._fit, self._tables = fit, dict(tables)
        names = list(tables)
        self.table = picker("table", names, names[0], "the rows to learn from")
        self.lipschitz = slider(
            "λ",
            1.0,
            0.25,
            8.0,
            0.25,
            "largest slope before the residual is added, per spread of a feature: in spreads of a number to "
            "predict, in units of the logit for yes or no",
        )
        self.steps = slider("steps", steps, 25, 400, 25, "training steps")
        self.seed = slider("seed", 0, 0, 20, 1, "draws other weights and holds other rows out")
        self.shown = picker("shown", [("", 0)], 0, "the feature of the first two panels")
        self.wishes: list[widgets.Dropdown] = []
        self._wish_box = widgets.VBox()
        self.button = widgets.Button(description="Fit", button_style="primary", tooltip="start training")
        self.progress = widgets.IntProgress(value=0, max=1, layout=widgets.Layout(width="260px"))
        self.status = widgets.Label()
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_figure())
        self.figure._config = {**self.figure._config, "displayModeBar": False}
        self.made: Any = None
        controls = (self.table, self.lipschitz, self.steps, self.seed, self.shown)
        training = widgets.HBox([self.button, self.progress, self.status])
        parts = [rows(controls[:3], controls[3:]), hints(controls), self._wish_box, training, self.readout]
        self.box = widgets.VBox([*parts, self.figure])
        self.table.observe(lambda _change: self._choose_table(), names="value")
        self.shown.observe(lambda _change: self._draw(), names="value")
        self.button.on_click(lambda _button: self.train())
        self._choose_table()

    def train(self) -> None:
        """Fit from the start with the chosen settings; an interrupt keeps what was reached so far."""
        table = self._tables[self.table.value]
        kept = [number for number, wish in enumerate(self.wishes) if wish.value != LEFT_OUT]
        self.progress.max, self.progress.value, self._drawn_at = self.steps.value, 0, 0.0
        with pressed(self.button, self.status):
            made = self._fit(
                table.keep(kept),
                [self.wishes[number].value for number in kept],
                lipschitz=self.lipschitz.value,
                steps=self.steps.value,
                seed=self.seed.value,
                keep_on_interrupt=True,
                on_progress=self._progress,
            )
            self._show(made)
            word = "fitted" if made.step == self.steps.value else "stopped"
            self.status.value = f"{word}: {made.step} steps in {made.seconds:.1f} s"

    def _choose_table(self) -> None:
        """Show one picker for each feature of the table, and forget the network."""
        table = self._tables[self.table.value]
        self.wishes = [
            wide(picker(name, CHOICES, wish, "what the prediction must do as this feature grows"))
            for name, wish in zip(table.features, table.directions, strict=True)
        ]
        lines = [self.wishes[start : start + 3] for start in range(0, len(self.wishes), 3)]
        asked = f"{table.notes}<br>What must <b>{table.target}</b> do as each feature grows?"
        asked = widgets.HTML(f'<div style="line-height:1.3"><small>{asked}</small></div>')
        self._wish_box.children = (asked, *rows(*lines).children)
        self.made = None
        self.shown.options = [(name, number) for number, name in enumerate(table.features)]
        self.progress.value, self.status.value, self.readout.value = 0, "not fitted yet: press Fit", ""
        self._draw()

    def _progress(self, made: Any) -> None:
        self.progress.value = made.step
        self.status.value = f"step {made.step} of {self.steps.value}, {made.seconds:.1f} s"
        if time.perf_counter() - self._drawn_at > REDRAW_SECONDS:
            self._show(made)
            self._drawn_at = time.perf_counter()

    def _show(self, made: Any) -> None:
        """Take a network; its features may be fewer than those of the table."""
        self.progress.value = made.step
        self.made = made
        number, names = self.shown.value, made.rows.features
        if [name for name, _ in self.shown.options] != list(names):
            self.shown.options = [(name, place) for place, name in enumerate(names)]
            self.shown.value = min(number or 0, len(names) - 1)
        self._draw()

    def _draw(self) -> None:
        empty = [np.empty(0)] * 2
        if self.made is None:
            put_paths(self.figure, [empty] * len(self.figure.data))
            return
        made, feature = self.made, self.shown.value
        seen, (low, high) = made.partial(feature), made.slopes()
        gaps = np.column_stack([seen.scores, np.full(len(seen.scores), np.nan)])
        lines = (np.tile(np.append(seen.edges, np.nan), len(gaps)), gaps.ravel())
        middles = (seen.edges[1:] + seen.edges[:-1]) / 2
        paths = [lines, (seen.edges, seen.mean), band(seen.edges, seen.low, seen.high)]
        paths.append((middles, np.diff(seen.mean) / np.diff(seen.edges) * seen.spread))
        for wish in DIRECTION_COLOURS:
            paths.append(sticks(np.flatnonzero(made.directions == wish), low, high))
        put_paths(self.figure, paths)
        names = list(made.rows.features)
        self.figure.layout.yaxis3.update(
            tickvals=list(range(len(names))), ticktext=[folded(name).replace("\n", "<br>") for name in names]
        )
        self.figure.layout.yaxis3.range = (len(names) - 0.5, -0.5)
        layout = self.figure.layout
        for axis in (layout.xaxis, layout.xaxis2):
            axis.update(ticks_of(made.rows.x[:, feature]))
            axis.title.text = names[feature]
        layout.yaxis2.range = around(seen.low, seen.high, [0.0])
        layout.xaxis3.range = padded(low, high)
        unit = "logit" if made.rows.classes else "score"  # names of targets may be too long
        layout.yaxis.title.text = unit
        layout.yaxis2.title.text = layout.xaxis3.title.text = f"{unit} per spread"
        self.readout.value = self._words(low, high)

    def _words(self, low: np.ndarray, high: np.ndarray) -> str:
        made = self.made
        names = made.rows.features
        kinds = {1: "rises with", -1: "falls with"}
        proven = [
            f"{verb} " + ", ".join(names[number] for number in np.flatnonzero(made.directions == wish))
            for wish, verb in kinds.items()
            if (made.directions == wish).any()
        ]
        kind = "accuracy" if made.rows.classes else "root mean squared error"
        known = made.quality(held_out=False)
        parts = f"{kind} <b>{made.quality():.3g}</b> on held-out rows, {known:.3g} on the others"
        steepest = int(np.argmax(np.maximum(-low, high)))
        return (
            f"{parts}; proven: {made.rows.target} {' and '.join(proven) or 'has no direction asked for'}; steepest "
            f"possible slope {max(-low[steepest], high[steepest]):.2f} per spread, in <b>{names[steepest]}</b>"
        )


def put_paths(figure: go.FigureWidget, paths: Sequence[Path]) -> None:
    """Give every trace of a figure its x and y at once."""
    with figure.batch_update():
        for trace, path in zip(figure.data, paths, strict=True):
            # lists where there is nothing: an empty buffer takes the whole picture away in the browser
            trace.x, trace.y = (values if len(values) else [] for values in path)


def ticks_of(column: np.ndarray) -> dict[str, Any]:
    """Return where the axis of a feature has ticks: at its values if these are few whole numbers."""
    values = np.unique(column)
    if len(values) <= 6 and np.array_equal(values, np.round(values)):
        return {"tickmode": "array", "tickvals": values.tolist()}
    return {"tickmode": "auto", "tickvals": None}


def _figure() -> go.Figure:
    titles = (
        "Score of some rows, and their mean",
        "Its slope; shaded: proven",
        "Proven slopes of every feature",
    )
    figure = make_subplots(
        rows=1, cols=3, subplot_titles=titles, column_widths=[0.34, 0.33, 0.33], horizontal_spacing=0.11
    )
    thin = {"color": "rgba(110,110,110,0.35)", "width": 1}
    bold = {"color": BLUE, "width": 3}
    for name, line in {"one row": thin, "mean of the rows": bold}.items():
        figure.add_trace(go.Scatter(mode="lines", line=line, name=name, hoverinfo="skip"), row=1, col=1)
    area = {"fill": "toself", "fillcolor": "rgba(0,114,178,0.18)", "line": {"width": 0}, "hoverinfo": "skip"}
    figure.add_trace(go.Scatter(mode="lines", name="proven in the table's range", **area), row=1, col=2)
    slope = {"line": bold, "hoverinfo": "skip", "showlegend": False}
    figure.add_trace(go.Scatter(mode="lines", **slope), row=1, col=2)
    for wish, colour in DIRECTION_COLOURS.items():
        line = {"color": colour, "width": 9}
        figure.add_trace(
            go.Scatter(mode="lines", line=line, name=f"all inputs: {PROMISES[wish]}"), row=1, col=3
        )
    zero = {"color": GREY, "dash": "dot"}
    figure.add_hline(y=0, line=zero, row=1, col=2)
    figure.add_vline(x=0, line=zero, row=1, col=3)
    figure.update_xaxes(title="slope per spread", row=1, col=3)
    figure.update_xaxes(title_standoff=4)
    figure.update_yaxes(title="score", row=1, col=1)
    figure.update_yaxes(title="slope per spread", row=1, col=2)
    figure.update_yaxes(zeroline=False, row=1, col=3)  # the first feature is no zero
    figure.update_layout(template=plotly_template(), width=1000, height=390)
    figure.update_layout(legend={"orientation": "h", "x": 0.0, "y": -0.22, "font": {"size": 12}})
    figure.update_layout(margin={"l": 55, "r": 15, "t": 40, "b": 80})
    return figure.update_annotations(font_size=14)
