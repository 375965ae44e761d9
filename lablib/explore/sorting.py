"""Watch a sorting network at work: values on the wires, comparators between them, round by round."""

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go

from lablib.explore.controls import hints, picker, rows, slider, watch
from lablib.plots.sorting import columns, run_rounds
from lablib.plots.theme import plotly_template
from lablib.theory.constructions.sorting_networks import SCHEDULES, depth_lower_bound


class SortingExplorer:
    """Sliders for the number of inputs, the rounds that are run and the shuffle; a picker for the network.

    Attributes:
        box: the widget to display; ``inputs``, ``schedule``, ``rounds``, ``shuffle``: the controls;
        ``values``: the
            values on the wires after the rounds that are run.
    """

    def __init__(self, d: int = 8, schedule: str = "batcher", shuffle: int = 0) -> None:
        total = len(SCHEDULES[schedule](d))
        self.inputs = slider("inputs d", d, 2, 16, 1, "how many values are sorted")
        self.schedule = picker("network", list(SCHEDULES), schedule, "which comparators meet when")
        self.rounds = slider("rounds", total, 0, total, 1, "how many layers of MaxMin are run")
        self.shuffle = slider("shuffle", shuffle, 0, 20, 1, "draws another order of the values")
        self.readout = widgets.HTML()
        self.values = np.zeros(0)
        self.figure = go.FigureWidget(_figure())
        controls = (self.inputs, self.schedule, self.rounds, self.shuffle)
        self.box = widgets.VBox(
            [rows(controls[:2], controls[2:]), hints(controls), self.readout, self.figure]
        )
        watch((self.inputs, self.schedule), self._new_network)
        watch((self.rounds, self.shuffle), self._answer)
        self._answer()

    def _new_network(self) -> None:
        """Run all rounds of a newly chosen network."""
        total = len(SCHEDULES[self.schedule.value](self.inputs.value))
        with self.rounds.hold_trait_notifications():
            self.rounds.max = total
            self.rounds.value = total
        self._answer()

    def _answer(self) -> None:
        d = self.inputs.value
        schedule = SCHEDULES[self.schedule.value](d)
        done = self.rounds.value
        start = np.random.default_rng(self.shuffle.value).permutation(d) + 1
        history = run_rounds(schedule[:done], start)
        self.values = history[-1]
        heat, lines = self.figure.data
        across, up = [], []
        for number, group in enumerate(columns(schedule[:done])):
            places = sorted({x for *_, x in group})
            for i, j, x in group:
                offset = (places.index(x) + 1) / (len(places) + 1)  # the gap between two columns of values
                across += [number + 0.25 + 0.5 * offset] * 2 + [None]
                up += [i, j, None]
        with self.figure.batch_update():
            heat.x, heat.y, heat.z = np.arange(done + 1), np.arange(d), history.T
            heat.zmin, heat.zmax = 1, d
            lines.x, lines.y = across, up
            self.figure.layout.xaxis.range = [-0.5, len(schedule) + 0.5]
            self.figure.layout.yaxis.range = [-0.6, d - 0.4]
        ordered = "sorted" if (np.diff(self.values) >= 0).all() else "not sorted yet"
        self.readout.value = (
            f"{done} of {len(schedule)} rounds: <b>{ordered}</b>; an exact order statistic of "
            f"{d} inputs needs at least {depth_lower_bound(d)} rounds of MaxMin"
        )


def _figure() -> go.Figure:
    heat = go.Heatmap(
        colorscale="Cividis", texttemplate="%{z}", xgap=38, ygap=4, showscale=False,
        hovertemplate="wire %{y} after %{x} rounds: %{z}<extra></extra>",
    )  # fmt: skip
    lines = go.Scatter(mode="lines+markers", line={"color": "#202020"}, marker={"size": 7}, hoverinfo="skip")
    return go.Figure([heat, lines]).update_layout(
        template=plotly_template(),
        width=820,
        height=420,
        showlegend=False,
        xaxis={"title": {"text": "rounds done"}, "dtick": 1, "showgrid": False},
        yaxis={"title": {"text": "wire"}, "dtick": 1, "showgrid": False},
    )
