"""Triton kernel of the sorted top-K sum and of the two sums that bound it over a box."""

from __future__ import annotations  # tl is not there yet when the kernels are declared

from lablib.ops import gpu

tl = None  # triton.language, once loaded


def load() -> None:
    """Make the kernels of this file ready.

    Raises:
        ModuleNotFoundError: without Triton.
    """
    gpu.load(globals(), ("insert", "topk_kernel"))


def insert(sizes, places, size, place, WANT_INDEX: tl.constexpr):
    """The K largest, descending, after one more candidate: each slot keeps the larger and hands the other on.

    The earlier of equals stays in front. A NaN enters, stays, and hides what would come behind it.
    """
    new_sizes = ()
    new_places = ()
    for j in tl.static_range(len(sizes)):
        kept = sizes[j]
        new_sizes = new_sizes + (tl.maximum(kept, size, propagate_nan=tl.PropagateNan.ALL),)
        if WANT_INDEX:
            ahead = size > kept
            new_places = new_places + (tl.where(ahead, place, places[j]),)
            place = tl.where(ahead, places[j], place)
        size = tl.minimum(kept, size)
    return new_sizes, new_places if WANT_INDEX else places


def topk_kernel(
    first, second, center, weight, y, index, batch, inputs, outputs,
    SIDE: tl.constexpr, TOP: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """One tile of rows and LANES outputs: y (B, O) = sum_j weight_kj v_(j), index (B, O, TOP) the inputs of v_(j).

    v_i = |x_i + b_ki| (SIDE 0: first is x), or its largest (1) or smallest (-1) value over the box [first, second];
    first and second (T, I, TILE), center = b (I, O), weight (TOP, O).
    """
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    neuron = tl.minimum(lane, outputs - 1)
    offset = tl.program_id(0).to(tl.int64) * inputs * TILE + tl.arange(0, TILE)[:, None]
    centers = center + neuron[None, :]
    sizes = ()
    places = ()
    for _ in tl.static_range(TOP):
        sizes = sizes + (tl.full([TILE, LANES], -1.0, tl.float32),)
        places = places + (tl.zeros([TILE, LANES], tl.int32),)
    for i in range(inputs):
        b = tl.load(centers + i * outputs)
        d = tl.load(first + offset + i * TILE) + b
        if SIDE == 0:
            size = tl.abs(d)
        else:
            e = tl.load(second + offset + i * TILE) + b
            if SIDE > 0:
                size = tl.maximum(-d, e, propagate_nan=tl.PropagateNan.ALL)
            else:
                size = tl.maximum(d, -e, propagate_nan=tl.PropagateNan.ALL)
                size = tl.maximum(size, 0.0, propagate_nan=tl.PropagateNan.ALL)
        sizes, places = insert(sizes, places, size, i, index is not None)
    total = tl.zeros([TILE, LANES], tl.float32)
    at = row.to(tl.int64)[:, None] * outputs + lane[None, :]
    written = (row < batch)[:, None] & (lane < outputs)[None, :]
    for j in tl.static_range(TOP):
        total += sizes[j] * tl.load(weight + j * outputs + neuron)[None, :]
        if index is not None:
            tl.store(index + at * TOP + j, places[j], mask=written)
    tl.store(y + at, total, mask=written)
