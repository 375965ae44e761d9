"""Triton kernels of the l_inf distance and of its interval form; ties go to the first input, NaN stays NaN."""

from __future__ import annotations  # tl is not there yet when the kernels are declared

from lablib.ops import gpu
from lablib.ops.linf_dist import triton_lp

tl = None  # triton.language, once loaded
difference = None  # triton_lp's kernel function, once loaded


def load() -> None:
    """Make the kernels of this file ready.

    Raises:
        ModuleNotFoundError: without Triton.
    """
    triton_lp.load()
    globals()["difference"] = triton_lp.difference
    gpu.load(globals(), ("update", "linf_kernel", "linf_bounds_kernel"))


def update(most, index, size, i, WANT_INDEX: tl.constexpr):
    """The larger of ``most`` and ``size``, and its input: the earlier one of equals."""
    if WANT_INDEX:
        index = tl.where(size > most, i, index)
    return tl.maximum(most, size, propagate_nan=tl.PropagateNan.ALL), index


def linf_kernel(
    x, weight, kept_in, kept_out, y, index, batch, inputs, outputs, all_outputs, rows, parts,
    TILE: tl.constexpr, LANES: tl.constexpr, KEPT_IN: tl.constexpr, KEPT_OUT: tl.constexpr,
):  # fmt: skip
    """One tile of rows and LANES outputs: x (T, I', TILE), weight (I, O), y and index (B, O')."""
    sub = tl.program_id(0) // parts
    local = tl.program_id(0) % parts * TILE + tl.arange(0, TILE)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    neuron = tl.minimum(lane, outputs - 1)
    if KEPT_OUT:
        neuron = tl.load(kept_out + sub * outputs + neuron)
    if KEPT_IN:
        kept_in += sub * inputs
    xs = x + tl.program_id(0).to(tl.int64) * inputs * TILE + tl.arange(0, TILE)[:, None]
    weights = weight + neuron[None, :]
    most = tl.zeros([TILE, LANES], tl.float32)
    winner = tl.zeros([TILE, LANES], tl.int32)
    for i in range(inputs):
        d = difference(xs, weights, kept_in, i, all_outputs, TILE, KEPT_IN)
        most, winner = update(most, winner, tl.abs(d), i, index is not None)
    row = sub * rows + local
    at = row.to(tl.int64)[:, None] * outputs + lane[None, :]
    written = ((local < rows) & (row < batch))[:, None] & (lane < outputs)[None, :]
    tl.store(y + at, most, mask=written)
    if index is not None:
        tl.store(index + at, winner, mask=written)


def linf_bounds_kernel(
    lower, upper, weight, low, high, low_index, high_index, batch, inputs, outputs, all_outputs, rows, parts,
    TILE: tl.constexpr, LANES: tl.constexpr, KEPT_IN: tl.constexpr, KEPT_OUT: tl.constexpr,
):  # fmt: skip
    """One tile of boxes and LANES outputs: lower and upper (T, I, TILE), weight (I, O), the rest (B, O)."""
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    offset = tl.program_id(0).to(tl.int64) * inputs * TILE + tl.arange(0, TILE)[:, None]
    weights = weight + tl.minimum(lane, outputs - 1)[None, :]
    least = tl.zeros([TILE, LANES], tl.float32)
    most = tl.zeros([TILE, LANES], tl.float32)
    least_at = tl.zeros([TILE, LANES], tl.int32)
    most_at = tl.zeros([TILE, LANES], tl.int32)
    for i in range(inputs):
        w = tl.load(weights + i * all_outputs)
        below = w - tl.load(lower + offset + i * TILE)
        above = tl.load(upper + offset + i * TILE) - w
        far = tl.maximum(below, above, propagate_nan=tl.PropagateNan.ALL)
        near = tl.maximum(-below, -above, propagate_nan=tl.PropagateNan.ALL)
        most, most_at = update(most, most_at, far, i, high_index is not None)
        least, least_at = update(least, least_at, near, i, low_index is not None)
    at = row.to(tl.int64)[:, None] * outputs + lane[None, :]
    written = (row < batch)[:, None] & (lane < outputs)[None, :]
    tl.store(low + at, least, mask=written)
    tl.store(high + at, most, mask=written)
    if low_index is not None:
        tl.store(low_index + at, least_at, mask=written)
    if high_index is not None:
        tl.store(high_index + at, most_at, mask=written)
