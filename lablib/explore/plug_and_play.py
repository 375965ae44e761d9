"""Finished reconstructions to turn through: picture, start and result, and the steps against what is guaranteed."""

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import hints, picker, rows, watch
from lablib.explore.pictures import add_picture
from lablib.plots.plug_and_play import STYLES, TITLES
from lablib.plots.theme import GREY, plotly_template

KINDS = {"chosen by validation": "chosen", "common to all networks": "common"}
ERROR_LEVELS = 64  # of 255: where the picture of the error is darkest


class PlugAndPlayExplorer:
    """Pickers for problem, method and setting; pictures on the left, the steps of the iteration on the right.

    Args:
        record: of the result file ``plug_and_play``: ``metrics`` with ``rows`` and ``problems``, ``arrays`` and
            ``config``.
        guaranteed: (alpha, ||x_0 - x*||, K) -> (K,), the bound of ||x_{k+1} - x_k|| for an alpha-averaged step.

    Attributes:
        box: the widget to display; ``problem``, ``method``, ``setting``, ``number``: its controls.
        run: the numbers of the run that is shown.

    Raises:
        ValueError: if the record holds no run.
    """

    def __init__(
        self, record: Mapping[str, Any], guaranteed: Callable[[float, float, int], np.ndarray]
    ) -> None:
        self._rows = {(row["problem"], row["method"]): row for row in record["metrics"]["rows"]}
        if not self._rows:
            raise ValueError("no reconstructions to show; make them: python -m lablib figures plug_and_play")
        self._arrays, self._problems = record["arrays"], record["metrics"]["problems"]
        self._guaranteed, self._tolerance = guaranteed, record["config"]["tolerance"]
        labels = {row["label"]: method for (_, method), row in self._rows.items()}
        chosen = "spline" if "spline" in labels.values() else next(iter(labels.values()))
        problems = [(TITLES[name], name) for name in self._problems]
        pictures = sum(name.startswith("clean/") for name in self._arrays)
        self.problem = picker("problem", problems, problems[0][1], "what was measured")
        self.method = picker("method", list(labels.items()), chosen, "denoiser that is plugged in")
        self.setting = picker("setting", list(KINDS.items()), "chosen", "noise level and share, or weight")
        self.number = picker("picture", list(range(pictures)), 0, "which test picture")
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_figure(self._arrays["clean/0"].shape, self._tolerance))
        controls = (self.problem, self.method, self.setting, self.number)
        self.box = widgets.VBox(
            [rows(controls[:2], controls[2:]), hints(controls), self.readout, self.figure]
        )
        watch(controls, self._answer)
        self._answer()

    def _answer(self) -> None:
        problem, method, number = self.problem.value, self.method.value, self.number.value
        row = self._rows[problem, method]
        kind = self.setting.value if self.setting.value in row else "chosen"
        found, self.run = row[kind], row[kind]["runs"][number]
        stem = f"{problem}/{method}/{kind}"
        clean, start = self._arrays[f"clean/{number}"], self._arrays[f"{problem}/start/{number}"]
        picture = self._arrays[f"{stem}/picture/{number}"]
        error = np.abs(picture.astype(int) - clean).astype(np.uint8)
        steps = self._arrays[f"{stem}/residuals/{number}"]
        at = np.arange(1, len(steps) + 1)
        with self.figure.batch_update():
            for trace, shown in zip(self.figure.data[:4], (clean, start, picture, error)):
                trace.z = shown
        line, bound, rule = self.figure.data[4:]
        line.line.color, line.name = (
            STYLES[method].colour,
            row["label"],
        )  # in a batch the other lines would lose theirs
        with self.figure.batch_update():
            line.x, line.y = at, np.where(steps > 0, steps, np.nan)  # an overflow has no place on a log scale
            rule.x, rule.y = at[[0, -1]], [self._tolerance] * 2
            bound.x, bound.y = at, self._bound(found["alpha"], len(steps))
        self.readout.value = self._words(row["label"], found, self._problems[problem]["start"][number])

    def _bound(self, alpha: float | None, count: int) -> np.ndarray:
        """Return what is guaranteed, over the norm of the last iterate; nothing for a method without a proof."""
        if alpha is None or self.run["norm"] is None:
            return np.full(count, np.nan)
        return self._guaranteed(alpha, self.run["distance"] / self.run["norm"], count)

    def _words(self, label: str, found: Mapping[str, Any], start: Mapping[str, float]) -> str:
        run = self.run
        end = (
            f"stopping rule reached after <b>{run['iterations']}</b> steps"
            if run["reached"]
            else f"<b>not converged</b> after {run['iterations']} steps"
        )
        result = (
            "overflow"
            if None in (run["psnr"], run["norm"])
            else f"{run['psnr']:.2f} dB, SSIM {run['ssim']:.3f}"
        )
        proof = (
            "no guarantee"
            if found["alpha"] is None
            else f"α = {found['alpha']:.3f}; steps use at most {run['rate_use']:.0%} of what is guaranteed"
        )
        setting = ", ".join(f"{name} {value:g}" for name, value in found["setting"].items())
        return (
            f"<b>{label}</b> ({setting}): {result}, start {start['psnr']:.2f} dB; {end}; {proof}; "
            f"best on the way {_decibels(run['psnr_best'])}"
        )


def _decibels(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} dB"


def _figure(shape: tuple[int, ...], tolerance: float) -> go.Figure:
    titles = (
        "Original",
        "Start Aᵀy",
        "Change of the picture in one step, relative",
        "Reconstruction",
        "Error",
    )
    figure = make_subplots(
        rows=2,
        cols=3,
        specs=[[{}, {}, {"rowspan": 2}], [{}, {}, None]],
        subplot_titles=titles,
        column_widths=[0.25, 0.25, 0.5],
        horizontal_spacing=0.06,
        vertical_spacing=0.1,
    )
    for row, column in ((1, 1), (1, 2), (2, 1)):
        add_picture(figure, shape, row, column)
    add_picture(figure, shape, 2, 2, zmax=ERROR_LEVELS, colorscale="gray_r")
    black = {"color": "black", "width": 1.5}
    lines = (
        {"mode": "lines", "line": {"color": GREY, "width": 2.5}},
        {"mode": "lines", "line": black, "name": "guaranteed"},
        {"mode": "lines", "line": black | {"dash": "dot"}, "name": "stopping rule"},
    )
    for style in lines:
        figure.add_trace(go.Scatter(hoverinfo="skip", **style), row=1, col=3)
    figure.update_xaxes(title="iteration", type="log", dtick=1, row=1, col=3)
    low = np.log10(tolerance) - 0.7
    figure.update_yaxes(type="log", dtick=1, exponentformat="power", range=[low, 1.3], row=1, col=3)
    figure.update_layout(template=plotly_template(), width=1000, height=470)
    figure.update_layout(
        legend={"x": 0.99, "y": 0.99, "xanchor": "right"}, margin={"l": 10, "r": 15, "t": 40, "b": 50}
    )
    return figure.update_annotations(font_size=14)
