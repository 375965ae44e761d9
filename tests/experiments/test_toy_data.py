import numpy as np
import pytest

from lablib.experiments import toy_data


@pytest.mark.parametrize("name", toy_data.DATA_SETS)
def test_every_data_set_has_two_separated_classes_inside_its_frame(name):
    data = toy_data.load(name)
    low, high = data.frame
    assert (data.points > low).all()
    assert (data.points < high).all()
    assert set(data.labels.tolist()) == {0, 1}
    assert 0 < data.half_separation("linf") <= data.half_separation("l2")
    assert np.array_equal(data.points, toy_data.load(name).points)


def test_boolean_vertices_are_half_apart_and_labelled_by_the_function():
    data = toy_data.boolean("XOR")
    assert np.array_equal(data.labels, data.points.sum(axis=1) % 2)
    assert data.half_separation("linf") == data.half_separation("l2") == 0.5
    with pytest.raises(ValueError, match="AND, OR, XOR"):
        toy_data.boolean("NAND")


def test_half_separation_against_all_pairs():
    data = toy_data.moons(20, seed=3)
    pairs = [a - b for a in data.points[data.labels == 0] for b in data.points[data.labels == 1]]
    assert data.half_separation("l2") == pytest.approx(min(np.hypot(*pair) for pair in pairs) / 2)
    assert data.half_separation("linf") == pytest.approx(min(np.abs(pair).max() for pair in pairs) / 2)
    with pytest.raises(ValueError, match="not one of"):
        data.half_separation("l1")


def test_points_by_hand():
    data = toy_data.drawn("0.2 0.3 0; 0.7,0.8,1\n\n")
    assert data.points.tolist() == [[0.2, 0.3], [0.7, 0.8]]
    assert data.labels.tolist() == [0, 1]
    for wrong in ("", "0.1 0.2", "a b 1", "0.1 0.2 2", "0.1 0.2 1\n0.3 1", "nan 0 1"):
        with pytest.raises(ValueError, match=r"points|three numbers|0 or 1"):
            toy_data.drawn(wrong)


def test_one_class_has_no_separation():
    with pytest.raises(ValueError, match="both classes"):
        toy_data.drawn("0.1 0.1 1").half_separation("linf")


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        toy_data.moons(1)
    with pytest.raises(ValueError, match="noise"):
        toy_data.circles(noise=float("nan"))
    with pytest.raises(ValueError, match="choose from"):
        toy_data.load("rings")
