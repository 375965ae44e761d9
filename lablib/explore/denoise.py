"""Denoise a picture: noise, activation and number of applications under sliders; PSNR on the right."""

from collections.abc import Callable, Mapping

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import hints, picker, rows, slider, watch
from lablib.explore.pictures import LEVELS, add_picture, as_levels
from lablib.plots.theme import BLUE, RED, plotly_template

MOST = 8  # applications


class DenoiseExplorer:
    """Sliders for the noise and how often a denoiser T is applied; pickers for the picture and the denoiser.

    Args:
        denoisers: (activation, noise it was trained for) -> function (picture (H, W), n) -> (n + 1, H, W), the
            picture, T of it, T of that, and so on.
        pictures: name -> clean picture in [0, 1].
        activations: name -> label.
        score: (picture, clean) -> dB.
        first: activation shown first; default, the last one.

    Attributes:
        box: the widget to display; ``picture``, ``noise``, ``activation``, ``trained``, ``times``, ``seed``: its
            controls.
        path: (n + 1, H, W), every iterate of what is shown; ``scores`` (n + 1,), their PSNR.

    Raises:
        ValueError: if there is no picture, or a denoiser is missing.
    """

    def __init__(
        self,
        denoisers: Mapping[tuple[str, int], Callable[[np.ndarray, int], np.ndarray]],
        pictures: Mapping[str, np.ndarray],
        activations: Mapping[str, str],
        score: Callable[[np.ndarray, np.ndarray], float],
        first: str | None = None,
    ) -> None:
        trained = sorted({sigma for _, sigma in denoisers})
        missing = {(name, sigma) for name in activations for sigma in trained} - set(denoisers)
        if not pictures or not activations or not trained or missing:
            raise ValueError(
                f"give a picture or more, and a denoiser for every activation and noise; missing: {missing or '-'}"
            )
        self._denoisers, self._pictures, self._score = dict(denoisers), dict(pictures), score
        options = [(label, name) for name, label in activations.items()]
        self.picture = picker("picture", list(pictures), next(iter(pictures)), "what to spoil and repair")
        self.noise = slider("noise", trained[-1], 0, 40, 1, "standard deviation of the noise, of 255")
        self.seed = slider("seed", 0, 0, 20, 1, "draws other noise")
        chosen = first or options[-1][1]
        self.activation = picker("activation", options, chosen, "between the convolutions")
        self.trained = picker("trained for", trained, trained[-1], "noise that the denoiser has learned from")
        self.times = slider("times", 1, 0, MOST, 1, "how often T is applied")
        self.readout = widgets.HTML()
        shape = next(iter(pictures.values())).shape
        self.figure = go.FigureWidget(_figure(shape))
        controls = (self.picture, self.noise, self.seed, self.activation, self.trained, self.times)
        self.box = widgets.VBox(
            [rows(controls[:3], controls[3:]), hints(controls), self.readout, self.figure]
        )
        watch(controls[:5], self._compute)
        watch((self.times,), self._show)
        self._compute()

    def _compute(self) -> None:
        """Spoil the picture and apply the denoiser as often as the slider goes."""
        clean = self._pictures[self.picture.value]
        noise = np.random.default_rng(self.seed.value).standard_normal(clean.shape)
        noisy = clean + self.noise.value / LEVELS * noise
        denoise = self._denoisers[self.activation.value, self.trained.value]
        self.path = denoise(noisy, MOST)
        self.scores = np.array([self._score(picture, clean) for picture in self.path])
        with self.figure.batch_update():
            for trace, picture in zip(self.figure.data[:2], (clean, noisy)):
                trace.z = as_levels(picture)
        finite = self.scores[np.isfinite(self.scores)]  # without noise the score before is infinite
        if len(finite):
            self.figure.layout.yaxis4.range = [finite.min() - 1, finite.max() + 1]
        curve = self.figure.data[3]
        with self.figure.batch_update():
            curve.x, curve.y = np.arange(MOST + 1), _gaps(self.scores)
        self._show()

    def _show(self) -> None:
        times, score = self.times.value, float(self.scores[self.times.value])
        self.figure.data[2].z = as_levels(self.path[times])
        marker = self.figure.data[4]
        with self.figure.batch_update():
            marker.x, marker.y = [times], _gaps(self.scores[[times]])
        change = np.linalg.norm(self.path[times] - self.path[times - 1]) if times else 0.0
        best = int(np.argmax(self.scores))
        self.readout.value = (
            f"noisy <b>{_decibels(self.scores[0])}</b>, after {times} × T <b>{_decibels(score)}</b>; "
            f"best after {best}: {_decibels(self.scores[best])}; the last application moved it by {change:.3f} (l2)"
        )


def _decibels(score: float) -> str:
    return f"{score:.2f} dB" if np.isfinite(score) else "no error"


def _gaps(scores: np.ndarray) -> list[float | None]:
    return [float(score) if np.isfinite(score) else None for score in scores]


def _figure(shape: tuple[int, ...]) -> go.Figure:
    titles = ("Clean", "Noisy", "Denoised", "PSNR over applications of T")
    figure = make_subplots(
        rows=1, cols=4, subplot_titles=titles, column_widths=[0.24, 0.24, 0.24, 0.28], horizontal_spacing=0.03
    )
    for column in (1, 2, 3):
        add_picture(figure, shape, 1, column)
    line = {"mode": "lines+markers", "line": {"color": BLUE}, "hoverinfo": "y"}
    mark = {"mode": "markers", "marker": {"color": RED, "size": 13}, "hoverinfo": "skip"}
    for style in (line, mark):
        figure.add_trace(go.Scatter(**style), row=1, col=4)
    figure.update_xaxes(title="applications", dtick=2, range=[-0.4, MOST + 0.4], row=1, col=4)
    figure.update_yaxes(title="dB", side="right", row=1, col=4)
    figure.update_layout(template=plotly_template(), width=1000, height=320, showlegend=False)
    figure.update_layout(margin={"l": 10, "r": 60, "t": 40, "b": 50})
    return figure.update_annotations(font_size=14)
