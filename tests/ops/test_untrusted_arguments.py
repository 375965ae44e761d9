"""What the kernels must survive: wild masks, shapes that lie, data changed behind autograd's back, no memory."""

import math
import os
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lablib.ops import native
from lablib.ops.linf_dist import lp_distance, reference
from lablib.ops.sortnet import reference as sorted_reference
from lablib.ops.sortnet import sortnet

HUGE = (2**40, 2**62, 10**9, 2**63 - 1)


def run(script, kernels="native"):
    """Run in a process of its own: without the fix it crashes."""
    environment = {**os.environ, "LABLIB_KERNELS": kernels, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])


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
def compiled():
    """The C++ kernels can be had here."""
    try:
        for name in native.LIBRARIES:
            native.library(name)
    except native.BuildError as error:
        pytest.skip(str(error))


def test_more_rows_than_the_batch(compiled):
    run(f"""
import math, torch
from lablib.ops.linf_dist import lp_distance
from lablib.ops.sortnet import sortnet
x, w = torch.randn(6, 4, requires_grad=True), torch.randn(5, 7, requires_grad=True)
kept, chosen = torch.tensor([[0, 2, 3, 6]]), torch.tensor([[1, 4]])
for p in (3, 8, math.inf):
    def made(rows):
        y = lp_distance(x, w, p, inputs=kept, outputs=chosen, rows=rows)
        return y, *torch.autograd.grad(y.sum(), (x, w))
    for rows in {HUGE}:
        assert all(torch.equal(a, b) for a, b in zip(made(rows), made(6))), (p, rows)
        ours, theirs = (sortnet(x, w, torch.ones(2), inputs=kept, rows=r) for r in (rows, 6))
        assert torch.equal(ours, theirs)
""")


def test_the_operator_clamps_rows_as_well(compiled):
    run(f"""
import torch, lablib.ops.linf_dist
x, w, kept = torch.randn(6, 4), torch.randn(5, 7), torch.tensor([[0, 2, 3, 6]])
for rows in {HUGE}:
    y = torch.ops.lablib.lp_distance(x, w, 8.0, kept, None, rows, False)[0]
    assert torch.equal(y, lablib.ops.linf_dist.lp_distance(x, w, 8, inputs=kept, rows=6))
""")


def test_no_memory_is_an_exception(compiled):
    run("""
import math, resource, torch
from lablib.ops.linf_dist import lp_distance, linf_distance_bounds
from lablib.ops.sortnet import sortnet
w = torch.randn(2, 2**21)
x = torch.randn(40, 2**21)
def calls(x, w):
    one = torch.ones(2, 1)
    y = torch.ones(len(x), 2)
    to = torch.ops.lablib
    for p in (8.0, math.inf):
        yield lambda: lp_distance(x, w, p)
        yield lambda: to.lp_distance_backward(y, x, w, y, y.new_empty(0).long(), p, None, None, 1, False, True)
    yield lambda: linf_distance_bounds(x, x, w)
    yield lambda: sortnet(x[:1], w, one)
for call in calls(torch.randn(3, 5), torch.randn(2, 5)):
    call()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, -1))
for n, call in enumerate(calls(x, w)):
    try:
        call()
    except MemoryError:
        continue
    raise AssertionError(n)
""")


def test_data_changed_between_forward_and_backward():
    pytest.importorskip("numba")
    run(
        """
import math, torch
from lablib.ops.linf_dist import linf_distance
for value in (0.0, math.nan):
    x, w = torch.randn(64, 50, requires_grad=True), torch.randn(64, 50, requires_grad=True)
    y = linf_distance(x, w)
    x.data.fill_(value)
    w.data.fill_(value)
    grad = torch.autograd.grad(y.sum(), (x, w))
    assert all(t.shape == (64, 50) for t in grad)
    if value == 0:
        assert all((t == 0).all() for t in grad)
""",
        "numba",
    )


OPERATORS = "import torch, lablib.ops.linf_dist, lablib.ops.sortnet\nto = torch.ops.lablib\n"
REFUSED = """
try:
    {call}
except ValueError:
    pass
else:
    raise AssertionError({call!r})
"""


CALLS = [
    "to.lp_distance(torch.ones(4, 2**18), torch.ones(4, 3), 8.0, None, None, 1, False)",
    "to.lp_distance(torch.ones(4, 3), torch.ones(4, 3).double(), 8.0, None, None, 1, False)",
    "to.lp_distance(torch.ones(4, 3).long(), torch.ones(4, 3).long(), 8.0, None, None, 1, False)",
    "to.lp_distance(torch.ones(4, 3), torch.ones(4, 3), 8.0, torch.tensor([[0, 1, 2]]), None, 0, False)",
    "to.lp_distance(torch.ones(4, 3), torch.ones(4, 3), 8.0, torch.tensor([[0, 1, 2]]), None, 1, False)",
    "to.lp_distance_backward(torch.ones(1, 1), torch.ones(4, 3), torch.ones(4, 3), torch.ones(4, 4), "
    "torch.empty(0).long(), 8.0, None, None, 1, True, True)",
    "to.linf_distance_bounds(torch.ones(4, 3), torch.ones(2, 3), torch.ones(4, 3), False)",
    "to.linf_distance_bounds_backward(*[torch.ones(4, 4)] * 2, *[torch.ones(4, 3)] * 3, "
    "*[torch.ones(1, 1)] * 2, *[torch.empty(0).long()] * 2)",
    "to.sortnet(torch.ones(4, 2**18), None, torch.ones(4, 3), torch.ones(4, 2), 0, False)",
    "to.sortnet(torch.ones(4, 3), None, torch.ones(4, 3), torch.ones(4, 4), 0, False)",
    "to.sortnet(torch.ones(4, 3), None, torch.ones(4, 3).double(), torch.ones(4, 2), 0, False)",
    "to.sortnet(torch.ones(4, 3), None, torch.ones(4, 3), torch.ones(4, 2), 7, False)",
    *(
        f"to.sortnet_backward(torch.ones(4, 4), torch.ones(4, 3), None, torch.ones(4, 3), torch.ones(4, 2), "
        f"torch.full({shape}, {place}, dtype=torch.int32), 0, [True] * 4)"
        for shape, place in (((4, 4, 2), 2**30), ((4, 4, 2), -1), ((1, 1, 2), 0))
    ),
]


def test_operators_check_their_arguments(compiled):
    run(OPERATORS + "".join(REFUSED.format(call=call) for call in CALLS))


X, W = torch.ones(4, 2), torch.ones(2, 3)


@pytest.mark.parametrize("wrong", [[[0, 3], [1, 2]], [[2, 0], [1, 2]], [[0, 0], [1, 2]], [[-1, 0], [1, 2]]])
def test_bad_masks_are_refused_by_all(kernels, wrong):
    wrong = torch.tensor(wrong)
    for call in (
        lambda: lp_distance(X, W, 6, inputs=wrong, rows=2),
        lambda: lp_distance(X, W.t(), math.inf, outputs=wrong, rows=2),
        lambda: sortnet(X, W, torch.ones(1), inputs=wrong, rows=2),
        lambda: sortnet(X, W.t(), torch.ones(1), outputs=wrong, rows=2),
    ):
        with pytest.raises(ValueError, match="must rise"):
            call()


@pytest.mark.parametrize("p", [3, 6, 12])
def test_powers_three_times_a_power_of_two(compiled, monkeypatch, p):
    """No logarithm is taken: it would cost up to 3e-6."""
    monkeypatch.setenv("LABLIB_KERNELS", "native")
    x, w = torch.randn(40, 300), torch.randn(50, 300)
    for scale in (1.0, 1e-6, 1e6):
        made, exact = lp_distance(x * scale, w * scale, p), lp_distance(x.double(), w.double(), p) * scale
        assert ((made - exact).abs() <= 5e-7 * exact).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fake_index_is_what_a_gpu_returns(monkeypatch, dtype):
    """float64 has no kernel there: the plain form keeps no index."""
    from lablib.ops import gpu

    monkeypatch.setattr(gpu, "usable", lambda *tensors: all(t.dtype == torch.float32 for t in tensors))
    with FakeTensorMode():
        x, w = (torch.empty(n, 5, dtype=dtype, device="cuda") for n in (4, 3))
        index = torch.ops.lablib.lp_distance(x, w, math.inf, None, None, 1, True)[1]
        both = torch.ops.lablib.linf_distance_bounds(x, x, w, True)[2:]
    for made in (index, *both):
        assert tuple(made.shape) == ((4, 3) if dtype == torch.float32 else (0,))


@pytest.mark.parametrize("where", [reference, sorted_reference])
def test_plain_gradients_have_one_order_on_a_gpu(monkeypatch, where):
    """scatter_add_ adds in any order there."""
    monkeypatch.setattr(where, "add_at", lambda values, index, size: "ordered")

    class OnGpu(torch.Tensor):
        is_cuda = True

    values, index = torch.ones(2, 3).as_subclass(OnGpu), torch.zeros(2, 3, dtype=torch.int64)
    made = where._spread(values, index, 4) if where is reference else where._add_at(values, index, values)
    assert made == "ordered"
