"""The SortNet neuron with K = 10 against torch.topk of the broadcast differences, block by block of outputs."""

from collections.abc import Callable

import torch
from torch import Tensor

from lablib.experiments.contest import Contest

SHAPES = ((128, 784, 1024), (512, 784, 5120))  # (B, I, O)
KEEP, TOP = 0.75, 10
BLOCK = 2**22  # differences that the peer holds at once
RADIUS = 0.1

Sides = tuple[Callable[[], object], Callable[[], object]]


def sortnet_contests() -> list[Contest]:
    """Return the comparisons of the SortNet kernels."""
    found = []
    for shape in SHAPES:
        found += [
            Contest(f"top-10 forward, {shape}", "topk in blocks", lambda s=shape: _forward(s)),
            Contest(f"top-10 bounds over a box, {shape}", "two topk in blocks", lambda s=shape: _bounds(s)),
            Contest(f"top-10 forward+backward, {shape}", "topk in blocks", lambda s=shape: _gradients(s)),
        ]
    return [*found, Contest(f"top-10 forward, numba, {SHAPES[0]}", "topk in blocks", _numba)]


def _data(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    from lablib.ops.sortnet import geometric_weights

    batch, inputs, outputs = shape
    generator = torch.Generator().manual_seed(0)
    x, center = (torch.randn(n, inputs, generator=generator) for n in (batch, outputs))
    return x, center, geometric_weights(KEEP, TOP)


def _blocks(x: Tensor, center: Tensor, made: Callable[[Tensor], Tensor]) -> Tensor:
    """Join what ``made`` returns for each block of x + b, (B, block, I)."""
    rows = max(1, BLOCK // x.numel())
    return torch.cat([made(x[:, None, :] + part) for part in center.split(rows)], 1)


def _sorted_sum(sizes: Tensor, weight: Tensor) -> Tensor:
    return sizes.topk(len(weight), dim=-1).values @ weight


def _forward(shape: tuple[int, int, int]) -> Sides:
    from lablib.ops.sortnet import sortnet

    x, center, weight = _data(shape)

    def ours() -> Tensor:
        return sortnet(x, center, weight)

    def peer() -> Tensor:
        return _blocks(x, center, lambda d: _sorted_sum(d.abs(), weight))

    return ours, peer


def _bounds(shape: tuple[int, int, int]) -> Sides:
    from lablib.ops.sortnet import sortnet_bounds

    x, center, weight = _data(shape)

    def far(d: Tensor) -> Tensor:
        return _sorted_sum(torch.maximum((d - RADIUS).abs(), (d + RADIUS).abs()), weight)

    def near(d: Tensor) -> Tensor:
        return _sorted_sum(torch.maximum(d - RADIUS, -(d + RADIUS)).clamp(min=0), weight)

    def ours() -> object:
        return sortnet_bounds(x - RADIUS, x + RADIUS, center, weight)

    def peer() -> object:
        return _blocks(x, center, near), _blocks(x, center, far)

    return ours, peer


def _gradients(shape: tuple[int, int, int]) -> Sides:
    from lablib.ops.sortnet import sortnet

    x, center, weight = _data(shape)
    sides = (x.requires_grad_(), center.requires_grad_())
    rows = max(1, BLOCK // x.numel())

    def ours() -> object:
        y = sortnet(x, center, weight)
        return torch.autograd.grad(y, sides, torch.ones_like(y))

    def peer() -> object:
        """Backward block by block, or the graph would hold (B, O, I)."""
        by_x, by_center = torch.zeros_like(x), []
        for part in center.split(rows):
            y = _sorted_sum((x[:, None, :] + part).abs(), weight)
            one, two = torch.autograd.grad(y, (x, part), torch.ones_like(y))
            by_x += one
            by_center.append(two)
        return by_x, torch.cat(by_center)

    return ours, peer


def _numba() -> Sides:
    import numba  # noqa: F401  (without it the comparison is left out)

    from lablib.ops.sortnet import compiled
    from lablib.ops.sortnet.reference import ABS

    x, center, weight = _data(SHAPES[0])
    spread = weight.expand(len(center), -1)
    return lambda: compiled.forward(x, x, center, spread, ABS, False), _forward(SHAPES[0])[1]
