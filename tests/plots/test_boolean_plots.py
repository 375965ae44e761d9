from types import SimpleNamespace

import numpy as np
import pytest

from lablib.plots import boolean as draw
from lablib.plots.budget import flow_figure
from lablib.theory.boolean import BooleanFunction


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_no_two_vertices_are_drawn_on_each_other(d):
    places = draw.vertex_positions(d)
    gaps = np.linalg.norm(places[:, None] - places, axis=2)[~np.eye(2**d, dtype=bool)]
    assert gaps.min() > 0.3


@pytest.mark.parametrize("d", [2, 3, 4])
def test_edges_are_those_of_the_theory(d):
    function = BooleanFunction.threshold(d, 2)
    ends, variable, sensitive = draw.cube_edges(function.table)
    assert len(ends) == d * 2 ** (d - 1)
    for j in range(d):
        expected = function.sensitive_edges(j) @ (1 << np.arange(d))
        assert {tuple(pair) for pair in ends[sensitive & (variable == j)]} == {
            tuple(pair) for pair in expected
        }


def test_cube_figure_colours_sensitive_edges_only():
    function = BooleanFunction.from_expression("x1 & x2", 3)
    figure = draw.cube_figure(function.table, "AND", np.array([1, 3]))
    widths = figure.axes[0].collections[0].get_linewidths()
    assert (np.array(widths) > 1).sum() == 4
    assert figure.axes[0].get_title(loc="left") == "AND"


def test_states_and_empty_galleries():
    row = {"explicit": None, "ratio": 0.9995, "variables": 4}
    assert draw.state_of(row, 0.999) == "reached"
    assert draw.state_of({**row, "ratio": 0.9}, 0.999) == "open"
    assert draw.state_of({**row, "explicit": "zigzag"}, 0.999) == "closed"
    with pytest.raises(ValueError, match="at most three"):
        draw.gallery_figure([row])
    with pytest.raises(ValueError, match="cubes are drawn"):
        draw.vertex_positions(5)


def test_climb_figure_leaves_out_wrong_networks():
    figure = draw.climb_figure({"MaxMin": (np.array([1, 2, 3]), np.array([[-1.0, 0.05, 0.2]]))}, 0.1, "AND")
    drawn = figure.axes[0].lines[0].get_ydata()
    assert np.isnan(drawn[0])
    assert drawn[1:].tolist() == [0.05, 0.2]


def test_bars_stack_to_the_budget():
    step = SimpleNamespace(
        name="affine", budget=np.array([[0.2, 0.5], [0.4, 0.6]]), difference=np.array([-0.3, 0.1])
    )
    figure = flow_figure([step], "title")
    tops = [patch.get_y() + patch.get_height() for patch in figure.axes[0].patches]
    assert tops == pytest.approx([0.2, 0.4, 0.7, 1.0])
    diamonds = next(c for c in figure.axes[0].collections if len(c.get_offsets()))
    assert diamonds.get_offsets()[:, 1].tolist() == pytest.approx([0.3, 0.1])
    with pytest.raises(ValueError, match="no layer"):
        flow_figure([])
