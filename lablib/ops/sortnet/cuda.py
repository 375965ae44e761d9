"""The SortNet neuron on a GPU: what the dispatcher calls. Kernel: triton_topk.py; rules: :mod:`lablib.ops.gpu`.

The K largest live in registers, one set for each row and output, so K is at most ``TOP_MAX``. Results are float32.
"""

import math

import torch
from torch import Tensor

from lablib.ops.gpu import LANES, add_at, launch, pack
from lablib.ops.sortnet import triton_topk

TOP_MAX = 16
TILE = 4  # rows of one lane: K slots each
SIZE, LARGEST, SMALLEST = 0, 1, -1  # the kernel's SIDE


def topk_forward(
    x: Tensor, center: Tensor, weight: Tensor, want_index: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return sum_j w_kj |x + b_k|_(j), (B, O), and the inputs of the K largest, (B, O, K) int32, if wanted.

    x (B, I), center (O, I), weight (O, K), 1 <= K <= min(I, TOP_MAX).

    Raises:
        ValueError: for a larger K.
    """
    xs = pack(x, max(1, len(x)), TILE)
    return _run(SIZE, len(x), xs, xs, center, weight, want_index)


def topk_bound_forward(
    lower: Tensor, upper: Tensor, center: Tensor, weight: Tensor, largest: bool, want_index: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return sum_j w_kj v_(j) as in :func:`topk_forward`, v_i the largest (else the smallest) |x_i + b_ki| in a box.

    For w >= 0 that bounds the neuron over the box [lower, upper], (B, I) each, from above (else from below).

    Raises:
        ValueError: for K above TOP_MAX.
    """
    boxes = [pack(side, max(1, len(lower)), TILE) for side in (lower, upper)]
    return _run(LARGEST if largest else SMALLEST, len(lower), *boxes, center, weight, want_index)


def topk_backward(
    grad: Tensor, x: Tensor, center: Tensor, weight: Tensor, index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (dx (B, I), dcenter (O, I), dweight (O, K)) from grad (B, O) and the forward's index."""
    index = index.long()
    flat = index.flatten(1)
    d = x.float().gather(1, flat).view(index.shape) + _at(center, index)
    slope = grad.float()[..., None] * weight.float() * d.sign()
    return (
        add_at(slope.flatten(1), flat, x.shape[1]),
        _to_center(slope, index, center),
        (grad.float()[..., None] * d.abs()).sum(0),
    )


def _at(center: Tensor, index: Tensor) -> Tensor:
    """Return center[k, index[b, k, j]], (B, O, K)."""
    outputs = torch.arange(center.shape[0], device=center.device)[:, None]
    return center.float()[outputs, index]


def _to_center(slope: Tensor, index: Tensor, center: Tensor) -> Tensor:
    """Return z (O, I) with slope (B, O, K) added at [k, index[b, k, j]], in a fixed order."""
    spread = (t.transpose(0, 1).flatten(1) for t in (slope, index))
    return add_at(*spread, center.shape[1])


def _run(
    side: int, batch: int, first: Tensor, second: Tensor, center: Tensor, weight: Tensor, want_index: bool
) -> tuple[Tensor, Tensor | None]:
    outputs, inputs = center.shape
    top = weight.shape[1]
    if top > TOP_MAX:
        raise ValueError(f"the GPU kernel keeps at most {TOP_MAX} largest, got K = {top}; use the reference")
    triton_topk.load()
    y = first.new_empty((batch, outputs))
    index = y.new_empty((batch, outputs, top), dtype=torch.int32) if want_index else None
    if y.numel():
        launch(
            triton_topk.topk_kernel, (first.shape[0], math.ceil(outputs / LANES)), y.device,
            first, second, *(t.t().to(torch.float32).contiguous() for t in (center, weight)), y, index,
            batch, inputs, outputs, SIDE=side, TOP=top, TILE=TILE,
        )  # fmt: skip
    return y, index
