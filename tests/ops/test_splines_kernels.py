"""The implementations of linear splines against plain torch, bit for bit, and the operators around them."""

import itertools
import math
import os
import subprocess
import sys

import pytest
import torch

from lablib.ops import native
from lablib.ops.splines import choice, compiled, linear_spline, reference

SHAPES = [(1, 1, 1), (5, 3, 4), (3, 70, 1), (2, 3, 300), (1, 1, 9000), (40, 130, 3), (700, 130, 1)]
ALL = (True, True, True)


def _compiled_code():
    """The C++ kernels, if they can be built here."""
    try:
        native.library("spline")
    except native.BuildError as error:
        pytest.skip(str(error))
    from lablib.ops.splines import cpu

    return cpu


def _by_numba():
    pytest.importorskip("numba")
    return compiled


def run(script):
    """Run in a process of its own, with the kernels that are chosen here."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


IMPLEMENTATIONS = {"native": _compiled_code, "numba": _by_numba, "reference": lambda: reference}


@pytest.fixture(params=IMPLEMENTATIONS)
def module(request, monkeypatch):
    """Each implementation in turn, which the public functions then use."""
    made = IMPLEMENTATIONS[request.param]()
    monkeypatch.setattr(choice, "_on_cpu", lambda kernels: made)
    return made


def drawn(shape, knots, dtype):
    """Cotangent, inputs, values and scales."""
    grad, x = (torch.randn(shape, dtype=dtype) for _ in range(2))
    return grad, 2 * x, torch.randn(shape[1], knots, dtype=dtype), torch.randn(shape[1], dtype=dtype).exp()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_same_bits_as_plain_torch(module, dtype):
    if module is compiled and dtype == torch.float64:
        pytest.skip("numba takes seconds to compile it; the code is that of float32")
    for shape in SHAPES:
        for knots in (2, 3, 20, 21):
            grad, x, values, scale = drawn(shape, knots, dtype)
            x.flatten()[:5] = torch.tensor([math.nan, math.inf, -math.inf, 1e30, 0.0])[: x.numel()]
            values[:, 1:] = torch.where(torch.rand(shape[1], 1) < 0.5, values[:, :1], values[:, 1:])
            for alpha in (scale, None):
                compare(module, grad, x, values, alpha)


def compare(module, grad, x, values, scale):
    made, expected = (m.forward(x, values, scale, 1.3) for m in (module, reference))
    assert torch.equal(made.nan_to_num(7.0), expected.nan_to_num(7.0))
    needs = (True, True, scale is not None)
    by_x, *sums = module.backward(grad, x, values, scale, 1.3, needs)
    slow_x, *slow_sums = reference.backward(grad, x, values, scale, 1.3, needs)
    assert torch.equal(by_x, slow_x)
    bound = 1e-6 if x.dtype == torch.float32 else 1e-14
    for ours, slow in zip(sums, slow_sums[: sum(needs) - 1]):
        assert torch.allclose(ours, slow, rtol=1e3 * bound, atol=bound * x.numel(), equal_nan=True)


def test_a_scale_of_one_changes_no_bit(module):
    grad, x, values, scale = drawn((5, 3, 70), 6, torch.float32)
    one = torch.ones_like(scale)
    assert torch.equal(module.forward(x, values, one, 1.0), module.forward(x, values, None, 1.0))
    made = (module.backward(grad, x, values, s, 1.0, (True, True, False)) for s in (one, None))
    assert all(torch.equal(a, b) for a, b in zip(*(two[:2] for two in made)))


def test_gradients_on_demand(module):
    sides = drawn((5, 3, 4), 6, torch.float32)
    every = module.backward(*sides, 1.0, ALL)
    for needs in itertools.product((True, False), repeat=3):
        for made, expected, need in zip(module.backward(*sides, 1.0, needs), every, needs):
            assert made is None if not need else torch.equal(made, expected)


@pytest.mark.parametrize("shape", [(6000, 40, 1), (20, 3, 5000), (1, 1, 300000)])
def test_threads_change_nothing(module, shape):
    grad, *sides = drawn(shape, 21, torch.float32)
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made.append((module.forward(*sides, 1.0), *module.backward(grad, *sides, 1.0, ALL)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*made))


def test_sums_are_as_good_as_in_float64(module):
    grad, x, values, scale = drawn((1, 1, 200000), 5, torch.float32)
    sides = grad.abs(), x, values, scale.fill_(0.5)  # x is scaled without rounding
    made = module.backward(*sides, 1.0, ALL)[1:]
    for sums, exact in zip(made, reference.backward(*(t.double() for t in sides), 1.0, ALL)[1:]):
        assert ((sums - exact).abs() <= 3e-7 * exact.abs().max()).all()


def test_more_channels_than_a_block_and_many_knots(module):
    x, values = torch.randn(2, 20000, requires_grad=True), torch.randn(20000, 3)
    y = linear_spline(x, values, 1.0)
    assert torch.equal(y[:, 19000:], linear_spline(x[:, 19000:], values[19000:], 1.0))
    many = torch.linspace(-1, 1, 2**16 + 1)[None].requires_grad_()
    y = linear_spline(x, many, 1.0)
    assert torch.allclose(y, x, atol=1e-6)
    assert float(torch.autograd.grad(y.sum(), many)[0].double().sum()) == pytest.approx(40000.0, rel=1e-5)


def test_operators_are_registered_whole():
    grad, x, values, scale = (t.requires_grad_() for t in drawn((4, 3, 5), 6, torch.float64))
    half = x.detach().bfloat16(), values.detach().float()
    for sides in ((x, values, scale), (x, values, None), (*half, scale.detach().float()), (*half, None)):
        torch.library.opcheck(torch.ops.lablib.linear_spline, (*sides, 1.0))
    for needs in itertools.product((True, False), repeat=3):
        for alpha in (scale,) if needs[2] else (scale, None):
            if any(needs):
                sides = (grad, x, values, alpha, 1.0, list(needs))
                torch.library.opcheck(torch.ops.lablib.linear_spline_backward, sides)
    torch.library.opcheck(torch.ops.lablib.project_slopes, (values, 1.0, -1.0, 1.0))


REFUSED = [
    "to.linear_spline(torch.ones(2, 3), torch.ones(3, 5), None, 1.0)",
    "to.linear_spline(torch.ones(2, 4, 1), torch.ones(3, 5), None, 1.0)",
    "to.linear_spline(torch.ones(2, 3, 1), torch.ones(3, 1), None, 1.0)",
    "to.linear_spline(torch.ones(2, 3, 1), torch.ones(3, 5), None, math.nan)",
    "to.linear_spline(torch.ones(2, 3, 1), torch.ones(3, 5).double(), None, 1.0)",
    "to.linear_spline(torch.ones(2, 3, 1).long(), torch.ones(3, 5).long(), None, 1.0)",
    "to.linear_spline(torch.ones(2, 3, 1), torch.ones(3, 5), torch.ones(1), 1.0)",
    "to.linear_spline(torch.ones(2, 3, 1), torch.ones(3, 5), torch.ones(3, 1), 1.0)",
    "to.linear_spline(torch.ones(2, 3, 1), torch.ones(3, 5), torch.ones(3).double(), 1.0)",
    "to.linear_spline_backward(torch.ones(1), torch.ones(2, 3, 1), torch.ones(3, 5), None, 1.0, 3 * [True])",
    "to.linear_spline_backward(*2 * [torch.ones(2, 3, 1)], torch.ones(3, 5), None, 1.0, 3 * [True])",
    "x = torch.ones(2, 3, 1); to.linear_spline_backward(x.half(), x, torch.ones(3, 5), None, 1.0, 3 * [False])",
    "to.project_slopes(torch.ones(3), 1.0, -1.0, 1.0)",
    "to.project_slopes(torch.ones(3, 1), 1.0, -1.0, 1.0)",
]


def test_operators_check_their_arguments():
    """In a process of its own: without the checks they read what is not theirs."""
    attempt = "try:\n    {0}\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError({0!r})\n"
    calls = "".join(attempt.format(call) for call in REFUSED)
    run("import math, torch, lablib.ops.splines\nto = torch.ops.lablib\n" + calls)


def test_wild_numbers_never_leave_the_table():
    """Bits of every kind, also NaN with a sign and a payload, in a table at the end of its memory."""
    bits = torch.randint(-(2**31), 2**31 - 1, (4096, 64), dtype=torch.int32)
    x = bits.view(torch.float32)
    values = torch.zeros(64, 21)
    for name, scale in itertools.product(("native", "reference"), (None, torch.full((64,), 1.5))):
        y = IMPLEMENTATIONS[name]().forward(x[..., None], values, scale, 0.1)
        assert torch.equal(y[..., 0].isnan(), x.isnan())
        assert not y.nan_to_num(0.0).any()


def test_no_memory_is_an_exception(monkeypatch):
    _compiled_code()
    monkeypatch.setenv("LABLIB_KERNELS", "native")
    script = """
import resource, torch
from lablib.ops.splines import linear_spline
x, values = torch.randn(3, 4, requires_grad=True), torch.randn(4, 5, requires_grad=True)
torch.autograd.grad(linear_spline(x, values, 1.0).sum(), (x, values))
x, values = torch.randn(3, 1, requires_grad=True), torch.randn(1, 2**23, requires_grad=True)
y = linear_spline(x, values, 1.0)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, -1))
try:
    torch.autograd.grad(y.sum(), (x, values))
except MemoryError:
    pass
else:
    raise AssertionError
"""
    run(script)


def test_more_knots_than_float32_counts():
    knots = 2**24 + 5  # float32 rounds knots - 2 up
    values = torch.zeros(1, knots)
    values[0, -1] = 1.0
    assert choice.implementation(torch.zeros(1, 1, 1), values) is reference
    made = linear_spline(torch.tensor([1e9, -1e9, math.nan]), values, 1.0)
    assert made[0] > 1e15
    assert made[1] == 0.0
    assert made[2].isnan()
