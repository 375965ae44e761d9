import numpy as np
import pytest

from lablib.experiments import toy_data
from lablib.plots.boundary import certified_share, draw_boundary, draw_curves, draw_grid, region_path


@pytest.mark.parametrize(("norm", "order"), [("linf", np.inf), ("l2", 2)])
def test_regions_never_reach_beyond_the_radius(norm, order):
    points, radii = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 3.0]]), np.array([0.5, 0.0, 0.25])
    path = region_path(points, radii, norm)
    outlines = np.split(path, np.flatnonzero(np.isnan(path[:, 0])) + 1)[:-1]
    assert len(outlines) == 2
    for outline, (point, radius) in zip(outlines, ((points[0], 0.5), (points[2], 0.25)), strict=True):
        distance = np.linalg.norm(outline[:-1] - point, ord=order, axis=1)
        assert distance.max() <= radius + 1e-12
        assert np.allclose(outline[0], outline[-2])


def test_bad_regions_are_refused():
    for radii in ([-0.1], [np.nan], [0.1, 0.2]):
        with pytest.raises(ValueError, match="radius"):
            region_path(np.zeros((1, 2)), np.array(radii), "linf")
    with pytest.raises(ValueError, match="norm"):
        region_path(np.zeros((1, 2)), np.ones(1), "l1")


def test_share_counts_points_with_a_larger_radius():
    shares = certified_share(np.array([0.0, 0.1, 0.3, 0.3]), np.array([0.0, 0.1, 0.2, 0.3]))
    assert shares.tolist() == [0.75, 0.5, 0.5, 0.0]


def test_figures_are_drawn_from_arrays():
    data = toy_data.load("XOR")
    axis = np.linspace(*data.frame, 21)
    field = axis[None, :] - axis[:, None]
    radii = np.array([0.25, 0.0, 0.2, 0.1])
    assert len(draw_boundary(data, axis, field, radii, "linf").axes) == 2
    panel = {"data": data, "field_at": axis, "field": field, "radii": radii, "title": "a", "seconds": 1.0}
    assert len(draw_grid([[panel, panel]], "l2").axes) == 2
    assert len(draw_curves({"XOR": {"a": radii}}, {"XOR": 0.5}, "linf").axes) == 1
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_grid([], "linf")
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_curves({}, {}, "linf")
