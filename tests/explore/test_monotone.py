"""The explorer of monotone fits: wishes reach the fit, and what is drawn is what the network proves."""

import time

import numpy as np
import pytest

from lablib.experiments.live_monotone import fit
from lablib.experiments.live_tables import table, toy
from lablib.explore.monotone import MonotoneExplorer

TABLES = {"diabetes": table("diabetes"), "toy": toy(60)}


@pytest.fixture
def explorer():
    made = MonotoneExplorer(fit, TABLES)
    made.steps.min, made.steps.value = 5, 5
    return made


def test_a_table_brings_its_features_and_directions(explorer):
    assert [wish.value for wish in explorer.wishes] == list(TABLES["diabetes"].directions)
    explorer.table.value = "toy"
    assert [wish.description for wish in explorer.wishes] == ["step", "wave"]
    assert explorer.made is None
    assert "not fitted" in explorer.status.value


def test_wishes_are_kept_and_features_left_out(explorer):
    explorer.shown.value = 4
    explorer.wishes[0].value, explorer.wishes[2].value = "left out", -1
    explorer.train()
    assert explorer.made.rows.features[:2] == ("sex", "bmi")
    assert list(explorer.made.directions)[:2] == [0, -1]
    assert explorer.made.slopes()[1, 1] <= 0
    assert [name for name, _ in explorer.shown.options] == list(explorer.made.rows.features)
    assert "falls with bmi" in explorer.readout.value
    assert "fitted: 5 steps" in explorer.status.value


def test_the_figure_shows_curves_bands_and_intervals(explorer):
    explorer.table.value = "toy"
    explorer.train()
    lines, mean, band, slope, rises, falls, free = explorer.figure.data
    for feature in (0, 1):
        explorer.shown.value = feature
        seen = explorer.made.partial(feature)
        assert np.array_equal(mean.y, seen.mean)
        assert np.isnan(lines.y).sum() == len(seen.scores)
        assert np.array_equal(band.y[: 2 * len(seen.low)], np.repeat(seen.low, 2))
        assert (slope.y >= seen.low - 1e-9).all()
        assert (slope.y <= seen.high + 1e-9).all()
    low, high = explorer.made.slopes()
    assert np.allclose(rises.x[:2], (low[0], high[0]))
    assert np.allclose(free.x[:2], (low[1], high[1]))
    assert len(falls.x) == 0
    assert [trace.name for trace in (rises, falls, free)] == [
        "all inputs: must rise",
        "all inputs: must fall",
        "all inputs: free",
    ]
    left, right = explorer.figure.layout.xaxis3.range
    assert left < min(low.min(), 0)
    assert right > max(high.max(), 0)
    bottom, top = explorer.figure.layout.yaxis2.range  # of the second feature, which is free
    assert seen.low.min() - bottom == pytest.approx(top - seen.high.max())
    assert top > seen.high.max()


def test_few_whole_values_get_a_tick_each(explorer):
    explorer.train()
    explorer.shown.value = explorer.made.rows.features.index("sex")
    assert list(explorer.figure.layout.xaxis.tickvals) == [1, 2]
    explorer.shown.value = explorer.made.rows.features.index("bmi")
    assert explorer.figure.layout.xaxis.tickmode == "auto"


def test_nothing_left_is_told(explorer):
    for wish in explorer.wishes:
        wish.value = "left out"
    explorer.train()
    assert explorer.status.value
    assert explorer.made is None
    assert not explorer.button.disabled


def test_interrupts_are_told(explorer):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    explorer._fit = interrupt
    explorer.train()
    assert explorer.status.value == "stopped"
    assert not explorer.button.disabled
    with pytest.raises(ValueError, match="at least one"):
        MonotoneExplorer(fit, {})


def test_another_feature_is_shown_within_a_tenth_of_a_second(explorer):
    explorer.train()
    times = []
    for feature in range(1, 10):
        start = time.process_time()
        explorer.shown.value = feature
        times.append(time.process_time() - start)
    assert np.median(times) < 0.1
