"""Schedules under sliders, a live curve, and the comparison of finished runs."""

import math

import numpy as np
import pytest

from lablib.explore.training import LiveCurve, RunExplorer, ScheduleExplorer

SHARES = {"clean": "clean", "held_out_margin": "margin"}


def plan(total, begin, end, *, largest, rate, start, stop):
    epochs = np.arange(total + 1.0)
    r = np.clip((epochs - begin) / (end - begin), 0, 1)
    p = np.where(epochs >= end, math.inf, 8 * (largest / 8) ** r)
    return epochs, {
        "p": p,
        "learning rate": rate * (1 - epochs / total),
        "lambda": start * (stop / start) ** r,
    }


def test_schedule_explorer_draws_the_plan_and_survives_crossed_sliders():
    explorer = ScheduleExplorer(plan, total=60, begin=4, end=56)
    p, rate, _ = explorer.figure.data
    assert p.y[0] == 8
    assert np.isfinite(p.y).all()
    assert p.y[-1] > 1000
    explorer.rate.value = 0.03
    assert rate.y[0] == pytest.approx(0.03)
    explorer.begin.value, explorer.end.value = 90, 5  # beyond the run, and after the end
    assert math.isinf(explorer.values["p"][-1])
    explorer.total.value = 20
    assert len(p.x) == len(rate.x) == 21


def test_live_curve_shows_what_there_is():
    live = LiveCurve(SHARES)
    live.show([])
    rows = [
        {"clean": 0.1 * (epoch + 1), "held_out_margin": None, "loss": 1.0, "p": "inf"} for epoch in range(3)
    ]
    live.show(rows)
    clean, certified, loss, power = live.figure.data
    assert list(clean.x) == pytest.approx([1, 2, 3])
    assert len(certified.x) == 0
    assert list(loss.y) == [1, 1, 1]
    assert len(power.x) == 0
    assert "epoch 3: clean <b>0.300</b>" in live.status.value


def _run(width, form, certified):
    history = [{"clean": 0.5, "held_out_margin": 0.2}, {"clean": 0.9, "held_out_margin": certified}]
    settings = {"width": width, "form": form, "same": 1} | ({"only": 1} if form == "a" else {})
    return {
        "settings": settings,
        "scores": {"certified": certified},
        "history": history,
    }


def test_run_explorer_compares():
    runs = {"one": _run(64, "a", 0.7), "two": _run(128, "b", 0.8), "three": _run(256, "c", 0.6)}
    explorer = RunExplorer(runs, SHARES)
    cloud, mark, clean, certified = explorer.figure.data
    assert list(explorer.setting.options) == ["width", "form"]
    assert list(cloud.x) == [64, 128, 256]
    assert explorer.best == "two"
    explorer.run.value = "three"
    assert (mark.x[0], mark.y[0]) == (256, 0.6)
    assert list(certified.y) == [0.2, 0.6]
    assert list(clean.x) == [0.5, 1]
    explorer.setting.value = "form"
    assert explorer.figure.layout.xaxis.type == "category"
    assert list(cloud.x) == ["a", "b", "c"]
    assert list(cloud.y) == [0.7, 0.8, 0.6]


def test_run_explorer_says_what_to_do_without_runs():
    with pytest.raises(ValueError, match="lablib train"):
        RunExplorer({}, SHARES)
    with pytest.raises(ValueError, match="share no setting"):
        RunExplorer({"one": {"settings": {}, "scores": {"a": 1}, "history": []}}, SHARES)
