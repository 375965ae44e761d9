"""The distance kernels against their peers, and against how many vector instructions the cores can do.

torch.cdist does not scale its sum: at p = 1024 all it returns is inf, so there it is no peer; the others are
broadcasting in blocks with the largest difference as scale, and torch.compile of whole powers.
"""

import functools
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lablib.experiments.contest import Contest

SHAPES = ((128, 784, 1024), (512, 784, 5120))  # (B, I, O)
BLOCK = 2**22  # differences that a peer holds at once
RADIUS = 0.1

Sides = tuple[Callable[[], object], Callable[[], object]]


def kernel_contests() -> list[Contest]:
    """Return the comparisons of the distance kernels."""
    found = []
    for shape in SHAPES:
        b, i, o = shape
        vectors = b * i * o / 16  # of 16 float32 differences each
        forward = functools.partial(_forward, shape)
        for p, instructions, peers in (
            (math.inf, 2, (_blocks, _compiled, _cdist)),  # subtract, larger size
            (8.0, 4, (_cdist, _blocks, _compiled)),  # subtract, two squares, multiply-add
            (1024.0, 14, (_blocks, _compiled)),  # subtract, larger size; subtract, scale, bound, nine squares
        ):
            for peer in peers:
                found.append(
                    Contest(
                        f"{_name(p)} forward, {shape}",
                        _said(peer),
                        functools.partial(forward, p, peer),
                        instructions * vectors,
                    )
                )
        for p, instructions in ((math.inf, None), (8.0, 12), (1024.0, None)):
            peer = _blocks if p == 1024.0 else _cdist
            found.append(
                Contest(
                    f"{_name(p)} forward+backward, {shape}",
                    _said(peer),
                    functools.partial(_gradients, shape, p, peer),
                    instructions and instructions * vectors,
                )
            )
        found.append(
            Contest(
                f"l_inf bounds over a box, {shape}",
                "broadcasting in blocks",
                functools.partial(_bounds, shape),
                8 * vectors,
            )
        )
    masked = "l_p of sub-batches, forward+backward, (512, 512, 512), 3/4 kept"
    found += [
        Contest(f"{masked}, p = {p:g}", "the same kernel without masks", functools.partial(_masked, p))
        for p in (8.0, 64.0, 1024.0)
    ]
    return [*found, Contest(f"l_p, p = 8, forward, numba, {SHAPES[0]}", "broadcasting in blocks", _numba)]


def vector_peak(threads: int) -> float:
    """Return measured vector instructions per second of ``threads`` threads together, the best of a few mixes.

    Raises:
        BuildError: where the C++ kernels are not to be had.
    """
    import ctypes

    from lablib.ops import native

    count = native.library("linf_dist").vector_peak
    count.argtypes, count.restype = [ctypes.c_int64, ctypes.c_int, ctypes.c_int], ctypes.c_double
    best = 0.0
    for fused in (4, 2, 0) * 4:  # of each four instructions, how many are multiply-adds
        start = time.perf_counter()
        done = count(10**6, threads, fused)
        best = max(best, done / (time.perf_counter() - start))
    return best


def _name(p: float) -> str:
    return "l_inf" if math.isinf(p) else f"l_p, p = {p:g},"


def _said(peer: Callable) -> str:
    return {
        _cdist: "torch.cdist",
        _blocks: "broadcasting in blocks",
        _compiled: "torch.compile of pow in blocks",
    }[peer]


def _data(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(n, shape[1], generator=generator) for n in (shape[0], shape[2]))


def _cdist(x: Tensor, weight: Tensor, p: float) -> Tensor:
    return torch.cdist(x, weight, p=p)


def _plain(x: Tensor, weight: Tensor, p: float) -> Tensor:
    size = (x[:, None] - weight).abs()
    most = size.amax(-1)
    return most if math.isinf(p) else most * ((size / most[..., None]) ** p).sum(-1) ** (1 / p)


def _blocks(x: Tensor, weight: Tensor, p: float, one: Callable = _plain) -> Tensor:
    rows = max(1, BLOCK // x.numel())
    return torch.cat([one(x, part, p) for part in weight.split(rows)], 1)


def _compiled(x: Tensor, weight: Tensor, p: float) -> Tensor:
    return _blocks(x, weight, p, _compile())


@functools.cache
def _compile() -> Callable:
    return torch.compile(_plain)


def _forward(shape: tuple[int, int, int], p: float, peer: Callable) -> Sides:
    from lablib.ops.linf_dist import lp_distance

    x, weight = _data(shape)
    return lambda: lp_distance(x, weight, p), lambda: peer(x, weight, p)


def _gradients(shape: tuple[int, int, int], p: float, peer: Callable) -> Sides:
    from lablib.ops.linf_dist import lp_distance

    x, weight = _data(shape)
    sides = (x.requires_grad_(), weight.requires_grad_())

    def ours() -> object:
        y = lp_distance(x, weight, p)
        return torch.autograd.grad(y, sides, torch.ones_like(y))

    def theirs() -> object:
        """Backward block by block, or the graph of broadcasting would hold (B, O, I)."""
        by_x, by_weight = torch.zeros_like(x), []
        rows = len(weight) if peer is _cdist else max(1, BLOCK // x.numel())
        for part in weight.split(rows):
            y = (_plain if peer is _blocks else peer)(x, part, p)
            one, two = torch.autograd.grad(y, (x, part), torch.ones_like(y))
            by_x += one
            by_weight.append(two)
        return by_x, torch.cat(by_weight)

    return ours, theirs


def _bounds(shape: tuple[int, int, int]) -> Sides:
    from lablib.ops.linf_dist import linf_distance_bounds

    x, weight = _data(shape)
    lower, upper = x - RADIUS, x + RADIUS
    rows = max(1, BLOCK // x.numel())

    def naive() -> object:
        made = []
        for part in weight.split(rows):
            below, above = lower[:, None] - part, part - upper[:, None]
            far = torch.maximum(-below, -above).amax(-1)
            made.append((torch.maximum(below, above).clamp(min=0).amax(-1), far))
        return [torch.cat(some, 1) for some in zip(*made)]

    return lambda: linf_distance_bounds(lower, upper, weight), naive


def _masked(p: float) -> Sides:
    from lablib.ops.linf_dist import lp_distance

    rows, kept, (x, weight) = 32, 384, _data((512, 512, 512))
    inputs, outputs = (
        torch.stack([torch.randperm(512)[:kept].sort().values for _ in range(len(x) // rows)])
        for _ in range(2)
    )
    part, whole = x[:, :kept].clone().requires_grad_(), x.requires_grad_()
    weight.requires_grad_()

    def call(a: Tensor, **masks: Tensor) -> object:
        y = lp_distance(a, weight, p, **masks)
        return torch.autograd.grad(y, (a, weight), torch.ones_like(y))

    return lambda: call(part, inputs=inputs, outputs=outputs), lambda: call(whole)


def _numba() -> Sides:
    import numba  # noqa: F401  (without it the comparison is left out)

    from lablib.ops.linf_dist import compiled

    x, weight = _data(SHAPES[0])
    return (
        lambda: compiled.lp_forward(x, weight, 8.0, None, None, 32, False),
        lambda: _blocks(x, weight, 8.0),
    )
