"""The distances by numba, where no C++ compiler is: for contiguous float32 and float64 tensors on the CPU.

Each sub-batch is one dense problem with the kept rows and columns of the weight. Rows (forward, x's gradient) or
neurons (the weight's gradient) are shared among threads, so results do not depend on their number. Numbers that are
not finite, and the bounds' gradients, go to reference.py. The first call for a power compiles for seconds.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lablib.ops import numba_threads
from lablib.ops.linf_dist import reference
from lablib.ops.linf_dist.choice import Plain, no_index

SQUARED_MOST = 12  # p = 2^k and 3 2^k up to this k are computed by squaring
# as integers, sizes order like their bits, and numba vectorises their maximum (not that of floats)
_BITS = {np.dtype(np.float32): (np.int32, 0x7FFFFFFF), np.dtype(np.float64): (np.int64, 0x7FFFFFFFFFFFFFFF)}


def lp_forward(x, weight, p, inputs, outputs, rows, keep):
    """As the operator lablib::lp_distance."""
    index = no_index(x)
    if not (torch.isfinite(x).all() and torch.isfinite(weight).all()):
        return reference.lp_forward(x, weight, p, inputs, outputs, rows), index
    y = x.new_empty((x.shape[0], weight.shape[0] if outputs is None else outputs.shape[1]))
    with numba_threads.as_torch():
        for part, kept, chosen in reference.sub_batches(x, inputs, outputs, rows):
            sides = _arrays(x[part], reference.kept_weight(weight, kept, chosen), y[part])
            if math.isinf(p):
                _linf()(*sides, *_bits(sides[0]))
            else:
                _lp(p)[0](*sides, *_bits(sides[0]))
    return y, index


def lp_backward(grad, x, weight, y, index, p, inputs, outputs, rows, need_x, need_weight):
    """As the operator lablib::lp_distance_backward."""
    if not (torch.isfinite(y).all() and torch.isfinite(grad).all()):
        return Plain.lp_backward(grad, x, weight, y, index, p, inputs, outputs, rows, need_x, need_weight)
    to_x, to_weight = torch.zeros_like(x), torch.zeros_like(weight)
    with numba_threads.as_torch():
        for part, kept, chosen in reference.sub_batches(x, inputs, outputs, rows):
            w = reference.kept_weight(weight, kept, chosen)
            made = torch.zeros_like(w)
            sides = _arrays(x[part], w, y[part], grad[part], to_x[part], made)
            if math.isinf(p):
                _linf_backward()(*sides)
            else:
                _lp(p)[1](*sides)
            reference.add_kept(to_weight, made, kept, chosen)
    return to_x if need_x else x.new_empty(0), to_weight if need_weight else weight.new_empty(0)


def bounds_forward(lower, upper, weight, keep):
    """As the operator lablib::linf_distance_bounds."""
    none = no_index(lower)
    if not all(torch.isfinite(t).all() for t in (lower, upper, weight)):
        return *reference.bounds_forward(lower, upper, weight), none, none
    least, most = (lower.new_empty((lower.shape[0], weight.shape[0])) for _ in range(2))
    with numba_threads.as_torch():
        sides = _arrays(lower, upper, weight, least, most)
        _range()(*sides, *_bits(sides[0]))
    return least, most, none, none


bounds_backward = Plain.bounds_backward


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [t.detach().numpy() for t in tensors]


def _bits(like: np.ndarray) -> tuple[np.ndarray, int]:
    kind, mask = _BITS[like.dtype]
    return np.empty(0, kind), kind(mask)


@functools.cache
def _linf() -> Callable:
    from numba import njit, prange

    @njit(parallel=True, nogil=True, cache=True)
    def forward(x, weight, y, integer, mask):
        rows, inputs = x.shape
        for b in prange(rows):
            size = np.empty(inputs, x.dtype)
            keys = size.view(integer.dtype)
            found = np.empty(1, integer.dtype)
            for k in range(len(weight)):
                for i in range(inputs):
                    size[i] = x[b, i] - weight[k, i]
                most = keys[0] & mask
                for i in range(inputs):
                    most = max(most, keys[i] & mask)
                found[0] = most
                y[b, k] = found.view(x.dtype)[0]

    return forward


@functools.cache
def _linf_backward() -> Callable:
    from numba import njit, prange

    @njit(parallel=True, nogil=True, cache=True)
    def backward(x, weight, y, grad, to_x, to_weight):
        rows, outs = y.shape
        winners = np.empty((rows, outs), np.int64)
        for b in prange(rows):
            for k in range(outs):
                i, last = 0, x.shape[1] - 1
                while i < last and abs(x[b, i] - weight[k, i]) < y[b, k]:  # data may have changed since
                    i += 1
                winners[b, k] = i
                to_x[b, i] += np.sign(x[b, i] - weight[k, i]) * grad[b, k]
        for k in prange(outs):
            for b in range(rows):
                i = winners[b, k]
                to_weight[k, i] -= np.sign(x[b, i] - weight[k, i]) * grad[b, k]

    return backward


@functools.cache
def _range() -> Callable:
    from numba import njit, prange

    @njit(parallel=True, nogil=True, cache=True)
    def forward(lower, upper, weight, least, most, integer, mask):
        rows, inputs = lower.shape
        for b in prange(rows):
            near, far = np.empty(inputs, lower.dtype), np.empty(inputs, lower.dtype)
            near_keys, far_keys = near.view(integer.dtype), far.view(integer.dtype)
            found = np.empty(2, integer.dtype)
            for k in range(len(weight)):
                for i in range(inputs):
                    near[i] = max(max(lower[b, i] - weight[k, i], weight[k, i] - upper[b, i]), 0)
                    far[i] = max(weight[k, i] - lower[b, i], upper[b, i] - weight[k, i])
                low, high = near_keys[0], far_keys[0]
                for i in range(inputs):
                    low, high = max(low, near_keys[i]), max(high, far_keys[i])
                found[0], found[1] = low, high
                least[b, k], most[b, k] = found.view(lower.dtype)

    return forward


@functools.cache
def _power(p: float) -> Callable:
    """Return the compiled r -> r^p for r in [0, 1]: repeated squaring where p allows it."""
    from numba import njit

    for three in (1, 3):
        steps = math.log2(p / three)
        if steps == int(steps) and 0 <= steps <= SQUARED_MOST:
            return _squared(int(steps), three == 3)
    return njit(lambda r: r**p, inline="always")


def _squared(steps: int, three: bool) -> Callable:
    from numba import njit

    if steps == 0:
        return njit(lambda r: r * r * r, inline="always") if three else njit(lambda r: r, inline="always")
    rest = _squared(steps - 1, three)
    return njit(lambda r: rest(r * r), inline="always")


@functools.cache
def _lp(p: float) -> tuple[Callable, Callable]:
    """Return forward and backward for one power.

    Ratios below a floor count as 0 or as the floor: no power becomes subnormal (those are slow).
    """
    from numba import njit, prange

    power, floor, slope_floor = _power(p), 2 ** (-100 / p), 2 ** (-60 / (p - 1)) if p > 1 else 1e-30

    @njit(inline="always")
    def slope_sign(ratio, least):
        return (least * 0 + 1 if ratio > least else least * 0) - (
            least * 0 + 1 if ratio < -least else least * 0
        )

    @njit(parallel=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
    def forward(x, weight, y, integer, mask):
        rows, inputs = x.shape
        least, one = x.dtype.type(floor), x.dtype.type(1)
        for b in prange(rows):
            size = np.empty(inputs, x.dtype)
            keys = size.view(integer.dtype)
            found = np.empty(1, integer.dtype)
            for k in range(len(weight)):
                for i in range(inputs):
                    size[i] = x[b, i] - weight[k, i]
                most = keys[0] & mask
                for i in range(inputs):
                    most = max(most, keys[i] & mask)
                found[0] = most
                largest = found.view(x.dtype)[0]
                if largest == 0:
                    y[b, k] = 0
                    continue
                scale, total = one / largest, x.dtype.type(0)
                for i in range(inputs):
                    ratio = abs(size[i] * scale)
                    total += power(ratio if ratio > least else least)
                y[b, k] = largest * total ** (1 / p)

    @njit(parallel=True, nogil=True)
    def backward(x, weight, y, grad, to_x, to_weight):
        rows, inputs = x.shape
        outs = len(weight)
        one, least = x.dtype.type(1), x.dtype.type(slope_floor)
        for b in prange(rows):
            for k in range(outs):
                if grad[b, k] != 0 and y[b, k] > 0:
                    scale, g = one / y[b, k], grad[b, k]
                    for i in range(inputs):
                        ratio = (x[b, i] - weight[k, i]) * scale
                        size = abs(ratio)
                        size = size if size > least else least
                        to_x[b, i] += g * (power(size) / size) * slope_sign(ratio, least)
        for k in prange(outs):
            for b in range(rows):
                if grad[b, k] != 0 and y[b, k] > 0:
                    scale, g = one / y[b, k], grad[b, k]
                    for i in range(inputs):
                        ratio = (x[b, i] - weight[k, i]) * scale
                        size = abs(ratio)
                        size = size if size > least else least
                        to_weight[k, i] -= g * (power(size) / size) * slope_sign(ratio, least)

    return forward, backward
