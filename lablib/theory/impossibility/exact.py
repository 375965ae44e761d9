"""Data as integers: x = X / scale with X integer, exactly. Integer operations only.

- integers and bool: the scale is given; default 255 for ``uint8`` (pixels in [0, 1]) and 1 for others.
- floats: every finite float is a dyadic rational m * 2^e; scale is the smallest power of two that makes all of
  them integers.
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

_WIDE_BITS = 62  # integers up to this many bits stay in int64; a difference of two still fits


def read_classes(classes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the classes as arrays after checking that they can be compared.

    Args:
        classes: at least two arrays of shape (n_c, ...), n_c >= 1, with one dtype and one shape per point.

    Raises:
        ValueError: if there are fewer than two classes, an empty one, different shapes or dtypes, NaN, infinity.
    """
    arrays = [np.asarray(points) for points in classes]
    if len(arrays) < 2:
        raise ValueError(f"{len(arrays)} class given; give the points of at least two classes")
    for number, points in enumerate(arrays):
        if points.ndim < 2 or 0 in points.shape:
            raise ValueError(f"class {number} has shape {points.shape}; give a non-empty array (points, ...)")
        if points.shape[1:] != arrays[0].shape[1:] or points.dtype != arrays[0].dtype:
            raise ValueError(
                f"class {number} holds {points.dtype} points of shape {points.shape[1:]}, class 0 holds "
                f"{arrays[0].dtype} of shape {arrays[0].shape[1:]}; give all classes one shape and one dtype"
            )
        if points.dtype.kind not in "buif" or points.dtype.itemsize > 8:
            raise ValueError(f"points of dtype {points.dtype}; give integers or floats of at most 64 bits")
        if points.dtype.kind == "f" and not np.isfinite(points).all():
            raise ValueError(f"class {number} contains NaN or infinity; remove or fill those points first")
    return arrays


def as_integers(classes: Sequence[np.ndarray], scale: int | None = None) -> tuple[list[np.ndarray], int]:
    """Return (X, scale): one (n_c, d) integer array per class and the integer with x = X / scale exactly.

    Args:
        classes: as for :func:`read_classes`.
        scale: for integer data, what counts as 1.0. Floats count as they are, and their scale follows.

    The arrays are int64 where 62 bits suffice, else object arrays of Python integers.

    >>> as_integers([np.array([[0.5, 0.25]]), np.array([[1.0, 0.0]])])
    ([array([[2, 1]]), array([[4, 0]])], 4)
    """
    flat = [points.reshape(len(points), -1) for points in read_classes(classes)]
    dtype = flat[0].dtype
    if scale is not None and (
        isinstance(scale, bool) or not isinstance(scale, int | np.integer) or scale < 1
    ):
        raise ValueError(f"scale {scale} must be a positive integer")
    if dtype.kind == "f":
        return _floats_as_integers(flat)
    reach = max(abs(int(extreme)) for points in flat for extreme in (points.min(), points.max()))
    wide = object if reach >> _WIDE_BITS else np.int64
    return [points.astype(wide) for points in flat], int(scale or 0) or (255 if dtype == np.uint8 else 1)


def _floats_as_integers(flat: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Read sign, mantissa and exponent from the bits of each float (widening to float64 is exact)."""
    mantissas, exponents = [], []
    for points in flat:
        bits = np.ascontiguousarray(points, dtype=np.float64).view(np.int64)
        biased = (bits >> 52) & 0x7FF
        mantissa = (bits & ((1 << 52) - 1)) | ((biased > 0).astype(np.int64) << 52)
        zeros = np.bitwise_count((mantissa & -mantissa) - 1).astype(np.int64)  # trailing zeros
        zeros[mantissa == 0] = 0
        exponent = np.maximum(biased, 1) - 1075 + zeros
        mantissas.append(np.where(bits < 0, -1, 1) * (mantissa >> zeros))
        exponents.append(exponent)
    used = [exponent[mantissa != 0] for mantissa, exponent in zip(mantissas, exponents)]
    lowest = min((int(part.min()) for part in used if part.size), default=0)
    highest = max((int(part.max()) for part in used if part.size), default=0)
    lowest = min(lowest, 0)
    shifts = [
        np.where(mantissa != 0, exponent - lowest, 0) for mantissa, exponent in zip(mantissas, exponents)
    ]
    widest = max(
        (
            int(shift[m != 0].max()) + int(np.abs(m).max()).bit_length()
            for m, shift in zip(mantissas, shifts)
            if m.any()
        ),
        default=0,
    )
    if widest < _WIDE_BITS and highest - lowest < _WIDE_BITS:
        return [m << shift for m, shift in zip(mantissas, shifts)], 1 << -lowest
    return [m.astype(object) << shift.astype(object) for m, shift in zip(mantissas, shifts)], 1 << -lowest


def coarse(integers: Sequence[np.ndarray], bits: int) -> tuple[list[np.ndarray], int]:
    """Return (Q, shift) with Q = (X - min X) >> shift in int64, the least shift for which Q < 2^bits.

    Then ``|X_a - X_b| >= (|Q_a - Q_b| - 1) << shift``, and ``|X_a - X_b| = |Q_a - Q_b|`` where shift is 0.
    """
    low = min(int(points.min()) for points in integers)
    high = max(int(points.max()) for points in integers)
    shift = max(0, (high - low).bit_length() - bits)
    return [((points - low) >> shift).astype(np.int64) for points in integers], shift


def digest(classes: Sequence[np.ndarray], statement: dict) -> str:
    """Return the sha256 (hex) of what is claimed about which data.

    It covers the statement (canonical JSON) and each class's dtype, shape and bytes, little-endian, in order.
    """
    state = hashlib.sha256(json.dumps(statement, sort_keys=True).encode())
    for points in read_classes(classes):
        little = np.ascontiguousarray(points, dtype=points.dtype.newbyteorder("<"))
        state.update(f"{little.dtype.str} {little.shape}".encode())
        state.update(little.tobytes())
    return state.hexdigest()
