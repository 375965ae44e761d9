import time

import numpy as np
import pytest

from lablib.explore.denoise import MOST, DenoiseExplorer

NAMES = {"relu": "ReLU", "spline": "learned spline"}


def towards_half(rate):
    """Stands in for a denoiser: moves every pixel towards 1/2."""

    def run(picture, count):
        return np.stack([0.5 + (picture - 0.5) * (1 - rate) ** k for k in range(count + 1)])

    return run


def score(picture, clean):
    error = np.square(np.clip(picture, 0, 1) - clean).mean()
    return np.inf if error == 0 else -10 * np.log10(error)


@pytest.fixture
def lab():
    pictures = {"grey": np.full((40, 50), 0.5), "half": np.tile(np.repeat([0.0, 1.0], 25), (40, 1))}
    denoisers = {(name, sigma): towards_half(sigma / 50) for name in NAMES for sigma in (5, 15)}
    return DenoiseExplorer(denoisers, pictures, NAMES, score)


def test_it_starts_with_the_last_activation_applied_once(lab):
    assert (lab.activation.value, lab.trained.value, lab.times.value) == ("spline", 15, 1)
    clean, noisy, denoised = (np.asarray(trace.z) for trace in lab.figure.data[:3])
    assert clean.dtype == np.uint8
    assert np.ptp(clean) == 0
    assert noisy.std() == pytest.approx(15, rel=0.1)
    assert denoised.std() == pytest.approx(0.7 * noisy.std(), rel=0.05)
    assert f"after 1 × T <b>{lab.scores[1]:.2f} dB" in lab.readout.value


def test_times_moves_picture_marker_and_readout_and_computes_nothing(lab):
    path = lab.path
    lab.times.value = 4
    assert lab.path is path
    assert list(lab.figure.data[4].x) == [4]
    assert list(lab.figure.data[4].y) == [pytest.approx(lab.scores[4])]
    assert f"best after {MOST}" in lab.readout.value  # of a grey picture the greyest is best
    assert f"moved it by {np.linalg.norm(path[4] - path[3]):.3f}" in lab.readout.value


def test_every_control_changes_the_result(lab):
    for control, value in (
        (lab.noise, 30),
        (lab.seed, 1),
        (lab.trained, 5),
        (lab.picture, "half"),
    ):
        before = np.array(lab.figure.data[2].z)
        control.value = value
        assert not np.array_equal(lab.figure.data[2].z, before), control.description


def test_a_clean_picture_has_no_score_to_draw(lab):
    lab.noise.value = 0
    assert list(lab.figure.data[3].y) == [None] * (MOST + 1)
    assert "noisy <b>no error</b>" in lab.readout.value


def test_a_slider_step_answers_within_a_tenth_of_a_second(lab):
    times = []
    for level in range(20, 28):
        start = time.perf_counter()
        lab.noise.value = level
        times.append(time.perf_counter() - start)
    assert np.median(times) < 0.1


def test_missing_denoisers_and_pictures_are_refused():
    with pytest.raises(ValueError, match="missing"):
        DenoiseExplorer({("relu", 5): towards_half(0.1)}, {"a": np.zeros((4, 4))}, NAMES, score)
    with pytest.raises(ValueError, match="a picture or more"):
        DenoiseExplorer({("relu", 5): towards_half(0.1)}, {}, {"relu": "ReLU"}, score)
