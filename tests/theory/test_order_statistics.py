"""The bound for order statistics and the networks that attain it, in exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from lablib.theory.budget import budget
from lablib.theory.constructions.sorting_networks import averaged_tournament, order_statistic_network, sorts
from lablib.theory.network import evaluate, fractions, is_lipschitz, is_standard
from lablib.theory.order_statistics import (
    best_standard,
    error_bound,
    error_surface,
    estimate_error,
    grid,
    order_statistic,
)


def exact_points(d, count, seed=0):
    """Return all vertices (d <= 7) and random points with denominators 1000, as fractions."""
    inner = fractions(np.random.default_rng(seed).integers(0, 1001, size=(count, d))) / 1000
    return np.concatenate([fractions(grid(d, 2)), inner]) if d <= 7 else inner


@pytest.mark.parametrize("d", range(1, 8))
def test_the_mean_attains_the_bound_exactly_and_nothing_exceeds_it(d):
    points = exact_points(d, 200)
    for k in range(1, d + 1):
        layers = best_standard(d, k)
        assert is_standard(layers)
        error, where = estimate_error(layers, k, points)
        assert error == error_bound(d) == Fraction(1, 2) - Fraction(1, 2 * d)
        assert d == 1 or set(where) <= {0, 1}


@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize("d", range(1, 8))
def test_the_averaged_tournament_attains_the_bound_for_the_maximum(d, group):
    points = exact_points(d, 50)
    for depth in range(1, 5):
        layers = averaged_tournament(d, depth, group)
        assert is_lipschitz(layers)
        assert sorts(layers) <= depth - 1
        assert estimate_error(layers, 1, grid(d, 2))[0] == error_bound(d, depth, group)
        assert estimate_error(layers, 1, points)[0] == error_bound(d, depth, group)


def test_the_bound_is_zero_from_the_depth_on_at_which_a_tournament_is_exact():
    for d in range(2, 20):
        for group in (2, 3, 4):
            depth = sorts(order_statistic_network(d, 1, group)) + 1
            assert error_bound(d, depth, group) == 0
            assert error_bound(d, depth - 1, group) > 0


def test_the_proof_step_by_step_on_a_network_with_little_error():
    """1 - 2e <= lambda_j for every j: the sum of the budgets bounds the error from below."""
    d, k = 5, 2
    for layers in (best_standard(d, k), order_statistic_network(d, k)):
        error, _ = estimate_error(layers, k, grid(d, 2))
        assert (budget(layers, d) >= float(1 - 2 * error) - 1e-12).all()


def test_order_statistics_count_from_the_largest():
    x = np.array([[3, 1, 2]])
    assert [order_statistic(x, k)[0] for k in (1, 2, 3)] == [3, 2, 1]
    with pytest.raises(ValueError, match="k-th largest"):
        order_statistic(x, 4)


def test_the_surface_has_its_rows_along_y():
    surface = error_surface(best_standard(2, 1), k=1, points=5)
    np.testing.assert_allclose(surface["output"][1, 4], (0.25 + 1) / 2 + 0.25)
    np.testing.assert_allclose(surface["error"][1, 4], surface["output"][1, 4] - 1)
    assert np.abs(surface["error"]).max() == float(error_bound(2)) == 0.25


def test_grids_and_bad_input():
    assert grid(3, 2).shape == (8, 3)
    assert grid(2, 5).shape == (25, 2)
    assert evaluate(best_standard(2, 1), grid(2, 5)).shape == (25, 1)
    with pytest.raises(ValueError, match="2\\^24"):
        grid(30, 2)
    with pytest.raises(ValueError, match="at least 1"):
        error_bound(0)
    with pytest.raises(ValueError, match="at least one point"):
        estimate_error(best_standard(2, 1), 1, np.zeros((0, 2)))
    with pytest.raises(ValueError, match="one output"):
        estimate_error([], 1, np.zeros((1, 2)))
    with pytest.raises(ValueError, match="affine layer"):
        averaged_tournament(4, 0)
