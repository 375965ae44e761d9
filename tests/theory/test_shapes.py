"""Networks that do not fit are refused, with the layer named."""

import numpy as np
import pytest

from lablib.theory.network import activation, affine, fractions, group_sort
from lablib.theory.shapes import finite, output_shapes


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


def test_knots_of_a_small_integer_type_are_compared_without_wrapping():
    knots, values = np.array([5, 3], np.uint8), np.array([0, 1], np.uint8)
    with pytest.raises(ValueError, match="increasing"):
        output_shapes([{"op": "activation", "kind": "piecewise_linear", "knots": knots, "values": values}], 1)


def test_infinity_is_found_among_objects():
    assert finite(fractions([[10**400]]), "input").shape == (1, 1)
    for bad in (float("inf"), np.float32("nan")):
        with pytest.raises(ValueError, match="the weight holds NaN or infinity"):
            output_shapes([{"op": "affine", "weight": np.array([[bad]], dtype=object)}], 1)
