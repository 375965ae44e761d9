"""Train a small Lipschitz network in the plane and look at what it guarantees, point by point."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
import numpy as np

from lablib.explore.boundary_figure import BoundaryFigure, largest_radius
from lablib.explore.controls import LABEL_WIDTH, WIDTH, hints, picker, rows, slider

DRAWN = "your points"
SHAPES = {"linf": "square", "l2": "disc"}


class BoundaryExplorer:
    """Pickers for data, architecture, norm and size; a Train button; boundary and certified regions.

    Args:
        fit: (data, architecture=, norm=, width=, depth=, steps=, seed=, on_progress=) -> trained network with
            ``evaluate`` ((N, 2) -> (N,)), ``radii`` (N,), ``seconds`` and ``step``. It calls
            ``on_progress(trained)`` a few times a second.
        data_sets: name -> function without arguments that returns points, labels, frame, half_separation.
        architectures: name -> the norms it can be trained for, the default first.
        read_points: text -> data set, for points drawn by hand.
        example: text with which the hand-drawn points start.
        first: the architecture shown first; default, the first of all.
        steps: training steps to start with.

    Attributes:
        box: the widget to display. ``data``, ``trained``: what is shown; ``trained`` is None before training.
    """

    def __init__(
        self,
        fit: Callable[..., Any],
        data_sets: Mapping[str, Callable[[], Any]],
        architectures: Mapping[str, tuple[str, ...]],
        read_points: Callable[[str], Any],
        example: str,
        *,
        first: str | None = None,
        steps: int = 300,
    ) -> None:
        if not data_sets or not architectures:
            raise ValueError("give at least one data set and one architecture")
        self._fit, self._sets, self._architectures = fit, data_sets, architectures
        self._read_points = read_points
        names = [*data_sets, DRAWN]
        first = first or next(iter(architectures))
        norms = architectures[first]
        self.dataset = picker("data", names, names[0], "which points to separate")
        self.architecture = picker("architecture", list(architectures), first, "which activation or neuron")
        self.norm = picker("norm", norms, norms[0], "linf certifies squares, l2 discs")
        self.width = slider("width", 32, 4, 64, 4, "neurons in a layer")
        self.depth = slider("depth", 3, 1, 6, 1, "hidden layers")
        self.steps = slider("steps", steps, 50, 2000, 50, "training steps")
        self.radius = slider("radius", 0.1, 0.0, 0.6, 0.01, "dashed: where the output is this far from zero")
        self.label = widgets.ToggleButtons(
            options=[("blue circle", 0), ("red square", 1)],
            description="click adds",
            style={"description_width": LABEL_WIDTH, "button_width": "95px"},
        )
        self.text = widgets.Textarea(
            value=example, rows=6, description="points", layout=widgets.Layout(width=WIDTH)
        )
        self.text.style.description_width = LABEL_WIDTH
        self.button = widgets.Button(description="Train", button_style="primary", tooltip="start training")
        self.progress = widgets.IntProgress(value=0, max=1, layout=widgets.Layout(width="260px"))
        self.status = widgets.Label("not trained yet: press Train")
        self.readout = widgets.HTML()
        self.figure = BoundaryFigure()
        self.data, self.trained = data_sets[names[0]](), None
        self.box = self._layout()
        self._connect()
        self._choose_data()

    def _layout(self) -> widgets.VBox:
        self._drawing = widgets.HBox(
            [self.text, self.label], layout=widgets.Layout(display="none", flex_flow="row wrap")
        )
        controls = rows(
            (self.dataset, self.architecture, self.norm),
            (self.width, self.depth, self.steps),
        )
        training = widgets.HBox([self.button, self.progress, self.status])
        explained = (
            self.dataset,
            self.architecture,
            self.norm,
            self.width,
            self.depth,
            self.steps,
            self.radius,
        )
        return widgets.VBox(
            [
                controls,
                hints(explained),
                self._drawing,
                training,
                self.radius,
                self.readout,
                self.figure.widget,
            ]
        )

    def _connect(self) -> None:
        self.dataset.observe(lambda _change: self._choose_data(), names="value")
        self.text.observe(lambda _change: self._choose_data(), names="value")
        self.architecture.observe(lambda _change: self._choose_architecture(), names="value")
        self.norm.observe(lambda _change: self._forget(), names="value")
        self.radius.observe(lambda _change: self._read_off(), names="value")
        self.button.on_click(lambda _button: self.train())
        self.figure.on_click(self.add_point)

    def train(self) -> None:
        """Train from the start with the chosen settings; an interrupt keeps what was reached so far."""
        self.button.disabled = True
        self.progress.max, self.progress.value = self.steps.value, 0
        self._drawn_at = 0.0
        try:
            trained = self._fit(
                self.data,
                architecture=self.architecture.value,
                norm=self.norm.value,
                width=self.width.value,
                depth=self.depth.value,
                steps=self.steps.value,
                seed=0,
                keep_on_interrupt=True,
                on_progress=self._progress,
            )
            self._show(trained, "trained" if trained.step == self.steps.value else "stopped")
        except KeyboardInterrupt:
            self._show(self.trained, "stopped")
        except ValueError as error:
            self.status.value = str(error)
        finally:
            self.button.disabled = False

    def add_point(self, x: float, y: float) -> None:
        """Add a point of the chosen class to the points drawn by hand (a click on the picture does this)."""
        if self.dataset.value == DRAWN:
            line = f"{x:.2f} {y:.2f} {self.label.value}"
            self.text.value = "\n".join([*self.text.value.split("\n"), line]).strip()

    def _progress(self, trained: Any) -> None:
        self.progress.value = trained.step
        self.status.value = f"step {trained.step} of {self.steps.value}, {trained.seconds:.1f} s"
        self.trained = trained
        if time.perf_counter() - self._drawn_at > 0.5:
            self._draw()
            self._drawn_at = time.perf_counter()

    def _show(self, trained: Any | None, word: str) -> None:
        self.trained = trained
        if trained is not None:
            self.progress.value = trained.step
            self.status.value = f"{word}: {trained.step} steps in {trained.seconds:.1f} s"
        self._draw()

    def _choose_data(self) -> None:
        drawing = self.dataset.value == DRAWN
        self._drawing.layout.display = "" if drawing else "none"
        try:
            self.data = self._read_points(self.text.value) if drawing else self._sets[self.dataset.value]()
        except ValueError as error:
            self.status.value = str(error)
            return
        self.radius.max = largest_radius(self.data)
        self._forget()

    def _choose_architecture(self) -> None:
        norms = self._architectures[self.architecture.value]
        kept = self.norm.value if self.norm.value in norms else norms[0]
        self.norm.options = norms
        self.norm.value = kept
        self._forget()

    def _forget(self) -> None:
        """Drop the trained network: it belongs to other data, another architecture or another norm."""
        self.trained = None
        self.progress.value = 0
        self.status.value = "not trained yet: press Train"
        self._draw()

    def _draw(self) -> None:
        norm = self.norm.value
        if self.trained is None:
            self.figure.show_points(self.data)
        else:
            axis, field = self.field()
            self.figure.show(self.data, axis, field, self.trained.radii, norm)
        self._read_off()

    def field(self, side: int = 61) -> tuple[np.ndarray, np.ndarray]:
        """Return the axis (side,) and the network's output (side, side) on the frame of the picture."""
        axis = np.linspace(*self.data.frame, side)
        grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        return axis, self.trained.evaluate(grid).reshape(side, side)

    def _read_off(self) -> None:
        radius, norm = self.radius.value, self.norm.value
        self.figure.mark(radius, self.data, norm, self.trained is not None)
        if self.trained is None:
            self.readout.value = f"<b>{len(self.data.points)} points</b>, nothing certified yet"
            return
        radii = self.trained.radii
        right, certified = int((radii > 0).sum()), int((radii > radius).sum())
        number = len(radii)
        self.readout.value = (
            f"<b>{certified} of {number} points certified at radius {radius:.2f}</b> "
            f"({certified / number:.0%}); {right} of {number} classified correctly; "
            f"largest certified {SHAPES[norm]}: {radii.max():.3f}; smallest: {radii.min():.3f}"
        )
