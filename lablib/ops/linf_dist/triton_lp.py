"""Triton kernels of the l_p distance, forward and backward.

p = 2^k or 3 2^k costs k (or k + 2) multiplications by repeated squaring; every other p a logarithm and an
exponential, which a GPU makes at an eighth of the rate. Differences are divided by (a stand-in for) the largest
first, so that no power overflows and only terms too small to matter underflow.
"""

from __future__ import annotations  # tl is not there yet when the kernels are declared

from lablib.ops import gpu
from lablib.ops.linf_dist import triton_near

tl = libdevice = None  # triton.language and its CUDA functions, once loaded
add_near_power = add_near_gradient = None  # triton_near's, once loaded


def load() -> None:
    """Make the kernels of this file ready.

    Raises:
        ModuleNotFoundError: without Triton.
    """
    helpers = ("difference", "real_power", "power", "repunit", "odd_power", "root", "largest", "sum_powers")
    triton_near.load()
    globals()["add_near_power"] = triton_near.add_near_power
    globals()["add_near_gradient"] = triton_near.add_near_gradient
    gpu.load(globals(), (*helpers, "sum_near_powers", "lp_kernel", "lp_backward_kernel"))


def difference(xs, weights, kept_in, i, all_outputs, TILE: tl.constexpr, KEPT_IN: tl.constexpr):
    """x_i - w_ki for a tile of rows and a row of neurons, (TILE, LANES)."""
    column = i
    if KEPT_IN:
        column = tl.load(kept_in + i)
    return tl.load(xs + i * TILE) - tl.load(weights + column * all_outputs)


def real_power(t, p, FAST: tl.constexpr):
    """t^p for t >= 0 and real p; FAST is the hardware's approximation (2^-22 in the logarithm), for devices only."""
    t = tl.maximum(t, 1e-37, propagate_nan=tl.PropagateNan.ALL)
    if FAST:
        return libdevice.fast_powf(t, p)
    else:
        return tl.exp2(p * tl.log2(t))


def power(t, p, STEPS: tl.constexpr, THREE: tl.constexpr, FAST: tl.constexpr):
    """|t|^p."""
    t = tl.abs(t)
    if STEPS < 0:
        t = real_power(t, p, FAST)
    else:
        if THREE:
            t = t * t * t
        for _ in tl.static_range(STEPS):
            t = t * t
    return t


def repunit(t, STEPS: tl.constexpr):
    """t^(2^STEPS - 1), 1 <= STEPS < 16, in STEPS - 1 + (about log2 STEPS) multiplications: 13 for t^1023, not 18.

    2^(2n) - 1 = (2^n - 1) 2^n + (2^n - 1): the number of ones doubles, following the binary digits of STEPS.
    """
    c = t
    for digit in tl.static_range(3, -1, -1):
        if STEPS >> digit > 1:
            half = c
            for _ in tl.static_range(STEPS >> (digit + 1)):
                c = c * c
            c = c * half
            if (STEPS >> digit) % 2 == 1:
                c = c * c * t
    return c


def odd_power(t, p, STEPS: tl.constexpr, THREE: tl.constexpr, FAST: tl.constexpr):
    """sign(t) |t|^(p-1), 0 at t = 0. Where p is even, p - 1 is odd and the sign comes along."""
    if STEPS > 0:
        c = t * t * repunit(t * t * t, STEPS) if THREE else repunit(t, STEPS)
    else:
        c = tl.where(t > 0, 1.0, tl.where(t < 0, -1.0, t))  # t itself at 0 and NaN
        if THREE:
            c = c * t * t
        elif STEPS < 0:
            c = c * real_power(tl.abs(t), p - 1, FAST)
    return c


def root(total, p, STEPS: tl.constexpr, THREE: tl.constexpr):
    """total^(1/p); square roots are exact to the last bit, unlike the hardware's logarithm."""
    if STEPS < 0:
        total = tl.exp2(tl.log2(total) / p)
    else:
        for _ in tl.static_range(STEPS):
            total = tl.sqrt_rn(total)
        if THREE:
            total = tl.exp2(tl.log2(total) * (1 / 3))
    return total


def largest(
    xs,
    weights,
    kept_in,
    inputs,
    all_outputs,
    STEP: tl.constexpr,
    TILE: tl.constexpr,
    LANES: tl.constexpr,
    KEPT_IN: tl.constexpr,
):
    """max |x_i - w_ki| over every STEP-th input."""
    most = tl.zeros([TILE, LANES], tl.float32)
    for i in range(0, inputs, STEP):
        d = difference(xs, weights, kept_in, i, all_outputs, TILE, KEPT_IN)
        most = tl.maximum(most, tl.abs(d), propagate_nan=tl.PropagateNan.ALL)
    return most


def sum_powers(
    xs, weights, kept_in, scale, inputs, all_outputs, p,
    STEPS: tl.constexpr, THREE: tl.constexpr, FAST: tl.constexpr,
    TILE: tl.constexpr, LANES: tl.constexpr, KEPT_IN: tl.constexpr,
):  # fmt: skip
    """sum_i |(x_i - w_ki) / scale|^p."""
    total = tl.zeros([TILE, LANES], tl.float32)
    inverse = tl.div_rn(tl.full([TILE, LANES], 1.0, tl.float32), tl.where(scale < 1e-37, 1e-37, scale))
    for i in range(inputs):
        d = difference(xs, weights, kept_in, i, all_outputs, TILE, KEPT_IN)
        total += power(d * inverse, p, STEPS, THREE, FAST)
    return total


def sum_near_powers(
    xs, weights, kept_in, scale, inputs, all_outputs, p, floor,
    FAST: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr, KEPT_IN: tl.constexpr,
):  # fmt: skip
    """sum_i |(x_i - w_ki) / scale|^p over the inputs near the largest."""
    total = tl.zeros([TILE, LANES], tl.float32)
    limit = tl.where(scale < 1e-37, 1e-37, scale) * floor
    for i in range(inputs):
        d = difference(xs, weights, kept_in, i, all_outputs, TILE, KEPT_IN)
        total = add_near_power(total, d, limit, p, floor, FAST)
    return total


def lp_kernel(
    x, weight, kept_in, kept_out, y, batch, inputs, outputs, all_outputs, rows, parts, p, floor,
    STEPS: tl.constexpr, THREE: tl.constexpr, NEAR: tl.constexpr, FAST: tl.constexpr,
    PROBE: tl.constexpr, ROOM: tl.constexpr,
    TILE: tl.constexpr, LANES: tl.constexpr, KEPT_IN: tl.constexpr, KEPT_OUT: tl.constexpr,
):  # fmt: skip
    """One tile of rows and LANES outputs: x (T, I', TILE), weight (I, O), y (B, O').

    With PROBE > 1 the sum is scaled by ROOM times the largest of a sample, ROOM^-p far above underflow; only where
    some sum overflows nevertheless (the true largest is much larger) the true one is looked for.
    """
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
    scale = ROOM * largest(xs, weights, kept_in, inputs, all_outputs, PROBE, TILE, LANES, KEPT_IN)
    if NEAR:
        total = sum_near_powers(
            xs, weights, kept_in, scale, inputs, all_outputs, p, floor, FAST, TILE, LANES, KEPT_IN
        )
    else:
        total = sum_powers(
            xs, weights, kept_in, scale, inputs, all_outputs, p, STEPS, THREE, FAST, TILE, LANES, KEPT_IN
        )
    if PROBE > 1:
        failed = tl.where(total < 3e38, 0, 1)  # infinite or NaN
        if tl.max(tl.max(failed, 1), 0) > 0:
            scale = largest(xs, weights, kept_in, inputs, all_outputs, 1, TILE, LANES, KEPT_IN)
            total = sum_powers(
                xs, weights, kept_in, scale, inputs, all_outputs, p, STEPS, THREE, FAST, TILE, LANES, KEPT_IN
            )
    row = sub * rows + local
    to = y + row.to(tl.int64)[:, None] * outputs + lane[None, :]
    written = ((local < rows) & (row < batch))[:, None] & (lane < outputs)[None, :]
    tl.store(to, scale * root(total, p, STEPS, THREE), mask=written)


def lp_backward_kernel(
    x, weight, slope, scale, kept_in, kept_out, dw, parts, all_inputs, inputs, outputs, each, p, floor,
    STEPS: tl.constexpr, THREE: tl.constexpr, NEAR: tl.constexpr, FAST: tl.constexpr, WANT_X: tl.constexpr,
    TILE: tl.constexpr, LANES: tl.constexpr, KEPT_IN: tl.constexpr, KEPT_OUT: tl.constexpr,
):  # fmt: skip
    """One tile of rows, LANES inputs, a range of outputs: x (I', TILE), slope and scale (O', TILE).

    scale is 1/y, with NEAR floor y (infinite where y = 0).

    Adds to dw (O, I) in place: no two programs of a launch share an element. parts (splits, TILE, I') gets this
    range's share of dx.
    """
    row = tl.arange(0, TILE)
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    there = lane < inputs
    safe = tl.minimum(lane, inputs - 1)
    column = safe
    if KEPT_IN:
        column = tl.load(kept_in + safe)
    xs = tl.load(x + row[:, None] + safe[None, :] * TILE)
    dx = tl.zeros([TILE, LANES], tl.float32)
    start = tl.program_id(1) * each
    for k in range(start, tl.minimum(start + each, outputs)):
        neuron = k
        if KEPT_OUT:
            neuron = tl.load(kept_out + k)
        at = neuron * all_inputs + column[None, :]
        d = xs - tl.load(weight + at)
        size = tl.load(scale + k * TILE + row[:, None])
        g = tl.load(slope + k * TILE + row[:, None])
        if NEAR:
            dx, c = add_near_gradient(dx, d, size, g, p - 1, floor, FAST)
        else:
            c = odd_power(d * size, p, STEPS, THREE, FAST) * g
            dx += c
        tl.store(dw + at, tl.load(dw + at) - tl.sum(c, 0, keep_dims=True), mask=there[None, :])
    if WANT_X:
        to = parts + (tl.program_id(1) * TILE + row).to(tl.int64)[:, None] * inputs + lane[None, :]
        tl.store(to, dx, mask=there[None, :])
