"""Linear splines by numba, where no C++ compiler is: the functions of reference.py, one element at a time."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lablib.ops import numba_threads
from lablib.ops.splines.reference import Gradients, Needs, by_segments

PARTS = 16  # of the sums of one channel where channels are few: fixed, so that threads change no bit


def forward(x: Tensor, values: Tensor, scale: Tensor | None, reach: float) -> Tensor:
    """As in reference.py."""
    wide = x.to(values.dtype)
    y = torch.empty_like(wide)
    with numba_threads.as_torch():
        _loops()[0](*_arrays(wide, values), *_scale(values, scale), *_grid(values, reach), *_arrays(y))
    return y.to(x.dtype)


def backward(
    grad: Tensor, x: Tensor, values: Tensor, scale: Tensor | None, reach: float, needs: Needs
) -> Gradients:
    """As in reference.py."""
    wide = x.to(values.dtype)
    by_x, wanted = torch.empty_like(wide), needs[1] or needs[2]
    parts = 1 if x.shape[1] >= PARTS else PARTS
    sums = torch.zeros((parts, *values.shape, 2), dtype=torch.float64)
    sides = *_arrays(grad.to(values.dtype), wide, values), *_scale(values, scale), *_grid(values, reach)
    with numba_threads.as_torch():
        _loops()[1](*sides, wanted, *_arrays(by_x, sums))
    return by_x.to(x.dtype) if needs[0] else None, *by_segments(sums.sum(0), values, scale, needs)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [t.detach().numpy() for t in tensors]


def _grid(values: Tensor, reach: float) -> tuple[np.floating, np.floating, np.ndarray]:
    """Return 1 / T, (K - 1) / 2 and the t_k that start a segment, rounded as in reference.py."""
    number, knots = _arrays(values)[0].dtype.type, values.shape[1]
    starts = np.arange(knots - 1).astype(number) * number(2 * reach / (knots - 1)) - number(reach)
    return number((knots - 1) / (2 * reach)), number((knots - 1) / 2), starts


def _scale(values: Tensor, scale: Tensor | None) -> tuple[bool, np.ndarray]:
    """Return whether there is a scale, and one number per channel."""
    return scale is not None, _arrays(values[:, 0] if scale is None else scale)[0]


@functools.cache
def _loops() -> tuple[Callable, Callable]:
    """Return the two loops: helpers outside them would spoil numba's cache on disk, which keys on them."""
    from numba import njit, prange

    @njit(parallel=True, nogil=True, cache=True, error_model="numpy")
    def spline(x, values, scaled, scale, inverse, half, starts, y):
        rows, channels, inner = x.shape
        for n in prange(rows * channels):
            row, c = n // channels, n % channels
            for m in range(inner):
                u = x[row, c, m] * scale[c] if scaled else x[row, c, m]
                p = u * inverse + half
                k = min(int(min(p, len(starts))), len(starts) - 1) if p > 0 else 0  # NaN: 0
                slope = (values[c, k + 1] - values[c, k]) * inverse
                d = u - starts[k]
                if slope == 0 and np.isinf(d):  # a flat end goes on flat
                    d = starts[k] - starts[k]
                made = values[c, k] + slope * d
                y[row, c, m] = made / scale[c] if scaled else made

    @njit(parallel=True, nogil=True, cache=True, error_model="numpy")
    def gradients(grad, x, values, scaled, scale, inverse, half, starts, wanted, by_x, sums):
        rows, channels, inner = x.shape
        parts, total = len(sums), rows * inner
        for n in prange(parts * channels):
            part, c = n // channels, n % channels
            for place in range(total * part // parts, total * (part + 1) // parts):
                row, m = place // inner, place % inner
                u = x[row, c, m] * scale[c] if scaled else x[row, c, m]
                p = u * inverse + half
                k = min(int(min(p, len(starts))), len(starts) - 1) if p > 0 else 0
                slope = (values[c, k + 1] - values[c, k]) * inverse
                g = grad[row, c, m]
                by_x[row, c, m] = g * slope
                if wanted:
                    d = u - starts[k]
                    if slope == 0 and np.isinf(d):
                        d = starts[k] - starts[k]
                    sums[part, c, k, 0] += np.float64(g)
                    sums[part, c, k, 1] += np.float64(g) * np.float64(d * inverse)

    return spline, gradients
