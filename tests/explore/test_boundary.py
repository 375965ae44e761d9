import time
from types import SimpleNamespace

import numpy as np
import pytest

from lablib.experiments import toy_data
from lablib.explore.boundary import DRAWN, BoundaryExplorer

ARCHITECTURES = {"MaxMin": ("linf", "l2"), "SortNet": ("linf",), "Householder": ("l2",)}


def trained(data, step):
    def evaluate(points):
        return np.abs(points[:, 0] - points[:, 1]) - 0.5

    radii = np.maximum(evaluate(data.points) * data.signs, 0)
    return SimpleNamespace(evaluate=evaluate, radii=radii, seconds=0.1 * step, step=step)


def fit(data, *, steps, on_progress, **_options):
    """Stands in for training: f = |x1 - x2| - 1/2, which solves XOR."""
    on_progress(trained(data, 1))
    return trained(data, steps)


def interrupted(data, *, on_progress, **_options):
    on_progress(trained(data, 7))
    raise KeyboardInterrupt


def explorer(training=fit):
    return BoundaryExplorer(
        training, toy_data.DATA_SETS, ARCHITECTURES, toy_data.drawn, toy_data.EXAMPLE_POINTS
    )


def test_training_fills_the_picture_and_the_readout():
    lab = explorer()
    assert lab.trained is None
    assert not lab.figure.trace("boundary").visible
    lab.button.click()
    assert lab.figure.trace("boundary").visible
    assert lab.figure.trace("field").z.shape == (61, 61)
    assert np.nanmax(lab.figure.trace("regions 1").x) == 1.5
    assert "4 of 4 points certified at radius 0.10" in lab.readout.value
    assert lab.progress.value == lab.steps.value
    assert "30.0 s" in lab.status.value


def test_the_radius_slider_moves_level_set_marker_and_readout():
    lab = explorer()
    lab.train()
    lab.radius.value = 0.3
    assert lab.figure.trace("outer").contours.start == 0.3
    assert lab.figure.trace("inner").contours.end == -0.3
    assert lab.figure.trace("radius").x.tolist() == [0.3, 0.3]
    assert "at radius 0.30" in lab.readout.value
    lab.radius.value = 0.5
    assert "0 of 4 points certified" in lab.readout.value


def test_other_data_and_architecture_forget_the_network():
    lab = explorer()
    lab.train()
    lab.dataset.value = "moons"
    assert lab.trained is None
    assert lab.figure.trace("regions 0").x.size == 0
    assert len(lab.figure.trace("points 0").x) == 40
    lab.train()
    lab.architecture.value = "Householder"
    assert (lab.norm.value, lab.norm.options, lab.trained) == ("l2", ("l2",), None)


def test_points_are_added_by_a_click_or_by_text():
    lab = explorer()
    lab.add_point(0.5, 0.5)
    assert lab.dataset.value == "XOR"
    assert len(lab.data.points) == 4
    lab.dataset.value = DRAWN
    number = len(lab.data.points)
    lab.label.value = 1
    lab.add_point(0.123, 0.9)
    assert lab.data.points[-1].tolist() == [0.12, 0.9]
    assert lab.data.labels[-1] == 1
    lab.text.value += "\n0.4 0.4 0"
    assert len(lab.data.points) == number + 2
    lab.text.value = "0.4 what"
    assert "three numbers" in lab.status.value
    assert len(lab.data.points) == number + 2


def test_an_interrupt_keeps_the_state():
    lab = explorer(interrupted)
    lab.train()
    assert lab.trained.step == 7
    assert lab.status.value.startswith("stopped: 7 steps")
    assert not lab.button.disabled


def test_a_refusal_is_shown_and_the_button_works_again():
    def refuse(data, **_options):
        raise ValueError("both classes need at least one point")

    lab = explorer(refuse)
    lab.train()
    assert "both classes" in lab.status.value
    assert not lab.button.disabled


def test_one_class_of_drawn_points_is_no_error():
    lab = explorer()
    lab.dataset.value = DRAWN
    lab.text.value = "0.4 0.4 0"
    assert lab.figure.trace("best").x.tolist() == [0, 0]


def test_a_slider_step_answers_within_a_tenth_of_a_second():
    lab = explorer()
    lab.dataset.value = "spirals"
    lab.train()
    times = []
    for value in np.linspace(0.01, 0.4, 10):
        start = time.perf_counter()
        lab.radius.value = value
        times.append(time.perf_counter() - start)
    assert np.median(times) < 0.1


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        BoundaryExplorer(fit, {}, ARCHITECTURES, toy_data.drawn, "")
