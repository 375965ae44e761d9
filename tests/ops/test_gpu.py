"""The distance and SortNet operators on a CUDA device: against the CPU, under compile and autocast, bit for bit."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NAMES = (
    "lp 8",
    "lp 100.5",
    "lp 1024",
    "lp inf",
    "linf",
    "linf bounds",
    "sortnet",
    "sortnet bounds",
    "masked",
    "spline",
    "spline of images",
    "scaled spline",
)


def operator(name):
    """A public function of (x, weight), one tensor out."""
    from lablib.ops.linf_dist import linf_distance, linf_distance_bounds, lp_distance
    from lablib.ops.sortnet import geometric_weights, sortnet, sortnet_bounds
    from lablib.ops.splines import linear_spline

    def top(x):
        return geometric_weights(0.7, 5).to(x.device, x.dtype)

    def masked(x, w):
        draw = torch.Generator().manual_seed(0)
        subs = math.ceil(x.shape[0] / 32)
        ins = torch.stack(
            [torch.randperm(w.shape[1], generator=draw)[:50].sort().values for _ in range(subs)]
        )
        outs = torch.stack(
            [torch.randperm(w.shape[0], generator=draw)[:60].sort().values for _ in range(subs)]
        )
        ins, outs = ins.to(x.device), outs.to(x.device)
        return lp_distance(x[:, :50].contiguous(), w, 8.0, inputs=ins, outputs=outs)

    if name.startswith("lp "):
        return lambda x, w: lp_distance(x, w, float(name[3:]))
    return {
        "linf": linf_distance,
        "linf bounds": lambda x, w: torch.cat(linf_distance_bounds(x - 0.1, x + 0.1, w)),
        "sortnet": lambda x, w: sortnet(x, -w, top(x)),
        "sortnet bounds": lambda x, w: torch.cat(sortnet_bounds(x - 0.1, x + 0.1, -w, top(x))),
        "masked": masked,
        "spline": lambda x, w: linear_spline(x, w[:21].t(), 2.0),
        "scaled spline": lambda x, w: linear_spline(x, w[:21].t(), 2.0, scale=w[21].exp()),
        "spline of images": lambda x, w: linear_spline(x[None], w[:77], 2.0),
    }[name]


def draw(dtype=torch.float32):
    return torch.randn(77, 131, dtype=dtype), torch.randn(93, 131, dtype=dtype)


def gradients(function, x, w):
    leaves = [t.detach().clone().requires_grad_() for t in (x, w)]
    y = function(*leaves)
    slope = torch.linspace(-1, 1, y.numel(), device=y.device, dtype=y.dtype).view_as(y)
    return y.detach(), *torch.autograd.grad(y, leaves, slope)


def test_kernels_against_float64():
    """The same checks as in the interpreter, in a process where Triton compiles."""
    environment = {n: v for n, v in os.environ.items() if n != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT)}
    checks = [sys.executable, "-m", "pytest", "-q", "--no-header", "tests/ops/triton_checks.py"]
    done = subprocess.run(checks, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_as_on_the_cpu(name, dtype):
    x, w = draw(dtype)
    expected = gradients(operator(name), x.double(), w.double())
    made = gradients(operator(name), x.cuda(), w.cuda())
    limit = 1e-10 if dtype == torch.float64 else 5e-4 if "lp 1" in name else 2e-5
    for a, b in zip(made, expected):
        assert a.is_cuda
        assert a.dtype == dtype
        assert float((a.cpu().double() - b).norm() / b.norm()) < limit


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_again_and_under_compile(name):
    x, w = (t.cuda() for t in draw())
    first = gradients(operator(name), x, w)
    again = gradients(operator(name), x, w)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    if name != "masked":  # its generator lives outside the graph
        compiled = gradients(torch.compile(operator(name)), x, w)
        assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-4) for a, b in zip(first, compiled))


@pytest.mark.parametrize("name", NAMES)
def test_autocast_and_half_inputs_are_summed_in_float32(name):
    x, w = (t.cuda() for t in draw())
    expected = operator(name)(x.bfloat16().float(), w.bfloat16().float())
    made = operator(name)(x.bfloat16(), w.bfloat16()).float()
    assert float((made - expected).norm() / expected.norm()) < 4e-3  # the result's own rounding
    with torch.autocast("cuda", torch.bfloat16):
        under = operator(name)(x, w).float()
    assert float((under - operator(name)(x, w)).norm() / under.norm()) < 1e-2


def test_operators_pass_opcheck():
    from lablib.ops import linf_dist, sortnet

    assert linf_dist
    assert sortnet
    x, w = (t.cuda().requires_grad_() for t in draw())
    weight = torch.rand(93, 3).cuda().requires_grad_()
    torch.library.opcheck(torch.ops.lablib.sortnet.default, (x, None, -w.detach(), weight, 0, True))


def test_memory_stays_far_below_all_pairs():
    x, w = torch.randn(256, 2048).cuda(), torch.randn(2048, 2048).cuda()
    for name in ("lp 8", "lp 1024", "linf", "sortnet"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        gradients(operator(name), x, w)
        assert torch.cuda.max_memory_allocated() - before < 4 * x.shape[0] * w.numel() / 8


def test_every_device_is_used_for_its_own_tensors():
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    x, w = draw()
    for name in NAMES:
        assert operator(name)(x.to(last), w.to(last)).device == last
