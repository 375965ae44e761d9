"""The sensitivity figure: every bar is a bound, every diamond a measured value, and unknown names are refused."""

import io
from types import SimpleNamespace

import pytest

from lablib.plots.sensitivity import sensitivity_figure

ROWS = [
    SimpleNamespace(name="0", kind="Flatten", output_norm=float("inf"), cotangent_out=0.7, parameters={}),
    SimpleNamespace(name="1", kind="ClipNorm", output_norm=1.0, cotangent_out=0.7, parameters={}),
    SimpleNamespace(
        name="2",
        kind="Linear",
        output_norm=2.5,
        cotangent_out=0.7,
        parameters={"2.bias": 0.7, "2.weight": 1.7},
    ),
    SimpleNamespace(
        name="3", kind="Linear", output_norm=2.0, cotangent_out=1.4, parameters={"3.weight": 3.5}
    ),
]


def bars(axes):
    return sorted((round(bar.get_x() + bar.get_width() / 2, 2), bar.get_height()) for bar in axes.patches)


def diamonds(axes):
    points = [tuple(point) for group in axes.collections for point in group.get_offsets().tolist()]
    return sorted(point for point in points if point[1] is not None)


def test_bars_are_the_bounds_and_diamonds_what_was_measured():
    measured = {"features": {"0": 9.0, "2": 2.0}, "gradients": {"2.bias": 0.5, "3.weight": 0.1}}
    figure = sensitivity_figure(ROWS, 1.4, "title", measured)
    features, cotangents, gradients = figure.axes
    assert bars(features) == [(1, 1.0), (2, 2.5), (3, 2.0)]
    assert [text.get_text() for text in features.texts] == ["∞"]
    assert diamonds(features) == [(2, 2.0)]  # none where there is no bound
    assert bars(cotangents) == [(0, 0.7), (1, 0.7), (2, 0.7), (3, 1.4)]
    assert bars(gradients) == [(1.82, 1.7), (2.18, 0.7), (3, 3.5)]
    assert [(round(x, 2), y) for x, y in diamonds(gradients)] == [(2.18, 0.5), (3.0, 0.1)]
    assert [text.get_text() for text in cotangents.texts] == ["loss: L = 1.4"]
    assert gradients.texts[0].get_text() == "all layers = 3.95"
    assert gradients.get_ylim()[1] > 3.95
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["weight", "bias", "measured"]
    figure.savefig(io.BytesIO(), format="png")


def test_one_kind_of_parameter_needs_no_legend():
    assert not sensitivity_figure([ROWS[1], ROWS[3]], 1.4).legends


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="no layer"):
        sensitivity_figure([], 1.0)
    with pytest.raises(ValueError, match="'losses' cannot be drawn"):
        sensitivity_figure(ROWS, 1.4, measured={"losses": {}})
    with pytest.raises(ValueError, match="measured at '7'"):
        sensitivity_figure(ROWS, 1.4, measured={"features": {"7": 1.0}})
    with pytest.raises(ValueError, match=r"measured at '3\.bias'"):
        sensitivity_figure(ROWS, 1.4, measured={"gradients": {"3.bias": 1.0}})
