"""The interpreter of plain-data networks, against loops that are obviously right and against fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.theory.network import (
    activation,
    activation_constant,
    affine,
    evaluate,
    fractions,
    group_sort,
    is_lipschitz,
    is_standard,
    row_norms,
    trace,
)
from lablib.theory.shapes import output_shapes


def slow_conv(x, weight, bias, stride, padding):
    """Return one image's convolution by four loops."""
    channels, height, width = x.shape
    padded = np.zeros((channels, height + 2 * padding[0], width + 2 * padding[1]))
    padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = x
    rows = (padded.shape[1] - weight.shape[2]) // stride[0] + 1
    columns = (padded.shape[2] - weight.shape[3]) // stride[1] + 1
    y = np.zeros((len(weight), rows, columns))
    for out in range(len(weight)):
        for i in range(rows):
            for j in range(columns):
                top, left = i * stride[0], j * stride[1]
                window = padded[:, top : top + weight.shape[2], left : left + weight.shape[3]]
                y[out, i, j] = (window * weight[out]).sum() + bias[out]
    return y


@pytest.mark.parametrize(("stride", "padding"), [((1, 1), (0, 0)), ((2, 1), (1, 2)), ((3, 2), (2, 0))])
def test_convolution_equals_four_loops(stride, padding):
    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(3, 2, 6, 7)), rng.normal(size=(4, 2, 3, 2)), rng.normal(size=4)
    layer = {"op": "conv2d", "weight": weight, "bias": bias, "stride": stride, "padding": padding}
    expected = np.stack([slow_conv(image, weight, bias, stride, padding) for image in x])
    y = evaluate([layer], x)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    assert output_shapes([layer], (2, 6, 7)) == [y.shape[1:]]


def test_pooling_is_the_mean_of_each_window():
    x = np.arange(2 * 3 * 5 * 4, dtype=float).reshape(2, 3, 5, 4)
    y = evaluate([{"op": "avg_pool2d", "kernel": (2, 3), "stride": (2, 1)}], x)
    assert y.shape == (2, 3, 2, 2)
    np.testing.assert_allclose(y[1, 2, 1, 1], x[1, 2, 2:4, 1:4].mean())


def small_network(rng):
    """Return a network with every kind of layer that has an exact value, weights k/8."""

    def eighths(*shape):
        return rng.integers(-8, 9, size=shape) / 8

    return [
        {
            "op": "conv2d",
            "weight": eighths(4, 1, 2, 2),
            "bias": eighths(4),
            "stride": (1, 1),
            "padding": (1, 0),
        },
        activation("prelu", eighths(4)),
        group_sort(2),
        {"op": "avg_pool2d", "kernel": (2, 2), "stride": (2, 1)},
        {"op": "flatten"},
        affine(eighths(6, 8), eighths(6)),
        {"op": "residual", "branch": [affine(eighths(6, 6)), activation("abs")], "alpha": 0.25},
        group_sort(3),
        activation("leaky", -0.5),
        {"op": "linf_distance", "weight": eighths(5, 6), "bias": eighths(5)},
        {"op": "sortnet", "weight": eighths(4, 5), "center": eighths(4, 5), "bias": None},
        {
            "op": "activation",
            "kind": "piecewise_linear",
            "knots": [-1.0, 0.0, 2.0],
            "values": [0.5, 0.0, 1.0],
        },
        activation("relu"),
        affine(eighths(2, 4)),
    ]


def test_exact_evaluation_agrees_with_floats_in_every_layer():
    rng = np.random.default_rng(1)
    layers = small_network(rng)
    x = rng.integers(0, 17, size=(3, 1, 3, 3)) / 16
    exact, rounded = trace(layers, fractions(x)), trace(layers, x)
    assert all(isinstance(value, Fraction) for value in exact[-1].reshape(-1))
    for left, right in zip(exact, rounded, strict=True):
        np.testing.assert_allclose(left.astype(float), right, atol=1e-12)


def test_integers_stay_exact():
    big = 2**62
    layers = [affine([[1, -1]]), activation("abs")]
    y = evaluate(layers, np.array([[big, big - 1]]))
    assert y[0, 0] == 1
    y = evaluate([*layers, affine([[Fraction(1, 3)]])], np.array([[big, big - 1]]))
    assert y[0, 0] == Fraction(1, 3)


INTEGER_TYPES = [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64, bool]


@pytest.mark.parametrize("points", INTEGER_TYPES)
@pytest.mark.parametrize("weights", INTEGER_TYPES)
def test_integers_of_any_type_never_wrap(points, weights):
    rng = np.random.default_rng(0)

    def extreme(kind, *shape):
        ends = (0, 1) if kind is bool else (np.iinfo(kind).min, np.iinfo(kind).max)
        return rng.choice(np.array(ends, dtype=kind), shape)

    layers = [
        affine(extreme(weights, 4, 4), extreme(weights, 4)),
        activation("relu"),
        group_sort(2),
        affine(extreme(weights, 4, 4)),
        activation("abs"),
        activation("leaky", -2),
        {"op": "linf_distance", "weight": extreme(weights, 4, 4)},
        {"op": "residual", "branch": [affine(extreme(weights, 4, 4))], "alpha": 1},
        {"op": "sortnet", "weight": extreme(weights, 2, 4), "center": extreme(weights, 2, 4)},
        {"op": "activation", "kind": "piecewise_linear", "knots": [0, 3], "values": [0, 1]},
    ]
    x = extreme(points, 20, 4)
    exact = trace(layers, fractions(x.astype(object) + 0))
    for got, expected in zip(trace(layers, x), exact, strict=True):
        assert (got.astype(object) == expected).all()


def test_small_integers_are_worked_in_int64_and_join_floats_as_floats():
    x = np.array([[200, 100]], dtype=np.uint8)
    assert evaluate([affine(np.array([[1, 1]], dtype=np.uint8))], x).dtype == np.int64
    assert evaluate([affine([[0.5, 1.0]])], x).tolist() == [[200.0]]
    assert evaluate([activation("tanh")], x).dtype == np.float64
    assert evaluate([activation("abs")], np.array([[-128]], dtype=np.int8)) == 128


def test_pooling_of_integers_is_exact():
    pool = {"op": "avg_pool2d", "kernel": (1, 3), "stride": (1, 1)}
    assert evaluate([pool], np.array([[[[1, 1, 0]]]])).tolist() == [[[[Fraction(2, 3)]]]]


def test_trace_lists_the_input_and_every_output():
    layers = [affine([[1.0, -1.0]]), activation("abs")]
    values = trace(layers, np.array([[0.25, 1.0]]))
    assert [value.tolist() for value in values] == [[[0.25, 1.0]], [[-0.75]], [[0.75]]]


def test_group_sort_sorts_channels_pixel_by_pixel():
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 3))
    y = evaluate([group_sort(2)], x)
    np.testing.assert_array_equal(y[:, 0], np.minimum(x[:, 0], x[:, 1]))
    np.testing.assert_array_equal(y[:, 3], np.maximum(x[:, 2], x[:, 3]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=1, max_size=6))
def test_piecewise_linear_interpolates_and_continues_with_the_outer_slopes(values):
    layer = {"op": "activation", "kind": "piecewise_linear", "knots": [-1, 0, 2], "values": [3, 2, 4]}
    x = fractions(np.array([values])) / 8

    def slow(t):
        return 2 - t if t < 0 else 2 + t

    assert evaluate([layer], x).tolist() == [[slow(t) for t in x[0]]]


def test_piecewise_linear_with_a_function_per_channel():
    knots, values = [[-1, 0, 2], [0, 1, 3]], [[3, 2, 4], [0, Fraction(1, 3), 1]]
    both = {"op": "activation", "kind": "piecewise_linear", "knots": knots, "values": values}
    each = [both | {"knots": knots[c], "values": values[c]} for c in range(2)]
    x = np.linspace(-3, 3, 24).reshape(2, 2, 2, 3)
    for points in (x, fractions(x)):
        expected = [evaluate([layer], points[:, [c]]) for c, layer in enumerate(each)]
        assert evaluate([both], points).tolist() == np.concatenate(expected, axis=1).tolist()
    assert activation_constant(both).tolist() == [1, pytest.approx(1 / 3)]
    assert is_standard([both])
    with pytest.raises(ValueError, match="2 functions for 3 channels"):
        evaluate([both], np.zeros((1, 3)))


def test_large_distance_layers_are_worked_in_blocks():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(40, 400)), rng.normal(size=(500, 400))
    y = evaluate([{"op": "linf_distance", "weight": weight}], x)
    np.testing.assert_allclose(y[37, 491], np.abs(x[37] - weight[491]).max())


def test_no_points_give_no_outputs():
    assert evaluate([affine(np.ones((3, 2)))], np.zeros((0, 2))).shape == (0, 3)
    assert evaluate([{"op": "linf_distance", "weight": np.ones((3, 2))}], np.zeros((0, 2))).shape == (0, 3)


def test_standard_networks_are_told_from_the_others():
    averaging = [affine([[0.5, -0.5]]), activation("relu")]
    assert is_standard(averaging)
    assert is_lipschitz(averaging)
    assert not is_standard([group_sort(2)])
    assert is_lipschitz([group_sort(2), {"op": "linf_distance", "weight": np.ones((1, 2))}])
    assert not is_lipschitz([affine([[0.75, 0.5]])])
    assert is_lipschitz([affine([[0.75, 0.5]])], tolerance=0.25)
    assert not is_lipschitz([activation("leaky", -1.5)])
    assert not is_lipschitz([{"op": "residual", "branch": [affine([[2.0]])], "alpha": 0.5}])
    assert not is_lipschitz(
        [{"op": "activation", "kind": "piecewise_linear", "knots": [0, 1], "values": [0, 1.5]}]
    )


def test_rows_and_slopes_are_compared_exactly():
    tenths = affine(np.full((1, 10), 0.1))  # each a little above 1/10, but the float sum is not
    assert row_norms(tenths)[0] <= 1 < row_norms(tenths, exact=True)[0]
    assert not is_standard([tenths])
    assert is_standard([tenths], 1e-12)
    assert is_standard([affine(np.full((1, 8), 0.125))])
    steep = {"op": "activation", "kind": "piecewise_linear", "knots": [0.0, 3.0], "values": [0.0, 3.0]}
    assert is_standard([steep])
    rise = [Fraction(0), 3 + Fraction(1, 10**30)]
    assert not is_standard([steep | {"values": rise}])


def test_what_is_no_convex_mixture_or_unknown_is_not_standard():
    for alpha in (5, -0.5):
        assert not is_standard([{"op": "residual", "branch": [affine([[-1]])], "alpha": alpha}])
    assert not is_standard([{"op": "softmax"}])
    with pytest.raises(ValueError, match="unknown activation"):
        is_standard([activation("gelu")])
    with pytest.raises(ValueError, match="NaN"):
        is_standard([affine([[float("nan")]])])


def test_row_norms_of_float32_rows_are_summed_in_float64():
    weight = np.full((1, 3), 1 / 3, dtype=np.float32)
    assert row_norms(affine(weight))[0] == 3 * float(np.float32(1 / 3))
    with pytest.raises(ValueError, match="no rows"):
        row_norms(group_sort(2))


def test_bad_points_are_refused():
    with pytest.raises(ValueError, match="infinity"):
        evaluate([affine([[1.0]])], np.array([[float("inf")]], dtype=object))
    with pytest.raises(ValueError, match="NaN"):
        evaluate([], np.array([[np.nan]]))
    with pytest.raises(ValueError, match="shape"):
        evaluate([], np.array([1.0]))
    with pytest.raises(ValueError, match="no exact value"):
        evaluate([activation("tanh")], fractions([[0.5]]))
