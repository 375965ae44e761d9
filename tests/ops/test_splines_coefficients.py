"""Coefficients of splines: slopes proven within their bounds in exact arithmetic, second variation, fewer knots."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lablib.ops import native
from lablib.ops.splines import (
    count_active_knots,
    linear_spline,
    project_slopes,
    projection,
    remove_knots,
    second_variation,
)

# torch's own decompositions for derivatives forwards are scripted when first used
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def slopes(row, reach):
    """The slopes of stored coefficients in exact arithmetic."""
    row = [Fraction(float(v)) for v in row]
    spacing = 2 * Fraction(reach) / (len(row) - 1)
    return [(b - a) / spacing for a, b in itertools.pairwise(row)]


@pytest.fixture(params=["native", "torch"])
def where(request, monkeypatch):
    """Both implementations of the projection."""
    if request.param == "torch":
        monkeypatch.setattr(native, "kernels", lambda: "reference")
    elif native.kernels() != "native":
        pytest.skip(native.choice()[1])


@given(
    st.lists(st.floats(-300, 300, width=16), min_size=2, max_size=12),
    st.sampled_from([0.05, 0.1, 0.15, 0.3, 1.0, 7.7]),
    st.tuples(st.floats(-2, 2, width=16), st.floats(-2, 2, width=16)).map(sorted),
    st.sampled_from(DTYPES),
    st.booleans(),
)
def test_no_slope_leaves_its_bounds(values, reach, bounds, dtype, plain):
    with pytest.MonkeyPatch.context() as patch:
        if plain:
            patch.setattr(native, "kernels", lambda: "reference")
        made = project_slopes(torch.tensor([values], dtype=dtype), reach, *bounds)[0]
    assert made.dtype == dtype
    low, high = (Fraction(b) for b in bounds)
    if made.isnan().any():  # no whole number of units between bounds of one sign
        assert low * high > 0
        return
    assert all(low <= s <= high for s in slopes(made, reach))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_hold_for_wide_random_rows(where, dtype):
    for knots in (2, 3, 20, 101):
        values = (torch.randn(20, knots) * 10 ** torch.linspace(-4, 4, 20)[:, None]).to(dtype)
        values += torch.linspace(-50, 50, 20)[:, None]
        for reach, low, high in ((0.15, -1.0, 1.0), (1.0, 0.0, 1.0), (0.3, -0.25, 0.1), (2.0, 0.0, 0.0)):
            made = project_slopes(values, reach, low, high)
            for row in made:
                assert all(Fraction(low) <= s <= Fraction(high) for s in slopes(row, reach))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_the_projection_of_the_paper(where, dtype):
    values, reach, unit = torch.randn(7, 21, dtype=dtype), 0.5, torch.finfo(dtype).eps
    steps = values.double().diff(dim=1).clamp(-0.05, 0.05).cumsum(1)
    expected = torch.nn.functional.pad(steps, (1, 0))
    expected += (values.double() - expected).mean(1, keepdim=True)
    made = project_slopes(values, reach).double()
    assert (made - expected).abs().max() <= 200 * unit
    assert (made.mean(1) - values.double().mean(1)).abs().max() <= 4 * unit


def test_what_is_within_the_bounds_stays():
    grid = torch.linspace(-1, 1, 5)  # floats, as is the spacing: slopes of exactly 1
    for row in (grid, grid.abs(), grid.relu(), torch.zeros(5), 0.25 * grid + 3.0):
        assert torch.equal(project_slopes(row[None], 1.0)[0], row)
    for knots in (20, 21, 101):
        row = torch.linspace(-0.15, 0.15, knots)[None]
        made = project_slopes(row, 0.15)
        assert (made - row).abs().max() <= 1e-6
        least = min(slopes(made[0], 0.15))
        assert 1 - Fraction(knots, 2**22) <= least <= 1  # little is lost
    constant = project_slopes(torch.full((1, 5), 1e6), 0.01)  # a unit there is more than a spacing
    assert torch.equal(constant, torch.full((1, 5), 1e6))


def test_rows_that_cannot_be_kept_become_nan(where):
    values = torch.zeros(5, 6)
    values[0, 2], values[1, 3], values[2, 4], values[3] = math.nan, math.inf, -math.inf, 1e9
    assert project_slopes(values, 1.0, 0.5, 1.0).isnan().all(1).tolist() == [True] * 4 + [False]
    assert project_slopes(values, 1.0).isnan().all(1).tolist() == [True] * 3 + [False] * 2


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize(
    ("dtype", "reach", "bounds", "mean"),
    [
        (torch.float16, 1e-6, (-1.0, 1.0), 0.0),  # units below the smallest number of the format
        (torch.float16, 1e-6, (0.5, 1.0), 0.0),
        (torch.float32, 1e-28, (-1e-10, 1e-10), 0.0),
        (torch.float64, 1e-28, (-1e-300, 1e-310), 0.0),
        (torch.float64, 1e-28, (1e-300, 2e-300), 1.0),  # a bound in units that underflows
        (torch.float64, 1e-28, (-1.0, -1e-30), 1e300),
        (torch.float16, 1e5, (0.5, 1.0), 0.0),  # results above the largest number
        (torch.float32, 1e30, (-1e10, -1e9), 0.0),
        (torch.float64, 1.0, (0.0, 0.0), 0.0),
    ],
)
def test_bounds_hold_at_the_ends_of_the_formats(where, flush, dtype, reach, bounds, mean):
    values = (mean + 30 * reach * torch.randn(8, 21, dtype=torch.float64)).to(dtype)
    low, high = map(Fraction, bounds)
    torch.set_flush_denormal(flush)
    try:
        made = project_slopes(values, reach, *bounds)
    finally:
        torch.set_flush_denormal(False)
    for row in made:
        if row.isnan().any():
            assert row.isnan().all()
            assert low * high > 0
        else:
            assert all(low <= s <= high for s in slopes(row, reach))


def test_bounds_and_ranges_that_overflow_are_refused():
    with pytest.raises(ValueError, match="at most 1e\\+300"):
        project_slopes(torch.zeros(1, 2), 1e20, -1e300, 1e300)
    with pytest.raises(ValueError, match="for 1001 knots"):  # 1 / T is infinite in float32
        linear_spline(torch.zeros(1), torch.zeros(1, 1001), 1e-30)


def test_gradients_of_the_projection(where):
    values = (2 * torch.randn(6, 9, dtype=torch.float64)).requires_grad_()

    def call(v):
        return project_slopes(v, 1.0, -0.9, 1.1)

    assert torch.autograd.gradcheck(call, values)
    assert torch.autograd.gradgradcheck(lambda v: call(v).pow(3), values)
    made = torch.autograd.functional.jacobian(call, values)
    assert torch.allclose(torch.func.jacrev(call)(values), made)
    assert torch.allclose(torch.func.jacfwd(call)(values), made)
    batch = torch.randn(4, 6, 9)
    assert torch.equal(torch.vmap(call)(batch), torch.stack([call(v) for v in batch]))
    unmoved = torch.linspace(-0.1, 0.1, 21)[
        None
    ].requires_grad_()  # slopes of 1 but for rounding: all may move
    grad = torch.randn(1, 21)
    assert torch.allclose(
        torch.autograd.grad(project_slopes(unmoved, 0.1), unmoved, grad)[0], grad, atol=1e-5
    )


def test_bounds_of_a_difference_are_the_nearest_floats():
    for reach, knots, low, high in ((0.15, 21, -1.0, 1.0), (1.0, 5, -0.3, 0.7), (1 / 3, 7, 0.1, 0.9)):
        spacing = 2 * Fraction(reach) / (knots - 1)
        least, most = projection._bounds(reach, knots, low, high)
        assert Fraction(math.nextafter(least, -math.inf)) < Fraction(low) * spacing <= Fraction(least)
        assert Fraction(most) <= Fraction(high) * spacing < Fraction(math.nextafter(most, math.inf))


def test_second_variation():
    grid = torch.linspace(-2, 2, 9, dtype=torch.float64)
    values = torch.stack([grid, grid.relu(), grid.abs(), grid.abs().sub(1).abs()]).requires_grad_()
    assert torch.allclose(second_variation(values, 2.0), torch.tensor([0, 1, 2, 6], dtype=torch.float64))
    assert count_active_knots(values, 2.0, 1e-9).tolist() == [0, 1, 1, 3]
    assert count_active_knots(values, 2.0, 1.5).tolist() == [0, 0, 1, 3]
    rough = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: second_variation(v, 0.7), rough)
    assert second_variation(torch.randn(3, 2), 1.0).tolist() == [0.0, 0.0, 0.0]


def piecewise(positions, values, x):
    """The function that remove_knots describes, by NumPy."""
    positions, values = positions.numpy(), values.numpy()
    y = np.interp(x, positions, values)
    for end, inner in ((0, 1), (-1, -2)):
        slope = (values[end] - values[inner]) / (positions[end] - positions[inner])
        outside = x < positions[0] if end == 0 else x > positions[-1]
        y = np.where(outside, values[end] + slope * (x - positions[end]), y)
    return y


def test_knots_of_zigzags_go_exactly():
    eighths = torch.randint(-8, 9, (40, 5)) / 8  # of every second knot: those between are on a line
    values = torch.empty(40, 9)
    values[:, ::2] = eighths
    values[:, 1::2] = (eighths[:, 1:] + eighths[:, :-1]) / 2
    for row, (positions, kept) in zip(values, remove_knots(values, 1.0, 0.0)):
        changes = [second for second in np.diff(row.double().numpy(), 2) if second]
        assert len(positions) == len(changes) + 2
        x = np.linspace(-3, 3, 301)
        full = linear_spline(torch.from_numpy(x), row[None].double(), 1.0).numpy()
        assert np.abs(piecewise(positions, kept, x) - full).max() < 1e-14


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=15), st.floats(1e-6, 1.0))
def test_the_function_stays_within_the_tolerance(values, tolerance):
    row = torch.tensor([values], dtype=torch.float64)
    positions, kept = remove_knots(row, 0.7, tolerance)[0]
    spacing = 1.4 / (len(values) - 1)
    places = ((positions + 0.7) / spacing).round().long().tolist()
    assert places[0] == 0
    assert places[-1] == len(values) - 1
    exact = [Fraction(v) for v in values]
    for first, last in itertools.pairwise(places):  # at the knots: between them both are linear
        for k in range(first, last + 1):
            line = exact[first] + (exact[last] - exact[first]) * Fraction(k - first, last - first)
            assert abs(line - exact[k]) <= Fraction(tolerance)
    x = np.linspace(-2, 2, 101)
    full = linear_spline(torch.from_numpy(x), row, 0.7).numpy()
    assert np.abs(piecewise(positions, kept, x) - full).max() <= tolerance + 1e-12
    for first, last in (places[:2], places[-2:]):  # endless segments: exactly as they were
        assert len({b - a for a, b in itertools.pairwise(exact[first : last + 1])}) == 1


def test_fewest_knots():
    """Against all subsets of the inner knots."""
    for _ in range(30):
        row, tolerance = torch.randn(1, 8, dtype=torch.float64), 0.5
        best = 8
        for chosen in range(2**6):
            kept = [0, *(k for k in range(1, 7) if chosen >> (k - 1) & 1), 7]
            line = np.interp(np.arange(8), kept, row[0, kept].numpy())
            if kept[1] != 1 or kept[-2] != 6:
                continue
            if np.abs(line - row[0].numpy()).max() <= tolerance:
                best = min(best, len(kept))
        assert len(remove_knots(row, 1.0, tolerance)[0][0]) == best


def test_identity_needs_two_knots():
    for knots in (2, 20, 21, 101):
        row = torch.linspace(-0.15, 0.15, knots)[None]
        assert len(remove_knots(project_slopes(row, 0.15), 0.15, 0.0)[0][0]) == 2
    assert remove_knots(torch.empty(0, 5), 1.0, 0.0) == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v: project_slopes(v[0], 1.0), "channels, knots"),
        (lambda v: project_slopes(v[:, :1], 1.0), "2 or more knots"),
        (lambda v: project_slopes(v.long(), 1.0), "floating point"),
        (lambda v: project_slopes(v, 0.0), "positive"),
        (lambda v: project_slopes(v, 1.0, 1.0, -1.0), "low <= high"),
        (lambda v: project_slopes(v, 1.0, -math.inf, 1.0), "finite"),
        (lambda v: project_slopes(v, 1.0, -1.0, math.nan), "finite"),
        (lambda v: second_variation(v, math.inf), "positive"),
        (lambda v: count_active_knots(v, 1.0, -1.0), "tolerance"),
        (lambda v: remove_knots(v, 1.0, math.nan), "tolerance"),
        (lambda v: remove_knots(v * math.nan, 1.0, 0.0), "finite"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.ones(3, 5))
