"""Pictures of denoisers: seeds are counted, the noise is stated, splines are drawn less the identity."""

import numpy as np
import pytest

from lablib.plots.denoising import draw_pictures, draw_quality, draw_splines

NAMES = {"relu": "ReLU", "spline": "learned spline"}


def test_quality_says_how_many_seeds_a_mark_stands_for():
    rows = [
        {"activation": name, "sigma": 5, "target": target, "seed": seed, "psnr": 30.0 + seed}
        for name in NAMES
        for target, seed in (("network", 0), ("network", 1), ("averaged", 0))
    ]
    figure = draw_quality(rows, [{"sigma": 5, "noisy": {"psnr": 28.0}, "tv": {"psnr": 29.0}}], NAMES)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [
        "network N trained to denoise (2 seeds, a mark each)",
        "firmly nonexpansive (I + N)/2 trained (one seed)",
        "total variation",
    ]
    assert len(figure.axes[0].lines) == len(rows) + 1


def test_pictures_state_the_noise():
    pictures = {name: np.full((4, 4), level, np.uint8) for name, level in (("clean", 9), ("noisy", 10))}
    assert "standard deviation 15 of 255" in draw_pictures(pictures, NAMES, 15).get_suptitle()
    assert not draw_pictures(pictures, NAMES).get_suptitle()


def test_splines_are_drawn_less_the_identity_and_their_knots_are_a_mean():
    x = np.linspace(-1, 1, 5)
    splines = {5: (np.stack([x, x]), np.stack([x + 3, np.maximum(x, 0)]))}
    rows = [{"sigma": 5, "active_knots": count, "knots": 51} for count in (10.0, 20.0)]
    figure = draw_splines(splines, rows)
    assert "mean of all splines and networks: 15 of 51 at noise 5" in figure.get_suptitle()
    drawn = [axis.lines[1].get_ydata() for axis in figure.axes]
    assert np.allclose(drawn[0], 0)
    assert np.allclose(drawn[1], np.maximum(-x, 0))


@pytest.mark.parametrize("call", [lambda: draw_quality([], [], NAMES), lambda: draw_splines({}, [])])
def test_nothing_to_draw_is_said(call):
    with pytest.raises(ValueError, match="nothing to draw"):
        call()
