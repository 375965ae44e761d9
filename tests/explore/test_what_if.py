"""The what-if explorer: sliders are the row, and what is said of it is what the network proves."""

import re
import time

import numpy as np
import pytest

from lablib.experiments.live_monotone import fit
from lablib.experiments.live_tables import events, table, toy
from lablib.explore.what_if import WhatIfExplorer


@pytest.fixture(scope="module")
def models():
    diabetes, toys, pairs = table("diabetes"), toy(60), events(100)
    return {rows.name: fit(rows, steps=10) for rows in (diabetes, toys, pairs)}


@pytest.fixture
def explorer(models):
    return WhatIfExplorer(models)


def test_sliders_start_at_the_row(explorer, models):
    rows = models["diabetes"].rows
    assert np.allclose(explorer.x, rows.x[0], atol=0.5)
    explorer.row.value = 41
    ages = [rows.x[number, 0] for number in (0, 41)]
    assert ages[0] != ages[1]
    assert explorer.features[0].value == ages[1]  # whole numbers exactly
    assert explorer.row.max == 441
    for control, column in zip(explorer.features, rows.x.T, strict=True):
        assert control.min <= column.min() + 1e-9
        assert control.max >= column.max() - 1e-9


def test_moving_a_slider_moves_the_answer_the_promised_way(explorer, models):
    bmi = explorer.features[2]
    assert bmi.description == "bmi ↑"
    scores = []
    for value in np.linspace(bmi.min, bmi.max, 7):
        bmi.value = value
        assert explorer.view.score == pytest.approx(float(models["diabetes"].predict(explorer.x)))
        scores.append(explorer.view.score)
    assert (np.diff(scores) >= -1e-9).all()


def test_what_is_drawn_is_what_is_proven(explorer, models):
    explorer.model.value = "trigger"
    explorer.shown.value, explorer.reach.value = 2, 0.5
    made, view = models["trigger"], explorer.view
    cone, shade, curve, threshold, here, rises, falls, free, change = explorer.figure.data
    assert np.array_equal(curve.y, made.what_if(explorer.x, 2, 0.5).curve)
    assert np.array_equal(shade.y[: len(view.floor)], view.floor)
    assert np.array_equal(cone.y[: len(view.floor)], view.cone[0])
    assert set(threshold.y) == {0.0}
    assert here.y[0] == view.score
    assert rises.x[0] == view.raised[0, 0] >= 0
    assert free.x[1] == view.raised[1, 2]
    assert len(falls.x) == 0
    assert (change.x >= view.raised[0] - 1e-9).all()
    assert (change.x <= view.raised[1] + 1e-9).all()
    low, high = explorer.figure.layout.xaxis2.range
    assert low < view.raised.min()
    assert high > view.raised.max()  # no bar ends at the edge of the panel


def test_words_give_the_probability_and_the_radii(explorer):
    explorer.model.value = "trigger"
    shown = float(re.search(r"probability of beauty <b>([\d.]+)</b>", explorer.readout.value)[1])
    assert shown == pytest.approx(1 / (1 + np.exp(-explorer.view.score)), abs=0.006)
    radii = [
        float(text) for text in re.findall(r"<b>([\d.]+)</b>(?: spreads| in all)", explorer.readout.value)
    ]
    assert 0 <= explorer.view.radius["linf"] - radii[0] < 1e-3
    assert 0 <= explorer.view.radius["l1"] - radii[1] < 1e-3
    low, high = re.findall(r"<b>([\d.e-]+)</b>", explorer.readout.value)[1:3]
    ends = (explorer.view.score + sign * explorer.view.change for sign in (-1, 1))
    exact = [1 / (1 + np.exp(-end)) for end in ends]
    assert float(low) <= exact[0] < float(low) + 0.01
    assert float(high) >= exact[1] > float(high) - 0.01
    explorer.model.value = "toy"
    assert re.search("above|below", explorer.readout.value)


def test_every_slider_step_answers_within_a_tenth_of_a_second(explorer):
    times = []
    for control in (explorer.features[0], explorer.reach, explorer.row):
        for value in np.linspace(control.min, control.max, 6):
            start = time.process_time()
            control.value = int(value) if isinstance(control.step, int) else value
            times.append(time.process_time() - start)
    assert np.median(times) < 0.1


def test_no_network_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        WhatIfExplorer({})
