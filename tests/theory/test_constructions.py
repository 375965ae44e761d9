"""Explicit networks, checked at every vertex and at random fractions: no tolerance anywhere."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from lablib.theory.boolean import BooleanFunction, symmetric_functions
from lablib.theory.budget import budget, check_lemma
from lablib.theory.constructions import distance_networks, sorting_networks
from lablib.theory.constructions.sorting_networks import depth_lower_bound, sorting_network, sorts
from lablib.theory.constructions.sortnet_weights import (
    affine_as_sortnet,
    distance_as_sortnet,
    group_sort_as_sortnet,
)
from lablib.theory.constructions.zigzag import zigzag
from lablib.theory.network import (
    affine,
    evaluate,
    fractions,
    group_sort,
    is_lipschitz,
    is_standard,
    row_norms,
)
from lablib.theory.order_statistics import grid, order_statistic


def random_fractions(shape, seed=0, low=0):
    return fractions(np.random.default_rng(seed).integers(low * 64, 65, size=shape)) / 64


# --- zigzag -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", range(1, 9))
def test_the_zigzag_attains_the_bound_for_every_symmetric_function(d):
    vertices = fractions(np.tril(np.ones((d + 1, d), dtype=int), -1))  # one vertex for each number of ones
    for g in symmetric_functions(d):
        layers = zigzag(g)
        assert is_standard(layers)
        signs = np.where(g(np.tril(np.ones((d + 1, d), dtype=int), -1)), 1, -1)
        assert (evaluate(layers, vertices)[:, 0] == signs * Fraction(1, 2 * d)).all()
        assert g.is_constant or g.bound == Fraction(1, 2 * d)


def test_the_zigzag_at_every_vertex_of_the_cube():
    for g in symmetric_functions(5):
        values = evaluate(zigzag(g), fractions(g.vertices()))[:, 0]
        assert (values == np.where(g.table, Fraction(1, 10), Fraction(-1, 10))).all()


def test_the_zigzag_needs_a_symmetric_function():
    with pytest.raises(ValueError, match="symmetric"):
        zigzag(BooleanFunction.from_expression("x1 & ~x2"))


# --- sorting networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", sorting_networks.SCHEDULES)
@pytest.mark.parametrize("group", [2, 3, 4, 7])
@pytest.mark.parametrize("d", range(1, 11))
def test_sorting_networks_sort_every_zero_one_vector(d, group, schedule):
    layers = sorting_network(d, group, schedule)
    assert is_lipschitz(layers)
    vertices = grid(d, 2)
    assert (evaluate(layers, vertices) == np.sort(vertices, axis=1)).all()


@pytest.mark.parametrize("d", range(1, 17))
def test_every_order_statistic_is_exact_at_random_points(d):
    x = np.random.default_rng(d).integers(-1000, 1001, size=(200, d))  # integers: exact, with ties
    for k in range(1, d + 1):
        for group in (2, 4, 5):
            layers = sorting_networks.order_statistic_network(d, k, group, ceiling=1000)
            assert (evaluate(layers, x)[:, 0] == order_statistic(x, k)).all()
    exact = random_fractions((3, d))
    layers = sorting_networks.order_statistic_network(d, (d + 1) // 2)
    assert (evaluate(layers, exact)[:, 0] == order_statistic(exact, (d + 1) // 2)).all()


@pytest.mark.parametrize("d", [11, 13, 16])
def test_larger_networks_sort_every_zero_one_vector(d):
    vertices = grid(d, 2)
    for group in (2, 4):
        assert (evaluate(sorting_network(d, group), vertices) == np.sort(vertices, axis=1)).all()


def test_depths_are_the_known_ones():
    for d in range(2, 40):
        t = (d - 1).bit_length()
        assert sorts(sorting_network(d)) == t * (t + 1) // 2
        assert sorts(sorting_network(d, schedule="transposition")) == (d if d > 2 else 1)
        assert sorts(sorting_network(d, group=d)) == 1
        for group in (2, 3, 4):
            bound = depth_lower_bound(d, group)
            assert group ** (bound - 1) < d <= group**bound
            for k in {1, d, (d + 1) // 2}:
                count = sorts(sorting_networks.order_statistic_network(d, k, group))
                assert count == bound if k in (1, d) else count >= bound


def test_the_budget_of_an_exact_order_statistic_is_one_on_every_input():
    for d, k, group in ((6, 1, 2), (6, 3, 2), (7, 4, 4)):
        layers = sorting_networks.order_statistic_network(d, k, group)
        assert (budget(layers, d, exact=True) == 1).all()


@pytest.mark.parametrize("wires", range(1, 20))
def test_rounds_hold_disjoint_upward_pairs(wires):
    for schedule in sorting_networks.SCHEDULES.values():
        for pairs in schedule(wires):
            used = [wire for pair in pairs for wire in pair]
            assert len(set(used)) == len(used)
            assert all(0 <= i < j < wires for i, j in pairs)


def test_sorting_networks_refuse_bad_sizes():
    for call in (
        lambda: sorting_network(0),
        lambda: sorting_network(3, group=1),
        lambda: sorting_network(3, schedule="bubble"),
        lambda: sorting_networks.order_statistic_network(3, 4),
        lambda: sorting_networks.tournament(0),
    ):
        with pytest.raises(ValueError, match=r"."):
            call()


# --- l_inf-distance networks ------------------------------------------------------------------------------


def check_boolean_network(g):
    layers = distance_networks.boolean_network(g)
    assert is_lipschitz(layers)
    assert len(layers) == 2
    values = evaluate(layers, fractions(g.vertices()))[:, 0]
    if g.table.any():
        assert (values == np.where(g.table, Fraction(1, 2), Fraction(-1, 2))).all()
    assert ((values > 0) == g.table).all()
    assert np.abs(values).min() == Fraction(1, 2)
    return layers


@pytest.mark.parametrize("d", [1, 2, 3])
def test_two_distance_layers_give_radius_one_half_for_every_boolean_function(d):
    for table in itertools.product((0, 1), repeat=2**d):
        g = BooleanFunction(table)
        layers = check_boolean_network(g)
        if g.table.any():  # 1/2 minus the distance to the set of ones, at any point of the cube
            x = random_fractions((2, d))
            ones = fractions(g.vertices()[g.table])
            distance = np.abs(x[:, None] - ones).max(axis=2).min(axis=1)
            assert (evaluate(layers, x)[:, 0] == Fraction(1, 2) - distance).all()


@pytest.mark.parametrize("d", [4, 5, 6])
def test_two_distance_layers_for_random_functions(d):
    rng = np.random.default_rng(d)
    for _ in range(5):
        check_boolean_network(BooleanFunction(rng.integers(0, 2, size=2**d)))


@pytest.mark.parametrize("d", range(1, 7))
def test_two_distance_layers_give_every_order_statistic_on_the_cube(d):
    x = np.concatenate([fractions(grid(d, 2)), random_fractions((20, d))])
    for k in range(1, d + 1):
        layers = distance_networks.order_statistic_network(d, k)
        assert is_lipschitz(layers)
        assert len(layers) == 2
        assert (evaluate(layers, x)[:, 0] == order_statistic(x, k)).all()


def test_a_distance_network_spends_one_on_every_input():
    layers = distance_networks.boolean_network(BooleanFunction.parity(4))
    assert (budget(layers, 4, exact=True) == 1).all()


# --- SortNet ----------------------------------------------------------------------------------------------


def test_sortnet_is_an_affine_layer_on_a_bounded_domain():
    radius = Fraction(3, 2)
    layer = affine(random_fractions((4, 5), low=-1) / 5, random_fractions((4,), seed=1))
    same = affine_as_sortnet(layer, radius)
    x = np.concatenate([random_fractions((30, 5), low=-1), fractions(2 * grid(5, 2) - 1)]) * radius
    assert (evaluate([same], x) == evaluate([layer], x)).all()
    assert (row_norms(same) == row_norms(layer)).all()
    assert is_lipschitz([same])
    without_bias = affine(layer["weight"])
    assert (evaluate([affine_as_sortnet(without_bias, radius)], x) == evaluate([without_bias], x)).all()


@pytest.mark.parametrize(("features", "size"), [(1, 1), (4, 2), (6, 3), (5, 5), (6, 2)])
def test_sortnet_is_group_sort_on_a_bounded_domain(features, size):
    radius = Fraction(2, 3)
    same = group_sort_as_sortnet(features, size, radius)
    x = (
        np.concatenate([random_fractions((30, features), low=-1), fractions(2 * grid(features, 2) - 1)])
        * radius
    )
    assert (evaluate([same], x) == evaluate([group_sort(size)], x)).all()
    assert is_lipschitz([same])


def test_sortnet_is_a_distance_layer_everywhere():
    layer = {
        "op": "linf_distance",
        "weight": random_fractions((3, 4), low=-1),
        "bias": random_fractions((3,), seed=2),
    }
    x = 100 * random_fractions((50, 4), seed=3, low=-1)
    assert (evaluate([distance_as_sortnet(layer)], x) == evaluate([layer], x)).all()
    assert is_lipschitz([distance_as_sortnet(layer)])


def test_a_whole_maxmin_network_as_sortnet_layers():
    d, k = 5, 2
    layers = sorting_networks.order_statistic_network(d, k)
    converted, width = [], d
    for layer in layers:
        if layer["op"] == "affine":
            converted.append(affine_as_sortnet(layer, 1))
            width = len(layer["weight"])
        else:
            converted.append(group_sort_as_sortnet(width, layer["size"], 1))
    assert {layer["op"] for layer in converted} == {"sortnet"}
    x = np.concatenate([fractions(grid(d, 2)), random_fractions((5, d))])
    assert (evaluate(converted, x)[:, 0] == order_statistic(x, k)).all()
    assert check_lemma(converted, x[:30], x[7:37]).holds(tolerance=0)


def test_sortnet_weights_refuse_bad_input():
    with pytest.raises(ValueError, match="radius"):
        affine_as_sortnet(affine([[1]]), 0)
    with pytest.raises(ValueError, match="radius"):
        group_sort_as_sortnet(2, 2, -1)
    with pytest.raises(ValueError, match="groups"):
        group_sort_as_sortnet(3, 2, 1)
