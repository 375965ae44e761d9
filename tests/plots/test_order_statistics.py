"""The figures of order statistics draw what the arrays say."""

import numpy as np
import pytest

from lablib.plots.order_statistics import draw_staircase, draw_surfaces, plotly_surfaces, steepest_ramp
from lablib.theory.order_statistics import best_standard, error_bound, error_surface


@pytest.fixture(scope="module")
def arrays():
    surface = error_surface(best_standard(2, 1), 1, points=5)
    return {"axis": surface["x"], "standard/error": surface["error"], "standard/output": surface["output"]}


def test_the_surface_title_says_the_largest_error(arrays):
    panel = draw_surfaces(arrays).axes[0]
    assert panel.get_title(loc="left").endswith("0.250")
    assert "0.250" in plotly_surfaces(arrays).layout.title.text
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_surfaces({"axis": arrays["axis"]})


def test_a_turnable_figure_has_one_button_per_network(arrays):
    figure = plotly_surfaces(arrays)
    assert len(figure.data) == 2
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["mean + 1/4"]


def test_the_ramp_has_the_error_of_the_proof():
    for d in range(1, 9):
        for k in range(1, d + 1):
            for sorts in range(4):
                at, ramp, error = steepest_ramp(d, k, min(2**sorts, d))
                assert error == pytest.approx(float(error_bound(d, sorts + 1, 2)))
                value = np.interp(np.arange(d + 1), at, ramp)
                assert np.abs(value - (np.arange(d + 1) >= k)).max() == pytest.approx(error)
                assert np.abs(np.diff(value)).max() <= min(2**sorts, d) / d + 1e-12
    with pytest.raises(ValueError, match="k-th largest"):
        draw_staircase(3, 4)
    assert draw_staircase(3, 2).axes
