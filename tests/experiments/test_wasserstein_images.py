"""Image clouds: known distances, filters against SciPy, the generator's moments, and digits as stand-in."""

import numpy as np
import pytest
from scipy import ndimage

from lablib.data import DataFolderError, MissingDataError, load
from lablib.experiments import wasserstein_images
from lablib.experiments.wasserstein_clouds import exact_transport
from lablib.experiments.wasserstein_images import (
    PROBLEMS,
    blur,
    fit_generator,
    image_clouds,
    load_images,
    move_right,
)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_clouds_hold_images_and_repeat(problem, digits):
    clouds = image_clouds(problem, digits, 50, seed=1)
    again = image_clouds(problem, digits, 50, seed=1)
    assert clouds.first.shape == clouds.second.shape == (50, 64)
    assert np.array_equal(clouds.second, again.second)
    assert not np.array_equal(clouds.second, clouds.first)
    assert clouds.first.min() >= 0
    assert clouds.first.max() <= 1


def test_the_brighter_copy_is_as_far_as_the_offset_is_long(digits):
    clouds = image_clouds("offset", digits, 80)
    assert clouds.known == pytest.approx(0.8)
    assert exact_transport(clouds).distance == pytest.approx(clouds.known, rel=1e-6)


@pytest.mark.parametrize("problem", ["shift", "blur"])
def test_carrying_each_image_to_its_own_copy_is_never_cheaper(problem, digits):
    clouds = image_clouds(problem, digits, 80)
    own = np.linalg.norm(clouds.first.astype(float) - clouds.second, axis=1).mean()
    assert exact_transport(clouds).distance <= own * (1 + 1e-12)


def test_filters_are_what_scipy_computes():
    pixels = np.random.default_rng(0).random((3, 7, 7))
    kernel = np.outer([1, 2, 1], [1, 2, 1])[None] / 16
    np.testing.assert_allclose(blur(pixels), ndimage.convolve(pixels, kernel, mode="constant"), atol=1e-14)
    np.testing.assert_array_equal(move_right(pixels, 2), ndimage.shift(pixels, (0, 0, 2), order=0))


def test_pooling_takes_means():
    images = load_images("digits", pool=2)
    raw = load("digits").x_train[:, 0] / 16
    assert images.pixels.shape == (len(raw), 4, 4)
    np.testing.assert_allclose(images.pixels[5, 1, 2], raw[5, 2:4, 4:6].mean())
    with pytest.raises(ValueError, match="divisor"):
        load_images("digits", pool=3)


def test_the_generator_has_the_moments_of_its_data_in_the_span():
    rng = np.random.default_rng(0)
    rows = 0.5 + rng.normal(size=(4000, 5)) @ np.diag([0.08, 0.06, 0.04, 0.01, 0.001])
    generator = fit_generator(rows, 3)
    np.testing.assert_allclose(generator.basis.T @ generator.basis, np.eye(3), atol=1e-12)
    assert (np.diff(generator.spread) < 0).all()
    samples = generator.sample(20_000, rng)
    np.testing.assert_allclose(samples.mean(axis=0), rows.mean(axis=0), atol=3e-3)
    np.testing.assert_allclose(np.cov(samples.T), np.diag([0.08, 0.06, 0.04, 0, 0]) ** 2, atol=3e-4)
    for components in (0, 6):
        with pytest.raises(ValueError, match="components"):
            fit_generator(rows, components)


def test_digits_stand_in_for_files_that_are_missing(monkeypatch, capsys):
    def absent(name):
        if name != "digits":
            raise MissingDataError("train-images is not there")
        return load(name)

    monkeypatch.setattr(wasserstein_images, "load", absent)
    assert load_images("mnist", pool=2).data == "digits"
    assert "the bundled digits stand in" in capsys.readouterr().err


def test_nothing_stands_in_for_a_misspelt_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LABLIB_DATA", str(tmp_path / "misspelt"))
    with pytest.raises(DataFolderError, match="misspelt is not a folder"):
        load_images("mnist", pool=2)


def test_bad_requests_are_refused(digits):
    with pytest.raises(ValueError, match="choose from"):
        image_clouds("rotate", digits, 10)
    with pytest.raises(ValueError, match="images"):
        image_clouds("shift", digits, 10_000)
    with pytest.raises(ValueError, match="at most half"):
        image_clouds("halves", digits, 1000)
