import time

import numpy as np
import pytest

from lablib.explore.boolean import BooleanExplorer
from lablib.explore.budget import PRESETS, BudgetExplorer, project, small_network
from lablib.theory.boolean import BooleanFunction
from lablib.theory.budget import budget
from lablib.theory.network import is_standard


@pytest.fixture(scope="module")
def editor():
    return BudgetExplorer()


def fastest(change, repeats: int = 5) -> float:
    times = []
    for repeat in range(repeats):
        start = time.perf_counter()
        change(repeat)
        times.append(time.perf_counter() - start)
    return min(times)


def test_moving_a_weight_moves_bars_and_radius(editor):
    editor.preset.value = "AND at its bound"
    assert editor.radius == pytest.approx(1 / 6)
    before = np.array(editor.figure.data[0].y)
    editor.weights[0].value = 0.0
    after = np.array(editor.figure.data[0].y)
    assert after[0] == 0 != before[0]
    assert after[-1] == budget(editor.layers, 3)[0, 0]
    assert editor.radius < 1 / 6
    assert "wrong" in editor.readout.value or f"{editor.radius:.4f}" in editor.readout.value


def test_no_setting_passes_the_bound(editor):
    rng = np.random.default_rng(0)
    for preset in PRESETS:
        editor.preset.value = preset
        for control in rng.choice(editor.weights + editor.out_weights + editor.biases, 6):
            control.value = rng.uniform(-1, 1)
            assert is_standard(editor.layers, 1e-12)
            assert editor.radius <= 1 / 6 + 1e-12
            assert np.sum([trace.y[-1] for trace in editor.figure.data[:3]]) <= 1 + 1e-12


def test_presets_at_their_bound_reach_it(editor):
    for preset in ("AND at its bound", "choice at its bound"):
        editor.preset.value = preset
        assert editor.radius == pytest.approx(1 / 6)
    with pytest.raises(ValueError, match="no preset"):
        BudgetExplorer("nothing")


def test_rows_are_scaled_only_when_too_long():
    assert np.array_equal(project([[0.5, -0.25]]), [[0.5, -0.25]])
    assert np.array_equal(project([[3.0, -1.0]]), [[0.75, -0.25]])
    assert is_standard(small_network(np.ones((3, 3)), [0, 0, 0], [1, 1, 1], 0.0, "relu"), 1e-12)


def test_a_slider_answers_within_a_tenth_of_a_second(editor):
    assert fastest(lambda repeat: setattr(editor.weights[4], "value", 0.1 + repeat / 50)) < 0.1
    explorer = BooleanExplorer()
    assert fastest(lambda repeat: setattr(explorer.variables, "value", 4 - repeat % 2)) < 0.1


def test_the_cube_follows_the_controls():
    explorer = BooleanExplorer()
    assert explorer.function == BooleanFunction.threshold(3, 2)
    explorer.kind.value = "parity"
    assert "1/6" in explorer.readout.value
    edges = np.array(explorer.figure.data[1].x, float)
    assert np.isnan(edges).sum() == 4  # every edge in direction 1 is sensitive
    explorer.variables.value = 4
    assert "1/8" in explorer.readout.value
    explorer.kind.value = "expression"
    explorer.expression.value = "x1 & x2"
    assert explorer.function.variables == 2
    explorer.expression.value = "x1 & )"
    assert "not drawn" in explorer.readout.value
    explorer.expression.value = "x1 | x5"
    assert "at most 4" in explorer.readout.value
    explorer.expression.value = "x1 & ~x1"
    assert "constant" in explorer.readout.value
