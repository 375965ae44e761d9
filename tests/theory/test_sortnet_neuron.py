"""The dropout identity in fractions, the l_p norm against float64 libraries, and what bad numbers get."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lablib.ops.sortnet import geometric_weights
from lablib.theory import sortnet_neuron as neuron

SHARES = st.fractions(min_value=Fraction(1, 50), max_value=1, max_denominator=50)
VALUES = st.lists(st.fractions(min_value=-3, max_value=3, max_denominator=20), min_size=1, max_size=6)


@given(VALUES, SHARES)
def test_dropout_identity_is_exact(values, keep):
    assert neuron.expected_maximum(values, keep) == neuron.ranked_sum(values, keep)


@given(SHARES, st.integers(1, 12))
def test_rank_weights_add_up_to_one_and_fall(keep, top):
    weights = neuron.rank_weights(keep, top)
    assert sum(weights) == 1
    assert all(after == (1 - keep) * before for before, after in itertools.pairwise(weights))


@pytest.mark.parametrize("keep", [0.3, 0.75, 1.0])
def test_rank_weights_are_those_of_the_layers(keep):
    layer = geometric_weights(keep, 10, torch.float64).numpy()
    np.testing.assert_allclose(neuron.rank_weights(keep, 10), layer, rtol=1e-12, atol=1e-15)


def test_the_winner_is_found_by_sorting_not_by_the_formula():
    winners = neuron.sample_winners(5, 0.5, 20_000, np.random.default_rng(0))
    shares = np.bincount(winners, minlength=6) / len(winners)
    expected = [*(0.5 * 0.5**i for i in range(5)), 0.5**5]  # the last: nothing kept
    assert np.abs(shares - expected).max() < 4 * math.sqrt(0.25 / len(winners))
    assert (neuron.sample_winners(3, 1.0, 10, np.random.default_rng(0)) == 0).all()


@pytest.mark.parametrize("p", [1.0, 2.0, 7.5, 64.0, math.inf])
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_lp_norm_and_gradient_at_any_scale(p, scale):
    d = np.random.default_rng(0).normal(size=(4, 9))
    value = neuron.lp_norm(d * scale, p)
    np.testing.assert_allclose(value, scale * np.linalg.norm(d, p, axis=-1), rtol=1e-12)
    x = torch.tensor(d, requires_grad=True)
    torch.linalg.vector_norm(x, p, dim=-1).sum().backward()
    np.testing.assert_allclose(neuron.lp_gradient(d * scale, p), x.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_at_zero_the_gradient_is_zero():
    for p in (1.0, 8.0, math.inf):
        assert neuron.lp_norm(np.zeros(3), p) == 0
    assert (neuron.lp_gradient(np.zeros(3), 8.0) == 0).all()


def test_inputs_in_use():
    assert neuron.inputs_in_use(np.ones(7)) == pytest.approx(7)
    assert neuron.inputs_in_use(np.array([0.0, -2.0])) == 1
    assert neuron.inputs_in_use(np.zeros(3)) == 0


def test_layer_cost():
    assert neuron.layer_cost([784, 100, 100, 10], 0.5) == [0.5, 0.25, 0.5]
    assert neuron.layer_cost([784, 10], 0.5) == [1.0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: neuron.rank_weights(0.0, 3),
        lambda: neuron.rank_weights(0.5, 0),
        lambda: neuron.ranked_sum([1], 1.5),
        lambda: neuron.expected_maximum([1] * 17, 0.5),
        lambda: neuron.lp_norm(np.ones(2), 0.5),
        lambda: neuron.lp_norm(np.ones(2), math.nan),
        lambda: neuron.layer_cost([3], 0.5),
    ],
)
def test_bad_numbers_are_refused(call):
    with pytest.raises(ValueError, match=r"must|give"):
        call()
