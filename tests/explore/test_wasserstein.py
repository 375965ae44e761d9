import time
from types import SimpleNamespace

import numpy as np
import pytest

from lablib.explore.wasserstein import WassersteinExplorer

CLOUDS = ["blob", "ring"]
ACTIVATIONS = {"abs": "absolute value", "spline": "learned spline"}


def learner(calls):
    """Stands in for training: f = share of x1, so the value grows to the exact distance."""

    def learn(clouds, activation):
        calls.append((clouds, activation))
        states = 5 if activation == "abs" else 9
        axis = np.linspace(0, 1, 41)
        shares = np.linspace(0, 1, states)
        fields = shares[:, None, None] * np.tile(axis, (41, 1))
        rays = np.array([[[0.9, 0.5], [0.4, 0.5]]] * 256)
        curve = {"steps": np.arange(states) * 10, "duals": 0.5 * shares, "exact": 0.5}
        return SimpleNamespace(axis=axis, fields=fields, rays=rays, seconds=1.0, **curve)

    return learn


def test_it_starts_at_the_end_of_the_training_of_the_first_choice():
    calls = []
    lab = WassersteinExplorer(learner(calls), CLOUDS, ACTIVATIONS, ("ring", "spline"))
    assert calls == [("ring", "spline")]
    assert lab.state.value == lab.state.max == 8
    assert "step 80" in lab.readout.value
    assert "100.0% of the exact distance 0.5000" in lab.readout.value


def test_the_slider_moves_field_marker_and_readout():
    lab = WassersteinExplorer(learner([]), CLOUDS, ACTIVATIONS)
    assert lab.state.max == 4
    lab.state.value = 2
    assert "step 20: <b>proven lower bound 0.2500</b>, 50.0%" in lab.readout.value
    marker = lab.figure.data[7]
    assert (list(marker.x), list(marker.y)) == ([20], [0.25])
    assert np.ptp(lab.figure.data[0].z) == pytest.approx(0.5)
    assert np.array_equal(lab.figure.data[0].z, lab.figure.data[1].z)


def test_each_choice_is_trained_once():
    calls = []
    lab = WassersteinExplorer(learner(calls), CLOUDS, ACTIVATIONS)
    lab.activation.value = "spline"
    assert (lab.state.max, lab.state.value) == (8, 8)
    lab.activation.value = "abs"
    assert (lab.state.max, lab.state.value) == (4, 4)
    assert "step 40" in lab.readout.value
    lab.clouds.value = "ring"
    assert calls == [("blob", "abs"), ("blob", "spline"), ("ring", "abs")]
    assert len(lab.figure.data[5].x) == 5


def test_an_interrupt_keeps_the_picture_and_trains_again_later():
    calls = []
    learn = learner(calls)

    def stopped(clouds, activation):
        if activation == "spline" and len(calls) == 1:
            calls.append("stopped")
            raise KeyboardInterrupt
        return learn(clouds, activation)

    lab = WassersteinExplorer(stopped, CLOUDS, ACTIVATIONS)
    lab.activation.value = "spline"
    assert "stopped" in lab.readout.value
    assert len(lab.record.steps) == 5
    lab.activation.value = "abs"
    lab.activation.value = "spline"
    assert len(lab.record.steps) == 9


def test_a_slider_step_answers_within_a_tenth_of_a_second():
    lab = WassersteinExplorer(learner([]), CLOUDS, ACTIVATIONS, ("blob", "spline"))
    times = []
    for place in range(8):
        start = time.perf_counter()
        lab.state.value = place
        times.append(time.perf_counter() - start)
    assert np.median(times) < 0.1


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        WassersteinExplorer(learner([]), [], ACTIVATIONS)
