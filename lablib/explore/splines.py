"""Bend a linear spline by hand and watch its slopes being clipped; raise a penalty and watch its knots vanish."""

from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from lablib.explore.controls import hints, picker, rows, slider, watch
from lablib.layers import LearnableSpline
from lablib.plots.splines import LIMIT, SLOPE_LIMIT, extended, pieces, steps
from lablib.plots.theme import BLUE, GREY, ORANGE, RED, plotly_template
from lablib.theory.spline_regression import active_knots, fit, sparsest
from lablib.theory.spline_targets import TARGETS, make_target, sample

KNOTS, REACH = 9, 1.0
STEP = 0.1  # of a slope: a browser rounds a slider's value to its step
ENDS = (-LIMIT, LIMIT)
BEND = 1e-6  # a knot is active if it changes the slope by more
FLAT = np.zeros(KNOTS - 1)
PRESETS: dict[str, tuple[np.ndarray, float]] = {  # slopes of the pieces, mean of the values
    "too steep": (np.array([-0.6, 1.8, 1.0, -0.4, -2.2, 0.3, 0.3, 1.5]), 0.0),
    "identity": (FLAT + 1.0, 0.0),
    "zero": (FLAT, 0.0),
    "ReLU": (np.repeat([0.0, 1.0], 4), 0.3),
    "absolute value": (np.repeat([-1.0, 1.0], 4), 0.6),
    "zig-zag": (np.tile([2.0, -2.0], 4), 0.0),
}


class SplineEditor:
    """A vertical slider for the slope of each piece, one for the mean and one for alpha; raw and projected spline.

    A click in the left panel moves the nearest knot to that height (slopes are rounded to ``STEP``).

    Attributes:
        box: the widget to display; ``preset``, ``slopes`` (KNOTS - 1 sliders), ``mean``, ``scale``: its controls.
        layer: the :class:`~lablib.layers.LearnableSpline` that projects.
        positions: (KNOTS,) knots of s: t_k / alpha. ``raw``, ``projected``: (KNOTS,) values of s there.
    """

    def __init__(self, preset: str = "too steep") -> None:
        if preset not in PRESETS:
            raise ValueError(f"no preset {preset!r}; choose from {', '.join(PRESETS)}")
        self.layer = LearnableSpline(1, KNOTS, REACH).double()
        self.preset = picker("start from", list(PRESETS), preset, "a spline to begin with")
        self.mean = slider(
            "mean", 0.0, -1.0, 1.0, STEP, "mean of the values on the knots: the projection keeps it"
        )
        self.scale = slider("α", 1.0, 0.5, 2.0, STEP, "moves the knots to t/α; slopes and TV(2) stay")
        self.slopes = [_upright(f"{number + 1}") for number in range(KNOTS - 1)]
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_editor_figure())
        self.figure._config = {**self.figure._config, "displayModeBar": False}
        self._loading, self._answers = False, []
        self._load()
        explained = hints((self.preset, self.mean, self.scale))
        explained.value += (
            "<small>Below: the slope of each of the 8 pieces. Or click above or below a knot.</small>"
        )
        self.box = widgets.VBox(
            [
                rows((self.preset, self.mean, self.scale)),
                explained,
                self.readout,
                self.figure,
                widgets.HBox(self.slopes),
            ]
        )
        self.preset.observe(lambda _change: self._load(), names="value")
        watch((*self.slopes, self.mean, self.scale), self._answer)
        self.figure.data[0].on_click(self._click)

    def on_change(self, answer: Callable[[], None]) -> None:
        """Call ``answer`` after every edit."""
        self._answers.append(answer)

    def move_knot(self, number: int, height: float) -> None:
        """Put knot ``number`` of the raw spline at ``height``; the others stay, up to the step of the sliders."""
        values = self.raw.copy()
        values[number] = height
        made = np.clip(np.diff(values) / np.diff(self.positions), -2.5, 2.5)
        self._set(
            np.round(made / STEP) * STEP, float(np.round(values.mean() * self.scale.value / STEP) * STEP)
        )

    def _click(self, _trace, points, _state) -> None:
        if points.xs:
            self.move_knot(int(np.abs(self.positions - points.xs[0]).argmin()), float(points.ys[0]))

    def _load(self) -> None:
        self._set(*PRESETS[self.preset.value])

    def _set(self, slopes: np.ndarray, mean: float) -> None:
        """Set every slider, then answer once."""
        self._loading = True
        for control, slope in zip(self.slopes, slopes, strict=True):
            control.value = float(slope)
        self.mean.value = mean
        self._loading = False
        self._answer()

    def _answer(self) -> None:
        if self._loading:
            return
        slopes = np.array([control.value for control in self.slopes])
        spacing, alpha = 2 * REACH / (KNOTS - 1), self.scale.value
        coefficients = np.concatenate([[0.0], np.cumsum(slopes) * spacing])
        coefficients += self.mean.value - coefficients.mean()
        with torch.no_grad():
            self.layer.coefficients = torch.from_numpy(coefficients)[None]
            self.layer.scale = torch.tensor([alpha], dtype=torch.float64)
        (made,) = self.layer.export()
        self.positions, self.raw, self.projected = made.positions, coefficients / alpha, made.values
        self._draw(slopes, np.diff(made.values) / np.diff(made.positions))
        for answer in self._answers:
            answer()

    def _draw(self, before: np.ndarray, after: np.ndarray) -> None:
        bent = np.abs(np.diff(after)) > BEND
        clipped = np.abs(before) > 1 + BEND
        paths = (
            extended(self.positions, self.raw, ENDS),
            extended(self.positions, self.projected, ENDS),
            pieces(self.positions, self.projected, clipped),
            (self.positions[1:-1][bent], self.projected[1:-1][bent]),
            (self.positions[1:-1][~bent], self.projected[1:-1][~bent]),
            steps(self.positions, before, ENDS),
            steps(self.positions, after, ENDS),
        )
        with self.figure.batch_update():
            for trace, (x, y) in zip(self.figure.data[1:], paths, strict=True):
                trace.x, trace.y = x, y
        variation = [np.abs(np.diff(slopes)).sum() for slopes in (before, after)]
        self.readout.value = (
            f"as edited: steepest slope {np.abs(before).max():.2f}, TV(2) {variation[0]:.2f}; "
            f"<b>projected: steepest {np.abs(after).max():.2f}, TV(2) {variation[1]:.2f}, "
            f"{bent.sum()} active knots</b> of {KNOTS - 2}; {clipped.sum()} of {KNOTS - 1} pieces clipped; "
            f"knots between ±{REACH / self.scale.value:.2f}"
        )


class KnotExplorer:
    """A slider for lambda: the best 1-Lipschitz function for 1-D data and a TV(2) penalty, solved at each step.

    Attributes:
        box: the widget to display; ``target``, ``weight`` (log10 of lambda), ``noise``, ``seed``: its controls.
        x, y: the data. ``line``: the optimum with the fewest knots. ``counts``: its knots at each of ``WEIGHTS``.
    """

    POINTS = 40
    WEIGHTS = np.linspace(-6, 0, 13)  # log10 of lambda

    def __init__(self, target: str = "f2", weight: float = -5.0) -> None:
        self.target = picker("target", TARGETS, target, "the function behind the data")
        self.weight = slider(
            "log₁₀ λ", float(weight), -6.0, 0.0, 0.25, "price of TV(2), the total change of slope"
        )
        self.noise = slider("noise", 0.02, 0.0, 0.1, 0.01, "spread of the errors in the data")
        self.seed = slider("seed", 5, 0, 20, 1, "draws other data")
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_knot_figure())
        self.figure._config = {**self.figure._config, "displayModeBar": False}
        controls = (self.target, self.weight, self.noise, self.seed)
        self.box = widgets.VBox(
            [rows(controls[:2], controls[2:]), hints(controls), self.readout, self.figure]
        )
        watch((self.target, self.noise, self.seed), self._draw_data)
        watch((self.weight,), self._answer)
        self._draw_data()

    def _draw_data(self) -> None:
        """Draw other data, and the path: knots and error of the optimum at every lambda."""
        truth = make_target(self.target.value, seed=self.seed.value)
        rng = np.random.default_rng(self.seed.value)
        self.x, self.y = sample(truth, self.POINTS, rng, self.noise.value)
        made = [fit(self.x, self.y, 10**weight) for weight in self.WEIGHTS]
        self.counts = [len(sparsest(each.line).positions) - 2 for each in made]
        with self.figure.batch_update():
            self.figure.data[0].x, self.figure.data[0].y = self.x, self.y
            self.figure.data[5].x, self.figure.data[5].y = 10**self.WEIGHTS, self.counts
        room = 0.15 * np.ptp(self.y)
        self.figure.layout.yaxis.range = (self.y.min() - room, self.y.max() + room)
        self._answer()

    def _answer(self) -> None:
        optimum = fit(self.x, self.y, 10**self.weight.value)
        self.line = sparsest(optimum.line)
        positions, values = self.line.positions, self.line.values
        count = len(positions) - 2
        _, line, knots, slopes, band, _, here = self.figure.data
        with self.figure.batch_update():
            line.x, line.y = positions, values
            knots.x, knots.y = positions[1:-1], values[1:-1]
            slopes.x, slopes.y = steps(positions, self.line.slopes, (positions[0], positions[-1]))
            band.x, band.y = [-1, 1, 1, -1], [-1, -1, 1, 1]
            here.x, here.y = [10**self.weight.value], [count]
        at_data = len(active_knots(optimum.line))
        self.readout.value = (
            f"λ = 10^{self.weight.value:.2f}: <b>knots: {count}</b> ({at_data} if only data points may be knots); "
            f"TV(2) <b>{self.line.second_variation:.2f}</b>; mean squared error {optimum.mse:.2e}; no 1-Lipschitz "
            f"function has an objective below {optimum.lower_bound:.2e}, this one has {optimum.objective:.2e}"
        )


def _upright(name: str) -> widgets.FloatSlider:
    """Return a vertical slider for the slope of one piece."""
    return widgets.FloatSlider(
        value=0.0,
        min=-2.5,
        max=2.5,
        step=STEP,
        orientation="vertical",
        description=name,
        readout_format=".1f",
        tooltip=f"slope of piece {name}, from the left",
        layout=widgets.Layout(height="150px", width="56px"),
    )


def _panels(titles: tuple[str, ...], widths: list[float]) -> go.Figure:
    figure = make_subplots(
        rows=1, cols=len(titles), subplot_titles=titles, column_widths=widths, horizontal_spacing=0.09
    )
    figure.update_layout(template=plotly_template(), width=980, height=360, showlegend=False)
    figure.update_layout(margin={"l": 55, "r": 15, "t": 40, "b": 50}, hovermode="closest")
    return figure.update_annotations(font_size=14)


def _line(colour: str, width: float = 2.0, dash: str = "solid", **options) -> go.Scatter:
    style = {"color": colour, "width": width, "dash": dash}
    return go.Scatter(x=[0], y=[0], mode="lines", line=style, hoverinfo="skip", **options)


def _dots(colour: str, symbol: str, size: int = 9) -> go.Scatter:
    marker = {"color": colour, "symbol": symbol, "size": size, "line": {"color": colour, "width": 2}}
    return go.Scatter(x=[0], y=[0], mode="markers", marker=marker, hoverinfo="skip")


def _editor_figure() -> go.Figure:
    titles = ("Dashed: as edited. Blue: projected. Red: clipped", "Slopes: the band is [−1, 1]")
    figure = _panels(titles, [0.5, 0.5])
    cells = np.linspace(-LIMIT, LIMIT, 61)
    ground = {"z": np.zeros((61, 61)), "colorscale": [[0, "white"], [1, "white"]], "showscale": False}
    figure.add_trace(go.Heatmap(x=cells, y=cells, hoverinfo="none", **ground), row=1, col=1)
    left = [
        _line(GREY, dash="dash"),
        _line(BLUE, 2.5),
        _line(RED, 7, opacity=0.5),
        _dots(BLUE, "circle"),
        _dots(BLUE, "circle-open", 7),
    ]
    for trace in left:
        figure.add_trace(trace, row=1, col=1)
    for trace in (_line(GREY, dash="dash"), _line(BLUE, 2.5)):
        figure.add_trace(trace, row=1, col=2)
    figure.add_hrect(-1, 1, fillcolor="#EDEDED", line_width=0, layer="below", row=1, col=2)
    figure.update_xaxes(range=ENDS, title="x", title_standoff=4)
    figure.update_yaxes(range=ENDS, title="s(x)", row=1, col=1)
    return figure.update_yaxes(range=(-SLOPE_LIMIT, SLOPE_LIMIT), title="slope", row=1, col=2)


def _knot_figure() -> go.Figure:
    figure = _panels(("Best fit, its knots in red", "Its slopes", "Knots left"), [0.4, 0.3, 0.3])
    for trace in (_dots("#A0A0A0", "circle", 4), _line(BLUE, 2.5), _dots(RED, "diamond")):
        figure.add_trace(trace, row=1, col=1)
    figure.add_trace(_line(BLUE, 2.5), row=1, col=2)
    area = {
        "fill": "toself",
        "fillcolor": "rgba(120,120,120,0.15)",
        "line": {"width": 0},
        "hoverinfo": "skip",
    }
    figure.add_trace(go.Scatter(x=[-1, 1, 1, -1], y=[-1, -1, 1, 1], mode="lines", **area), row=1, col=2)
    path = {"mode": "lines+markers", "line": {"color": GREY}, "marker": {"size": 4}}
    figure.add_trace(go.Scatter(x=[1e-6, 1], y=[0, 0], **path), row=1, col=3)
    figure.add_trace(_dots(ORANGE, "circle", 12), row=1, col=3)
    for column in (1, 2):
        figure.update_xaxes(range=(-1.05, 1.05), title="x", title_standoff=4, row=1, col=column)
    figure.update_xaxes(type="log", range=(-6.2, 0.2), dtick=2, exponentformat="power", row=1, col=3)
    figure.update_xaxes(title="λ", title_standoff=4, row=1, col=3)
    figure.update_yaxes(range=(-0.75, 0.75), title="f(x)", row=1, col=1)
    figure.update_yaxes(range=(-1.2, 1.2), title="slope", row=1, col=2)
    return figure.update_yaxes(range=(-0.5, 26.5), title="knots", row=1, col=3)
