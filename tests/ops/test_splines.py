"""Linear splines: values against exact fractions, derivatives of both orders, every shape, dtype and transform."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lablib.ops.splines import linear_spline, project_slopes

# torch's own decompositions for derivatives forwards are scripted when first used
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


def exact(x, values, reach):
    """The spline through the stored values at one number, in exact arithmetic."""
    knots, x, reach = len(values), Fraction(x), Fraction(reach)
    spacing = 2 * reach / (knots - 1)
    k = min(max(math.floor((x + reach) / spacing), 0), knots - 2)
    left, right = Fraction(values[k]), Fraction(values[k + 1])
    return left + (right - left) * (x - (k * spacing - reach)) / spacing


def drawn(shape, knots, dtype=torch.float64, channels=None, reach=1.0):
    """Inputs in the middle of their segments (also outside), values and their gradients' cotangent."""
    spacing = 2 * reach / (knots - 1)
    place = torch.randint(-2, knots + 1, shape) + 0.3 + 0.4 * torch.rand(shape, dtype=torch.float64)
    x = (place * spacing - reach).to(dtype)
    channels = shape[min(1, len(shape) - 1)] if channels is None else channels
    return x.requires_grad_(), torch.randn(channels, knots, dtype=dtype).requires_grad_()


@given(
    st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=9),
    st.one_of(st.floats(-3, 3, width=32), st.floats(-1e6, 1e6, width=32)),
    st.sampled_from([0.1, 0.15, 0.5, 1.0, 3.0]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_rounding_stays_inside_the_stated_bound(values, x, reach, dtype):
    made = linear_spline(torch.tensor([x], dtype=dtype), torch.tensor([values], dtype=dtype), reach)
    true = exact(x, values, reach)
    steep = max(abs(Fraction(b) - Fraction(a)) for a, b in itertools.pairwise(values))
    steep *= (len(values) - 1) / (2 * Fraction(reach))
    unit = Fraction(torch.finfo(dtype).eps) / 2
    bound = 18 * unit * steep * (abs(Fraction(x)) + Fraction(reach)) + 2 * unit * abs(true)
    assert abs(Fraction(float(made)) - true) <= bound + Fraction(1, 2**120)


@pytest.mark.parametrize("knots", [2, 3, 4, 20, 21])
def test_against_numpy_and_straight_beyond_the_ends(knots):
    reach, values = 0.7, torch.randn(1, knots, dtype=torch.float64)
    grid = np.linspace(-reach, reach, knots)
    x = torch.linspace(-reach, reach, 1001, dtype=torch.float64)
    expected = np.interp(x.numpy(), grid, values[0].numpy())
    assert np.abs(linear_spline(x, values, reach).numpy() - expected).max() < 1e-13
    assert torch.allclose(
        linear_spline(torch.tensor(grid), values, reach), values[0]
    )  # even grids not shifted
    for end, inner, sign in ((0, 1, -1.0), (-1, -2, 1.0)):
        slope = (values[0, end] - values[0, inner]) / (grid[end] - grid[inner])
        far = torch.tensor([sign * (reach + 5.0)], dtype=torch.float64)
        assert torch.allclose(linear_spline(far, values, reach), values[0, end] + slope * 5.0 * sign)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_outside_and_not_finite(dtype):
    grid = torch.linspace(-1, 1, 21, dtype=dtype)
    values = torch.stack([grid, grid.relu(), grid.abs(), -grid])
    most = torch.finfo(dtype).max
    x = torch.tensor([0.9 * most, -0.9 * most, math.inf, -math.inf, math.nan], dtype=dtype)[:, None]
    made = linear_spline(x.expand(-1, 4), values, 1.0)
    expected = torch.cat([x, x.relu(), x.abs(), -x], 1)
    assert torch.allclose(made, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    made, x = values.clone().requires_grad_(), x.expand(-1, 4).clone().requires_grad_()
    slopes, by_values = torch.autograd.grad(linear_spline(x, made, 1.0).sum(), (x, made))
    assert slopes[:4, 1].round().tolist() == [1.0, 0.0, 1.0, 0.0]
    assert by_values[:, 2:-2].isfinite().all()  # NaN reaches the first two, infinity the outer two


def test_the_slope_at_a_knot_is_that_from_the_right():
    x = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0], requires_grad=True)  # floats, as is the spacing
    values = torch.tensor([[0.0, 1.0, -1.0, 3.0, 0.5]])
    made = torch.autograd.grad(linear_spline(x, values, 1.0).sum(), x)[0]
    assert made.tolist() == [2.0, -4.0, 8.0, -5.0, -5.0]


@pytest.mark.parametrize("knots", [2, 4, 5])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 3, 2), (2, 2, 2, 2)])
def test_gradients_of_both_orders(shape, knots):
    x, values = drawn(shape, knots)

    def call(x, values):
        return linear_spline(x, values, 1.0)

    shared = values[:1].detach().requires_grad_()
    assert torch.autograd.gradcheck(call, (x, values), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, (x, values))
    assert torch.autograd.gradcheck(call, (x, shared), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, (x, shared))


def test_third_derivatives():
    """Of a cube: y''' by automatic differentiation, three times through the operators."""
    x, values = drawn((5, 2), 6)
    y = linear_spline(x, values, 1.0).pow(3).sum()
    slope = torch.autograd.grad(linear_spline(x, values, 1.0).sum(), x)[0]
    made = y
    for _ in range(3):
        made = torch.autograd.grad(made.sum(), x, create_graph=True)[0]
    assert torch.allclose(made, 6 * slope**3)
    assert torch.autograd.grad(made.sum(), values)[0].shape == values.shape


@pytest.mark.parametrize(
    ("shape", "dim"), [((6,), 0), ((5, 6), 1), ((5, 4, 6), -1), ((2, 6, 3, 2), 1), ((2, 3, 6, 2), 2)]
)
def test_every_rank_axis_and_stride(shape, dim):
    x, values = torch.randn(shape), torch.randn(6, 7)
    moved = x.movedim(dim, -1)
    columns = [linear_spline(moved[..., c].reshape(-1), values[c : c + 1], 0.8) for c in range(6)]
    expected = torch.stack(columns, -1).reshape(moved.shape).movedim(-1, dim)
    assert torch.equal(linear_spline(x, values, 0.8, dim), expected)
    strided = torch.empty(tuple(2 * n for n in shape))[tuple(slice(0, None, 2) for _ in shape)].copy_(x)
    assert torch.equal(linear_spline(strided, values.t().contiguous().t(), 0.8, dim), expected)
    shared = linear_spline(x, values[:1], 0.8, dim)
    assert torch.equal(shared, linear_spline(x, values[:1].expand(6, 7), 0.8, dim))


def test_channels_last_is_not_copied():
    x = torch.randn(2, 6, 5, 4).to(memory_format=torch.channels_last).requires_grad_()
    values, kept = torch.randn(6, 7, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = linear_spline(x, values, 1.0)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, linear_spline(x.contiguous(), values, 1.0))
    assert any(t.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for t in kept)


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [(torch.float32, "plain"), (torch.bfloat16, "plain"), (torch.float32, "strided")],
)
def test_only_x_is_kept_for_the_backward_pass(dtype, layout):
    x = torch.randn(64, 16, 10, 10, dtype=dtype)
    x = (x.transpose(2, 3) if layout == "strided" else x).requires_grad_()
    values, kept = torch.randn(16, 21, requires_grad=True), {}
    there = {t.untyped_storage().data_ptr() for t in (x, values)}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = linear_spline(x, values, 1.0)
    assert there & kept.keys()
    assert sum(size for place, size in kept.items() if place not in there) <= x.element_size() * x.numel()
    y.sum().backward()


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0), (0, 3, 4, 4)])
def test_empty_batches(shape):
    x, values = torch.empty(shape, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    y = linear_spline(x, values, 1.0)
    assert y.shape == shape
    y.sum().backward()
    assert x.grad.shape == shape
    assert not values.grad.any()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(half):
    x, values = torch.randn(50, 4).to(half), torch.randn(4, 9)
    grad = torch.randn(50, 4).to(half)
    sides = x.requires_grad_(), values.requires_grad_()
    wide = x.detach().float().requires_grad_()
    y, expected = linear_spline(x, values, 1.0), linear_spline(wide, values, 1.0)
    assert y.dtype == half
    assert torch.equal(y, expected.to(half))
    by_x, by_values = torch.autograd.grad(y, sides, grad)
    exact_x, exact_values = torch.autograd.grad(expected, (wide, values), grad.float())
    assert torch.equal(by_x, exact_x.to(half))
    assert torch.equal(by_values, exact_values)
    made = linear_spline(x, values.to(half), 1.0)
    assert torch.equal(made, linear_spline(x, values.to(half).float(), 1.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(linear_spline(wide, values, 1.0), expected)
    assert linear_spline(torch.randn(2, 4), values.double(), 1.0).dtype == torch.float32


def test_transforms_of_functions():
    x, values = drawn((4, 3), 6)

    def call(x, values):
        return linear_spline(x, values, 1.0)

    jacobian = torch.autograd.functional.jacobian(call, (x, values))
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        for made, expected in zip(transform(call, (0, 1))(x, values), jacobian):
            assert torch.allclose(made, expected)
    by_rows = torch.autograd.functional.jacobian(call, (x, values), vectorize=True)
    for made, expected in zip(by_rows, jacobian):
        assert torch.allclose(made, expected)
    plain = [t.detach() for t in (x, values)]
    assert torch.equal(torch.vmap(call, (0, None))(*plain), call(*plain))
    batch = torch.randn(5, 3, 6, dtype=torch.float64)
    expected = torch.stack([call(plain[0], v) for v in batch])
    assert torch.equal(torch.vmap(call, (None, 0))(plain[0], batch), expected)
    per_sample = torch.func.vmap(torch.func.grad(lambda x: call(x[None], values.detach()).sum()))(plain[0])
    assert torch.allclose(per_sample, torch.autograd.grad(call(x, values).sum(), x)[0])
    hessian = torch.func.hessian(lambda v: call(plain[0], v).pow(3).sum())(plain[1])
    expected = torch.autograd.functional.hessian(lambda v: call(plain[0], v).pow(3).sum(), plain[1])
    assert torch.allclose(hessian, expected)


def test_compile_without_a_break():
    x, values = (t.detach().float().requires_grad_() for t in drawn((4, 3), 6))

    def loss(x, values, reach):
        return linear_spline(x, project_slopes(values, reach), reach).square().sum()

    whole = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for reach in (1.0, 0.5):  # the second time it is a symbol
        assert torch.allclose(whole(x, values, reach), loss(x, values, reach))
        made, expected = (torch.autograd.grad(f(x, values, reach), (x, values)) for f in (whole, loss))
        assert all(torch.allclose(a, b) for a, b in zip(made, expected))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, v: linear_spline(x, v[:2], 1.0), "2 channels"),
        (lambda x, v: linear_spline(x, v[:, :1], 1.0), "2 or more knots"),
        (lambda x, v: linear_spline(x, v[0], 1.0), "channels, knots"),
        (lambda x, v: linear_spline(x.long(), v, 1.0), "float"),
        (lambda x, v: linear_spline(x, v.long(), 1.0), "float"),
        (lambda x, v: linear_spline(x, v, 0.0), "positive"),
        (lambda x, v: linear_spline(x, v, -1.0), "positive"),
        (lambda x, v: linear_spline(x, v, math.nan), "positive"),
        (lambda x, v: linear_spline(x, v, 1.0, dim=2), "not an axis"),
        (lambda x, v: linear_spline(x, v, 1.0, dim=0), "batch axis"),
        (lambda x, v: linear_spline(x, v.to("meta"), 1.0), "move them"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.ones(4, 3), torch.ones(3, 5))
