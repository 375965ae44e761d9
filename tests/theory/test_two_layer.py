from fractions import Fraction

import numpy as np
import pytest

from lablib.theory.boolean import BooleanFunction, all_functions_up_to_symmetry
from lablib.theory.budget import budget
from lablib.theory.constructions.two_layer import best_two_layer, directions, exact_radius, smallest_margin
from lablib.theory.constructions.zigzag import zigzag
from lablib.theory.network import activation, affine, is_standard


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_bound_is_attained_for_every_function_of_at_most_three_variables(d):
    hidden = directions(d, 2)
    for function in all_functions_up_to_symmetry(d):
        if len(function.relevant()) < d:
            continue
        found = best_two_layer(function, hidden)
        assert found.radius == pytest.approx(1 / (2 * d))
        assert is_standard(found.layers)
        assert exact_radius(function, found.layers) == Fraction(1, 2 * d)
        assert (
            budget(found.layers, d, exact=True)[0].tolist() == [Fraction(1, d)] * d
        )  # equality leaves no choice


@pytest.mark.parametrize("text", ["(x1 ^ x2) & (x3 | x4)", "x1 & (x2 | (x3 ^ x4))", "(x1 & x2) ^ (x3 & x4)"])
def test_formulas_that_read_each_variable_once_attain_their_bound(text):
    function = BooleanFunction.from_expression(text)
    found = best_two_layer(function, directions(4, 2))
    assert exact_radius(function, found.layers) == Fraction(1, 8)


def test_an_irrelevant_variable_costs_nothing():
    function = BooleanFunction.from_expression("x1 ^ x3", 3)
    found = best_two_layer(function, directions(3, 1))
    assert exact_radius(function, found.layers) == Fraction(1, 4)
    assert budget(found.layers, 3, exact=True)[0, 1] == 0


def test_more_directions_never_do_worse_and_none_passes_the_bound():
    function = BooleanFunction(np.array([int(bit) for bit in "0011010010000000"]))
    small, large = (best_two_layer(function, directions(4, largest)) for largest in (1, 2))
    assert small.radius <= large.radius + 1e-9 < float(function.bound)
    assert large.layers is None
    assert large.radius * 8 == pytest.approx(8 / 9)


def test_parity_needs_one_neuron_like_the_zigzag():
    function = BooleanFunction.parity(5)
    found = best_two_layer(function, np.ones((1, 5), dtype=int))
    assert exact_radius(function, found.layers) == exact_radius(function, zigzag(function)) == Fraction(1, 10)


def test_directions_are_one_of_each_line():
    hidden = directions(2, 2)
    assert {tuple(u) for u in hidden} == {(0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (1, -2), (2, 1), (2, -1)}
    for d, largest in ((0, 1), (1, 0), (12, 3)):
        with pytest.raises(ValueError, match="out of range"):
            directions(d, largest)


def test_exact_radius_refuses_a_network_that_is_not_standard():
    function = BooleanFunction.from_expression("x1", 1)
    assert exact_radius(function, [affine([[1]], [Fraction(-1, 2)])]) == Fraction(1, 2)
    steep = [affine([[Fraction(3, 2)]], [Fraction(-3, 4)]), activation("identity")]
    assert smallest_margin(function, steep) == Fraction(3, 4)
    with pytest.raises(ValueError, match="not standard"):
        exact_radius(function, steep)
    with pytest.raises(ValueError, match="not standard"):  # sums to 1 in floats, to more exactly
        exact_radius(BooleanFunction.threshold(10, 5), [affine(np.full((1, 10), 0.1), [-0.45])])


def test_bad_directions_and_constant_functions_are_refused():
    function = BooleanFunction.parity(2)
    for hidden in (np.zeros((1, 2), int), np.ones((1, 3), int), np.ones(2, int)):
        with pytest.raises(ValueError, match="directions"):
            best_two_layer(function, hidden)
    with pytest.raises(ValueError, match="constant"):
        best_two_layer(BooleanFunction([1, 1]), np.ones((1, 1), int))
