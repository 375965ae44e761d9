import numpy as np
import pytest

from lablib.plots.wasserstein import (
    centred,
    draw_learning,
    draw_potential,
    draw_potentials,
    draw_sampling,
    draw_shares,
    ray_path,
)

AXIS = np.linspace(0, 1, 21)
FIELD = np.tile(AXIS, (21, 1)) + 7.0
RAYS = np.array([[[0.8, 0.5], [0.2, 0.5]], [[0.9, 0.1], [0.3, 0.1]]])


def test_fields_are_centred_at_the_points():
    points = RAYS.reshape(-1, 2)
    shown = centred(FIELD, AXIS, points)
    assert shown[3, 0] == pytest.approx(-points[:, 0].mean())
    assert np.allclose(np.diff(shown, axis=1), np.diff(FIELD, axis=1))


def test_rays_become_one_path_with_gaps():
    path = ray_path(RAYS)
    assert path.shape == (6, 2)
    assert np.isnan(path[[2, 5]]).all()
    assert path[0].tolist() == [0.8, 0.5]
    assert ray_path(np.tile(RAYS, (100, 1, 1)), most=7).shape == (21, 2)
    with pytest.raises(ValueError, match="rays"):
        ray_path(np.zeros((3, 2)))


def test_figures_are_drawn_from_arrays():
    shares = {
        "title": "a",
        "exact": 0.5,
        "known": None,
        "shares": {"ReLU": [50.0, 60.0], "spline": [98.0, 99.0]},
    }
    assert len(draw_shares([shares] * 5).axes) == 8
    assert len(draw_potential(AXIS, FIELD, RAYS).axes) == 2
    one = {
        "row": "moons and circle",
        "title": "ReLU",
        "axis": AXIS,
        "field": FIELD,
        "rays": RAYS,
        "note": "n",
    }
    figure = draw_potentials([one, one, one | {"row": "b"}])
    assert len(figure.axes) == 4
    assert "seed 0" in figure.get_suptitle()
    marks = [text.get_text() for text in figure.legends[0].get_texts()]
    assert marks[:3] == ["first cloud P", "second cloud Q", "ray: P to Q in the exact plan"]
    assert len(draw_learning(np.arange(3), {"ReLU": np.array([-0.1, 0.2, 0.3])}, 0.4).axes) == 1
    for draw in (draw_shares, draw_potentials):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw([])


def test_sampling_has_a_line_for_every_measure():
    figure = draw_sampling((25, 100), {"2 dimensions": [0.4, 0.2], "64 dimensions": [1.3, 1.2]})
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[0.4, 0.2], [1.3, 1.2]]
