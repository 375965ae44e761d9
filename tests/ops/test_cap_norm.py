"""Capped operator norms in exact arithmetic, for the weights as stored."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lablib.ops.norms import bound_spectral_norm
from lablib.ops.projections import KINDS, cap_norm
from lablib.ops.rounding import round_down

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CAPS = [1.0, 3.0 ** (1 / 3), 1 / 3, 0.05, 7.7]


def exact_norm(weight, kind):
    """The norm as a fraction; of two-inf its square."""
    rows = [[abs(Fraction(v)) for v in row] for row in weight.double().tolist()]
    if kind == "one":
        return max(map(sum, zip(*rows)))
    if kind == "inf":
        return max(map(sum, rows))
    if kind == "one-inf":
        return max(map(max, rows))
    return max(sum(v * v for v in row) for row in rows)


def bounded(weight, kind, cap):
    if kind == "two":
        # the bound itself is proven, and above the norm by less than the margin that is kept
        return float(torch.linalg.matrix_norm(weight.double(), 2)) <= cap * (1 + 1e-15)
    limit = Fraction(cap)
    return exact_norm(weight, kind) <= (limit * limit if kind == "two-inf" else limit)


def hard_weights(rows, columns):
    """What rounding treats badly: equal entries, thirds, huge, tiny and mixed magnitudes, an empty row."""
    mixed = torch.logspace(-8, 4, rows * columns).view(rows, columns)
    holes = torch.randn(rows, columns)
    holes[0] = 0.0
    return [
        torch.full((rows, columns), 1 / 3),
        torch.randn(rows, columns),
        3e4 * torch.randn(rows, columns).clamp(-1, 1),
        torch.full((rows, columns), 6e-8),
        mixed,
        holes,
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectorwise", [True, False], ids=["vectors", "whole"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_true_norm_is_at_most_the_cap(kind, vectorwise, dtype):
    for shape in [(1, 1), (3, 1), (1, 5), (16, 9), (7, 300)]:
        for weight in hard_weights(*shape):
            for cap in CAPS:
                made = cap_norm(weight.to(dtype), kind, cap, vectorwise)
                assert made.dtype == dtype
                assert made.isfinite().all()
                assert bounded(made, kind, cap), (shape, cap)


@given(
    st.lists(
        st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=3, max_size=3), min_size=1, max_size=5
    ),
    st.floats(1e-6, 1e6),
    st.sampled_from([kind for kind in KINDS if kind != "two"]),
    st.booleans(),
)
def test_any_float32_matrix_and_cap(rows, cap, kind, vectorwise):
    made = cap_norm(torch.tensor(rows), kind, cap, vectorwise)
    assert bounded(made, kind, cap)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectorwise", [True, False])
def test_weights_within_the_cap_stay_and_others_reach_it(kind, vectorwise):
    weight = torch.randn(6, 4)
    small = cap_norm(weight, kind, 0.9, vectorwise)
    assert torch.equal(cap_norm(small, kind, 1.0, vectorwise), small)
    reached = {
        "one": small.abs().sum(0),
        "inf": small.abs().sum(1),
        "one-inf": small.abs(),
        "two-inf": small.norm(dim=1),
        "two": torch.linalg.matrix_norm(small, 2),
    }[kind]
    assert reached.max() == pytest.approx(0.9, rel=1e-5)


def test_formula_of_the_paper():
    """W / max(1, norm / cap), per vector and whole, against its own words."""
    weight = 2 * torch.randn(5, 7)
    norms = {
        "one": weight.abs().sum(0, keepdim=True),
        "inf": weight.abs().sum(1, keepdim=True),
        "one-inf": weight.abs(),
        "two-inf": weight.norm(dim=1, keepdim=True),
    }
    for kind, norm in norms.items():
        for vectorwise in (True, False):
            size = norm if vectorwise else norm.max()
            expected = weight / (size / 1.3).clamp(min=1)
            assert torch.allclose(cap_norm(weight, kind, 1.3, vectorwise), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectorwise", [True, False])
def test_gradients(kind, vectorwise):
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: cap_norm(w, kind, 0.8, vectorwise), weight)
    zero = torch.zeros(4, 3, requires_grad=True)
    if kind != "two":  # equal singular values have no gradient
        cap_norm(zero, kind, 0.8, vectorwise).sum().backward()
        assert torch.equal(zero.grad, torch.ones(4, 3))


def test_one_bad_row_does_not_spread():
    weight = torch.randn(3, 4)
    weight[0, 0] = float("nan")
    made = cap_norm(weight, "inf", 1.0)
    assert made[0].isnan().all()
    assert made[1:].isfinite().all()


def test_spectral_bound_of_the_result():
    weight = 5 * torch.randn(9, 4)
    assert float(bound_spectral_norm(cap_norm(weight, "two", 0.3))) <= 0.3 * (1 + 1e-12)


@pytest.mark.parametrize("cap", [0, 0.0, -1.0, float("nan"), float("inf"), 1e31, 1e-31, True, "1", None])
def test_bad_caps_are_refused(cap):
    with pytest.raises(ValueError, match="cap is a number above 0"):
        cap_norm(torch.ones(2, 2), "one", cap)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match="unknown kind 'max'"):
        cap_norm(torch.ones(2, 2), "max")
    with pytest.raises(ValueError, match="needs a matrix"):
        cap_norm(torch.ones(2), "one")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_round_down_is_the_largest_number_below(dtype):
    info = torch.finfo(dtype)
    for value in [1.0, 1 / 3, 1.0 + 2.0**-60, 2.0, 0.1, 3 * info.tiny, info.smallest_normal * 0.77, 1e300]:
        made = round_down(value, dtype)
        stored = torch.tensor(made, dtype=torch.float64).to(dtype)
        assert float(stored) == made <= value
        if made < info.max:
            step = info.smallest_normal * info.eps
            after = float((stored.double() * (1 + info.eps) + step).to(dtype))
            assert after > value
    assert round_down(info.smallest_normal * info.eps / 3, dtype) == 0.0
