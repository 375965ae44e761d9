import io

import numpy as np
import pytest

from lablib.plots.averaging import draw_paths, draw_repeated


def test_every_path_has_its_panel_and_its_points():
    paths = {"one": np.array([[1.0, 0.0], [0.0, 1.0]]), "two": np.zeros((3, 2))}
    figure = draw_paths(paths)
    assert [axis.get_title(loc="left") for axis in figure.axes] == list(paths)
    assert np.array_equal(figure.axes[0].lines[0].get_xydata(), paths["one"])


@pytest.mark.parametrize("paths", [{}, {"flat": np.zeros(3)}, {"space": np.zeros((3, 3))}])
def test_other_shapes_are_refused(paths):
    with pytest.raises(ValueError, match=r"\(K, 2\)"):
        draw_paths(paths)


def test_scores_begin_before_the_first_application_and_steps_with_it():
    figure = draw_repeated({"a": np.array([20.0, 25.0, 24.0])}, {"a": np.array([1.0, 0.5])})
    left, right = figure.axes
    assert list(left.lines[0].get_xdata()) == [0, 1, 2]
    assert list(right.lines[0].get_xdata()) == [1, 2]
    figure.savefig(io.BytesIO(), format="png")
