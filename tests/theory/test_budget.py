"""The budget lemma: the rules against hand-made products, the lemma on random networks, exactly."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.theory.budget import budget, budgets, check_lemma, flow
from lablib.theory.network import (
    activation,
    affine,
    evaluate,
    fractions,
    group_sort,
    is_lipschitz,
    is_standard,
)


def averaging_rows(rng, out, features):
    """Return rows of l1 norm one with both signs."""
    weight = rng.normal(size=(out, features))
    return weight / np.abs(weight).sum(axis=1, keepdims=True)


def test_a_standard_network_has_the_product_of_the_absolute_weights():
    rng = np.random.default_rng(0)
    weights = [averaging_rows(rng, 7, 4), averaging_rows(rng, 6, 7), averaging_rows(rng, 2, 6)]
    layers = [
        affine(weights[0]),
        activation("relu"),
        affine(weights[1]),
        activation("abs"),
        affine(weights[2]),
    ]
    steps = budgets(layers, 4)
    np.testing.assert_allclose(steps[-1], np.abs(weights[2]) @ np.abs(weights[1]) @ np.abs(weights[0]))
    np.testing.assert_array_equal(budget(layers, 4), steps[-1])
    for step in steps:
        np.testing.assert_allclose(step.sum(axis=1), 1)


def test_a_convolution_has_the_budget_of_its_matrix():
    rng = np.random.default_rng(1)
    shape = (2, 4, 5)
    layers = [
        {"op": "conv2d", "weight": rng.normal(size=(3, 2, 3, 2)), "bias": rng.normal(size=3),
         "stride": (1, 2), "padding": (1, 1)},
        {"op": "avg_pool2d", "kernel": (2, 2), "stride": (2, 1)},
        {"op": "flatten"},
        affine(rng.normal(size=(2, 12))),
    ]  # fmt: skip
    units = np.eye(40).reshape(40, *shape)
    first = evaluate(layers[:1], units) - evaluate(layers[:1], np.zeros((1, *shape)))  # columns of the matrix
    np.testing.assert_allclose(budgets(layers, shape)[0], np.abs(first.reshape(40, -1).T))
    pooled = evaluate(layers[1:3], np.abs(first))
    np.testing.assert_allclose(budget(layers, shape), np.abs(layers[3]["weight"]) @ pooled.T)


def test_a_residual_mixes_the_old_budget_with_the_new():
    layers = [
        {"op": "residual", "branch": [affine([[0.0, 1.0], [1.0, 0.0]]), activation("abs")], "alpha": 0.25}
    ]
    np.testing.assert_array_equal(budget(layers, 2), [[0.75, 0.25], [0.25, 0.75]])


def test_sorts_take_the_maximum_in_the_group_and_stop_at_one():
    layers = [affine([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), group_sort(2)]
    np.testing.assert_array_equal(
        budget(layers, 3), [[0.5, 0.5, 0.75], [0.5, 0.5, 0.75], [1.0, 0.0, 1.0], [1.0, 0.0, 1.0]]
    )
    np.testing.assert_array_equal(budget([group_sort(3), group_sort(3)], 3), np.ones((3, 3)))


def test_distance_and_sortnet_neurons():
    rng = np.random.default_rng(0)
    first = affine([[0.5, 0.5], [0.0, 1.0], [0.25, -0.75]])
    distance = {"op": "linf_distance", "weight": rng.normal(size=(2, 3))}
    np.testing.assert_array_equal(budget([first, distance], 2), [[0.5, 1.0], [0.5, 1.0]])
    weight = [[1.0, 0.0, 0.0], [0.25, -0.5, 0.25]]
    sortnet = {"op": "sortnet", "weight": weight, "center": rng.normal(size=(2, 3))}
    # The inputs' budgets are (.5, 0, .25) and (.5, 1, .75); the largest weight takes the largest.
    np.testing.assert_array_equal(budget([first, sortnet], 2), [[0.5, 1.0], [0.3125, 0.8125]])


def test_activations_multiply_by_their_constant_per_channel():
    layers = [affine([[1.0], [1.0]]), activation("prelu", [-0.5, -3.0])]
    np.testing.assert_array_equal(budget(layers, 1), [[1.0], [3.0]])
    wave = {"op": "activation", "kind": "piecewise_linear", "knots": [0, 1, 2], "values": [0, 0.5, -1.5]}
    np.testing.assert_array_equal(budget([wave], 1), [[2.0]])


@pytest.mark.parametrize("exact", [False, True])
def test_magnitudes_are_taken_after_widening(exact):
    weight = np.array([[-128]], dtype=np.int8)
    sortnet = {"op": "sortnet", "weight": weight, "center": np.zeros((1, 1))}
    slope = activation("leaky", np.int8(-128))
    for layer in (affine(weight), sortnet, slope):
        assert budget([layer], 1, exact=exact).tolist() == [[128]]


def test_the_exact_budget_of_a_bend_is_the_exact_slope():
    bend = {"op": "activation", "kind": "piecewise_linear", "knots": [0, 3], "values": [0, 1]}
    assert budget([bend], 1, exact=True)[0, 0] == Fraction(1, 3)


def test_flow_of_integer_points_is_in_floats():
    steps = flow(
        [affine(np.array([[100, 100]], np.int8))], np.array([100, 0], np.int8), np.array([-100, 0], np.int8)
    )
    assert steps[-1].difference.tolist() == steps[-1].allowed.tolist() == [20000.0]


def random_network(rng):
    """Return a network of every kind of layer; rows may exceed one, weights are k/4."""
    width = 4

    def quarters(*shape):
        return rng.integers(-4, 5, size=shape) / 4

    choices = [
        lambda: affine(quarters(width, width), quarters(width)),
        lambda: activation("prelu", quarters(width) * 2),
        lambda: activation("abs"),
        lambda: activation("relu"),
        lambda: group_sort(int(rng.choice([2, 4]))),
        lambda: {"op": "residual", "branch": [affine(quarters(width, width)), group_sort(2)], "alpha": 0.75},
        lambda: {"op": "linf_distance", "weight": quarters(width, width)},
        lambda: {"op": "sortnet", "weight": quarters(width, width), "center": quarters(width, width)},
        lambda: {"op": "activation", "kind": "piecewise_linear", "knots": [-1, 0, 1], "values": quarters(3)},
    ]
    return [choices[i]() for i in rng.integers(len(choices), size=rng.integers(1, 6))]


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 10**6))
def test_the_lemma_holds_exactly_for_random_networks_of_every_layer(seed):
    rng = np.random.default_rng(seed)
    layers = random_network(rng)
    x = fractions(rng.integers(-12, 13, size=(12, 4))) / 8
    y = fractions(rng.integers(-12, 13, size=(12, 4))) / 8
    y[:8] = np.where(np.eye(4, dtype=bool)[np.arange(8) % 4], y[:8], x[:8])  # one coordinate moves
    assert check_lemma(layers, x, y).holds(tolerance=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_exact_budgets_equal_the_float_ones(seed):
    layers = random_network(np.random.default_rng(seed))
    exact = budget(layers, 4, exact=True)
    assert all(isinstance(value, Fraction) for value in exact.reshape(-1))
    np.testing.assert_allclose(exact.astype(float), budget(layers, 4), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([1, 2, 3]))
def test_the_total_is_at_most_the_group_size_to_the_number_of_sorts(seed, sorts, group):
    rng = np.random.default_rng(seed)
    layers = [affine(averaging_rows(rng, 6, 5))]
    for _ in range(sorts):
        layers += [group_sort(group), affine(averaging_rows(rng, 6, 6))]
    assert is_lipschitz(layers, 1e-12)
    assert is_standard([layer for layer in layers if layer["op"] == "affine"], 1e-12)
    total = budget(layers, 5)
    assert total.sum(axis=1).max() <= group**sorts + 1e-9
    assert total.max() <= 1 + 1e-9


def test_chunks_of_coordinates_give_the_same_budget(monkeypatch):
    rng = np.random.default_rng(0)
    layers = [affine(rng.normal(size=(4, 30))), group_sort(2), affine(rng.normal(size=(2, 4)))]
    whole = budget(layers, 30)
    monkeypatch.setattr("lablib.theory.budget._CHUNK_ENTRIES", 64)
    np.testing.assert_array_equal(budget(layers, 30), whole)


def test_a_violation_would_be_seen():
    check = check_lemma([affine([[1.0, 0.0]])], np.array([[0.0, 0.0]]), np.array([[2.0, 1.0]]))
    assert (check.ratio, check.slack) == (1.0, 0.0)
    broken = type(check)(difference=np.array([[1.0]]), allowed=np.array([[0.0]]))
    assert broken.ratio == np.inf
    assert not broken.holds()


def test_flow_shows_budgets_and_differences_in_every_column():
    layers = [affine([[0.5, 0.5], [0.5, -0.5]]), activation("relu"), affine([[0.5, 0.5]])]
    steps = flow(layers, [1.0, 1.0], [0.0, 1.0])
    assert [step.name for step in steps] == ["input", "affine", "relu", "affine"]
    assert [step.total.tolist() for step in steps] == [[1, 1], [1, 1], [1, 1], [1]]
    assert [step.difference.tolist() for step in steps] == [[1, 0], [0.5, 0.5], [0.5, 0], [0.25]]
    assert [step.allowed.tolist() for step in steps] == [[1, 0], [0.5, 0.5], [0.5, 0.5], [0.5]]


def test_an_empty_network_is_the_identity():
    np.testing.assert_array_equal(budget([], 3), np.eye(3))


def test_bad_pairs_are_refused():
    for x, y in ((np.zeros((2, 3)), np.zeros((3, 3))), (np.zeros((0, 3)), np.zeros((0, 3)))):
        with pytest.raises(ValueError, match="sets of points"):
            check_lemma([], x, y)
    with pytest.raises(ValueError, match="one shape"):
        flow([], [0.0], [0.0, 1.0])
