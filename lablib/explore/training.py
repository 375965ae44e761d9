"""Training to turn and to watch: schedules under sliders, a run as it learns, finished runs side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lablib.explore.controls import hints, picker, rows, slider, watch
from lablib.plots.theme import BLUE, GREY, ORANGE, RED, plotly_template
from lablib.plots.training import curve

Plan = Callable[..., tuple[np.ndarray, Mapping[str, np.ndarray]]]
LARGEST_P = 1000


class ScheduleExplorer:
    """Sliders for the corners of the recipe; p, learning rate and lambda over the epochs.

    Args:
        plan: (total, begin, end, largest=, rate=, start=, stop=) -> epochs (N,) and the values of ``p``,
            ``learning rate`` and ``lambda``, (N,) each; p is infinite in the last phase. ``begin`` and ``end``
            are the epochs at which p starts and stops to grow, ``start`` and ``stop`` the ends of lambda.

    Attributes:
        box: the widget to display; ``total``, ``begin``, ``end``, ``rate``, ``start``: the controls.
        values: what is drawn.
    """

    NAMES = ("p", "learning rate", "lambda")

    def __init__(self, plan: Plan, total: int = 60, begin: int = 4, end: int = 56) -> None:
        self._plan = plan
        self.total = slider("epochs", total, 10, 200, 5, "length of the run")
        self.begin = slider("p grows at", begin, 0, 100, 1, "epoch at which p leaves 8")
        self.end = slider("p = ∞ at", end, 1, 200, 1, "epoch at which p becomes infinite")
        self.rate = slider("rate", 0.02, 0.002, 0.05, 0.002, "learning rate at the start")
        self.start = slider("lambda", 0.1, 0.02, 1.0, 0.02, "weight of the cross entropy at the start")
        for fine in (self.rate,):
            fine.readout_format = ".3f"
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_schedule_figure(self.NAMES))
        controls = (self.total, self.begin, self.end, self.rate, self.start)
        self.box = widgets.VBox(
            [rows(controls[:3], controls[3:]), hints(controls), self.readout, self.figure]
        )
        watch(controls, self._answer)
        self._answer()

    def _answer(self) -> None:
        total = self.total.value
        begin, end = min(self.begin.value, total - 2), min(self.end.value, total)
        end = max(end, begin + 1)
        epochs, self.values = self._plan(
            total, begin, end, largest=LARGEST_P, rate=self.rate.value, start=self.start.value, stop=0.01
        )
        with self.figure.batch_update():
            for trace, name in zip(self.figure.data, self.NAMES, strict=True):
                drawn = np.where(np.isfinite(self.values[name]), self.values[name], 2 * LARGEST_P)
                trace.x, trace.y = epochs, drawn
        with self.figure.batch_update():
            for number in (1, 2, 3):
                self.figure.layout[f"xaxis{number if number > 1 else ''}"].range = [0, total]
        soft, hard = begin, total - end
        self.readout.value = (
            f"<b>{soft}</b> epochs with p = 8, <b>{end - begin}</b> in which p grows to {LARGEST_P} "
            f"(doubling every {np.log(2) / np.log(LARGEST_P / 8) * (end - begin):.1f}), "
            f"<b>{hard}</b> with p = ∞"
        )


class LiveCurve:
    """Loss, shares and p of a run while it trains: call ``show(history)`` as often as there is news.

    Args:
        shares: key of a row -> name of its line, drawn between 0 and 1: such as ``clean`` and ``train_margin`` of
            the training form, ``held_out_clean`` and ``held_out_margin`` of the one that will be certified.
        loss, power: keys of the loss and of p.

    Attributes:
        box: the widget to display.
    """

    def __init__(self, shares: Mapping[str, str], loss: str = "loss", power: str = "p") -> None:
        self._shares, self._loss, self._power = dict(shares), loss, power
        self.status = widgets.HTML("not started yet")
        self.figure = go.FigureWidget(_live_figure(list(shares.values())))
        self.box = widgets.VBox([self.status, self.figure])

    def show(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Draw the epochs so far; p of the last phase, which is infinite, is left out of its line."""
        keys = [*self._shares, self._loss, self._power]
        with self.figure.batch_update():
            for trace, key in zip(self.figure.data, keys, strict=True):
                progress, values = curve(history, key)
                trace.x, trace.y = progress * len(history), values
        last = {key: curve(history, key)[1][-1:] for key in self._shares}
        shown = [f"{self._shares[key]} <b>{value[0]:.3f}</b>" for key, value in last.items() if len(value)]
        self.status.value = f"epoch {len(history)}: " + (", ".join(shown) or "nothing measured yet")


class RunExplorer:
    """Pickers for a setting and a score over finished runs, and the learning curves of the run chosen.

    Args:
        runs: name -> ``settings`` (name -> number or word; those that differ between runs are offered),
            ``scores`` (name -> number) and ``history`` (one mapping per epoch).
        shares: key of the history -> name of its line.

    Attributes:
        box: the widget to display; ``setting``, ``score``, ``run``: the pickers.
        best: the name of the run with the largest score.
    """

    def __init__(self, runs: Mapping[str, Mapping[str, Any]], shares: Mapping[str, str]) -> None:
        if not runs:
            raise ValueError("no finished runs; make one: python -m lablib train sortnet-digits --mode quick")
        self._runs, self._shares = dict(runs), dict(shares)
        settings = _common(run["settings"] for run in runs.values())
        differing = [
            name for name in settings if len({str(run["settings"][name]) for run in runs.values()}) > 1
        ]
        scores = _common(run["scores"] for run in runs.values())
        if not settings or not scores:
            raise ValueError("the runs share no setting or no score; compare runs of one kind")
        settings = differing or settings
        self.setting = picker("setting", settings, settings[0], "what stands on the horizontal axis")
        self.score = picker("score", scores, scores[0], "what stands on the vertical axis")
        self.run = picker("run", list(runs), next(iter(runs)), "whose learning curves are drawn")
        self.readout = widgets.HTML()
        self.figure = go.FigureWidget(_run_figure(list(shares.values())))
        controls = (self.setting, self.score, self.run)
        self.box = widgets.VBox([rows(controls), hints(controls), self.readout, self.figure])
        self.figure.data[0].on_click(self._click)
        watch(controls, self._answer)
        self._answer()

    def _click(self, _trace: Any, points: Any, _state: Any) -> None:
        if points.point_inds:
            self.run.value = list(self._runs)[points.point_inds[0]]

    def _answer(self) -> None:
        setting, score, chosen = self.setting.value, self.score.value, self.run.value
        names = list(self._runs)
        across = [self._runs[name]["settings"][setting] for name in names]
        up = [self._runs[name]["scores"][score] for name in names]
        self.best = names[int(np.argmax(up))]
        words = any(isinstance(value, str | bool) for value in across)
        across = [str(value) for value in across] if words else across
        cloud, mark, *lines = self.figure.data
        with self.figure.batch_update():
            self.figure.layout.xaxis.type = "category" if words else "linear"
            self.figure.layout.xaxis.title.text, self.figure.layout.yaxis.title.text = setting, score
        with self.figure.batch_update():
            cloud.x, cloud.y, cloud.text = across, up, names
            here = names.index(chosen)
            mark.x, mark.y, mark.text = [across[here]], [up[here]], [chosen]
        with self.figure.batch_update():
            for line, key in zip(lines, self._shares, strict=True):
                line.x, line.y = curve(self._runs[chosen]["history"], key)
        self.readout.value = (
            f"<b>{chosen}</b>: {score} {up[here]:.4g} at {setting} {across[here]}; "
            f"best of {len(names)}: <b>{self.best}</b> with {max(up):.4g}"
        )


def _common(mappings) -> list[str]:
    """Return the keys that all of the mappings have, in the order of the first."""
    first, *others = list(mappings)
    return [key for key in first if all(key in other for other in others)]


def _panels(titles: Sequence[str], height: int = 340) -> go.Figure:
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=titles, horizontal_spacing=0.09)
    figure.update_layout(template=plotly_template(), width=980, height=height)
    figure.update_layout(margin={"l": 55, "r": 15, "t": 40, "b": 50})
    return figure.update_annotations(font_size=14)


def _schedule_figure(names: Sequence[str]) -> go.Figure:
    figure = _panels([f"{name}" for name in names]).update_layout(showlegend=False)
    for column, colour in enumerate((BLUE, ORANGE, RED), start=1):
        figure.add_trace(go.Scatter(mode="lines", line={"color": colour}), row=1, col=column)
        figure.update_xaxes(title="epoch", row=1, col=column)
    figure.update_yaxes(type="log", range=[0.8, 3.4], row=1, col=1)
    figure.update_yaxes(
        tickvals=[8, 32, 128, 512, 2 * LARGEST_P], ticktext=["8", "32", "128", "512", "∞"], row=1, col=1
    )
    figure.update_yaxes(range=[0, 0.052], row=1, col=2)
    figure.update_yaxes(type="log", range=[-3, 0.1], dtick=1, row=1, col=3)
    return figure


def _live_figure(names: Sequence[str]) -> go.Figure:
    figure = _panels(("Share of images", "Loss", "p"), height=300)
    for name, colour, dash in zip(names, (BLUE, ORANGE, RED, GREY), ("solid", "dash", "dot", "dashdot")):
        line = {"color": colour, "dash": dash}
        figure.add_trace(go.Scatter(mode="lines+markers", name=name, line=line), row=1, col=1)
    grey = {"color": GREY}
    for column in (2, 3):
        figure.add_trace(go.Scatter(mode="lines", line=grey, showlegend=False), row=1, col=column)
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(range=[0, 1.02], row=1, col=1)
    figure.update_yaxes(rangemode="tozero", row=1, col=2)
    figure.update_yaxes(type="log", range=[0.8, 3.1], dtick=1, row=1, col=3)
    return figure.update_layout(legend={"x": 0.18, "y": 0.08, "font": {"size": 11}})


def _run_figure(names: Sequence[str]) -> go.Figure:
    figure = _panels(("Finished runs (click one)", "Learning curves of the run chosen"))
    dot = {"color": BLUE, "size": 10}
    ring = {"color": RED, "size": 18, "symbol": "circle-open", "line": {"width": 3}}
    figure.add_trace(go.Scatter(mode="markers", marker=dot, name="runs", showlegend=False), row=1, col=1)
    figure.add_trace(go.Scatter(mode="markers", marker=ring, name="chosen", showlegend=False), row=1, col=1)
    for name, colour, dash in zip(names, (BLUE, ORANGE, RED, GREY), ("solid", "dash", "dot", "dashdot")):
        line = {"color": colour, "dash": dash}
        figure.add_trace(go.Scatter(mode="lines", name=name, line=line), row=1, col=2)
    figure.update_xaxes(title="share of the run", range=[0, 1], row=1, col=2)
    figure.update_yaxes(title="share of images", range=[0, 1.02], row=1, col=2)
    return figure.update_layout(legend={"x": 0.78, "y": 0.08, "font": {"size": 11}})
