"""The sorted sum by numba, where no C++ compiler is: the functions of reference.py, for contiguous float32 and
float64 tensors on the CPU and K up to 16. The algorithm of native/sortnet.cpp, one pair at a time; the gradients are
those of reference.py.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lablib.ops import numba_threads
from lablib.ops.sortnet.reference import ABS, HIGH, PLACE, backward

__all__ = ["backward", "forward"]

BLOCK = 16
_INTEGER = {torch.float32: np.empty(0, np.int32), torch.float64: np.empty(0, np.int64)}


def forward(
    x: Tensor, u: Tensor, center: Tensor, weight: Tensor, form: int, keep: bool
) -> tuple[Tensor, Tensor]:
    """As in reference.py."""
    y = x.new_empty((x.shape[0], center.shape[0]))
    places = x.new_empty((*y.shape, weight.shape[1]) if keep else (0, 0, 0), dtype=PLACE)
    if y.numel():
        with numba_threads.as_torch():
            _search()(*_arrays(x, u, center, weight), _INTEGER[x.dtype], form, keep, *_arrays(y, places))
    return y, places if keep else places.flatten()


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [t.detach().contiguous().numpy() for t in tensors]


@functools.cache
def _search() -> Callable:
    """One function: helpers inside would spoil numba's cache on disk, which keys on them."""
    from numba import njit, prange

    @njit(parallel=True, nogil=True, cache=True)
    def search(x, u, center, weight, integer, form, keep, y, kept):
        rows, inputs = x.shape
        outs, top = weight.shape
        blocks = (inputs + BLOCK - 1) // BLOCK
        for row in prange(rows):
            # As integers, floats >= 0 order like their bits, with NaN above all; the fill-up of -1 below.
            bits = np.empty((blocks, BLOCK), integer.dtype)
            keys = bits.reshape(-1)
            size, second = keys.view(x.dtype), np.empty(inputs, x.dtype)
            others = second.view(integer.dtype)
            largest, maxima = np.empty(blocks, integer.dtype), np.empty(BLOCK, integer.dtype)
            values, places = np.empty(top, integer.dtype), np.empty(top, np.int32)
            sorted_sizes, hits = values.view(x.dtype), np.empty(inputs + BLOCK, np.int32)
            for i in range(inputs, blocks * BLOCK):
                keys[i] = -1
            for out in range(outs):
                if form == ABS:
                    for i in range(inputs):
                        size[i] = abs(x[row, i] + center[out, i])
                elif form == HIGH:
                    for i in range(inputs):
                        size[i] = abs(x[row, i] + center[out, i])
                        second[i] = abs(u[row, i] + center[out, i])
                    for i in range(inputs):
                        keys[i] = max(keys[i], others[i])
                else:
                    for i in range(inputs):
                        size[i], second[i] = x[row, i] + center[out, i], -(u[row, i] + center[out, i])
                    for i in range(inputs):
                        keys[i] = max(max(keys[i], others[i]), 0)

                for block in range(blocks):
                    found = bits[block, 0]
                    for g in range(BLOCK):
                        found = max(found, bits[block, g])
                    largest[block] = found
                for g in range(BLOCK):
                    maxima[g] = -1
                for start in range(0, blocks, BLOCK):
                    for g in range(min(BLOCK, blocks - start)):
                        maxima[g] = max(maxima[g], largest[start + g])
                # The K-th largest of 16 maxima of different inputs: at least K inputs are as large.
                for j in range(top):
                    values[j] = -1
                for g in range(BLOCK):
                    found = maxima[g]
                    for j in range(top):
                        values[j], found = max(values[j], found), min(values[j], found)
                bar = values[top - 1]

                count = 0
                for block in range(blocks):
                    if largest[block] > bar:
                        for g in range(BLOCK):
                            hits[count] = block * BLOCK + g
                            count += 1 if bits[block, g] > bar else 0
                for j in range(top):
                    values[j], places[j] = bar, -1
                for hit in range(count):  # from below, without a branch; behind those that equal it
                    i = hits[hit]
                    found = keys[i]
                    for j in range(top - 1, 0, -1):
                        moved, ahead = found > values[j - 1], found > values[j]
                        places[j] = places[j - 1] if moved else (i if ahead else places[j])
                        values[j] = values[j - 1] if moved else (found if ahead else values[j])
                    if found > values[0]:
                        values[0], places[0] = found, i

                total = 0.0
                for j in range(top):
                    total += np.float64(weight[out, j]) * np.float64(sorted_sizes[j])
                y[row, out] = total
                if keep:
                    i = 0
                    for j in range(top):
                        if places[j] < 0:  # the ranks left open equal the bar
                            while keys[i] != bar:
                                i += 1
                            places[j] = i
                            i += 1
                        kept[row, out, j] = places[j]

    return search
