"""The controls of notebook 07 change what they say they change, and quickly."""

import math
import time

import numpy as np
import pytest

from lablib.explore.sortnet_layer import (
    COUNTS,
    POWERS,
    DropoutExplorer,
    MaskExplorer,
    PowerExplorer,
    draw_network_masks,
)


def test_dropout_explorer_shows_the_identity():
    explorer = DropoutExplorer()
    inputs, won, weights, band, line, target = explorer.figure.data
    for explorer.keep.value in (0.2, 0.75, 1.0):
        assert abs(explorer.sampled - explorer.exact) <= 2 * explorer.band + 1e-12
        assert target.y[0] == explorer.exact
        assert line.y[-1] == explorer.sampled
    assert won.y[0] == weights.y[0] == 1
    assert explorer.band < 1e-6
    explorer.keep.value, explorer.top.value, explorer.inputs.value = 0.5, 2, 3
    assert np.count_nonzero(weights.y) == 2
    assert np.count_nonzero(inputs.y) == 3
    assert weights.x.tolist() == inputs.x.tolist() == won.x.tolist()
    assert len(band.x) == 2 * len(line.x)
    before = inputs.y.copy()
    explorer.seed.value = 3
    assert (inputs.y != before).any()
    assert f"{explorer.exact:.3f}" in explorer.readout.value


def test_power_explorer_keeps_the_bounds():
    explorer = PowerExplorer()
    shares = []
    for explorer.power.value in POWERS:
        root = explorer.count.value ** (1 / explorer.power.value)
        assert explorer.largest <= explorer.value * (1 + 1e-12)
        assert explorer.value <= root * explorer.largest * (1 + 1e-12)
        assert explorer.slope <= root * (1 + 1e-12)
        shares.append(explorer.in_use)
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 1
    field, _, mark, bars = explorer.figure.data
    assert math.isinf(explorer.power.value)
    assert mark.x[0] == 1000
    assert mark.y[0] == bars.y[0] == 1
    assert field.z[0, 0] == field.z[0, 20] == 1.5  # a square
    explorer.power.value, explorer.count.value = 1, COUNTS[-1]
    assert explorer.in_use == pytest.approx(784)
    assert field.z[0, 0] == 3


def test_mask_explorer_counts_what_is_drawn():
    explorer = MaskExplorer(keep=0.5)
    drawn = [trace.z.mean() for trace in explorer.figure.data]
    assert drawn == explorer.shares
    assert explorer.expected == [0.5, 0.25, 0.5]
    mean = np.mean([[p.mean() for p in draw_network_masks(0.5, seed)] for seed in range(200)], axis=0)
    np.testing.assert_allclose(mean, explorer.expected, atol=0.03)
    explorer.keep.value = 1.0
    assert explorer.shares == [1, 1, 1]


def test_sliders_answer_within_a_tenth_of_a_second():
    explorers = (DropoutExplorer(), PowerExplorer(), MaskExplorer())
    start = time.process_time()
    explorers[0].keep.value = 0.3
    explorers[1].power.value = 64
    explorers[2].keep.value = 0.3
    assert time.process_time() - start < 0.3
