"""The distance kernels against plain float64 broadcasting: values, gradients, masks, ties, NaN, torch's machinery."""

import math
import time

import pytest
import torch

from lablib.ops import native
from lablib.ops.linf_dist import linf_distance, linf_distance_bounds, lp_distance, reference

POWERS = (1, 2, 3, 4, 6, 8, 24, 64, 96, 128, 1024, 3.5, 17.3, 1000, math.inf)
SHAPES = ((1, 1, 1), (5, 7, 3), (70, 129, 131))
TOLERANCE = {torch.float32: (3e-6, 3e-4), torch.float64: (1e-13, 1e-10)}  # of values, of gradients


@pytest.fixture(params=["native", "numba", "reference"])
def kernels(request, monkeypatch):
    """Each implementation that can be had here."""
    monkeypatch.setenv("LABLIB_KERNELS", request.param)
    try:
        native.kernels()
    except (native.BuildError, ModuleNotFoundError) as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def compiled(monkeypatch):
    """The C++ kernels."""
    monkeypatch.setenv("LABLIB_KERNELS", "native")
    try:
        native.kernels()
    except native.BuildError as error:
        pytest.skip(str(error))


@pytest.fixture
def plain(monkeypatch):
    """The slow form: for what does not depend on who computes."""
    monkeypatch.setenv("LABLIB_KERNELS", "reference")


def naive(x, weight, p):
    """Broadcasting in float64, with autograd; no ties in the data."""
    size = (x[:, None] - weight).abs()
    most = size.detach().amax(-1, keepdim=True)
    return size.amax(-1) if math.isinf(p) else most[..., 0] * ((size / most) ** p).sum(-1) ** (1 / p)


def masks(batch, width, kept, rows):
    """Random sorted subsets, one per sub-batch."""
    return torch.stack([torch.randperm(width)[:kept].sort().values for _ in range(-(-batch // rows))])


def close(made, expected, tolerance):
    """Largest error over largest value; also right for empty tensors."""
    return (
        bool(((made - expected).abs() <= tolerance * expected.abs().amax()).all())
        if expected.numel()
        else True
    )


def check(x, weight, p, inputs=None, outputs=None, rows=32):
    """Hold values and both gradients against the float64 form, sub-batch by sub-batch."""
    to_y, to_grad = TOLERANCE[x.dtype]
    x, weight = x.requires_grad_(), weight.requires_grad_()
    y = lp_distance(x, weight, p, inputs=inputs, outputs=outputs, rows=rows)
    wide, center = (t.detach().double().requires_grad_() for t in (x, weight))
    parts = [
        naive(wide[part], reference.kept_weight(center, kept, chosen), p)
        for part, kept, chosen in reference.sub_batches(x, inputs, outputs, rows)
    ]
    expected = torch.cat(parts)
    assert y.shape == expected.shape
    assert close(y, expected, to_y), p
    slope = torch.randn_like(y)
    made = torch.autograd.grad(y, (x, weight), slope)
    for ours, theirs in zip(made, torch.autograd.grad(expected, (wide, center), slope.double())):
        assert close(ours, theirs, to_grad), p


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_dense(compiled, dtype, shape):
    b, i, o = shape
    for p in POWERS:
        check(torch.randn(b, i, dtype=dtype), torch.randn(o, i, dtype=dtype), p)


@pytest.mark.parametrize("which", ["inputs", "outputs", "both"])
def test_compiled_masked(compiled, which):
    batch, i, o, rows = 70, 37, 150, 32
    inputs = masks(batch, i, 25, rows) if which != "outputs" else None
    outputs = masks(batch, o, 110, rows) if which != "inputs" else None
    for p in POWERS:
        x = torch.randn(batch, i if inputs is None else 25)
        check(x, torch.randn(o, i), p, inputs, outputs, rows)


@pytest.mark.parametrize("p", [6, math.inf])  # numba compiles for seconds per power
def test_every_implementation(kernels, p):
    inputs, outputs = masks(11, 9, 5, 4), masks(11, 8, 6, 4)
    check(torch.randn(11, 9), torch.randn(8, 9), p)
    check(torch.randn(11, 5), torch.randn(8, 9), p, inputs, outputs, 4)


def test_real_power_by_numba(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setenv("LABLIB_KERNELS", "numba")
    check(torch.randn(5, 9), torch.randn(8, 9), 10.5)


def test_bounds(kernels):
    lower, weight = torch.randn(21, 33), torch.randn(70, 33)
    upper = lower + torch.rand(21, 33)
    sides = [side.requires_grad_() for side in (lower, upper, weight)]
    least, most = linf_distance_bounds(*sides)
    below, above = lower[:, None] - weight, weight - upper[:, None]
    near, far = torch.maximum(below, above).clamp(min=0).amax(-1), torch.maximum(-below, -above).amax(-1)
    assert torch.equal(least, near)
    assert torch.equal(most, far)
    slopes = torch.randn_like(least), torch.randn_like(least)
    for ours, theirs in zip(
        torch.autograd.grad((least, most), sides, slopes), torch.autograd.grad((near, far), sides, slopes)
    ):
        assert close(ours, theirs, 1e-6)


def test_bounds_hold_what_the_box_reaches(kernels):
    lower, weight = torch.randn(1, 12), torch.randn(9, 12)
    upper = lower + torch.rand(1, 12)
    least, most = linf_distance_bounds(lower, upper, weight)
    inside = linf_distance(lower + (upper - lower) * torch.rand(500, 12), weight)
    assert (least <= inside).all()
    assert (inside <= most).all()
    nearest = torch.minimum(torch.maximum(lower, weight), upper)  # attained, neuron by neuron
    assert torch.equal(linf_distance(nearest, weight).diagonal(), least[0])


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**-40, 2.0**40, 2.0**100])
@pytest.mark.parametrize("p", [1, 8, 48, 100.5, 1024])
def test_no_scale_over_or_underflows(compiled, scale, p):
    x, weight = torch.randn(9, 50).requires_grad_(), torch.randn(7, 50)
    y, scaled = lp_distance(x, weight, p), lp_distance(scale * x, scale * weight, p)
    assert torch.allclose(scaled / scale, y, rtol=1e-6)
    ours, theirs = (
        torch.autograd.grad(y.sum() + scaled.sum() / scale, x),
        torch.autograd.grad(2 * lp_distance(x, weight, p).sum(), x),
    )
    assert torch.allclose(ours[0], theirs[0], rtol=1e-3, atol=1e-6)


def test_rows_of_different_size_share_a_block(compiled):
    """A common scale fails for the small row: the pair's own must take over."""
    x, weight = torch.randn(4, 20), torch.randn(5, 20)
    x[0] *= 1e12
    for p in (8, 64, 1024, 5.5):
        assert close(lp_distance(x, weight, p)[1:], naive(x.double(), weight.double(), p)[1:], 1e-6)


def test_no_slow_subnormal_numbers(compiled):
    """Many tiny differences beside a large one; subnormal products would be forty times slower."""
    x, weight = torch.rand(64, 256) * 1e-3, torch.rand(64, 256) * 1e-3
    x[:, 0] += 10
    usual = torch.randn(64, 256), torch.randn(64, 256)

    def seconds(a, b):
        a = a.clone().requires_grad_()
        slope = 10.0 ** -torch.linspace(0, 37, 64).expand(64, 64)

        def once():
            start = time.thread_time()
            torch.autograd.grad(lp_distance(a, b, 512), a, slope)
            return time.thread_time() - start

        return min(once() for _ in range(5))

    assert seconds(x, weight) < 8 * seconds(*usual)


def test_rounding_is_what_the_docstring_says(kernels):
    """Differences of float32 numbers of near size are exact in float64."""
    u = 2.0**-24
    for scale in (1.0, 1e-3, 2.0**12):
        x, weight = torch.randn(20, 40) * scale, torch.randn(30, 40)
        exact = linf_distance(x.double(), weight.double())
        assert ((linf_distance(x, weight).double() - exact).abs() <= u * exact).all()
        box = [x - 0.1, x + 0.1]
        for made, true in zip(
            linf_distance_bounds(*box, weight),
            linf_distance_bounds(*(b.double() for b in box), weight.double()),
        ):
            assert ((made.double() - true).abs() <= u * true).all()
    tiny = torch.randint(-50, 50, (20, 40)) * 2.0**-149  # subnormal: exact
    centre = torch.randint(-50, 50, (30, 40)) * 2.0**-149
    assert torch.equal(linf_distance(tiny, centre).double(), linf_distance(tiny.double(), centre.double()))


def test_ties_zeros_and_nan(kernels):
    x = torch.tensor([[1.0, -1.0, 1.0], [0.0, 0.0, 0.0]], requires_grad=True)
    weight = torch.zeros(1, 3, requires_grad=True)
    y = linf_distance(x, weight)
    made = torch.autograd.grad(y.sum(), (x, weight))
    assert made[0].tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert made[1].tolist() == [[-1.0, 0.0, 0.0]]
    y = lp_distance(x, weight, 6)
    slopes = torch.autograd.grad(y.sum(), x)[0]
    assert y[1].item() == 0
    assert slopes[1].tolist() == [0.0, 0.0, 0.0]
    assert slopes[0, 0] == -slopes[0, 1] == slopes[0, 2]
    broken = torch.randn(3, 4)
    broken[1, 2] = float("nan")
    for made in (
        linf_distance(broken, weight.new_zeros(2, 4)),
        lp_distance(broken, weight.new_zeros(2, 4), 6),
    ):
        assert made[1].isnan().all()
        assert made[[0, 2]].isfinite().all()
    low, high = linf_distance_bounds(broken, broken + 1, weight.new_zeros(2, 4))
    assert low[1].isnan().all()
    assert high[1].isnan().all()
    assert linf_distance(torch.tensor([[math.inf, 1.0]]), torch.zeros(1, 2)).item() == math.inf


def test_threads_change_nothing(compiled):
    x, weight = torch.randn(200, 300, requires_grad=True), torch.randn(190, 300, requires_grad=True)
    inputs, outputs = masks(200, 300, 200, 32), masks(200, 190, 120, 32)
    part = x.detach()[:, :200].clone().requires_grad_()

    def everything():
        made = []
        for p in (8, 1024, 5.5, math.inf):
            for y, a in (
                (lp_distance(x, weight, p), x),
                (lp_distance(part, weight, p, inputs=inputs, outputs=outputs), part),
            ):
                made += [y, *torch.autograd.grad(y.square().sum(), (a, weight))]
        low, high = linf_distance_bounds(x - 0.1, x + 0.1, weight)
        return [*made, low, high, *torch.autograd.grad((low * high).sum(), (x, weight))]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = everything()
        torch.set_num_threads(3)
        many = everything()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, many))


@pytest.mark.parametrize("p", [1, 2, 8, 5.5, math.inf])
def test_gradients_by_finite_differences(compiled, p):
    x, weight = (torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for n in (4, 3))
    assert torch.autograd.gradcheck(lambda a, b: lp_distance(a, b, p), (x, weight))
    inputs, outputs = masks(4, 5, 3, 2), masks(4, 3, 2, 2)
    part = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b: lp_distance(a, b, p, inputs=inputs, outputs=outputs, rows=2), (part, weight)
    )
    upper = (x + 0.3).detach().requires_grad_()
    assert torch.autograd.gradcheck(linf_distance_bounds, (x, upper, weight))


def test_only_one_side_wants_a_gradient(compiled):
    x, weight = torch.randn(6, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    for p in (8, math.inf):
        both = torch.autograd.grad(lp_distance(x, weight, p).sum(), (x, weight))
        assert torch.equal(torch.autograd.grad(lp_distance(x, weight.detach(), p).sum(), x)[0], both[0])
        assert torch.equal(torch.autograd.grad(lp_distance(x.detach(), weight, p).sum(), weight)[0], both[1])


def test_torch_accepts_the_operators(compiled):
    x, weight = torch.randn(6, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    inputs, outputs = masks(6, 5, 5, 4), masks(6, 4, 3, 4)
    for p in (8.0, math.inf):
        for kept in ((None, None), (inputs, outputs)):
            torch.library.opcheck(torch.ops.lablib.lp_distance.default, (x, weight, p, *kept, 4, True))
    upper = (x + 1).detach().requires_grad_()
    torch.library.opcheck(torch.ops.lablib.linf_distance_bounds.default, (x, upper, weight, True))


def test_compile(compiled):
    x, weight = torch.randn(6, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)

    def network(a, b):
        low, high = linf_distance_bounds(a, a + 1, b)
        return lp_distance(a * 2, b, 8).sin() + low * high + linf_distance(a, b)

    whole = torch.compile(network, fullgraph=True, backend="aot_eager")
    slope = torch.randn(6, 4)
    assert torch.allclose(whole(x, weight), network(x, weight))
    for ours, theirs in zip(
        torch.autograd.grad(whole(x, weight), (x, weight), slope),
        torch.autograd.grad(network(x, weight), (x, weight), slope),
    ):
        assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("p", [6, math.inf])
def test_functorch_and_second_derivatives(compiled, p):
    x, weight = torch.randn(3, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)

    def one(v):
        return lp_distance(v[None], weight, p)[0]

    assert torch.allclose(torch.vmap(one)(x), lp_distance(x, weight, p))
    made, expected = torch.func.jacrev(one)(x[0]), torch.autograd.functional.jacobian(one, x[0])
    assert torch.allclose(made, expected)
    sides = (x.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda a, b: lp_distance(a, b, p), sides)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32(compiled, dtype):
    x, weight = torch.randn(6, 40, dtype=dtype), torch.randn(4, 40, dtype=dtype)
    for p in (8, math.inf):
        assert torch.equal(lp_distance(x, weight, p), lp_distance(x.float(), weight.float(), p).to(dtype))
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(linf_distance(x, weight.float()), linf_distance(x.float(), weight.float()))


def test_layouts_and_leading_axes(kernels):
    x, weight = torch.randn(9, 2, 4).transpose(0, 1), torch.randn(9, 5)[:, ::1].t()
    x = torch.randn(9, 4).t().expand(2, 4, 9)
    expected = linf_distance(x.contiguous(), weight.contiguous())
    assert torch.equal(linf_distance(x, weight), expected)
    assert expected.shape == (2, 4, 5)
    assert lp_distance(x, weight, 6).shape == (2, 4, 5)


def test_empty(kernels):
    weight = torch.randn(3, 5, requires_grad=True)
    for p in (6, math.inf):
        y = lp_distance(torch.empty(0, 5), weight, p)
        assert y.shape == (0, 3)
        assert torch.equal(torch.autograd.grad(y.sum(), weight)[0], torch.zeros(3, 5))
        assert lp_distance(torch.randn(2, 5), torch.empty(0, 5), p).shape == (2, 0)
    assert linf_distance_bounds(torch.empty(0, 5), torch.empty(0, 5), weight)[1].shape == (0, 3)
    nobody = torch.empty(1, 0, dtype=torch.int64)
    assert lp_distance(torch.randn(2, 5), weight, 6, outputs=nobody).shape == (2, 0)


X, W = torch.ones(4, 3), torch.ones(2, 3)
KEPT = torch.tensor([[0, 2], [1, 2]])


@pytest.mark.parametrize(
    "call",
    [
        lambda: linf_distance(X, torch.ones(2, 4)),
        lambda: linf_distance(X[:, :0], W[:, :0]),
        lambda: linf_distance(X.long(), W),
        lambda: lp_distance(X, W, 0.5),
        lambda: lp_distance(X, W, math.nan),
        lambda: linf_distance_bounds(X, X[:2], W),
        lambda: lp_distance(X, W, 6, inputs=KEPT, rows=2),
        lambda: lp_distance(X[:, :2], W, 6, inputs=KEPT, rows=4),
        lambda: lp_distance(X[:, :2], W, 6, inputs=KEPT.int(), rows=2),
        lambda: lp_distance(X[None, :, :2], W, 6, inputs=KEPT, rows=2),
        lambda: lp_distance(X[:, :2], W, 6, inputs=KEPT, rows=0),
        lambda: lp_distance(X, W, 6, outputs=torch.zeros(2, 3, dtype=torch.int64), rows=2),
    ],
)
def test_bad_input_is_refused(plain, call):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        call()


@pytest.mark.parametrize("wrong", [[[0, 3], [1, 2]], [[2, 0], [1, 2]], [[0, 0], [1, 2]], [[-1, 0], [1, 2]]])
def test_bad_masks_are_refused_before_memory_is_touched(compiled, wrong):
    for p in (6, math.inf):
        with pytest.raises(ValueError, match="rise"):
            lp_distance(X[:, :2], W, p, inputs=torch.tensor(wrong), rows=2)
