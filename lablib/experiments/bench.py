"""Ratios of our code to its peers: both in one process, taking turns, median of many."""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable

from lablib.experiments.contest import Contest

HELP = "ratios of our code to its peers, side by side in one process"


def contests() -> list[Contest]:
    """Return all comparisons there are."""
    from lablib.experiments.kernel_bench import kernel_contests
    from lablib.experiments.private_speed_sides import private_contests
    from lablib.experiments.sortnet_bench import sortnet_contests
    from lablib.experiments.spline_bench import spline_contests

    return [
        *kernel_contests(),
        *sortnet_contests(),
        *spline_contests(),
        *private_contests(),
        Contest("GroupSort(2) forward+backward, (512, 1024)", "torch.sort of pairs", lambda: _sorting(2)),
        Contest(
            "GroupSort(8) forward+backward, (512, 1024)", "deel-torchlip GroupSort", lambda: _sorting_deel(8)
        ),
        Contest(
            "rows to the l1 ball by scaling, (1024, 784)", "float32 w / max(1, |w|_1), not sound", _scaling
        ),
        Contest(
            "rows to the l1 ball by projection, (1024, 784)", "bisection on theta, 40 steps", _projecting
        ),
        Contest(
            "orthonormal linear forward+backward, 256 x 256", "torch orthogonal, its default", _orthonormal
        ),
        Contest("l2 bound of a convolution, 16 x 16 x 3 x 3", "dense singular values on 6 x 6", _conv_bound),
        Contest("nearest pairs, 400 x 400 x 784", "the same in NumPy", _oracle),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lablib bench``."""
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="only comparisons with all these words in their name"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the GPU kernels, timed on the card"
    )
    parser.add_argument("--repeat", type=int, default=15, help="timed turns of each side (default 15)")
    parser.add_argument(
        "--threads",
        type=int,
        help="of torch and numba; default OMP_NUM_THREADS, else torch's choice",
    )


def main(args: argparse.Namespace) -> int:
    """Print one line per comparison: ratio of medians (above 1: ours is faster), share of the ceiling, medians."""
    if args.repeat < 1:
        raise ValueError(f"--repeat must be at least 1, got {args.repeat}")
    if args.device == "cuda":
        from lablib.experiments import gpu_bench

        return gpu_bench.run(args.words, args.repeat)
    chosen = [c for c in contests() if all(word.lower() in c.name.lower() for word in args.words)]
    if not chosen:
        raise ValueError(f"no comparison has the words {' '.join(args.words)}; run without words to see all")
    threads = _set_threads(args.threads)
    print(f"threads: {threads}; ratio = peer / ours, medians of {args.repeat} turns each")
    peak = _ceiling(threads) if any(c.instructions for c in chosen) else None
    for contest in chosen:
        try:
            ours, peer = contest.prepare()
        except ModuleNotFoundError as error:
            print(f"   skipped  {contest.name}: needs {error.name}")
            continue
        mine, theirs = take_turns(ours, peer, args.repeat)
        times = f"{1e3 * mine:.2f} ms | {contest.peer}: {1e3 * theirs:.2f} ms"
        share = f"{contest.instructions / mine / peak:4.0%}" if peak and contest.instructions else "   -"
        print(f"{theirs / mine:8.2f} x  {share}  {contest.name}: {times}", flush=True)
    return 0


def _ceiling(threads: int) -> float | None:
    """Say and return the vector instructions per second that these threads reach, None without C++ kernels."""
    from lablib.experiments.kernel_bench import vector_peak
    from lablib.ops import native

    if native.kernels() != "native":
        print(f"CPU kernels: {native.kernels()} ({native.choice()[1]}); no ceiling measured")
        return None
    peak = vector_peak(threads)
    print(f"CPU kernels: native; percent of {peak / 1e9:.1f}e9 vector instructions per second, measured now")
    return peak


def take_turns(ours: Callable[[], object], peer: Callable[[], object], repeat: int) -> tuple[float, float]:
    """Return the median seconds of each side; turns alternate, so that a busy machine disturbs both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    ours(), peer()  # first use compiles and fills caches
    for _ in range(repeat):
        for call, taken in zip((ours, peer), times):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def _set_threads(threads: int | None) -> int:
    import torch

    count = torch.get_num_threads() if threads is None else threads  # torch heeds OMP_NUM_THREADS
    if count < 1:
        raise ValueError(f"--threads must be at least 1, got {threads}")
    with contextlib.suppress(ModuleNotFoundError):
        import numba

        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(count)  # last: numba sets the OpenMP number, torch's, to its own when it starts
    return count


def _with_gradient(function: Callable, x) -> Callable[[], object]:
    import torch

    def call() -> object:
        y = function(x)
        return torch.autograd.grad(y, x, torch.ones_like(y))

    return call


def _sorting(size: int):
    import torch

    from lablib.ops.sorting import group_sort

    x = torch.randn(512, 1024, requires_grad=True)
    return (
        _with_gradient(lambda v: group_sort(v, size), x),
        _with_gradient(lambda v: v.unflatten(1, (-1, size)).sort(2).values.flatten(1), x),
    )


def _sorting_deel(size: int):
    import warnings

    import torch

    from lablib.ops.sorting import group_sort

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from deel.torchlip import GroupSort

    x = torch.randn(512, 1024, requires_grad=True)
    return _with_gradient(lambda v: group_sort(v, size), x), _with_gradient(GroupSort(size), x)


def _scaling():
    import torch

    from lablib.ops.projections import scale_groups

    w = torch.randn(1024, 784, requires_grad=True)
    return (
        _with_gradient(lambda v: scale_groups(v, 1), w),
        _with_gradient(lambda v: v / v.abs().sum(1, keepdim=True).clamp(min=1.0), w),
    )


def _projecting():
    import torch

    from lablib.ops.projections import project_rows_l1

    w = torch.randn(1024, 784)

    def bisection() -> object:
        size = w.abs()
        low, high = torch.zeros(len(w), 1), size.amax(1, keepdim=True)
        for _ in range(40):
            middle = (low + high) / 2
            outside = (size - middle).clamp(min=0).sum(1, keepdim=True) > 1
            low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
        return w.sign() * (size - high).clamp(min=0)

    return lambda: project_rows_l1(w), bisection


def _orthonormal():
    import torch
    from torch import nn

    from lablib.layers import OrthonormalLinear

    ours, peer = OrthonormalLinear(256, 256), torch.nn.utils.parametrizations.orthogonal(nn.Linear(256, 256))
    x = torch.randn(64, 256)
    return lambda: ours(x).sum().backward(), lambda: peer(x).sum().backward()


def _conv_bound():
    import torch

    from lablib.ops.conv_norms import bound_conv_spectral

    kernel = torch.randn(16, 16, 3, 3)

    def dense() -> object:
        basis = torch.eye(16 * 36).reshape(-1, 16, 6, 6)
        return torch.linalg.matrix_norm(torch.nn.functional.conv2d(basis, kernel, padding=1).flatten(1), 2)

    return lambda: bound_conv_spectral(kernel), dense


def _oracle():
    import numpy as np

    from lablib.theory.impossibility.oracle import nearest, weigh

    rng = np.random.default_rng(0)
    ones = np.ones(784, dtype=np.float32)
    a, b = (
        weigh(rng.integers(0, 256, (400, 784)).astype(np.float32), ones, np.arange(784)) for _ in range(2)
    )
    return lambda: nearest(a, b, 1e9, compiled=True), lambda: nearest(a, b, 1e9, compiled=False)
