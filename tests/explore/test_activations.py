import time

import numpy as np
import pytest

from lablib.experiments.activation_study import ACTIVATIONS, edited_spline, study
from lablib.explore.activations import MOST_OUTPUTS, ActivationExplorer
from lablib.explore.splines import SplineEditor
from lablib.layers import LearnableSpline


@pytest.fixture(scope="module")
def explorer():
    return ActivationExplorer(ACTIVATIONS, study)


def visible(explorer):
    return [trace for trace in explorer.figure.data[:MOST_OUTPUTS] if trace.visible]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_shows_its_graph_and_only_its_own_parameter(explorer, name):
    explorer.activation.value = name
    entry = ACTIVATIONS[name]
    shown = {key for key, control in explorer.parameters.items() if control.layout.display != "none"}
    assert shown == ({entry.parameter.name} if entry.parameter else set())
    assert explorer.norm.options == entry.norms
    assert len(visible(explorer)) == len(explorer.shown.graph)
    assert np.array_equal(visible(explorer)[0].y, explorer.shown.graph[0])
    assert explorer.shown.title in explorer.readout.value


def test_the_slope_slider_changes_graph_slope_and_histogram(explorer):
    explorer.activation.value = "leaky ReLU"
    explorer.parameters["slope"].value = 0.0
    before = [np.array(explorer.figure.data[i].y) for i in (0, MOST_OUTPUTS, -2)]
    explorer.parameters["slope"].value = -1.0
    after = [np.array(explorer.figure.data[i].y) for i in (0, MOST_OUTPUTS, -2)]
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert after[-1][-1] == 1  # every gradient norm is 1


def test_norm_depth_and_seed_are_used(explorer):
    explorer.activation.value = "MaxMin"
    explorer.norm.value, explorer.depth.value = "l2", 7
    assert (explorer.shown.norm, explorer.shown.depth) == ("l2", 7)
    line = explorer.shown.line
    explorer.seed.value = 3
    assert not np.array_equal(line, explorer.shown.line)
    explorer.activation.value = "linf distance"
    assert explorer.shown.norm == "linf"


def test_axes_are_fixed(explorer):
    ranges = [axis.range for axis in explorer.figure.select_xaxes()]
    ranges += [axis.range for axis in explorer.figure.select_yaxes()]
    assert None not in ranges


def test_a_slider_step_answers_within_a_tenth_of_a_second(explorer):
    explorer.activation.value = "leaky ReLU"
    times = []
    for value in np.linspace(-0.9, 0.9, 10):
        start = time.perf_counter()
        explorer.parameters["slope"].value = value
        times.append(time.perf_counter() - start)
    assert np.median(times) < 0.1


def test_unknown_start_is_refused():
    with pytest.raises(ValueError, match="choose from"):
        ActivationExplorer(ACTIVATIONS, study, first="GELU")


def test_an_edited_spline_is_followed():
    editor = SplineEditor("zig-zag")
    spline = edited_spline(editor.layer)
    followed = ActivationExplorer(
        {spline.label: spline}, lambda name, *a, **b: study(spline, *a, **b), spline.label
    )
    editor.on_change(followed.refresh)
    assert np.allclose(followed.shown.gradient_norms, 1)
    assert np.isclose(followed.shown.budget_after.sum(), 1)
    editor.preset.value = "zero"
    assert np.allclose(followed.shown.gradient_norms, 0)
    with pytest.raises(ValueError, match="channels=1"):
        edited_spline(LearnableSpline(2))
