"""The implementations of linear splines against plain torch, bit for bit, and the operators around them."""

import math
import os
import subprocess
import sys

import pytest
import torch

from lablib.ops import native
from lablib.ops.splines import choice, compiled, linear_spline, reference

SHAPES = [(1, 1, 1), (5, 3, 4), (3, 70, 1), (2, 3, 300), (1, 1, 9000), (40, 130, 3), (700, 130, 1)]
BOTH = (True, True)


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
    grad, x = (torch.randn(shape, dtype=dtype) for _ in range(2))
    return grad, 2 * x, torch.randn(shape[1], knots, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_same_bits_as_plain_torch(module, dtype):
    if module is compiled and dtype == torch.float64:
        pytest.skip("numba takes seconds to compile it; the code is that of float32")
    for shape in SHAPES:
        for knots in (2, 3, 20, 21):
            grad, x, values = drawn(shape, knots, dtype)
            x.flatten()[:5] = torch.tensor([math.nan, math.inf, -math.inf, 1e30, 0.0])[: x.numel()]
            values[:, 1:] = torch.where(torch.rand(shape[1], 1) < 0.5, values[:, :1], values[:, 1:])
            made, expected = (m.forward(x, values, 1.3) for m in (module, reference))
            assert torch.equal(made.nan_to_num(7.0), expected.nan_to_num(7.0))
            by_x, by_values = module.backward(grad, x, values, 1.3, BOTH)
            slow_x, slow_values = reference.backward(grad, x, values, 1.3, BOTH)
            assert torch.equal(by_x, slow_x)
            bound = 1e-6 if dtype == torch.float32 else 1e-14
            assert torch.allclose(
                by_values, slow_values, rtol=1e3 * bound, atol=bound * x.numel(), equal_nan=True
            )


def test_gradients_on_demand(module):
    grad, x, values = drawn((5, 3, 4), 6, torch.float32)
    both = module.backward(grad, x, values, 1.0, BOTH)
    for needs in ((True, False), (False, True)):
        for made, expected, need in zip(module.backward(grad, x, values, 1.0, needs), both, needs):
            assert made is None if not need else torch.equal(made, expected)


@pytest.mark.parametrize("shape", [(6000, 40, 1), (20, 3, 5000), (1, 1, 300000)])
def test_threads_change_nothing(module, shape):
    grad, x, values = drawn(shape, 21, torch.float32)
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made.append((module.forward(x, values, 1.0), *module.backward(grad, x, values, 1.0, BOTH)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*made))


def test_sums_are_as_good_as_in_float64(module):
    grad, x, values = drawn((1, 1, 200000), 5, torch.float32)
    made = module.backward(grad.abs(), x, values, 1.0, BOTH)[1]
    exact = reference.backward(grad.abs().double(), x.double(), values.double(), 1.0, BOTH)[1]
    assert ((made - exact).abs() <= 3e-7 * exact.abs().max()).all()


def test_more_channels_than_a_block_and_many_knots(module):
    x, values = torch.randn(2, 20000, requires_grad=True), torch.randn(20000, 3)
    y = linear_spline(x, values, 1.0)
    assert torch.equal(y[:, 19000:], linear_spline(x[:, 19000:], values[19000:], 1.0))
    many = torch.linspace(-1, 1, 2**16 + 1)[None].requires_grad_()
    y = linear_spline(x, many, 1.0)
    assert torch.allclose(y, x, atol=1e-6)
    assert torch.allclose(torch.autograd.grad(y.sum(), many)[0].sum(), torch.tensor(40000.0))


def test_operators_are_registered_whole():
    x, values = (t.requires_grad_() for t in drawn((4, 3, 5), 6, torch.float64)[1:])
    grad = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.lablib.linear_spline, (x, values, 1.0))
    torch.library.opcheck(
        torch.ops.lablib.linear_spline, (x.detach().bfloat16(), values.detach().float(), 1.0)
    )
    for needs in ([True, True], [True, False], [False, True]):
        torch.library.opcheck(torch.ops.lablib.linear_spline_backward, (grad, x, values, 1.0, needs))
    torch.library.opcheck(torch.ops.lablib.project_slopes, (values, 1.0, -1.0, 1.0))


REFUSED = [
    "to.linear_spline(torch.ones(2, 3), torch.ones(3, 5), 1.0)",
    "to.linear_spline(torch.ones(2, 4, 1), torch.ones(3, 5), 1.0)",
    "to.linear_spline(torch.ones(2, 3, 1), torch.ones(3, 1), 1.0)",
    "to.linear_spline(torch.ones(2, 3, 1), torch.ones(3, 5), math.nan)",
    "to.linear_spline(torch.ones(2, 3, 1), torch.ones(3, 5).double(), 1.0)",
    "to.linear_spline(torch.ones(2, 3, 1).long(), torch.ones(3, 5).long(), 1.0)",
    "to.linear_spline_backward(torch.ones(1), torch.ones(2, 3, 1), torch.ones(3, 5), 1.0, [True, True])",
    "to.linear_spline_backward(torch.ones(2, 3, 1).half(), torch.ones(2, 3, 1), torch.ones(3, 5), 1.0, [True] * 2)",
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
    for name in ("native", "reference"):
        y = IMPLEMENTATIONS[name]().forward(x[..., None], values, 0.1)
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
