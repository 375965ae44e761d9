"""Turn the numbers of one SortNet neuron: keep probability and ranks, the power p, the masks of a network."""

import itertools
import math

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import LABEL_WIDTH, WIDTH, hints, rows, slider, watch
from lablib.plots.sortnet_layer import RANKS_SHOWN, mask_picture, rank_shares, running_mean
from lablib.plots.theme import BLUE, GREY, ORANGE, RED, plotly_template
from lablib.theory.sortnet_neuron import (
    inputs_in_use,
    layer_cost,
    lp_gradient,
    lp_norm,
    rank_weights,
    ranked_sum,
    sample_winners,
)

DRAWS = 4000
POWERS = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256, 512, 1000, math.inf)
COUNTS = (2, 8, 64, 784)
SIDE, SPAN = 41, 1.5
MASK_SIDE = 40


class DropoutExplorer:
    """Sliders for q, K, the number of inputs and the draw; which rank wins, and the mean of the maxima.

    Attributes:
        box: the widget to display; ``keep``, ``top``, ``inputs``, ``seed``: the controls.
        exact, cut, sampled, band: sum over all ranks, over the first K (rescaled), mean of the draws and the
            half-width of its 99 % band.
    """

    def __init__(self, keep: float = 0.75, top: int = 10, inputs: int = 32) -> None:
        self.keep = slider("keep q", keep, 0.05, 1.0, 0.05, "probability that an input is kept")
        self.top = slider("ranks K", top, 1, RANKS_SHOWN, 1, "how many ranks the sorted form adds up")
        self.inputs = slider("inputs d", inputs, 2, 64, 1, "how many inputs the neuron has")
        self.seed = slider("seed", 0, 0, 20, 1, "draws other inputs and other subsets")
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_dropout_figure())
        controls = (self.keep, self.top, self.inputs, self.seed)
        self.box = widgets.VBox(
            [rows(controls[:2], controls[2:]), hints(controls), self.readout, self.figure]
        )
        watch(controls, self._answer)
        self._answer()

    def _answer(self) -> None:
        keep, top, count = self.keep.value, self.top.value, self.inputs.value
        rng = np.random.default_rng(self.seed.value)
        values = np.sort(np.abs(rng.normal(size=count)))[::-1]
        winners = sample_winners(count, keep, DRAWS, rng)
        maxima = np.append(values, 0.0)[winners]
        weights = np.zeros(RANKS_SHOWN)
        weights[: min(top, count)] = rank_weights(keep, min(top, count))
        self.exact = float(ranked_sum(values, keep))
        self.cut = float(weights[: min(top, count)] @ values[: min(top, count)])
        draws, mean, band = running_mean(maxima)
        self.sampled, self.band = float(mean[-1]), float(band[-1])
        shown = np.zeros(RANKS_SHOWN)
        shown[: min(count, RANKS_SHOWN)] = values[:RANKS_SHOWN]
        self._draw(shown, weights, rank_shares(winners, count), (draws, mean, band))
        self.readout.value = (
            f"mean of {DRAWS} maxima <b>{self.sampled:.3f} ± {self.band:.3f}</b>; ranked sum "
            f"<b>{self.exact:.3f}</b>; first {min(top, count)} ranks, rescaled: {self.cut:.3f}; "
            f"largest input {values[0]:.3f}"
        )

    def _draw(self, values, weights, shares, means) -> None:
        draws, mean, band = means
        inputs, won, weighted, band_area, line, target = self.figure.data
        with self.figure.batch_update():
            inputs.y, won.y, weighted.y = values, shares, weights
        with self.figure.batch_update():
            band_area.x, band_area.y = (
                np.append(draws, draws[::-1]),
                np.append(mean + band, (mean - band)[::-1]),
            )
            line.x, line.y = draws, mean
            target.x, target.y = [20, DRAWS], [self.exact, self.exact]


class PowerExplorer:
    """A slider for p and one for the number of inputs: level sets, value between its bounds, gradient shares.

    Attributes:
        box: the widget to display; ``power``, ``count``, ``seed``: the controls.
        value, largest, slope, in_use: ||d||_p, ||d||_inf, l_1 norm of the gradient, inputs that share it.
    """

    def __init__(self, power: float = 8, count: int = 64) -> None:
        names = [("∞" if math.isinf(p) else f"{p:g}", p) for p in POWERS]
        self.power = _choices("power p", names, power, "the norm of the neuron")
        self.count = _choices("inputs n", [(str(n), n) for n in COUNTS], count, "how many inputs it has")
        self.seed = slider("seed", 0, 0, 20, 1, "draws other differences x − c")
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_power_figure())
        controls = (self.power, self.count, self.seed)
        self.box = widgets.VBox([rows(controls), hints(controls), self.readout, self.figure])
        watch(controls, self._answer)
        self._answer()

    def _answer(self) -> None:
        p, count = self.power.value, self.count.value
        rng = np.random.default_rng(self.seed.value)
        differences = np.sort(np.abs(rng.normal(size=count)))[::-1]
        gradient = lp_gradient(differences, p)
        self.largest, self.value = float(differences[0]), float(lp_norm(differences, p))
        self.slope, self.in_use = float(gradient.sum()), inputs_in_use(gradient)
        self._draw(p, differences, gradient / gradient.sum())
        root = 1.0 if math.isinf(p) else count ** (1 / p)
        self.readout.value = (
            f"m = {self.largest:.3f} ≤ <b>‖d‖ₚ = {self.value:.3f}</b> ≤ n^(1/p) m = {root * self.largest:.3f}; "
            f"ℓ1 norm of the gradient <b>{self.slope:.3f}</b> ≤ {root:.3f}; "
            f"the gradient is shared by <b>{self.in_use:.1f}</b> of {count} inputs"
        )

    def _draw(self, p: float, differences: np.ndarray, shares: np.ndarray) -> None:
        field, curve, here, bars = self.figure.data
        finite = np.geomspace(1, 1000, 60)
        values = [float(lp_norm(differences, power)) / self.largest for power in finite]
        shown = np.zeros(RANKS_SHOWN)
        shown[: min(len(shares), RANKS_SHOWN)] = shares[:RANKS_SHOWN]
        with self.figure.batch_update():
            field.z = lp_norm(plane_grid(), p)
        with self.figure.batch_update():
            curve.x, curve.y = finite, values
            here.x, here.y = [min(p, 1000)], [self.value / self.largest]
        with self.figure.batch_update():
            bars.y = shown


class MaskExplorer:
    """Sliders for q and the draw: which parts of three layers one training step computes, and what they cost.

    Attributes:
        box: the widget to display; ``keep``, ``seed``: the controls.
        shares: computed share of each layer in this draw; ``expected``: on average.
    """

    NAMES = ("first layer", "hidden layer", "last layer")

    def __init__(self, keep: float = 0.75) -> None:
        self.keep = slider("share q", keep, 0.05, 1.0, 0.05, "probability that a neuron is kept")
        self.seed = slider("seed", 0, 0, 20, 1, "draws other masks")
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_mask_figure(self.NAMES))
        controls = (self.keep, self.seed)
        self.box = widgets.VBox([rows(controls), hints(controls), self.readout, self.figure])
        watch(controls, self._answer)
        self._answer()

    def _answer(self) -> None:
        pictures = draw_network_masks(self.keep.value, self.seed.value)
        self.shares = [float(picture.mean()) for picture in pictures]
        self.expected = layer_cost([1] * (len(pictures) + 1), self.keep.value)
        with self.figure.batch_update():
            for trace, picture in zip(self.figure.data, pictures, strict=True):
                trace.z = picture
        parts = [
            f"{name} <b>{share:.0%}</b> (on average {mean:.0%})"
            for name, share, mean in zip(self.NAMES, self.shares, self.expected, strict=True)
        ]
        self.readout.value = "computed in this step: " + "; ".join(parts)


def draw_network_masks(keep: float, seed: int) -> list[np.ndarray]:
    """Return (O, I) of three layers, 1 where computed: a count from the binomial, then a subset of that size."""
    rng = np.random.default_rng(seed)
    everything = np.ones(MASK_SIDE, dtype=bool)
    masks = [everything, *(_subset(MASK_SIDE, keep, rng) for _ in range(2)), everything]
    return [mask_picture(before, after) for before, after in itertools.pairwise(masks)]


def plane_grid() -> np.ndarray:
    """Return the points (SIDE, SIDE, 2) on which the neuron of two inputs is drawn; its centre is 0."""
    at = np.linspace(-SPAN, SPAN, SIDE)
    return np.stack(np.meshgrid(at, at), axis=-1)


def _subset(count: int, keep: float, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros(count, dtype=bool)
    mask[rng.permutation(count)[: max(1, rng.binomial(count, keep))]] = True
    return mask


def _choices(name: str, options: list, value: float, hint: str) -> widgets.SelectionSlider:
    control = widgets.SelectionSlider(options=options, value=value, description=name, tooltip=hint)
    control.style.description_width, control.layout.width = LABEL_WIDTH, WIDTH
    return control


def _panels(titles: tuple[str, ...], height: int = 330) -> go.Figure:
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=titles, horizontal_spacing=0.09)
    figure.update_layout(template=plotly_template(), width=980, height=height, showlegend=False)
    figure.update_layout(margin={"l": 55, "r": 15, "t": 40, "b": 50})
    figure.update_annotations(font_size=14)
    return figure


def _label(figure: go.Figure, axes: dict) -> None:
    for column, (x_title, x_range, y_title, y_range) in axes.items():
        figure.update_xaxes(title=x_title, range=x_range, row=1, col=column, title_standoff=6)
        figure.update_yaxes(title=y_title, range=y_range, row=1, col=column, title_standoff=4)


def _dropout_figure() -> go.Figure:
    figure = _panels(("Inputs, largest first", "Who is the largest kept one?", "Mean of the maxima"))
    ranks, flat = np.arange(1, RANKS_SHOWN + 1), np.zeros(RANKS_SHOWN)
    figure.add_trace(go.Bar(x=ranks, y=flat, name="input", marker_color="#B9B9B9"), row=1, col=1)
    figure.add_trace(go.Bar(x=ranks, y=flat, name="won", marker_color=BLUE), row=1, col=2)
    dots = {"color": ORANGE, "size": 7}
    figure.add_trace(go.Scatter(x=ranks, y=flat, mode="markers", name="weight", marker=dots), row=1, col=2)
    area = {"fill": "toself", "fillcolor": "#BFD9EA", "line": {"width": 0}, "hoverinfo": "skip"}
    figure.add_trace(go.Scatter(name="99 % band", **area), row=1, col=3)
    figure.add_trace(go.Scatter(mode="lines", name="mean", line={"color": BLUE}), row=1, col=3)
    dashes = {"color": RED, "dash": "dash"}
    figure.add_trace(go.Scatter(mode="lines", name="ranked sum", line=dashes), row=1, col=3)
    ends = (0.4, RANKS_SHOWN + 0.6)
    _label(
        figure,
        {
            1: ("rank", ends, "|x − c|", (0, 3.2)),
            2: ("rank (blue: draws, orange: weights)", ends, "share", (0, 1.05)),
            3: ("draws (dashed: ranked sum)", (math.log10(20), math.log10(DRAWS)), "value", (0, 3.2)),
        },
    )
    figure.update_xaxes(type="log", dtick=1, row=1, col=3)
    return figure


def _power_figure() -> go.Figure:
    figure = _panels(("Two inputs: level sets", "n inputs: value / largest", "Share of the gradient"))
    at, levels = np.linspace(-SPAN, SPAN, SIDE), {"start": 0, "end": 3, "size": 0.25}
    surface = {"zmin": 0, "zmax": 3, "colorscale": "Cividis", "contours": levels, "autocontour": False}
    figure.add_trace(
        go.Contour(x=at, y=at, showscale=False, line={"width": 1, "color": "white"}, **surface), row=1, col=1
    )
    figure.add_trace(go.Scatter(mode="lines", line={"color": BLUE}, name="value"), row=1, col=2)
    mark = {"color": RED, "size": 11}
    figure.add_trace(go.Scatter(mode="markers", marker=mark, name="this p"), row=1, col=2)
    ranks, flat = np.arange(1, RANKS_SHOWN + 1), np.zeros(RANKS_SHOWN)
    figure.add_trace(go.Bar(x=ranks, y=flat, marker_color=ORANGE, name="share"), row=1, col=3)
    _label(
        figure,
        {
            1: ("x₁ − c₁", (-SPAN, SPAN), "x₂ − c₂", (-SPAN, SPAN)),
            2: ("p (at 1000 also: ∞)", (0, 3.1), "‖d‖ₚ / ‖d‖∞", (-0.05, 2.6)),
            3: ("inputs, largest |d| first", (0.4, RANKS_SHOWN + 0.6), "share", (0, 1.05)),
        },
    )
    figure.update_xaxes(type="log", dtick=1, row=1, col=2)
    figure.update_yaxes(type="log", dtick=1, row=1, col=2)
    figure.add_hline(y=1, line={"color": GREY, "dash": "dot"}, row=1, col=2)
    return figure


def _mask_figure(names: tuple[str, ...]) -> go.Figure:
    figure = _panels(names, height=330)
    blank = np.zeros((MASK_SIDE, MASK_SIDE))
    for column in range(1, len(names) + 1):
        style = {"zmin": 0, "zmax": 1, "colorscale": "Cividis", "showscale": False}
        figure.add_trace(go.Heatmap(z=blank, hoverinfo="skip", **style), row=1, col=column)
    ends = (-0.5, MASK_SIDE - 0.5)
    _label(
        figure, dict.fromkeys(range(1, len(names) + 1), ("inputs (yellow: computed)", ends, "neurons", ends))
    )
    return figure
