"""Choose an image, slide eps: the bounds of its logits, the worst image found, and what is proved."""

import dataclasses
from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import hints, picker, rows, slider, watch
from lablib.plots.certified_image import VERDICTS, verdict
from lablib.plots.theme import BLUE, GREEN, ORANGE, RED, plotly_template

Bounds = Callable[[int, float], tuple[np.ndarray, np.ndarray]]
Attack = Callable[[int, float], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class View:
    """What is shown of one image at one eps.

    Attributes:
        label: true class; ``eps``: radius in pixel units; ``radius``: the proven one.
        image, worst: (H, W); ``clean``, ``found``: (C,) their logits; ``lower``, ``upper``: (C,) bounds of the
            logits within eps; ``verdict``: a key of ``lablib.plots.certified_image.VERDICTS``.
    """

    label: int
    eps: float
    radius: float
    image: np.ndarray
    worst: np.ndarray
    clean: np.ndarray
    found: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    verdict: str


class CertifiedExplorer:
    """Pickers for a kind of image, an image and eps; its certificate as picture and text.

    Args:
        images: (N, H, W) in [0, 1].
        labels: (N,).
        radii: (N,) proven radii, 0 or less where the image is misclassified.
        clean: (N, C) logits of the images.
        bounds: (index, eps) -> lower and upper (C,), proven bounds of the logits within eps.
        attack: (index, eps) -> an image (H, W) within eps of the image and its logits (C,).
        largest: the end of the slider for eps, in pixel units.

    Attributes:
        box: the widget to display; ``kind``, ``image``, ``eps``: the controls.
        view: what is shown.
    """

    KINDS = ("all", "certified widely", "certified narrowly", "misclassified")

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        radii: np.ndarray,
        clean: np.ndarray,
        bounds: Bounds,
        attack: Attack,
        largest: float = 0.4,
    ) -> None:
        if not len(images) == len(labels) == len(radii) == len(clean) or not len(images):
            raise ValueError("give one label, one radius and one row of logits for each image")
        self._images, self._labels, self._radii, self._clean = images, labels, radii, clean
        self._bounds, self._attack = bounds, attack
        self._order = np.arange(len(images))
        self.kind = picker("images", self.KINDS, "all", "which images to choose from")
        self.image = slider("number", 0, 0, len(images) - 1, 1, "which of them")
        self.eps = slider("eps", largest / 4, 0.0, largest, largest / 40, "how far each pixel may move")
        self.eps.readout_format = ".3f"
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_figure(images.shape[1:], clean))
        controls = (self.kind, self.image, self.eps)
        self.box = widgets.VBox([rows(controls), hints(controls), self.readout, self.figure])
        self.kind.observe(lambda _change: self._choose(), names="value")
        watch((self.image, self.eps), self._answer)
        self._answer()

    def _choose(self) -> None:
        """Keep the images of the chosen kind, the clearest example first; all of them where there is none."""
        right = np.flatnonzero(self._radii > 0)
        by_radius = right[np.argsort(self._radii[right], kind="stable")]
        kinds = (np.arange(len(self._radii)), by_radius[::-1], by_radius, np.flatnonzero(self._radii <= 0))
        chosen = dict(zip(self.KINDS, kinds, strict=True))[self.kind.value]
        self._order = chosen if len(chosen) else kinds[0]
        self.image.max = len(self._order) - 1
        self.image.value = 0
        self._answer()

    def look(self, index: int, eps: float) -> View:
        """Return what is known of image ``index`` at ``eps``."""
        lower, upper = self._bounds(index, eps)
        worst, found = self._attack(index, eps)
        label, clean, radius = int(self._labels[index]), self._clean[index], float(self._radii[index])
        return View(
            label=label,
            eps=eps,
            radius=radius,
            image=self._images[index],
            worst=worst,
            clean=clean,
            found=found,
            lower=lower,
            upper=upper,
            verdict=verdict(label, clean, found, radius, eps),
        )

    def _answer(self) -> None:
        index = int(self._order[min(self.image.value, len(self._order) - 1)])
        self.view = view = self.look(index, self.eps.value)
        self._draw(view)
        rival = int(np.argmax(np.where(np.arange(len(view.clean)) == view.label, -np.inf, view.upper)))
        self.readout.value = (
            f"image {index}, a <b>{view.label}</b>, proven radius <b>{max(view.radius, 0):.4f}</b>; "
            f"eps {view.eps:.3f}: <b>{VERDICTS[view.verdict]}</b>; low end of {view.label}: "
            f"{view.lower[view.label]:.3f}, high end of {rival}: {view.upper[rival]:.3f}; "
            f"worst image found is read as {int(view.found.argmax())}"
        )

    def _draw(self, view: View) -> None:
        image, worst, change, interval, truth, clean, found, floor = self.figure.data
        span = max(view.eps, 1e-6)
        with self.figure.batch_update():
            image.z, worst.z = view.image, view.worst
        with self.figure.batch_update():
            change.z, change.zmin, change.zmax = view.worst - view.image, -span, span
        classes = np.arange(len(view.clean))
        own = classes == view.label
        with self.figure.batch_update():
            interval.x, interval.y = _sticks(classes[~own], view.lower[~own], view.upper[~own])
            truth.x, truth.y = _sticks(classes[own], view.lower[own], view.upper[own])
            clean.x, clean.y = classes, view.clean
            found.x, found.y = classes, view.found
            floor.x, floor.y = [-0.5, len(classes) - 0.5], [view.lower[view.label]] * 2


def _sticks(places: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[list, list]:
    """Return the coordinates of vertical bars, one line with gaps."""
    across, up = [], []
    for place, low, high in zip(places.tolist(), lower.tolist(), upper.tolist(), strict=True):
        across += [place, place, None]
        up += [low, high, None]
    return across, up


def _figure(shape: tuple[int, ...], clean: np.ndarray) -> go.Figure:
    titles = ("Image", "Worst found", "Change (red: brighter)", "Logits and their proven bounds")
    figure = make_subplots(
        rows=1, cols=4, subplot_titles=titles, column_widths=[0.2, 0.2, 0.2, 0.4], horizontal_spacing=0.04
    )
    for column, colours in ((1, "gray"), (2, "gray"), (3, "RdBu_r")):
        heat = go.Heatmap(zmin=0, zmax=1, colorscale=colours, showscale=False, hoverinfo="skip")
        figure.add_trace(heat, row=1, col=column)
        figure.update_xaxes(visible=False, range=[-0.5, shape[1] - 0.5], row=1, col=column)
        square = {"scaleanchor": f"x{column if column > 1 else ''}", "constrain": "domain"}
        figure.update_yaxes(visible=False, range=[shape[0] - 0.5, -0.5], row=1, col=column, **square)
    parts = (
        ("others", {"mode": "lines", "line": {"color": BLUE, "width": 8}, "opacity": 0.4}),
        ("truth", {"mode": "lines", "line": {"color": GREEN, "width": 8}, "opacity": 0.5}),
        ("image", {"mode": "markers", "marker": {"color": "black", "size": 7}}),
        ("worst found", {"mode": "markers", "marker": {"color": RED, "size": 9, "symbol": "diamond"}}),
        ("low end of the truth", {"mode": "lines", "line": {"color": ORANGE, "dash": "dash"}}),
    )
    for name, style in parts:
        figure.add_trace(go.Scatter(name=name, **style), row=1, col=4)
    reach = float(np.abs(clean - clean.mean()).max())
    middle = float(clean.mean())
    figure.update_xaxes(dtick=1, range=[-0.6, clean.shape[1] - 0.4], title="class", row=1, col=4)
    figure.update_yaxes(range=[middle - 1.6 * reach, middle + 1.6 * reach], row=1, col=4)
    figure.update_layout(template=plotly_template(), width=1000, height=340)
    figure.update_layout(legend={"orientation": "h", "x": 0.0, "y": -0.12, "font": {"size": 11}})
    figure.update_layout(margin={"l": 15, "r": 15, "t": 40, "b": 60})
    return figure.update_annotations(font_size=14)
