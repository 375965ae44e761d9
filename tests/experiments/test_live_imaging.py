import numpy as np
import pytest
import torch

from lablib.data import Pictures
from lablib.experiments import live_imaging
from lablib.experiments.denoiser import Architecture, build_denoiser
from lablib.experiments.live_imaging import as_picture, decibels, iterates, load_crops


@pytest.fixture(autouse=True)
def bundled_only(monkeypatch, tmp_path):
    """Use the pictures that come with scikit-learn."""
    monkeypatch.delenv("LABLIB_DATA", raising=False)
    monkeypatch.setenv("LABLIB_CACHE", str(tmp_path))


def test_crops_come_with_the_most_contrast_first():
    crops = load_crops(3, 48)
    assert all(crop.shape == (48, 48) and 0 <= crop.min() < crop.max() <= 1 for crop in crops.values())
    spreads = [crop.std() for crop in crops.values()]
    assert spreads == sorted(spreads, reverse=True)
    with pytest.raises(ValueError, match="choose 1 to"):
        load_crops(100, 48)


def test_a_crop_is_where_its_picture_has_contrast(monkeypatch):
    picture = np.full((40, 60), 200, dtype=np.uint8)
    picture[:16, 44:] = np.random.default_rng(0).integers(0, 256, (16, 16))  # the middle is flat
    source = Pictures("one", *(((picture,),) * 3), 255, "here")
    monkeypatch.setattr(live_imaging, "best_pictures", lambda: source)
    (crop,) = load_crops(1, 16).values()
    assert crop.std() > 0.2
    assert crop.dtype == np.float64
    with pytest.raises(ValueError, match="no 41 x 41 pixels"):
        load_crops(1, 41)


def test_iterates_are_the_operator_applied_again_and_again():
    torch.manual_seed(0)
    model = build_denoiser(Architecture("spline", 4, 1), noise=1.0).eval()
    picture = np.random.default_rng(0).random((16, 20))
    path = iterates(model)(picture, 3)
    assert path.shape == (4, 16, 20)
    assert np.allclose(path[0], picture, atol=1e-6)
    with torch.no_grad():
        twice = model(model(as_picture(picture)))[0, 0].numpy()
    assert np.allclose(path[2], twice, atol=1e-6)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=(1, 2))
    assert (steps[1:] <= steps[:-1] * (1 + 1e-5)).all()


def test_decibels_of_a_known_error():
    clean = np.full((8, 8), 0.5)
    assert decibels(clean + 0.1, clean) == pytest.approx(20.0, abs=1e-4)
    assert decibels(clean, clean) == np.inf
