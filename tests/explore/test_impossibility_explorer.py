import numpy as np
import pytest

from lablib.explore.impossibility import ImpossibilityExplorer


@pytest.fixture(scope="module")
def explorer():
    random = np.random.default_rng(0)
    classes = [(random.random((15, 5, 6)) ** (1 + y) * 16).astype(np.uint8) for y in range(3)]
    return ImpossibilityExplorer(classes, ["x", "y", "z"], scale=16)


def test_a_deeper_network_may_have_a_larger_radius(explorer):
    explorer.first.value, explorer.second.value = 0, 1
    explorer.depth.value = 1
    shallow = explorer.certificate
    explorer.depth.value = 2
    assert shallow.upper <= explorer.certificate.upper <= shallow.half_separation
    assert f"{float(explorer.certificate.upper):.4f}" in explorer.readout.value
    explorer.depth.value = 6
    assert explorer.certificate.lower == shallow.half_separation
    assert "nothing more" in explorer.readout.value


def test_the_pair_slider_walks_through_the_proof(explorer):
    explorer.depth.value = 1
    explorer.first.value, explorer.second.value = 2, 0
    assert explorer.certificate.names == ("x", "z")
    assert explorer.pair.max == len(explorer.certificate.pairs)
    before = np.array(explorer.figure.data[3].z)
    explorer.pair.value = explorer.pair.max
    assert not np.array_equal(before, explorer.figure.data[3].z)
    pairs, _ = explorer.certificate.heaviest(explorer.pair.max)
    assert np.array_equal(explorer.figure.data[1].z, explorer._classes[0][pairs[-1][1]][::-1])
    assert np.asarray(explorer.figure.data[0].z).sum() == pytest.approx(1, abs=1e-3)


def test_one_class_twice_is_answered_in_words(explorer):
    explorer.first.value = 1
    explorer.second.value = 1
    assert "different" in explorer.readout.value


def test_images_only():
    with pytest.raises(ValueError, match="images"):
        ImpossibilityExplorer([np.zeros((3, 4)), np.zeros((3, 4))], ["a", "b"])
