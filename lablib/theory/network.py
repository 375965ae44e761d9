"""Networks as plain data: a list of dicts that NumPy interprets, in floats or exactly in fractions.

Shapes: B points, F features, (C, H, W) image features. The layers:

- ``{"op": "affine", "weight": (out, F), "bias": (out,) or None}``
- ``{"op": "conv2d", "weight": (out, C, kh, kw), "bias": (out,) or None, "stride": (s, s),
  "padding": (p, p)}``
- ``{"op": "avg_pool2d", "kernel": (k, k), "stride": (s, s)}`` and ``{"op": "flatten"}``
- ``{"op": "residual", "branch": [layers], "alpha": a}``: x -> (1 - a) x + a branch(x), 0 <= a <= 1
- ``{"op": "activation", "kind": KIND}``, elementwise: ``relu``, ``abs``, ``identity``, ``tanh``,
  ``softplus``; ``leaky`` and ``prelu`` with ``"slope"`` (a number, or one per channel); ``piecewise_linear``
  with ``"knots"`` and ``"values"``, (K,) each or (C, K) for a function per channel, continued beyond the ends
  with the outer slopes
- ``{"op": "group_sort", "size": G}``: ascending within consecutive groups of G features (axis 1)
- ``{"op": "linf_distance", "weight": (out, F), "bias"}``: max_i |x_i - w_i| + b
- ``{"op": "sortnet", "weight": (out, F), "center": (out, F), "bias"}``: sum_k w_k |x + c|_(k) + b, where
  |.|_(k) is the k-th largest (SortNet paper, arXiv 2210.01787, Section 4)

Arithmetic follows the input. An object array is taken as fractions and the result is exact (weights that are
floats are dyadic rationals, so they count as they are). Integers of any type stay exact: as int64 where no
sum can overflow, else as Python's integers in an object array. If the network holds floats, they become
float64 instead. Floats give NumPy's own arithmetic.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from lablib.theory.shapes import EXACT_KINDS, FLOAT_KINDS, Layer, finite, output_shapes

_NUMBERS = ("weight", "bias", "center", "alpha", "slope", "knots", "values")  # entries that hold numbers
_BLOCK = 1 << 22  # entries of the largest temporary array in distance and sort layers


def affine(weight, bias=None) -> dict[str, Any]:
    """Return the layer x -> weight x + bias."""
    return {"op": "affine", "weight": np.asarray(weight), "bias": None if bias is None else np.asarray(bias)}


def group_sort(size: int) -> dict[str, Any]:
    """Return the layer that sorts each group of ``size`` consecutive features in ascending order."""
    return {"op": "group_sort", "size": size}


def activation(kind: str, slope=None) -> dict[str, Any]:
    """Return an elementwise activation layer."""
    return {"op": "activation", "kind": kind, "slope": slope}


def fractions(values) -> np.ndarray:
    """Return an object array of :class:`~fractions.Fraction`, each exactly the value given.

    >>> fractions([0.5, 2])
    array([Fraction(1, 2), Fraction(2, 1)], dtype=object)
    """
    array = np.asarray(values)
    exact = np.empty(array.shape, dtype=object)
    exact.reshape(-1)[:] = [Fraction(value) for value in array.reshape(-1).tolist()]
    return exact


def evaluate(layers: Sequence[Layer], x) -> np.ndarray:
    """Return the network's output at the points x.

    Args:
        layers: the network.
        x: (B, F) or (B, C, H, W).

    Returns:
        (B, out), or (B, C, H, W) where the network ends in image features.

    Raises:
        ValueError: if a layer does not fit its input (the message names the layer), or x is not finite.
    """
    x = _points(layers, x)
    for layer in layers:
        x = apply_layer(layer, x)
    return x


def trace(layers: Sequence[Layer], x) -> list[np.ndarray]:
    """Return x and the output of every layer at x: ``len(layers) + 1`` arrays."""
    outputs = [_points(layers, x)]
    for layer in layers:
        outputs.append(apply_layer(layer, outputs[-1]))
    return outputs


def apply_layer(layer: Layer, x: np.ndarray) -> np.ndarray:
    """Return one layer's output at x, (B, ...); the layer has been checked by :func:`output_shapes`."""
    if x.dtype.kind == "i" and not _fits_int64(layer, x):
        x = x.astype(object)
    return _APPLY[layer["op"]](layer, x)


def _fits_int64(layer: Layer, x: np.ndarray) -> bool:
    """Say whether this layer stays in integers below 2^62 at x, for the layers where that is quickly seen."""
    reach = np.abs(x.astype(np.float64)).max(initial=0)
    if layer["op"] in ("affine", "conv2d"):
        entries = [np.asarray(layer[key]) for key in ("weight", "bias") if layer.get(key) is not None]
        if any(entry.dtype.kind not in "iub" for entry in entries):
            return False
        reach = reach * row_norms(layer).max() + sum(np.abs(_wide(b, exact=False)).max() for b in entries[1:])
    elif layer.get("kind", layer["op"]) not in ("flatten", "group_sort", "relu", "abs", "identity"):
        return False
    return bool(reach < 2**62)


def _points(layers: Sequence[Layer], x) -> np.ndarray:
    """Return x in the arithmetic in which the network is evaluated; the network has then been checked."""
    x = finite(x, "input")
    if x.ndim < 2:
        raise ValueError(f"give points of shape (B, features), not {x.shape}")
    output_shapes(layers, x.shape[1:])
    if x.dtype == object:
        return fractions(x)
    if x.dtype.kind not in "iub":
        return x
    if _holds_floats(layers):
        return x.astype(np.float64)
    return x.astype(object if x.dtype == np.uint64 else np.int64)


def _holds_floats(layers: Sequence[Layer]) -> bool:
    return any(
        layer.get("kind") in FLOAT_KINDS
        or _holds_floats(layer.get("branch", ()))
        or any(np.asarray(layer[key]).dtype.kind == "f" for key in _NUMBERS if layer.get(key) is not None)
        for layer in layers
    )


def row_norms(layer: Layer, *, exact: bool = False) -> np.ndarray:
    """Return sum |w| of every output neuron (out,): its Lipschitz constant in the l_inf norm.

    Summed in float64, or in fractions if ``exact`` or if the weights are fractions.

    Raises:
        ValueError: if the layer is not ``affine``, ``conv2d`` or ``sortnet``.
    """
    if layer["op"] not in ("affine", "conv2d", "sortnet"):
        raise ValueError(f"a {layer['op']} layer has no rows; ask for affine, conv2d or sortnet layers only")
    weight = _wide(layer["weight"], exact)
    return np.abs(weight).reshape(len(weight), -1).sum(axis=1)


def activation_constant(layer: Layer, *, exact: bool = False):
    """Return the Lipschitz constant of an elementwise activation: a number, or one per channel (C,).

    Raises:
        ValueError: if the kind of activation is unknown.
    """
    if layer["kind"] in ("leaky", "prelu"):
        return np.maximum(np.abs(_wide(layer["slope"], exact)), 1)
    if layer["kind"] == "piecewise_linear":
        knots, values = _wide(layer["knots"], exact), _wide(layer["values"], exact)
        return np.max(np.abs(np.diff(values) / np.diff(knots)), axis=-1)
    if layer["kind"] not in EXACT_KINDS + FLOAT_KINDS:
        raise ValueError(f"unknown activation {layer['kind']!r}; choose from {EXACT_KINDS + FLOAT_KINDS}")
    return 1


def is_standard(layers: Sequence[Layer], tolerance: float = 0.0) -> bool:
    """Say whether this is a standard l_inf-Lipschitz network (SortNet paper, Section 3.1).

    That is: affine and convolution rows with l_1 norm <= 1 + ``tolerance``, average pooling, convex residuals
    and elementwise 1-Lipschitz activations; nothing that compares features with each other. With tolerance 0
    rows and slopes are compared in fractions, exactly.

    Raises:
        ValueError: if a weight is NaN or infinite, or an activation unknown.
    """
    return all(
        layer["op"] not in ("group_sort", "linf_distance", "sortnet")
        and _is_nonexpansive(layer, tolerance, is_standard)
        for layer in layers
    )


def is_lipschitz(layers: Sequence[Layer], tolerance: float = 0.0) -> bool:
    """Say whether every layer is 1-Lipschitz in the l_inf norm by its form, as :func:`is_standard` does."""
    return all(_is_nonexpansive(layer, tolerance, is_lipschitz) for layer in layers)


def _is_nonexpansive(layer: Layer, tolerance: float, recurse) -> bool:
    exact = tolerance == 0
    if layer["op"] in ("affine", "conv2d", "sortnet"):
        return bool(np.all(row_norms(layer, exact=exact) <= 1 + tolerance))
    if layer["op"] == "activation":
        return bool(np.all(activation_constant(layer, exact=exact) <= 1 + tolerance))
    if layer["op"] == "residual":
        return 0 <= layer["alpha"] <= 1 and recurse(layer["branch"], tolerance)
    return layer["op"] in ("avg_pool2d", "flatten", "group_sort", "linf_distance")


# --- the layers --------------------------------------------------------------------------------------------


def _wide(values, exact: bool) -> np.ndarray:
    """Return weights as fractions if asked or if they are fractions, else in float64, not in a small type."""
    array = finite(values, "network")
    return fractions(array) if exact or array.dtype == object else array.astype(np.float64)


def _like(values, x: np.ndarray) -> np.ndarray:
    """Return a parameter in the arithmetic of x: integers or fractions if x is exact, floats otherwise."""
    array = np.asarray(values)
    if x.dtype == object:
        return array.astype(object) if array.dtype.kind in "iu" else fractions(array)
    if x.dtype.kind == "i":  # the caller has seen that they fit
        return array.astype(np.int64)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _per_channel(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *[1] * (x.ndim - 2)) if values.ndim else values


def _add_bias(layer: Layer, y: np.ndarray) -> np.ndarray:
    return y if layer.get("bias") is None else y + _per_channel(_like(layer["bias"], y), y)


def _affine(layer: Layer, x: np.ndarray) -> np.ndarray:
    return _add_bias(layer, x @ _like(layer["weight"], x).T)


def _windows(x: np.ndarray, kernel, stride) -> np.ndarray:
    """Return every window of an image: (B, C, H', W', kh, kw)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, tuple(kernel), axis=(2, 3))
    return windows[:, :, :: stride[0], :: stride[1]]


def _conv2d(layer: Layer, x: np.ndarray) -> np.ndarray:
    weight, (rows, columns) = _like(layer["weight"], x), layer["padding"]
    padded = np.pad(x, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
    windows = _windows(padded, weight.shape[2:], layer["stride"])
    y = np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3)))
    return _add_bias(layer, np.moveaxis(y, -1, 1))


def _avg_pool2d(layer: Layer, x: np.ndarray) -> np.ndarray:
    share = Fraction(1, layer["kernel"][0] * layer["kernel"][1])
    return _windows(x, layer["kernel"], layer["stride"]).sum(axis=(4, 5)) * _like(share, x)


def _flatten(layer: Layer, x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), int(np.prod(x.shape[1:])))


def _residual(layer: Layer, x: np.ndarray) -> np.ndarray:
    branch = x
    for inner in layer["branch"]:
        branch = apply_layer(inner, branch)
    alpha = _like(layer["alpha"], x)
    return (1 - alpha) * x + alpha * branch


def _activation(layer: Layer, x: np.ndarray) -> np.ndarray:
    kind = layer["kind"]
    if kind in FLOAT_KINDS and x.dtype == object:
        raise ValueError(f"{kind} has no exact value; evaluate this network in floats")
    if kind in ("leaky", "prelu"):
        return np.where(x < 0, x * _per_channel(_like(layer["slope"], x), x), x)
    if kind == "piecewise_linear":
        numbers = fractions if x.dtype == object else np.float64  # Python would divide integers into floats
        return _interpolate(numbers(layer["knots"]), numbers(layer["values"]), x)
    return {
        "relu": lambda: np.maximum(x, 0),
        "abs": lambda: np.abs(x),
        "identity": lambda: x,
        "tanh": lambda: np.tanh(x),
        "softplus": lambda: np.logaddexp(x, 0),
    }[kind]()


def _interpolate(knots: np.ndarray, values: np.ndarray, x: np.ndarray) -> np.ndarray:
    if knots.ndim == 2:  # a function per channel
        channels = [_interpolate(*function, x[:, c]) for c, function in enumerate(zip(knots, values))]
        return np.stack(channels, axis=1)
    slopes = np.diff(values) / np.diff(knots)
    piece = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(slopes) - 1)
    return values[piece] + slopes[piece] * (x - knots[piece])


def _group_sort(layer: Layer, x: np.ndarray) -> np.ndarray:
    groups = x.reshape(len(x), -1, layer["size"], *x.shape[2:])
    return np.sort(groups, axis=2).reshape(x.shape)


def _linf_distance(layer: Layer, x: np.ndarray) -> np.ndarray:
    weight = _like(layer["weight"], x)
    return _add_bias(layer, _in_blocks(x, weight, lambda rows: np.abs(rows - weight).max(axis=2)))


def _sortnet(layer: Layer, x: np.ndarray) -> np.ndarray:
    weight, center = _like(layer["weight"], x), _like(layer["center"], x)

    def neurons(rows: np.ndarray) -> np.ndarray:
        return (weight * np.sort(np.abs(rows + center), axis=2)[:, :, ::-1]).sum(axis=2)

    return _add_bias(layer, _in_blocks(x, weight, neurons))


def _in_blocks(x: np.ndarray, weight: np.ndarray, neurons) -> np.ndarray:
    """Return ``neurons`` of x[:, None, :] block by block: (B, out, F) never stands in memory whole."""
    step = max(1, _BLOCK // weight.size)
    blocks = [neurons(x[start : start + step, None, :]) for start in range(0, max(len(x), 1), step)]
    return np.concatenate(blocks)


_APPLY = {
    "affine": _affine,
    "conv2d": _conv2d,
    "avg_pool2d": _avg_pool2d,
    "flatten": _flatten,
    "residual": _residual,
    "activation": _activation,
    "group_sort": _group_sort,
    "linf_distance": _linf_distance,
    "sortnet": _sortnet,
}
