"""Triton kernels of linear splines: values, and both gradients in one sweep.

The gradient of the coefficients is a histogram. Lanes adding to shared places would take turns in any order; here
each adds g max(0, 1 - |p - k|), p = (x + R) / T, to sums of its own for all knots k, three instructions each. What
numbers beyond the outer knots have more or less comes at the end, to the two outermost knots on either side.
"""

from __future__ import annotations  # tl is not there yet when the kernels are declared

from lablib.ops import gpu

tl = None  # triton.language, once loaded


def load() -> None:
    """Make the kernels of this file ready.

    Raises:
        ModuleNotFoundError: without Triton.
    """
    gpu.load(globals(), ("clip", "spline_kernel", "spline_backward_kernel"))


def clip(p, last):
    """p within [0, last], NaN as 0."""
    return tl.minimum(tl.where(p > 0.0, p, 0.0), last)


def spline_kernel(
    x, values, y, numbers, channels, inner, knots, inverse, spacing, reach,
    TILE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """TILE x LANES elements of y (N, C, M) = S(x), values (C, K); numbers = N C M."""
    lane = tl.arange(0, TILE)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    at = tl.program_id(0).to(tl.int64) * (TILE * LANES) + lane
    inside = at < numbers
    given = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    k = clip(given * inverse + 0.5 * (knots - 1), 1.0 * (knots - 2)).to(tl.int32)
    left = values + at.to(tl.int32) // inner % channels * knots + k  # 32-bit division is several times faster
    low = tl.load(left, mask=inside, other=0.0)
    slope = (tl.load(left + 1, mask=inside, other=0.0) - low) * inverse
    offset = given - (k.to(tl.float32) * spacing - reach)
    offset = tl.where((slope == 0.0) & (tl.abs(offset) == float("inf")), 0.0, offset)
    tl.store(y + at, low + slope * offset, mask=inside)


def spline_backward_kernel(
    grad, x, values, by_x, sums, rows, columns, channels, inner, knots, parts, inverse,
    PLANES: tl.constexpr, WIDTH: tl.constexpr, UNROLL: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Part of the rows of LANES columns, or (PLANES) part of one channel's numbers, against WIDTH knots.

    grad, x, by_x (rows, columns), a column for each channel and place: columns = C M. by_x and sums may be None.
    Offsets in x fit 32 bits (gpu.usable). sums (parts, columns, K), or with PLANES (parts, C, K). Knots come in
    blocks of WIDTH: program_id(1) counts parts, then blocks.
    """
    part, block = tl.program_id(1) % parts, tl.program_id(1) // parts
    lanes = tl.arange(0, LANES)
    if PLANES:
        channel = tl.program_id(0) + tl.zeros([LANES], tl.int32)
        column = channel * 0
        steps = (rows * inner + LANES - 1) // LANES
    else:
        column = tl.program_id(0) * LANES + lanes
        channel = tl.minimum(column, columns - 1) // inner
        steps = rows
    first = (part.to(tl.int64) * steps // parts).to(tl.int32)
    last = ((part.to(tl.int64) + 1) * steps // parts).to(tl.int32)
    knot = block * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros([LANES, WIDTH], tl.float32)
    below = tl.zeros([LANES], tl.float32)
    above = tl.zeros([LANES], tl.float32)
    for start in range(first, last, UNROLL):
        for step in tl.static_range(UNROLL):
            if PLANES:
                element = (start + step) * LANES + lanes
                inside = (element < rows * inner) & (start + step < last)
                at = element // inner * columns + tl.program_id(0) * inner + element % inner
            else:
                inside = (column < columns) & (start + step < last)
                at = (start + step) * columns + column
            given = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
            g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
            p = given * inverse + 0.5 * (knots - 1)
            if by_x is not None:
                k = clip(p, 1.0 * (knots - 2)).to(tl.int32)
                left = values + channel * knots + k
                once = inside & (block == 0)
                slope = (tl.load(left + 1, mask=once) - tl.load(left, mask=once)) * inverse
                tl.store(by_x + at, g * slope, mask=once)
            if sums is not None:
                q = clip(p, 1.0 * (knots - 1))
                near = 1.0 - tl.abs(q[:, None] - knot.to(tl.float32)[None, :])
                total += g[:, None] * tl.maximum(near, 0.0)
                beyond = p - q
                # in this order NaN goes below
                above += tl.where(beyond > 0.0, g * beyond, 0.0)
                below += tl.where(beyond > 0.0, 0.0, g * beyond)
    if sums is not None:
        outer = tl.where(knot == 1, 1.0, 0.0) - tl.where(knot == 0, 1.0, 0.0)
        total += tl.where(outer != 0.0, below[:, None] * outer[None, :], 0.0)
        outer = tl.where(knot == knots - 1, 1.0, 0.0) - tl.where(knot == knots - 2, 1.0, 0.0)
        total += tl.where(outer != 0.0, above[:, None] * outer[None, :], 0.0)
        if PLANES:
            to = (part.to(tl.int64) * channels + tl.program_id(0)) * knots + knot
            tl.store(sums + to, tl.sum(total, 0), mask=knot < knots)
        else:
            to = (part.to(tl.int64) * columns + column)[:, None] * knots + knot[None, :]
            tl.store(sums + to, total, mask=(column < columns)[:, None] & (knot < knots)[None, :])
