"""Slope intervals against exact rational arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lablib.ops.slope_state import SlopeState
from lablib.ops.slopes import (
    add_slopes,
    intersect_slopes,
    slopes_of_weight,
    through_elementwise,
    through_group_sort,
    through_linear,
)

# of every size, with plenty of zeros, ones and numbers that cancel
numbers = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.1, -0.3]),
    st.floats(-1e3, 1e3),
    st.floats(-1e-300, 1e-300),
    st.floats(-1e120, 1e120),
)


def matrices(rows, columns):
    return arrays(np.float64, (rows, columns), elements=numbers).map(torch.from_numpy)


intervals = st.tuples(matrices(3, 2), matrices(3, 2)).map(
    lambda pair: (torch.minimum(*pair), torch.maximum(*pair))
)


def exact(tensor):
    return np.vectorize(Fraction, otypes=[object])(tensor.numpy())


def products(low, high, factor):
    """Ends of factor [low, high], exact."""
    return np.minimum(factor * low, factor * high), np.maximum(factor * low, factor * high)


@settings(max_examples=40, deadline=None)
@given(intervals, matrices(4, 3))
def test_linear_contains_the_exact_interval(ends, weight):
    low, high = through_linear(*ends, weight)
    terms = products(exact(ends[0])[None], exact(ends[1])[None], exact(weight)[:, :, None])
    lows, highs = (term.sum(1) for term in terms)
    assert (exact(low) <= lows).all()
    assert (exact(high) >= highs).all()
    sizes = np.maximum(abs(terms[0]), abs(terms[1])).sum(1)
    slack = sizes * Fraction(1, 2**45) + Fraction(1, 2**1060)
    assert (exact(low) >= lows - slack).all()
    assert (exact(high) <= highs + slack).all()
    # 0 is kept where no term is negative: weights >= 0 make an increasing network
    assert (low.numpy()[(terms[0] >= 0).all(1)] >= 0).all()
    assert (high.numpy()[(terms[1] <= 0).all(1)] <= 0).all()


@settings(max_examples=40, deadline=None)
@given(intervals, st.lists(numbers, min_size=3, max_size=3), st.lists(numbers, min_size=3, max_size=3))
def test_elementwise_contains_the_exact_interval(ends, first, second):
    slopes = [torch.tensor(v, dtype=torch.float64) for v in (first, second)]
    least, most = torch.minimum(*slopes), torch.maximum(*slopes)
    low, high = through_elementwise(*ends, least, most)
    factors = [exact(v)[:, None] for v in (least, most)]
    corners = np.stack([products(exact(ends[0]), exact(ends[1]), factor) for factor in factors])
    assert (exact(low) <= corners.min((0, 1))).all()
    assert (exact(high) >= corners.max((0, 1))).all()
    whole = through_elementwise(*ends, 0.0, 1.0)
    assert torch.equal(whole[0], ends[0].clamp(max=0.0))
    assert torch.equal(whole[1], ends[1].clamp(min=0.0))


@settings(max_examples=40, deadline=None)
@given(intervals, matrices(3, 2))
def test_sums_are_rounded_outward_by_less_than_one_step(ends, added):
    low, high = add_slopes(*ends, added, added)
    for end, start, outside in ((low, ends[0], -math.inf), (high, ends[1], math.inf)):
        true = exact(start) + exact(added)
        assert ((exact(end) <= true) if outside < 0 else (exact(end) >= true)).all()
        back = np.nextafter(end.numpy(), -outside)
        beyond = np.vectorize(Fraction, otypes=[object])(back)
        assert ((beyond > true) if outside < 0 else (beyond < true)).all()
    assert torch.equal(add_slopes(*ends, -ends[0], -ends[1])[0], torch.zeros(3, 2, dtype=torch.float64))


def test_sorted_groups_take_the_least_and_the_largest():
    low = torch.tensor([[1.0], [-2.0], [5.0], [6.0]], dtype=torch.float64)
    least, largest = through_group_sort(low, low + 1, 2)
    assert least[:, 0].tolist() == [-2, -2, 5, 5]
    assert largest[:, 0].tolist() == [2, 2, 7, 7]
    assert torch.equal(through_group_sort(low, low, 1)[0], low)
    with pytest.raises(ValueError, match="does not divide"):
        through_group_sort(low, low, 3)


def test_float32_weights_are_taken_as_they_are():
    weight = torch.randn(5, 3)
    low, high = slopes_of_weight(weight)
    assert low.dtype == torch.float64
    assert torch.equal(low.float(), weight)
    assert low is high
    first = through_linear(low, high, torch.randn(4, 5, dtype=torch.float16))
    assert (first[0] < first[1]).all()
    assert (first[1] - first[0]).max() < 1e-13


@pytest.mark.parametrize("bad", [math.inf, math.nan, 1e200])
def test_nothing_finite_and_wrong_comes_from_overflow(bad):
    weight = torch.full((2, 2), bad, dtype=torch.float64)
    low, high = through_linear(*slopes_of_weight(weight), weight)
    assert not (low.isfinite().any())
    assert not (high.isfinite().any())


@pytest.mark.parametrize(
    "call",
    [
        lambda low: slopes_of_weight(low[0]),
        lambda low: slopes_of_weight(torch.ones(2, 2, dtype=torch.int64)),
        lambda low: through_linear(low, low, torch.ones(2, 4)),
        lambda low: through_linear(low.float(), low.float(), torch.ones(2, 3)),
        lambda low: through_linear(low, low[:2], torch.ones(2, 3)),
        lambda low: through_elementwise(low, low, 1.0, 0.0),
        lambda low: through_elementwise(low, low, torch.zeros(2), torch.ones(2)),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        call(torch.ones(3, 2, dtype=torch.float64))


def network_slopes(weights, norms):
    state = SlopeState.of_inputs(2, norms)
    for weight in weights[:-1]:
        state = state.linear(weight).group_sort(2).elementwise(-0.25, 1.0)
    return state.linear(weights[-1])


@pytest.mark.parametrize("norms", [(), ("l1",), ("l1", "l2")])
def test_gradients_are_those_of_finite_differences(norms):
    generator = torch.Generator().manual_seed(4)
    weights = [torch.randn(*shape, generator=generator).double() for shape in ((4, 2), (4, 4), (1, 4))]
    weights = [weight.requires_grad_() for weight in weights]

    def ends(*weights):
        state = network_slopes(weights, norms)
        return state.low, state.high

    assert torch.autograd.gradcheck(ends, weights, eps=1e-6, atol=1e-5)
    zeros = [torch.zeros_like(weight).requires_grad_() for weight in weights]
    sum(end.sum() for end in ends(*zeros)).backward()
    assert all(weight.grad.isfinite().all() for weight in zeros)


def test_norms_tighten_and_never_loosen():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(8, 2, generator=generator)]
    weights += [torch.linalg.qr(torch.randn(8, 8, generator=generator))[0] for _ in range(3)]
    weights += [torch.randn(1, 8, generator=generator)]
    plain, tight = network_slopes(weights, ()), network_slopes(weights, ("l1", "l2"))
    assert (tight.low >= plain.low).all()
    assert (tight.high <= plain.high).all()
    assert (tight.high - tight.low).max() < 0.5 * (plain.high - plain.low).max()
    bound = weights[0].double().norm(dim=0) * weights[-1].double().norm()
    assert (torch.maximum(-tight.low, tight.high)[0] <= bound * (1 + 1e-5)).all()
    # columns of l1 norm 1 throughout: no slope of the end exceeds 1, however wide the network
    stochastic = [w.abs() / w.double().abs().sum(0) for w in weights[:-1]] + [torch.ones(1, 8)]
    assert network_slopes(stochastic, ("l1",)).high.max() <= 1 + 1e-12
    assert network_slopes(stochastic, ()).high.max() > 1.2


def test_real_slopes_lie_within_the_state():
    """Vectors of slopes that a network can have stay in the intervals and the norms."""
    generator = torch.Generator().manual_seed(1)
    weights = [
        torch.randn(6, 2, generator=generator).double(),
        torch.randn(6, 6, generator=generator).double(),
    ]
    state = SlopeState.of_inputs(2).linear(weights[0]).group_sort(3).linear(weights[1])
    for _ in range(200):
        order = torch.cat([3 * g + torch.randperm(3, generator=generator) for g in range(2)])
        slopes = weights[1] @ weights[0][order]
        assert (state.low <= slopes).all()
        assert (slopes <= state.high).all()
        assert (slopes.abs().sum(0) <= state.norms["l1"]).all()
        assert (slopes.norm(dim=0) <= state.norms["l2"]).all()
    both = state.beside(state)
    assert both.low.shape == (12, 2)
    assert (both.norms["l1"] <= 2.001 * state.norms["l1"]).all()
    twice = state.plus(state)
    assert torch.equal(twice.low, 2 * state.low)
    cut = intersect_slopes(state.low, state.high, torch.full((2,), 0.125).double())
    assert cut[0].min() == -0.125
    assert cut[1].max() == 0.125
