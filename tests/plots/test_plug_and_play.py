"""Figures of plug-and-play: what is drawn for runs that converged, that did not, and that overflowed."""

import numpy as np
import pytest

from lablib.plots.plug_and_play import draw_quality, draw_reconstructions, draw_residuals


def _row(method, psnr, reached):
    run = {"psnr": psnr, "ssim": None if psnr is None else 0.5, "reached": reached}
    return {
        "problem": "mri",
        "method": method,
        "label": method,
        "chosen": {"runs": [run]},
        "common": {"runs": [run]},
    }


ROWS = [_row("relu", 25.0, True), _row("spline", 26.0, True), _row("unconstrained", None, False)]
ARRAYS = {"clean/0": np.zeros((4, 4), np.uint8), "mri/start/0": np.zeros((4, 4), np.uint8)}
for _method in ("relu", "spline", "unconstrained"):
    ARRAYS[f"mri/{_method}/common/residuals/0"] = np.array([0.1, 0.01, 0.0])
    ARRAYS[f"mri/{_method}/chosen/picture/0"] = np.zeros((4, 4), np.uint8)


def test_residuals_show_all_networks_the_rate_and_the_rule():
    axis = draw_residuals(ROWS, ARRAYS, {"mri": np.array([1.0, 0.7])}, 1e-5).axes[0]
    labels = [line.get_label() for line in axis.lines]
    assert labels == ["relu", "spline", "unconstrained", "guaranteed with constraint", "stopping rule"]
    assert np.isnan(axis.lines[0].get_ydata()[-1])
    looks = {(line.get_color(), line.get_marker()) for line in axis.lines[:3]}
    assert len(looks) == 3


def test_quality_is_sorted_and_an_overflow_has_no_dot():
    axis = draw_quality(ROWS, {"mri": [{"psnr": 20.0, "ssim": 0.3}]}).axes[0]
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    assert names[0] == "unconstrained"
    assert names[-1] == "spline"
    assert len(axis.lines) == 2 * 3  # dot and bar of the start, ReLU and the spline


def test_reconstructions_say_what_did_not_converge():
    figure = draw_reconstructions("mri", ROWS, ARRAYS, {"psnr": 20.0, "ssim": 0.3})
    texts = [axis.get_xlabel() for axis in figure.axes]
    assert "overflow\nnot converged" in texts
    assert "26.0, 0.50" in texts


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="at least one row"):
        draw_quality([], {})
