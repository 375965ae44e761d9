"""Kernels that the GPU benchmark holds ours against: one real power per pair, and loops with no memory traffic.

The first three do what the public SortNet CUDA code does for real p: a running maximum per block of inputs with the
sum rescaled when it grows, ``__powf`` for every pair, and one sweep each for the gradients of x and of w.
"""

from __future__ import annotations  # tl is not there yet when the kernels are declared

import math

import torch
from torch import Tensor

from lablib.ops import gpu
from lablib.ops.linf_dist import triton_lp

tl = libdevice = repunit = None  # triton.language, its CUDA functions and our power, once loaded
TILE, LANES, BLOCK = 32, 64, 16


def load() -> None:
    """Make the kernels of this file ready.

    Raises:
        ModuleNotFoundError: without Triton.
    """
    triton_lp.load()
    globals()["repunit"] = triton_lp.repunit
    gpu.load(globals(), ("power", "forward_kernel", "input_kernel", "weight_kernel", "rate_kernel"))


def pow_forward(x: Tensor, w: Tensor, p: float) -> Tensor:
    """Return the l_p distances (B, O) of x (B, I) and w (O, I), float32."""
    load()
    y = x.new_empty((len(x), len(w)))
    forward_kernel[_grid(*y.shape)](
        x.t().contiguous(), w.t().contiguous(), y, *y.shape, x.shape[1], p,
        FAST=not gpu.interpreted(), TILE=TILE, LANES=LANES, BLOCK=BLOCK, num_warps=2, enable_fp_fusion=True,
    )  # fmt: skip
    return y


def pow_backward(grad: Tensor, x: Tensor, w: Tensor, y: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Return (dx, dw) for the gradient ``grad`` (B, O), by one sweep each."""
    load()
    dx, dw, inverse = torch.empty_like(x), torch.empty_like(w), 1 / y
    sizes = (*y.shape, x.shape[1], p)
    launch = {"FAST": not gpu.interpreted(), "TILE": TILE, "LANES": LANES}
    launch |= {"num_warps": 2, "enable_fp_fusion": True}
    turned = grad.t().contiguous(), inverse.t().contiguous()
    input_kernel[_grid(*x.shape)](x, w, *turned, dx, *sizes, **launch)
    weight_kernel[_grid(*w.shape)](x, w, grad, inverse, dw, *sizes, **launch)
    return dx, dw


def _grid(rows: int, columns: int) -> tuple[int, int]:
    return math.ceil(rows / TILE), math.ceil(columns / LANES)


def power(t, p, FAST: tl.constexpr):
    """t^p for t >= 0."""
    t = tl.maximum(t, 1e-37)
    if FAST:
        return libdevice.fast_powf(t, p)
    else:
        return tl.exp2(p * tl.log2(t))


def forward_kernel(
    x, w, y, batch, outputs, inputs, p,
    FAST: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """x (I, B), w (I, O), y (B, O): block by block of inputs, first the maximum, then the powers."""
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    xs = x + tl.minimum(row, batch - 1)[:, None]
    ws = w + tl.minimum(lane, outputs - 1)[None, :]
    most = tl.full([TILE, LANES], 1e-10, tl.float32)
    total = tl.zeros([TILE, LANES], tl.float32)
    for start in range(0, inputs, BLOCK):
        stop = tl.minimum(start + BLOCK, inputs)
        before = most
        for i in range(start, stop):
            most = tl.maximum(most, tl.abs(tl.load(xs + i * batch) - tl.load(ws + i * outputs)))
        total = total * power(before / most, p, FAST)
        inverse = 1.0 / most
        for i in range(start, stop):
            d = tl.abs(tl.load(xs + i * batch) - tl.load(ws + i * outputs))
            total += power(d * inverse, p, FAST)
    written = (row < batch)[:, None] & (lane < outputs)[None, :]
    tl.store(y + row[:, None] * outputs + lane[None, :], most * power(total, 1.0 / p, FAST), mask=written)


def input_kernel(
    x, w, grad, inverse, dx, batch, outputs, inputs, p,
    FAST: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """x and dx (B, I), w (O, I), grad and inverse = 1/y (O, B): one tile of rows and inputs, over all outputs."""
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    written = (row < batch)[:, None] & (lane < inputs)[None, :]
    at = row[:, None] * inputs + lane[None, :]
    xs = tl.load(x + at, mask=written, other=0.0)
    rows = tl.minimum(row, batch - 1)[:, None]
    ws = w + tl.minimum(lane, inputs - 1)[None, :]
    total = tl.zeros([TILE, LANES], tl.float32)
    for k in range(outputs):
        d = xs - tl.load(ws + k * inputs)
        size = power(tl.abs(d) * tl.load(inverse + k * batch + rows), p - 1, FAST)
        total += tl.load(grad + k * batch + rows) * tl.where(d >= 0, size, -size)
    tl.store(dx + at, total, mask=written)


def weight_kernel(
    x, w, grad, inverse, dw, batch, outputs, inputs, p,
    FAST: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """w and dw (O, I), x (B, I), grad and inverse = 1/y (B, O): one tile of outputs and inputs, over all rows."""
    out = tl.program_id(0) * TILE + tl.arange(0, TILE)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    written = (out < outputs)[:, None] & (lane < inputs)[None, :]
    at = out[:, None] * inputs + lane[None, :]
    ws = tl.load(w + at, mask=written, other=0.0)
    outs = tl.minimum(out, outputs - 1)[:, None]
    xs = x + tl.minimum(lane, inputs - 1)[None, :]
    total = tl.zeros([TILE, LANES], tl.float32)
    for b in range(batch):
        d = tl.load(xs + b * inputs) - ws
        size = power(tl.abs(d) * tl.load(inverse + b * outputs + outs), p - 1, FAST)
        total -= tl.load(grad + b * outputs + outs) * tl.where(d >= 0, size, -size)
    tl.store(dw + at, total, mask=written)


def rate_kernel(
    y, start, step, rounds, KIND: tl.constexpr, STEPS: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr
):
    """The arithmetic of TILE x LANES pairs, ``rounds`` times, on registers alone; y (programs, LANES).

    KIND: "fma" one multiply-add; "max" |x - w| and the maximum; "power" ((x - w) s)^(2^STEPS) added up; "gradient"
    ((x - w) s)^(2^STEPS - 1) times a slope, added up twice (once over the tile's rows).
    """
    row, lane = tl.arange(0, TILE), tl.arange(0, LANES)
    x = start + step * (row[:, None] * LANES + lane[None, :]).to(tl.float32)
    w = step + start * lane[None, :].to(tl.float32)
    total = x
    column = w
    for _ in range(rounds):
        w = w + step
        if KIND == "fma":
            total = total * x + w
        elif KIND == "max":
            total = tl.maximum(total, tl.abs(x - w))
        else:
            t = (x - w) * start
            if KIND == "power":
                for _step in tl.static_range(STEPS):
                    t = t * t
                total += t
            else:
                c = repunit(t, STEPS) * step
                total += c
                column += tl.sum(c, 0, keep_dims=True)
    at = tl.program_id(0) * LANES + lane
    tl.store(y + at[None, :], column + tl.sum(total, 0, keep_dims=True))
