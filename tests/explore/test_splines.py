"""Explorers of splines: what they show is what the layer and the convex solver say."""

import time

import numpy as np
import pytest

from lablib.explore.splines import KNOTS, PRESETS, KnotExplorer, SplineEditor
from lablib.theory.spline_regression import fit


@pytest.fixture
def editor():
    return SplineEditor()


def slopes(positions, values):
    return np.diff(values) / np.diff(positions)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_projection_clips_slopes_and_keeps_the_mean(editor, preset, alpha):
    editor.preset.value, editor.scale.value = preset, alpha
    before = slopes(editor.positions, editor.raw)
    assert np.allclose(before, PRESETS[preset][0])
    assert np.allclose(slopes(editor.positions, editor.projected), np.clip(before, -1, 1))
    assert np.isclose(editor.raw.mean(), editor.projected.mean())
    assert np.allclose(editor.positions, np.linspace(-1, 1, KNOTS) / alpha)
    assert f"knots between ±{1 / alpha:.2f}" in editor.readout.value


def test_the_figure_shows_raw_projected_and_clipped(editor):
    _, raw, projected, clipped, active, idle, *_ = editor.figure.data
    assert np.allclose(raw.y[1:-1], editor.raw)
    assert np.allclose(projected.y[1:-1], editor.projected)
    assert np.isnan(clipped.x).sum() == (np.abs(PRESETS["too steep"][0]) > 1).sum() == 3
    assert len(active.x) + len(idle.x) == KNOTS - 2
    assert "5 active knots" in editor.readout.value
    assert len(active.x) == 5


def test_a_click_moves_one_knot(editor):
    editor.preset.value = "zero"
    editor.move_knot(4, 0.2)
    assert np.allclose(slopes(editor.positions, editor.raw), [0, 0, 0, 0.8, -0.8, 0, 0, 0])
    before = editor.raw
    editor.move_knot(0, 9.0)
    assert editor.slopes[0].value == -2.5  # the end of the slider
    assert np.allclose(np.diff(editor.raw)[1:], np.diff(before)[1:])


def test_edits_are_announced_once(editor):
    calls = []
    editor.on_change(lambda: calls.append(editor.projected.copy()))
    editor.slopes[3].value = 0.5
    editor.preset.value = "identity"
    assert len(calls) == 2
    assert np.allclose(calls[-1], editor.positions)


def test_knots_vanish_as_the_price_grows():
    explorer = KnotExplorer()
    assert explorer.counts[0] > 10
    assert explorer.counts[-1] == 0
    seen = []
    for explorer.weight.value in (-6.0, -4.0, -2.0, 0.0):
        optimum = fit(explorer.x, explorer.y, 10**explorer.weight.value)
        assert np.isclose(explorer.line.second_variation, optimum.line.second_variation, atol=1e-6)
        assert np.allclose(explorer.line(explorer.x), optimum.line(explorer.x), atol=1e-5)
        seen.append(len(explorer.line.positions) - 2)
        assert explorer.counts[int(np.argmin(np.abs(explorer.WEIGHTS - explorer.weight.value)))] == seen[-1]
        assert len(explorer.figure.data[2].x) == seen[-1]
    assert seen == sorted(seen, reverse=True)


def test_other_data_are_drawn():
    explorer = KnotExplorer()
    before = explorer.y
    explorer.seed.value = 6
    assert not np.array_equal(before, explorer.y)
    low, high = explorer.figure.layout.yaxis.range
    assert low < explorer.y.min() < explorer.y.max() < high


def test_every_slider_step_answers_within_a_tenth_of_a_second(editor):
    explorer = KnotExplorer()
    moves = [(editor.slopes[2], np.linspace(-2, 2, 9)), (explorer.weight, np.linspace(-5, -1, 9))]
    moves.append((explorer.noise, np.linspace(0.02, 0.1, 5)))
    for control, values in moves:
        times = []
        for value in values:
            start = time.process_time()
            control.value = value
            times.append(time.process_time() - start)
        assert np.median(times) < 0.1


def test_unknown_presets_are_refused():
    with pytest.raises(ValueError, match="choose from"):
        SplineEditor("sine")
