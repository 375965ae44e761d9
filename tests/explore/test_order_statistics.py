"""The sliders of the order-statistic explorers move the figure, the number and the text."""

import pytest

from lablib.explore.order_statistics import PlaneExplorer, StaircaseExplorer


def test_the_staircase_follows_inputs_order_and_sorts():
    explorer = StaircaseExplorer(d=6, k=1)
    assert explorer.error == pytest.approx(5 / 12)
    explorer.sorts.value = 1
    assert explorer.error == pytest.approx(1 / 3)
    assert "error at least 1/3 = 0.3333" in explorer.readout.value
    explorer.order.value = 6
    assert list(explorer.figure.data[0].y) == [0] * 6 + [1]
    explorer.inputs.value = 4  # the order is cut to what there is
    assert explorer.order.value == explorer.order.max == 4
    assert explorer.error == pytest.approx(1 / 4)


def test_the_plane_is_best_in_the_middle():
    explorer = PlaneExplorer()
    assert explorer.error == pytest.approx(0.25)
    before = explorer.figure.data[0].z.copy()
    explorer.weight.value = 0.8
    assert explorer.error == pytest.approx(0.55)
    assert "0.550" in explorer.readout.value
    assert (explorer.figure.data[0].z != before).any()
