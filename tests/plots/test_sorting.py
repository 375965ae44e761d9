"""The figures of sorting networks: values, places of comparators, and refusal of bad input."""

import numpy as np
import pytest

from lablib.plots.sorting import columns, draw_budgets, draw_network, run_rounds
from lablib.theory.constructions.sorting_networks import SCHEDULES, batcher


def test_the_values_on_the_wires_end_sorted():
    values = np.random.default_rng(0).permutation(9)
    history = run_rounds(batcher(9), values)
    assert len(history) == len(batcher(9)) + 1
    assert history[0].tolist() == values.tolist()
    assert history[-1].tolist() == list(range(9))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_comparators_at_one_place_do_not_overlap(schedule):
    for wires in range(2, 17):
        rounds = SCHEDULES[schedule](wires)
        placed = columns(rounds)
        assert [len(group) for group in placed] == [len(pairs) for pairs in rounds]
        right = 0.0
        for group in placed:
            for x in {place for *_, place in group}:
                taken = [wire for i, j, place in group if place == x for wire in range(i, j + 1)]
                assert len(taken) == len(set(taken))
            assert min(x for *_, x in group) > right
            right = max(x for *_, x in group)


def test_drawing_needs_wires_and_names():
    assert draw_network(batcher(4), [3, 1, 2, 2]).axes
    assert draw_network([], [1, 1]).axes
    assert len(draw_budgets([np.eye(2)] * 3, ["a", "b", "c"]).axes) == 4
    for call in (
        lambda: draw_network([[(0, 5)]], [1, 2]),
        lambda: draw_network([], [1]),
        lambda: draw_budgets([np.eye(2)], []),
    ):
        with pytest.raises(ValueError, match="give"):
            call()
