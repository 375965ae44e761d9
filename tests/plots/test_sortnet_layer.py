"""Figures of notebook 07 from arrays, and their helpers against slow forms."""

import numpy as np
import pytest

from lablib.plots import sortnet_layer as plots


def test_running_mean_is_the_mean_so_far():
    samples = np.random.default_rng(0).normal(size=500)
    counts, mean, band = plots.running_mean(samples)
    for count, value, half in zip(counts, mean, band, strict=True):
        assert value == pytest.approx(samples[:count].mean())
        expected = plots.BAND_SIGMAS * samples[:count].std() / np.sqrt(count)
        assert half == pytest.approx(expected, abs=1e-9)
    assert counts[-1] == 500


def test_rank_shares_leave_out_the_empty_subset():
    shares = plots.rank_shares(np.array([0, 0, 1, 3]), 3)  # rank 3 of 0..2: nothing was kept
    assert shares.tolist() == [0.5, 0.25, 0.0] + [0.0] * (plots.RANKS_SHOWN - 3)


def test_every_figure_draws():
    rng = np.random.default_rng(0)
    at = np.linspace(-1, 1, 5)
    field = np.add.outer(np.abs(at), np.abs(at))
    powers = np.array([1.0, 2.0, 8.0])
    figures = [
        plots.draw_rank_weights({"q": [0.6, 0.4]}),
        plots.draw_dropout(np.ones(4), np.zeros(16), np.zeros(16), rng.random(100), 0.5),
        plots.draw_level_sets(at, {"a": field, "b": field}, (0, 0)),
        plots.draw_lp(powers, np.array([3.0, 2.0, 1.1]), 1.0, 4, {"p": np.ones(4)}),
        plots.draw_masks({"first": plots.mask_picture(np.ones(3), np.array([1, 0]))}),
        plots.draw_slopes(powers, rng.random((3, 5)) + 1, 4),
    ]
    for figure in figures:
        assert all(axis.get_title(loc="left") for axis in figure.axes)
        figure.savefig("/dev/null", format="png")


@pytest.mark.parametrize(
    "draw",
    [plots.draw_rank_weights, lambda x: plots.draw_level_sets(np.zeros(2), x, (0, 0)), plots.draw_masks],
)
def test_nothing_to_draw_is_said(draw):
    with pytest.raises(ValueError, match="nothing to draw"):
        draw({})


def test_masks_say_what_the_colours_mean():
    figure = plots.draw_masks({"first": np.eye(3)})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["computed", "dropped"]


def test_slopes_show_the_steepest_point():
    axis = plots.draw_slopes(np.array([2.0, 8.0]), np.array([[1.0, 3.0], [2.0, 1.5]]), 4).axes[0]
    assert axis.lines[0].get_ydata().tolist() == [3.0, 2.0]
