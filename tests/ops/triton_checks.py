"""Checks of the Triton kernels against float64: run by test_triton.py (interpreter) and test_gpu.py (a device).

The interpreter must be asked for before Triton is imported, so these run in a process of their own.
"""

import math

import pytest
import torch

from lablib.experiments import gpu_bench, gpu_peer
from lablib.ops import gpu
from lablib.ops.linf_dist import choice as linf_choice
from lablib.ops.linf_dist import cuda as linf
from lablib.ops.sortnet import choice as sortnet_choice
from lablib.ops.sortnet import cuda as sortnet
from lablib.ops.sortnet import reference as sortnet_reference
from lablib.ops.splines import cuda as splines
from lablib.ops.splines import reference as spline_reference

DEVICE = "cpu" if gpu.interpreted() else "cuda"
# the interpreter is NumPy, which warns where a sum overflows as a device does: that is how a bad sample shows
pytestmark = pytest.mark.filterwarnings(
    "ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning"
)
SHAPES = [(1, 1, 1), (3, 5, 4), (33, 9, 66), (5, 70, 3)]


def draw(*shape):
    return torch.randn(*shape).to(DEVICE)


def masks(batch, inputs, outputs, rows, kept_in, kept_out):
    """Sorted masks of every sub-batch; no mask where nothing is dropped."""
    subs = math.ceil(batch / rows)

    def pick(count, of):
        if count is None:
            return None
        return torch.stack([torch.randperm(of)[:count].sort().values for _ in range(subs)]).to(DEVICE)

    return pick(kept_in, inputs), pick(kept_out, outputs)


def differences(x, w, inputs, outputs, rows):
    """x_i - w_ki, (B, O', I'), sub-batch by sub-batch."""
    made = []
    for s, part in enumerate(x.split(rows)):
        kept = w if outputs is None else w[outputs[s]]
        made.append(part[:, None] - (kept if inputs is None else kept[:, inputs[s]]))
    return torch.cat(made)


def exact_lp(x, w, p, inputs, outputs, rows):
    size = differences(x, w, inputs, outputs, rows).abs()
    most = size.amax(-1, keepdim=True)
    return most[..., 0] * ((size / most) ** p).sum(-1) ** (1 / p)


def error(made, expected):
    return float(((made.double() - expected).norm() / expected.norm()).detach())


def gradients(function, arguments, grad):
    leaves = [t.double().requires_grad_() for t in arguments]
    return torch.autograd.grad(function(*leaves), leaves, grad.double())


@pytest.mark.parametrize(
    ("batch", "inputs", "outputs", "p"),
    [
        *((3, 5, 4, p) for p in (1.0, 2.0, 2.7, 3.0, 6.0, 24.0, 32.0, 50.5, 1024.0)),
        (5, 300, 3, 128.0),
        *((*shape, p) for shape in SHAPES for p in (8.0, 1000.0)),
    ],
)
def test_lp(batch, inputs, outputs, p):
    x, w, grad = draw(batch, inputs), draw(outputs, inputs), draw(batch, outputs)
    arguments = (p, None, None, 32)
    y = linf.lp_forward(x, w, *arguments)
    assert error(y, exact_lp(x.double(), w.double(), *arguments)) < 1e-6
    dx, dw = linf.lp_backward(grad, x, w, y, *arguments)
    expected = gradients(lambda *t: exact_lp(*t, *arguments), (x, w), grad)
    assert error(dx, expected[0]) < 1e-5 + 3e-7 * p
    assert error(dw, expected[1]) < 1e-5 + 3e-7 * p


@pytest.mark.parametrize(
    ("rows", "kept_in", "kept_out", "p"),
    [
        (3, 5, 4, 8.0),
        (32, 5, 4, 8.0),
        (32, 5, 4, 300.0),
        (40, None, 4, 8.0),
        (3, 5, None, 8.0),
        (32, 1, 1, 8.0),
    ],
)
def test_masks(rows, kept_in, kept_out, p):
    batch, inputs, outputs = 45 if rows > 3 else 7, 8, 6
    ins, outs = masks(batch, inputs, outputs, rows, kept_in, kept_out)
    x, w = draw(batch, kept_in or inputs), draw(outputs, inputs)
    grad = draw(batch, kept_out or outputs)
    arguments = (p, ins, outs, rows)
    y = linf.lp_forward(x, w, *arguments)
    assert error(y, exact_lp(x.double(), w.double(), *arguments)) < 1e-6
    made = linf.lp_backward(grad, x, w, y, *arguments)
    expected = gradients(lambda *t: exact_lp(*t, *arguments), (x, w), grad)
    assert all(error(a, b) < 1e-5 + 3e-7 * p for a, b in zip(made, expected))

    y, index = linf.linf_forward(x, w, ins, outs, rows, want_index=True)
    size = differences(x, w, ins, outs, rows).abs()
    assert torch.equal(y, size.amax(-1))
    assert torch.equal(index, size.max(-1).indices)
    made = linf.linf_backward(grad, x, w, index, ins, outs, rows)
    expected = gradients(lambda *t: differences(*t, ins, outs, rows).abs().amax(-1), (x, w), grad)
    assert all(error(a, b) < 1e-6 for a, b in zip(made, expected))


def test_a_sample_scales_the_sum_or_is_refused():
    x, w = draw(2, 300), draw(3, 300)
    for position, size in ((0, 0.0), (16, 30.0), (17, 30.0), (17, 1e4)):  # 17 is not in the sample
        w[1, position] = size
        for p in (2.0, 64.0):
            made = linf.lp_forward(x, w, p, None, None, 2)
            assert error(made, exact_lp(x.double(), w.double(), p, None, None, 2)) < 1e-6
    far = w.clone()
    far[:, 17] = 1e30
    assert (
        error(linf.lp_forward(x, far, 8.0, None, None, 2), torch.full((2, 3), 1e30).double().to(DEVICE))
        < 1e-6
    )


def test_extreme_sizes():
    x, w = draw(4, 6), draw(5, 6)
    for scale in (1e-30, 1e30):
        for p in (2.0, 2.7, 8.0, 1024.0):
            y = linf.lp_forward(scale * x, scale * w, p, None, None, 4)
            assert error(y / scale, exact_lp(x.double(), w.double(), p, None, None, 4)) < 2e-6
            dx, _ = linf.lp_backward(torch.ones_like(y), scale * x, scale * w, y, p, None, None, 4)
            assert dx.isfinite().all()
            assert dx.abs().amax() > 0


def test_equal_points_give_zero_and_no_gradient():
    x = draw(2, 5)
    for p in (1.0, 2.0, 3.0, 2.7, 8.0, 1000.0):
        y = linf.lp_forward(x, x.clone(), p, None, None, 2)
        assert y.diagonal().tolist() == [0.0, 0.0]
        dx, dw = linf.lp_backward(torch.eye(2).to(DEVICE), x, x.clone(), y, p, None, None, 2)
        assert not dx.any()
        assert not dw.any()


def test_nan_stays_in_its_row():
    x, w = draw(3, 5), draw(4, 5)
    x[1, 2] = float("nan")
    boxes = linf.linf_bounds_forward(x, x, w)[:2]
    tops = sortnet.topk_forward(x, -w, torch.rand(4, 3).to(DEVICE))[0]
    sides = [
        sortnet.topk_bound_forward(x, x, -w, torch.rand(4, 3).to(DEVICE), largest)[0]
        for largest in (False, True)
    ]
    powers = [linf.lp_forward(x, w, p, None, None, 3) for p in (1.0, 2.7, 8.0, 1000.0)]
    for y in (linf.linf_forward(x, w, None, None, 3)[0], *boxes, tops, *sides, *powers):
        assert y[1].isnan().all()
        assert y[[0, 2]].isfinite().all()


def test_the_first_of_equals_wins():
    x = torch.tensor([[1.0, -1.0, 1.0], [0.0, 0.0, 0.0]]).to(DEVICE)
    w = torch.zeros(1, 3).to(DEVICE)
    assert linf.linf_forward(x, w, None, None, 2, True)[1].tolist() == [[0], [0]]
    assert linf.linf_bounds_forward(x, x, w, True)[2].tolist() == [[0], [0]]
    assert sortnet.topk_forward(x, w, torch.ones(1, 3).to(DEVICE), True)[1].tolist() == [
        [[0, 1, 2]],
        [[0, 1, 2]],
    ]


@pytest.mark.parametrize(("batch", "inputs", "outputs"), SHAPES)
def test_linf_bounds(batch, inputs, outputs):
    w, grad = draw(outputs, inputs), [draw(batch, outputs) for _ in range(2)]
    lower = draw(batch, inputs)
    upper = lower + draw(batch, inputs).abs()

    def exact(lower, upper, w):
        below, above = w - lower[:, None], upper[:, None] - w
        near = torch.maximum(-below, -above).clamp(min=0)
        return near.amax(-1), torch.maximum(below, above).amax(-1)

    low, high, *index = linf.linf_bounds_forward(lower, upper, w, True)
    assert torch.equal(low, exact(lower, upper, w)[0])
    assert torch.equal(high, exact(lower, upper, w)[1])
    made = linf.linf_bounds_backward(*grad, lower, upper, w, *index)
    leaves = [t.double().requires_grad_() for t in (lower, upper, w)]
    expected = torch.autograd.grad(exact(*leaves), leaves, [g.double() for g in grad])
    for a, b in zip(made, expected):
        assert torch.allclose(a.double(), b, atol=1e-5)


@pytest.mark.parametrize(("batch", "inputs", "outputs"), SHAPES)
def test_topk(batch, inputs, outputs):
    for top in sorted({1, min(inputs, 4), min(inputs, 10)}):
        x, c, weight = draw(batch, inputs), draw(outputs, inputs), draw(outputs, top)
        grad = draw(batch, outputs)

        def exact(x, c, weight, top=top):
            return ((x[:, None] + c).abs().topk(top, -1).values * weight).sum(-1)

        y, index = sortnet.topk_forward(x, c, weight, True)
        assert error(y, exact(x.double(), c.double(), weight.double())) < 1e-5
        assert torch.equal(y, sortnet.topk_forward(x, c, weight)[0])
        made = sortnet.topk_backward(grad, x, c, weight, index)
        for a, b in zip(made, gradients(exact, (x, c, weight), grad)):
            assert error(a, b) < 1e-5


def test_topk_bounds():
    lower, c, weight = draw(5, 12), draw(7, 12), draw(7, 4).abs()
    upper = lower + 0.3 * draw(5, 12).abs()
    below, above = lower[:, None] + c, upper[:, None] + c
    sizes = torch.maximum(below, -above).clamp(min=0), torch.maximum(-below, above)
    found = []
    for largest, size in zip((False, True), sizes):
        y, index = sortnet.topk_bound_forward(lower, upper, c, weight, largest, True)
        values = size.topk(4, -1).values
        assert torch.allclose(y, (values * weight).sum(-1), atol=1e-5)
        assert torch.equal(size.gather(-1, index.long()), values)
        found.append(y)
    for part in torch.rand(5, 1, 1).to(DEVICE):
        inside = sortnet.topk_forward(lower + part * (upper - lower), c, weight)[0]
        assert (inside >= found[0] - 1e-5).all()
        assert (inside <= found[1] + 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_inputs_are_widened_first(dtype):
    x, w = draw(3, 7).to(dtype), draw(4, 7).to(dtype)
    assert torch.equal(
        linf.lp_forward(x, w, 8.0, None, None, 3), linf.lp_forward(x.float(), w.float(), 8.0, None, None, 3)
    )
    assert linf.linf_forward(x, w, None, None, 3)[0].dtype == torch.float32
    top = torch.ones(4, 2).to(DEVICE)
    assert torch.equal(sortnet.topk_forward(x, w, top)[0], sortnet.topk_forward(x.float(), w.float(), top)[0])


def test_empty_batch_and_strides():
    w, x = draw(4, 10)[:, ::2], draw(5, 3).t()
    assert linf.lp_forward(x[:0], w, 8.0, None, None, 32).shape == (0, 4)
    assert [
        t.shape for t in linf.lp_backward(x.new_zeros(0, 4), x[:0], w, x.new_zeros(0, 4), 8.0, None, None, 32)
    ] == [
        (0, 5),
        (4, 5),
    ]
    assert linf.linf_forward(x[:0], w, None, None, 32, True)[1].shape == (0, 4)
    assert torch.equal(
        linf.lp_forward(x, w, 8.0, None, None, 3),
        linf.lp_forward(x.contiguous(), w.contiguous(), 8.0, None, None, 3),
    )


def test_the_same_input_gives_the_same_bits():
    x, w, grad = draw(40, 30), draw(50, 30), draw(40, 50)
    y = linf.lp_forward(x, w, 8.0, None, None, 32)
    first = linf.lp_backward(grad, x, w, y, 8.0, None, None, 32)
    for a, b in zip(first, linf.lp_backward(grad, x, w, y, 8.0, None, None, 32)):
        assert torch.equal(a, b)


def test_power_steps():
    assert [linf.power_steps(p) for p in (1, 2, 3, 8, 12, 1024, 4096)] == [
        (0, False), (1, False), (0, True), (3, False), (2, True), (10, False), (12, False)
    ]  # fmt: skip
    assert {linf.power_steps(p) for p in (2.5, 5, 1000, 8192, 7.999)} == {(-1, False)}


@pytest.mark.parametrize(("dtype", "scaled"), [(torch.float32, True), (torch.bfloat16, False)])
@pytest.mark.parametrize(
    ("shape", "knots"),
    [
        ((1, 1, 1), 2),
        ((5, 3, 4), 2),
        ((70, 70, 1), 3),
        ((2, 3, 200), 21),
        ((1, 1, 5000), 4),
        ((3, 33, 3), 101),
        ((30, 2, 70), 130),
    ],
)
def test_splines(shape, knots, dtype, scaled):
    x, grad, values = 2 * draw(*shape), draw(*shape), draw(shape[1], knots)
    sides = grad.to(dtype), x.to(dtype), values, draw(shape[1]).exp() if scaled else None
    y = splines.forward(*sides[1:], 1.3)
    every = (True, True, scaled)
    made = splines.backward(*sides, 1.3, every)
    assert y.dtype == made[0].dtype == dtype
    wide = [t if t is None else t.double() for t in sides]
    expected = spline_reference.backward(*wide, 1.3, every)
    limit = 1e-5 if dtype == torch.float32 else 1e-2
    assert error(y, spline_reference.forward(*wide[1:], 1.3)) < limit
    assert error(made[0], expected[0]) < limit
    assert error(made[1], expected[1]) < 1e-5
    assert error(made[2], expected[2]) < 1e-5 if scaled else made[2] is None
    for number in range(2 + scaled):
        only = splines.backward(*sides, 1.3, [number == n for n in range(3)])
        assert torch.equal(only[number], made[number])
        assert [t is None for t in only] == [number != n for n in range(3)]


def test_splines_far_outside_and_not_finite():
    grid = torch.linspace(-1, 1, 21)
    values = torch.stack([grid, grid.relu()]).to(DEVICE)
    x = (
        torch.tensor([math.inf, -math.inf, math.nan, 1e30, 0.5])[:, None]
        .expand(-1, 2)
        .contiguous()
        .to(DEVICE)
    )
    y = splines.forward(x[..., None], values, None, 1.0)[..., 0]
    expected = torch.stack([x[:, 0], x[:, 1].relu()], 1)
    assert torch.allclose(y, expected, rtol=1e-5, equal_nan=True)
    scale = torch.tensor([0.5, 4.0]).to(DEVICE)
    assert torch.allclose(
        splines.forward(x[..., None], values, scale, 1.0)[..., 0], expected, rtol=1e-5, equal_nan=True
    )
    one = torch.ones(5, 2, 1).to(DEVICE)
    assert (
        splines.backward(one, x[..., None], values, scale, 1.0, (False, True, False))[1].isnan().any(1).all()
    )


def test_benchmark_sides_agree_with_float64():
    seen = set()
    for contest in gpu_bench.contests(DEVICE, [(3, 12, 4)], [(4, 5), (2, 3, 8, 8)]):
        expected = contest.exact() if contest.exact else None
        for name, call in ({"ours": contest.ours} | contest.peers).items():
            if not name.startswith("compiled"):
                made = call()
                made = made[0] if isinstance(made, tuple) else made
                seen.add(name)
                # a real power of 1000 multiplies the error of a logarithm by that much
                limit = 1e-3 if "backward" in contest.name or name == "pow" else 1e-6
                assert expected is None or error(made[: len(expected)], expected) < limit, contest.name
    assert seen == {"ours", "pow", "cdist", "broadcast", "topk", "dense", "relu", "gather"}


def test_ceiling_kernels_run():
    gpu_peer.load()
    sink = torch.zeros(2, gpu_peer.LANES).to(DEVICE)
    for kind in ("fma", "max", "power", "gradient"):
        sink.fill_(float("nan"))
        gpu_peer.rate_kernel[(2,)](
            sink, 0.5, 1e-6, 3, KIND=kind, STEPS=3, TILE=gpu_peer.TILE, LANES=gpu_peer.LANES
        )
        assert sink.isfinite().all()


@pytest.mark.parametrize("p", [8.0, math.inf])
def test_as_the_distance_operators_call_them(p):
    ins, outs = masks(7, 8, 6, 3, 5, 4)
    x, w, grad = draw(7, 5), draw(6, 8), draw(7, 4)
    ours, plain = linf_choice.OnGpu, linf_choice.Plain
    made, index = ours.lp_forward(x, w, p, ins, outs, 3, True)
    y, _ = plain.lp_forward(x, w, p, ins, outs, 3, True)
    assert torch.allclose(made, y, rtol=1e-6)
    last = p, ins, outs, 3, True, True
    for a, b in zip(
        ours.lp_backward(grad, x, w, made, index, *last), plain.lp_backward(grad, x, w, y, index, *last)
    ):
        assert torch.allclose(a, b, atol=1e-5)


def test_as_the_interval_and_sorted_operators_call_them():
    lower, w, grad = draw(4, 8), draw(6, 8), draw(4, 6)
    upper, weight = lower + 0.2, draw(6, 3).abs()
    low, high, *indices = linf_choice.OnGpu.bounds_forward(lower, upper, w, True)
    expected = linf_choice.Plain.bounds_forward(lower, upper, w, True)
    assert torch.equal(low, expected[0])
    assert torch.equal(high, expected[1])
    both = grad, -grad, lower, upper, w, low, high
    for a, b in zip(
        linf_choice.OnGpu.bounds_backward(*both, *indices), linf_choice.Plain.bounds_backward(*both)
    ):
        assert torch.allclose(a, b, atol=1e-5)
    for form in (sortnet_reference.ABS, sortnet_reference.LOW, sortnet_reference.HIGH):
        y, places = sortnet_choice.OnGpu.forward(lower, upper, -w, weight, form, True)
        expected, ranks = sortnet_reference.forward(lower, upper, -w, weight, form, True)
        assert torch.allclose(y, expected, atol=1e-5)
        assert places.dtype == ranks.dtype
        sides = grad, lower, upper, -w, weight
        needs = [True, form != sortnet_reference.ABS, True, True]
        ours = sortnet_choice.OnGpu.backward(*sides, places, form, needs)
        plain = sortnet_reference.backward(*sides, ranks, form, needs)
        for a, b in zip(ours, plain):
            assert (a is None) == (b is None)
            assert a is None or torch.allclose(a, b, atol=1e-5)
