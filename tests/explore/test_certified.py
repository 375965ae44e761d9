"""The per-image explorer says proved, open, broken or wrong exactly when that is so."""

import numpy as np
import pytest

from lablib.explore.certified import CertifiedExplorer
from lablib.plots.certified_image import VERDICTS, draw_image_certificate, verdict

W = np.random.default_rng(0).normal(size=(3, 4))


def _logits(image):
    return W @ image.ravel() / np.abs(W).sum(1).max()


def _bounds(index, eps):
    clean = _logits(IMAGES[index])
    return clean - eps, clean + eps


def _attack(index, eps):
    label = LABELS[index]
    rival = int(np.argsort(_logits(IMAGES[index]) + np.where(np.arange(3) == label, -9, 0))[-1])
    step = eps * np.sign(W[rival] - W[label]).reshape(2, 2)
    worst = np.clip(IMAGES[index] + step, 0, 1)
    return worst, _logits(worst)


IMAGES = np.random.default_rng(1).random((12, 2, 2))
CLEAN = np.stack([_logits(image) for image in IMAGES])
LABELS = CLEAN.argmax(1)
LABELS[:2] = CLEAN[:2].argmin(1)  # two misclassified
ORDERED = np.sort(CLEAN, axis=1)
RADII = np.where(CLEAN.argmax(1) == LABELS, (ORDERED[:, -1] - ORDERED[:, -2]) / 2, -1.0)


@pytest.fixture
def explorer():
    return CertifiedExplorer(IMAGES, LABELS, RADII, CLEAN, _bounds, _attack, largest=0.8)


def test_verdicts_follow_radius_and_attack(explorer):
    seen = set()
    for explorer.image.value in range(12):
        for explorer.eps.value in (0.0, 0.04, 0.2, 0.8):
            view = explorer.view
            seen.add(view.verdict)
            assert VERDICTS[view.verdict] in explorer.readout.value
            assert np.abs(view.worst - view.image).max() <= view.eps + 1e-12
            assert (view.verdict == "wrong") == (RADII[explorer.image.value] <= 0)
            if view.verdict == "proved":
                assert view.found.argmax() == view.label
    assert {"wrong", "proved", "broken"} <= seen


def test_kinds_sort_the_images(explorer):
    explorer.kind.value = "certified widely"
    assert explorer.view.radius == RADII.max()
    explorer.kind.value = "certified narrowly"
    assert explorer.view.radius == RADII[RADII > 0].min()
    explorer.kind.value = "misclassified"
    assert explorer.image.max == 1
    assert explorer.view.verdict == "wrong"
    explorer.kind.value = "all"
    assert explorer.image.max == 11


def test_picture_follows_the_view(explorer):
    explorer.image.value, explorer.eps.value = 5, 0.2
    image, worst, change, others, truth, clean, found, floor = explorer.figure.data
    np.testing.assert_array_equal(image.z, IMAGES[5])
    np.testing.assert_array_equal(worst.z, explorer.view.worst)
    assert (change.zmin, change.zmax) == (-0.2, 0.2)
    assert len(others.x) == 6
    assert list(truth.y[:2]) == [explorer.view.lower[LABELS[5]], explorer.view.upper[LABELS[5]]]
    np.testing.assert_array_equal(clean.y, CLEAN[5])
    np.testing.assert_array_equal(found.y, explorer.view.found)
    assert floor.y[0] == explorer.view.lower[LABELS[5]]
    draw_image_certificate(explorer.view).savefig("/dev/null", format="png")


def test_a_tie_is_no_classification():
    assert verdict(0, np.array([1.0, 1.0]), np.array([1.0, 0.0]), 0.0, 0.0) == "wrong"
    assert verdict(0, np.array([1.0, 0.5]), np.array([0.7, 0.7]), 0.1, 0.2) == "broken"
    assert verdict(0, np.array([1.0, 0.5]), np.array([0.7, 0.6]), 0.1, 0.2) == "open"


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="for each image"):
        CertifiedExplorer(IMAGES, LABELS[:3], RADII, CLEAN, _bounds, _attack)
