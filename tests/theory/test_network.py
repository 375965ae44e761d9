"""The interpreter of plain-data networks, against loops that are obviously right and against fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.theory.network import (
    activation,
    affine,
    evaluate,
    fractions,
    group_sort,
    is_lipschitz,
    is_standard,
    output_shapes,
    row_norms,
    trace,
)


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
    assert y.dtype == np.int64
    assert y[0, 0] == 1
    y = evaluate([*layers, affine([[Fraction(1, 3)]])], np.array([[big, big - 1]]))
    assert y[0, 0] == Fraction(1, 3)


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


def test_row_norms_of_float32_rows_are_summed_in_float64():
    weight = np.full((1, 3), 1 / 3, dtype=np.float32)
    assert row_norms(affine(weight))[0] == 3 * float(np.float32(1 / 3))
    with pytest.raises(ValueError, match="no rows"):
        row_norms(group_sort(2))


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ([{"op": "affin", "weight": np.ones((1, 2))}], 2, "layer 0: unknown op 'affin'"),
        ([affine(np.ones((1, 2))), affine(np.ones((1, 2)))], 2, "layer 1: affine weight"),
        ([affine(np.ones((1, 2)), np.ones(2))], 2, "bias must have shape"),
        ([affine([[np.nan, 1.0]])], 2, "NaN"),
        ([group_sort(3)], 4, "groups of size 3"),
        ([{"op": "affine"}], 2, "no entry 'weight'"),
        ([{"op": "residual", "branch": [affine(np.ones((1, 2)))], "alpha": 0.5}], 2, "keep the shape"),
        ([{"op": "residual", "branch": [], "alpha": 1.5}], 2, "alpha"),
        ([activation("gelu")], 2, "unknown activation"),
        ([activation("prelu", [0.1, 0.2, 0.3])], 2, "one slope"),
        (
            [{"op": "activation", "kind": "piecewise_linear", "knots": [0, 0], "values": [0, 1]}],
            2,
            "increasing",
        ),
        ([{"op": "avg_pool2d", "kernel": (5, 5), "stride": (1, 1)}], (1, 4, 4), "larger than"),
        ([affine(np.ones((1, 4)))], (1, 2, 2), "flatten"),
        ([], 0, "input shape"),
    ],
)
def test_bad_networks_are_refused_with_the_layer_named(layers, shape, message):
    with pytest.raises(ValueError, match=message):
        output_shapes(layers, shape)


def test_bad_points_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        evaluate([], np.array([[np.nan]]))
    with pytest.raises(ValueError, match="shape"):
        evaluate([], np.array([1.0]))
    with pytest.raises(ValueError, match="no exact value"):
        evaluate([activation("tanh")], fractions([[0.5]]))
