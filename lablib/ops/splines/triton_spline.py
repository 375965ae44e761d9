"""Triton kernels of linear splines: values, and all gradients in one sweep. ``scale`` (C,) may be None.

The gradient of the coefficients is a histogram. Lanes adding to shared places would take turns in any order; here
each adds g max(0, 1 - |p - k|), p = (x + R) / T, to sums of its own for all knots k, three instructions each. What
numbers beyond the outer knots have more or less comes at the end, to the two outermost knots on either side.
The gradient of the scale needs one number of each lane, the sum of g b_k.
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
    x, values, scale, y, numbers, channels, inner, knots, inverse, spacing, reach,
    TILE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """TILE x LANES elements of y (N, C, M) = S(alpha x) / alpha, values (C, K); numbers = N C M."""
    lane = tl.arange(0, TILE)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    at = tl.program_id(0).to(tl.int64) * (TILE * LANES) + lane
    inside = at < numbers
    given = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    channel = at.to(tl.int32) // inner % channels  # 32-bit division is several times faster
    if scale is not None:
        alpha = tl.load(scale + channel, mask=inside, other=1.0)
        given *= alpha
    k = clip(given * inverse + 0.5 * (knots - 1), 1.0 * (knots - 2)).to(tl.int32)
    left = values + channel * knots + k
    low = tl.load(left, mask=inside, other=0.0)
    slope = (tl.load(left + 1, mask=inside, other=0.0) - low) * inverse
    offset = given - (k.to(tl.float32) * spacing - reach)
    offset = tl.where((slope == 0.0) & (tl.abs(offset) == float("inf")), 0.0, offset)
    made = low + slope * offset
    if scale is not None:
        made = tl.div_rn(made, alpha)  # the plain quotient is off by more than its rounding
    tl.store(y + at, made, mask=inside)


def spline_backward_kernel(
    grad, x, values, scale, by_x, sums, heights, rows, columns, channels, inner, knots, parts, inverse,
    PLANES: tl.constexpr, WIDTH: tl.constexpr, UNROLL: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Part of the rows of LANES columns, or (PLANES) part of one channel's numbers, against WIDTH knots.

    grad, x, by_x (rows, columns), a column for each channel and place: columns = C M. by_x, sums and heights may be
    None. Offsets in x fit 32 bits (gpu.usable). sums (parts, columns, K), or with PLANES (parts, C, K), and heights,
    of g b_k, the same without K. Knots come in blocks of WIDTH: program_id(1) counts parts, then blocks.
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
    if scale is not None:
        alpha = tl.load(scale + channel)
    knot = block * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros([LANES, WIDTH], tl.float32)
    below = tl.zeros([LANES], tl.float32)
    above = tl.zeros([LANES], tl.float32)
    height = tl.zeros([LANES], tl.float32)
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
            if scale is not None:
                given *= alpha
            p = given * inverse + 0.5 * (knots - 1)
            if (by_x is not None) | (heights is not None):
                k = clip(p, 1.0 * (knots - 2)).to(tl.int32)
                left = values + channel * knots + k
                once = inside & (block == 0)
                low = tl.load(left, mask=once, other=0.0)
                rise = tl.load(left + 1, mask=once, other=0.0) - low
                if by_x is not None:
                    tl.store(by_x + at, g * (rise * inverse), mask=once)
                if heights is not None:
                    height += g * (low - rise * (k.to(tl.float32) - 0.5 * (knots - 1)))
            if sums is not None:
                q = clip(p, 1.0 * (knots - 1))
                near = 1.0 - tl.abs(q[:, None] - knot.to(tl.float32)[None, :])
                total += g[:, None] * tl.maximum(near, 0.0)
                beyond = p - q
                # in this order NaN goes below
                above += tl.where(beyond > 0.0, g * beyond, 0.0)
                below += tl.where(beyond > 0.0, 0.0, g * beyond)
    part = part.to(tl.int64)
    if PLANES:
        first, whole = part * channels + tl.program_id(0), True
        height = tl.sum(height, 0)
    else:
        first, whole = part * columns + column, column < columns
    if heights is not None:
        tl.store(heights + first, height, mask=whole & (block == 0))
    if sums is not None:
        outer = tl.where(knot == 1, 1.0, 0.0) - tl.where(knot == 0, 1.0, 0.0)
        total += tl.where(outer != 0.0, below[:, None] * outer[None, :], 0.0)
        outer = tl.where(knot == knots - 1, 1.0, 0.0) - tl.where(knot == knots - 2, 1.0, 0.0)
        total += tl.where(outer != 0.0, above[:, None] * outer[None, :], 0.0)
        if PLANES:
            tl.store(sums + first * knots + knot, tl.sum(total, 0), mask=knot < knots)
        else:
            mask = whole[:, None] & (knot < knots)[None, :]
            tl.store(sums + first[:, None] * knots + knot[None, :], total, mask=mask)
