"""The controls of the sorting explorer run the network they show."""

from lablib.explore.sorting import SortingExplorer


def test_controls_change_the_network_and_the_values():
    explorer = SortingExplorer(d=8)
    assert explorer.values.tolist() == list(range(1, 9))
    assert "sorted" in explorer.readout.value
    explorer.rounds.value = 2
    assert "not sorted yet" in explorer.readout.value
    assert explorer.figure.data[0].z.shape == (8, 3)
    start = explorer.figure.data[0].z[:, 0].copy()
    explorer.shuffle.value = 5
    assert (explorer.figure.data[0].z[:, 0] != start).any()
    explorer.schedule.value = "transposition"
    assert explorer.rounds.value == explorer.rounds.max == 8
    assert explorer.values.tolist() == list(range(1, 9))
    explorer.inputs.value = 16
    assert explorer.rounds.value == 16
    assert explorer.values.tolist() == list(range(1, 17))
