"""Scaled splines S(alpha x) / alpha: values against exact fractions, derivatives against the plain composition."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lablib.ops.activations import per_channel
from lablib.ops.splines import linear_spline

# torch's own decompositions for derivatives forwards are scripted when first used
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


def composed(x, values, scale, reach=1.0, dim=None):
    """The same by three operations: torch differentiates the product and the quotient."""
    alpha = per_channel(scale, x, dim)
    return linear_spline(alpha * x, values, reach, dim) / alpha


def scaled(x, values, scale, reach=1.0, dim=None):
    return linear_spline(x, values, reach, dim, scale)


def drawn(shape, knots, channels=None, scales=None):
    """float64 inputs whose alpha x is in the middle of segments (also outside), values and scales."""
    width = shape[min(1, len(shape) - 1)]
    scale = torch.randn(width if scales is None else scales, dtype=torch.float64).exp()
    place = torch.randint(-2, knots + 1, shape) + 0.3 + 0.4 * torch.rand(shape, dtype=torch.float64)
    x = (place * (2 / (knots - 1)) - 1) / per_channel(scale, place)
    values = torch.randn(width if channels is None else channels, knots, dtype=torch.float64)
    return tuple(t.requires_grad_() for t in (x, values, scale))


@given(
    st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=9),
    st.one_of(st.floats(-3, 3, width=32), st.floats(-1e6, 1e6, width=32)),
    st.sampled_from([0.1, 0.15, 1.0, 3.0]),
    st.floats(0.015625, 64.0, width=32),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_rounding_stays_inside_the_stated_bound(values, x, reach, scale, dtype):
    sides = (torch.tensor(t, dtype=dtype) for t in ([x], [values], [scale]))
    made = Fraction(float(scaled(*sides, reach)))
    x, reach, scale = (Fraction(number) for number in (x, reach, scale))
    inverse = (len(values) - 1) / (2 * reach)
    k = min(max(math.floor((scale * x + reach) * inverse), 0), len(values) - 2)
    left, right = (Fraction(v) for v in values[k : k + 2])
    true = (left + (right - left) * ((scale * x + reach) * inverse - k)) / scale
    steep = max(abs(Fraction(b) - Fraction(a)) for a, b in itertools.pairwise(values)) * inverse
    bound = Fraction(torch.finfo(dtype).eps) / 2 * (19 * steep * (abs(x) + reach / scale) + 3 * abs(true))
    assert abs(made - true) <= bound + Fraction(1, 2**114)


@pytest.mark.parametrize(
    ("shape", "dim"), [((6,), 0), ((5, 6), 1), ((5, 4, 6), -1), ((2, 6, 3, 2), 1), ((2, 3, 6, 2), 2)]
)
def test_the_bits_of_the_composition_for_every_rank_axis_and_stride(shape, dim):
    x, values, scale = torch.randn(shape), torch.randn(6, 7), torch.randn(6).exp()
    expected = composed(x, values, scale, 0.8, dim)
    assert torch.equal(scaled(x, values, scale, 0.8, dim), expected)
    strided = torch.empty(tuple(2 * n for n in shape))[tuple(slice(0, None, 2) for _ in shape)].copy_(x)
    apart = torch.stack([scale, scale], 1)[:, 0]
    assert torch.equal(scaled(strided, values.t().contiguous().t(), apart, 0.8, dim), expected)
    for v, a in ((values[:1], scale), (values, scale[:1]), (values[:1], scale[:1])):
        assert torch.equal(scaled(x, v, a, 0.8, dim), composed(x, v.expand(6, 7), a.expand(6), 0.8, dim))


def test_derivatives_at_knots_and_what_is_not_finite():
    """On binary fractions nothing rounds: alpha x hits the knots."""
    values, scale = torch.tensor([[0.0, 1.0, -1.0, 3.0, 0.5]]), torch.tensor([2.0], requires_grad=True)
    x = torch.tensor([-0.5, -0.25, 0.0, 0.25, 0.5], requires_grad=True)
    slopes = torch.tensor([2.0, -4.0, 8.0, -5.0, -5.0])
    by_x, by_scale = torch.autograd.grad(scaled(x, values, scale).sum(), (x, scale))
    assert torch.equal(by_x, slopes)
    left, t = torch.tensor([0.0, 1.0, -1.0, 3.0, 3.0]), torch.tensor([-1.0, -0.5, 0.0, 0.5, 0.5])
    assert by_scale.item() == ((slopes * t - left) / 4).sum().item()
    wild = torch.tensor([math.inf, -math.inf, math.nan, 0.0], requires_grad=True)
    y = scaled(wild, values, scale)
    assert y[:3].nan_to_num(7.0, 8.0, -8.0).tolist() == [-8.0, -8.0, 7.0]
    assert torch.autograd.grad(y[:2].sum(), scale)[0].isfinite().all()  # S(inf) goes to infinity as x does


@pytest.mark.parametrize("knots", [2, 5])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 2, 2, 2)])
def test_gradients_of_both_orders(shape, knots):
    width = shape[min(1, len(shape) - 1)]
    for channels, scales in ((width, width), (1, width), (width, 1), (1, 1)):
        sides = drawn(shape, knots, channels, scales)
        assert torch.autograd.gradcheck(scaled, sides, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(scaled, sides)


@pytest.mark.parametrize("needs", [n for n in itertools.product((True, False), repeat=3) if any(n)])
def test_gradients_of_each_gradient(needs):
    x, values, scale = drawn((3, 2, 2), 4)
    grad = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)

    def call(*sides):
        made = torch.ops.lablib.linear_spline_backward(*sides, 1.0, list(needs))
        return tuple(t for t, need in zip(made, needs) if need)

    assert torch.autograd.gradcheck(call, (grad, x, values, scale))
    for fixed in range(4):
        sides = [t.detach() if n == fixed else t for n, t in enumerate((grad, x, values, scale))]
        assert torch.autograd.gradcheck(call, sides)


def test_third_derivatives_and_a_penalty_of_gradients():
    """Of a cube, and of (|dy/dx|^2 - 1)^2: through the operators and through the composition."""
    x, values, scale = drawn((5, 2), 6)
    for form in (scaled, composed):
        slope = torch.autograd.grad(form(x, values, scale).sum(), x)[0]
        y = form(x, values, scale).pow(3).sum()
        for _ in range(3):
            (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        assert torch.allclose(y, 6 * slope**3)
    made = []
    for form in (scaled, composed):
        (by_x,) = torch.autograd.grad(form(x, values, scale).square().sum(), x, create_graph=True)
        penalty = (by_x.square() - 1).square().sum()
        first = torch.autograd.grad(penalty, (x, values, scale), create_graph=True)
        made.append(first + torch.autograd.grad(sum(t.sum() for t in first), (x, values, scale)))
    for ours, theirs in zip(*made):
        assert torch.allclose(ours, theirs)


def test_nothing_but_the_arguments_is_kept():
    x = torch.randn(8, 16, 5, 5).requires_grad_()
    sides, kept = (x, torch.randn(16, 21, requires_grad=True), torch.rand(16, requires_grad=True)), set()

    def pack(t):
        kept.add(t.untyped_storage().data_ptr())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = scaled(*sides)
    assert kept == {t.untyped_storage().data_ptr() for t in sides}
    y.sum().backward()


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0)])
def test_empty_batches(shape):
    sides = torch.empty(shape), torch.randn(3, 5), torch.rand(3)
    leaves = [t.requires_grad_() for t in sides]
    y = scaled(*leaves)
    assert y.shape == shape
    by_x, by_values, by_scale = torch.autograd.grad(y.sum(), leaves)
    assert by_x.shape == shape
    assert not by_values.any()
    assert not by_scale.any()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(half):
    x, grad = (torch.randn(50, 4).to(half) for _ in range(2))
    values, scale = torch.randn(4, 9, requires_grad=True), torch.randn(4).exp().requires_grad_()
    sides, wide = (x.requires_grad_(), values, scale), (x.detach().float().requires_grad_(), values, scale)
    y, expected = scaled(*sides), scaled(*wide)
    assert torch.equal(y, expected.to(half))
    made, exact = torch.autograd.grad(y, sides, grad), torch.autograd.grad(expected, wide, grad.float())
    assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(made, exact))
    low = scale.detach().to(half)
    assert torch.equal(scaled(x, values.to(half), low), scaled(x, values.to(half).float(), low.float()))
    small = scaled(x, values / 16, scale).float()  # float16 ends at 65504
    penalty = torch.autograd.grad(small.square().sum(), x, create_graph=True)[0].float()
    assert all(t.isfinite().all() for t in torch.autograd.grad(penalty.square().sum(), sides))
    assert scaled(torch.randn(2, 4), values, scale.double()).dtype == torch.float32


def test_transforms_of_functions():
    sides = drawn((4, 3), 6)
    jacobian = torch.autograd.functional.jacobian(scaled, sides)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        for made, expected in zip(transform(scaled, (0, 1, 2))(*sides), jacobian):
            assert torch.allclose(made, expected)
    for made, expected in zip(torch.autograd.functional.jacobian(scaled, sides, vectorize=True), jacobian):
        assert torch.allclose(made, expected)
    x, values, scale = (t.detach() for t in sides)
    batch = torch.rand(5, 3, dtype=torch.float64) + 0.5
    expected = torch.stack([scaled(x, values, a) for a in batch])
    assert torch.equal(torch.vmap(scaled, (None, None, 0))(x, values, batch), expected)
    hessian = torch.func.hessian(lambda a: scaled(x, values, a).pow(3).sum())(scale)
    expected = torch.autograd.functional.hessian(lambda a: scaled(x, values, a).pow(3).sum(), scale)
    assert torch.allclose(hessian, expected)


def test_compile_without_a_break():
    sides = [t.detach().float().requires_grad_() for t in drawn((4, 3), 6)]

    def loss(*sides):
        return scaled(*sides).square().sum()

    whole = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert torch.allclose(whole(*sides), loss(*sides))
    made, expected = (torch.autograd.grad(f(*sides), sides) for f in (whole, loss))
    assert all(torch.allclose(a, b) for a, b in zip(made, expected))


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (torch.ones(2), "2 channels"),
        (torch.ones(3, 1), "floating point numbers"),
        (torch.ones(3).long(), "floating point numbers"),
        (torch.ones(()), "floating point numbers"),
        (torch.ones(3, device="meta"), "move them"),
    ],
)
def test_bad_scales_are_refused(scale, words):
    with pytest.raises(ValueError, match=words):
        scaled(torch.ones(4, 3), torch.ones(3, 5), scale)


@pytest.mark.parametrize("shapes", [((0, 5), (1,)), ((1, 5), (0,)), ((1, 5), (1,)), ((0, 5), (0,))])
def test_no_channels(shapes):
    values, scale = (torch.ones(shape, requires_grad=True) for shape in shapes)
    made = linear_spline(torch.zeros(2, 0), values, 1.0, None, scale)
    made.sum().backward()
    assert made.shape == (2, 0)
    assert not values.grad.any()
    assert not scale.grad.any()
