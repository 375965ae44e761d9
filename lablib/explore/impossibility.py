"""Pick two classes and a depth: the bound on the certified radius, the best budget and the proof, as pictures."""

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import hints, picker, rows, slider, watch
from lablib.plots.theme import plotly_template
from lablib.theory.impossibility import Certificate, solve

_MOST_DEPTH = 6


class ImpossibilityExplorer:
    """Pickers for the two classes and the group size, sliders for the depth and for the pairs of the proof.

    Each new choice is solved (a second or less for a few hundred small images) and kept.

    Args:
        classes: per class images (n, H, W) of one shape and dtype.
        names: of the classes.
        scale: for integer images, the value that counts as 1.0.

    Attributes:
        box: the widget to display.
        first, second, depth, group, pair: the controls.
        certificate: what is shown.
    """

    def __init__(self, classes: Sequence[np.ndarray], names: Sequence[str], scale: int | None = None) -> None:
        if len(classes) < 2 or any(np.ndim(images) != 3 for images in classes):
            raise ValueError("give at least two classes of images (n, H, W)")
        self._classes, self._names, self._scale = list(classes), list(names), scale
        self._solved: dict[tuple[int, int, int, int], Certificate] = {}
        options = [(name, label) for label, name in enumerate(self._names)]
        self.first = picker("class a", options, 0, "one class")
        self.second = picker("class b", options, 1, "the other class")
        self.depth = slider("layers M", 1, 1, _MOST_DEPTH, 1, "affine layers, with a sort between every two")
        self.group = picker(
            "group size", [("2 (MaxMin)", 2), ("4", 4), ("8", 8)], 2, "neurons sorted together"
        )
        self.pair = slider("pair", 1, 1, 1, 1, "which pair of the proof is shown, heaviest first")
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_figure(self._classes[0].shape[1:]))
        controls = (self.first, self.second, self.depth, self.group, self.pair)
        lines = rows(controls[:2], controls[2:4], controls[4:])
        self.box = widgets.VBox([lines, hints(controls), self.readout, self.figure])
        watch(controls[:4], self._choose)
        watch([self.pair], self._show_pair)
        self._choose()

    def _choose(self) -> None:
        """Solve for the chosen classes and networks (once), and show the result."""
        a, b = sorted((self.first.value, self.second.value))
        if a == b:
            self.readout.value = "Choose two <b>different</b> classes."
            return
        key = (a, b, self.depth.value, self.group.value)
        if key not in self._solved:
            self._solved[key] = solve(
                [self._classes[a], self._classes[b]],
                names=[self._names[a], self._names[b]],
                scale=self._scale,
                depth=self.depth.value,
                group=self.group.value,
                tolerance=1e-3,
                start=next((made for old, made in self._solved.items() if old[:2] == (a, b)), None),
            )
        self.certificate = self._solved[key]
        self._points = [self._classes[label] for label in (a, b)]
        with self.pair.hold_trait_notifications():
            self.pair.max = len(self.certificate.pairs)
            self.pair.value = 1
        budget = self.certificate.lambdas()[0].reshape(self._points[0].shape[1:])
        with self.figure.batch_update():
            self.figure.data[0].z = budget[::-1]
            self.figure.data[0].zmax = budget.max()
        self._show_pair()

    def _show_pair(self) -> None:
        """Show one pair of the proof, where it differs, and the numbers."""
        pairs, shares = self.certificate.heaviest(len(self.certificate.pairs))
        number = self.pair.value - 1
        images = [points[i].astype(float) for points, i in zip(self._points, pairs[number][[1, 3]])]
        largest = max(image.max() for image in images) or 1
        with self.figure.batch_update():
            for trace, image in zip(self.figure.data[1:], (*images, np.abs(images[0] - images[1]))):
                trace.z, trace.zmax = image[::-1], largest
        made = self.certificate
        reached = "the bound says nothing more" if made.lower == made.half_separation else "out of reach"
        self.readout.value = (
            f"<b>{made.names[0]} against {made.names[1]}, total budget {made.budget}: certified radius at most "
            f"{float(made.upper):.4f}</b> (and the bound cannot be lower than {float(made.lower):.4f}). "
            f"Half the separation is {float(made.half_separation):.4f}: {reached}. "
            f"Pair {self.pair.value} of {len(pairs)} carries {100 * shares[number]:.1f}% of the proof."
        )


def _figure(shape: tuple[int, int]) -> go.Figure:
    titles = ("best budget λ", "a", "b", "|a − b|")
    figure = make_subplots(rows=1, cols=4, subplot_titles=titles, horizontal_spacing=0.02)
    blank = np.zeros(shape)
    for column, colours in enumerate(("Cividis", "Greys_r", "Greys_r", "Cividis"), start=1):
        heat = go.Heatmap(z=blank, zmin=0, zmax=1, colorscale=colours, showscale=False)
        figure.add_trace(heat, row=1, col=column)
    figure.update_xaxes(visible=False, range=[-0.5, shape[1] - 0.5])
    figure.update_yaxes(visible=False, range=[-0.5, shape[0] - 0.5])
    figure.update_layout(
        template=plotly_template(), width=860, height=270, margin={"l": 10, "r": 10, "t": 40, "b": 10}
    )
    return figure
