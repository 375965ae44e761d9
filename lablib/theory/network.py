"""Networks as plain data: a list of dicts that NumPy interprets, in floats or exactly in fractions.

Shapes: B points, F features, (C, H, W) image features. The layers:

- ``{"op": "affine", "weight": (out, F), "bias": (out,) or None}``
- ``{"op": "conv2d", "weight": (out, C, kh, kw), "bias": (out,) or None, "stride": (s, s),
  "padding": (p, p)}``
- ``{"op": "avg_pool2d", "kernel": (k, k), "stride": (s, s)}`` and ``{"op": "flatten"}``
- ``{"op": "residual", "branch": [layers], "alpha": a}``: x -> (1 - a) x + a branch(x), 0 <= a <= 1
- ``{"op": "activation", "kind": KIND}``, elementwise: ``relu``, ``abs``, ``identity``, ``tanh``,
  ``softplus``; ``leaky`` and ``prelu`` with ``"slope"`` (a number, or one per channel); ``piecewise_linear``
  with ``"knots"`` (K,) and ``"values"`` (K,), continued beyond the ends with the outer slopes
- ``{"op": "group_sort", "size": G}``: ascending within consecutive groups of G features (axis 1)
- ``{"op": "linf_distance", "weight": (out, F), "bias"}``: max_i |x_i - w_i| + b
- ``{"op": "sortnet", "weight": (out, F), "center": (out, F), "bias"}``: sum_k w_k |x + c|_(k) + b, where
  |.|_(k) is the k-th largest (SortNet paper, arXiv 2210.01787, Section 4)

Arithmetic follows the input: an object array is taken as fractions and the result is exact (weights that are
floats are dyadic rationals, so they count as they are). Integers stay integers until they meet fractions
among the weights, and then become fractions: exact and fast. Floats give NumPy's own arithmetic.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

Layer = Mapping[str, Any]
EXACT_KINDS = ("relu", "abs", "identity", "leaky", "prelu", "piecewise_linear")
FLOAT_KINDS = ("tanh", "softplus")
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
    x = _points(x)
    output_shapes(layers, x.shape[1:])
    for layer in layers:
        x = apply_layer(layer, x)
    return x


def trace(layers: Sequence[Layer], x) -> list[np.ndarray]:
    """Return x and the output of every layer at x: ``len(layers) + 1`` arrays."""
    x = _points(x)
    output_shapes(layers, x.shape[1:])
    outputs = [x]
    for layer in layers:
        outputs.append(apply_layer(layer, outputs[-1]))
    return outputs


def apply_layer(layer: Layer, x: np.ndarray) -> np.ndarray:
    """Return one layer's output at x, (B, ...); the layer has been checked by :func:`output_shapes`."""
    if x.dtype.kind in "iu" and _holds_fractions(layer):
        x = fractions(x)
    return _APPLY[layer["op"]](layer, x)


def _holds_fractions(layer: Layer) -> bool:
    entries = [layer[key] for key in _NUMBERS if layer.get(key) is not None]
    return any(np.asarray(entry).dtype == object for entry in entries)


def row_norms(layer: Layer) -> np.ndarray:
    """Return sum |w| of every output neuron (out,): its Lipschitz constant in the l_inf norm.

    Raises:
        ValueError: if the layer is not ``affine``, ``conv2d`` or ``sortnet``.
    """
    if layer["op"] not in ("affine", "conv2d", "sortnet"):
        raise ValueError(f"a {layer['op']} layer has no rows; ask for affine, conv2d or sortnet layers only")
    weight = _wide(layer["weight"])
    return np.abs(weight).reshape(len(weight), -1).sum(axis=1)


def activation_constant(layer: Layer):
    """Return the Lipschitz constant of an elementwise activation: a number, or one per channel (C,)."""
    if layer["kind"] in ("leaky", "prelu"):
        return np.maximum(np.abs(_wide(layer["slope"])), 1)
    if layer["kind"] == "piecewise_linear":
        knots, values = _wide(layer["knots"]), _wide(layer["values"])
        return np.max(np.abs(np.diff(values) / np.diff(knots)))
    return 1


def is_standard(layers: Sequence[Layer], tolerance: float = 0.0) -> bool:
    """Say whether this is a standard l_inf-Lipschitz network (SortNet paper, Section 3.1).

    That is: affine and convolution rows with l_1 norm <= 1 + ``tolerance``, average pooling, convex residuals
    and elementwise 1-Lipschitz activations; nothing that compares features with each other.
    """
    return all(
        layer["op"] not in ("group_sort", "linf_distance", "sortnet")
        and _is_nonexpansive(layer, tolerance, is_standard)
        for layer in layers
    )


def is_lipschitz(layers: Sequence[Layer], tolerance: float = 0.0) -> bool:
    """Say whether every layer is 1-Lipschitz in the l_inf norm by its form: rows <= 1 + ``tolerance``."""
    return all(_is_nonexpansive(layer, tolerance, is_lipschitz) for layer in layers)


def _is_nonexpansive(layer: Layer, tolerance: float, recurse) -> bool:
    if layer["op"] in ("affine", "conv2d", "sortnet"):
        return bool(np.all(row_norms(layer) <= 1 + tolerance))
    if layer["op"] == "activation":
        return bool(np.all(activation_constant(layer) <= 1 + tolerance))
    if layer["op"] == "residual":
        return recurse(layer["branch"], tolerance)
    return True


# --- shapes and checks -------------------------------------------------------------------------------------


def output_shapes(layers: Sequence[Layer], input_shape: Sequence[int] | int) -> list[tuple[int, ...]]:
    """Check every layer against its input and return the feature shape after each one.

    Args:
        layers: the network.
        input_shape: F, (F,) or (C, H, W), without the axis of points.

    Raises:
        ValueError: if a layer is unknown, lacks an entry, is not finite or does not fit; it says which layer.
    """
    shape = (input_shape,) if isinstance(input_shape, int | np.integer) else tuple(input_shape)
    if not shape or any(size < 1 for size in shape):
        raise ValueError(f"the input shape is {shape}; give F, (F,) or (C, H, W) with positive sizes")
    shapes = []
    for number, layer in enumerate(layers):
        try:
            shape = _output_shape(layer, shape)
        except KeyError as error:
            raise ValueError(f"layer {number} has no entry {error}; see lablib.theory.network") from None
        except ValueError as error:
            raise ValueError(f"layer {number}: {error}") from None
        shapes.append(shape)
    return shapes


def _output_shape(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    op = layer["op"]
    if op not in _APPLY:
        raise ValueError(f"unknown op {op!r}; choose from {', '.join(_APPLY)}")
    if op in ("affine", "linf_distance", "sortnet"):
        return _check_dense(layer, shape)
    if op in ("conv2d", "avg_pool2d"):
        return _check_window(layer, shape)
    if op == "flatten":
        return (int(np.prod(shape)),)
    if op == "group_sort" and (layer["size"] < 1 or shape[0] % layer["size"]):
        raise ValueError(f"{shape[0]} features cannot be split into groups of size {layer['size']}")
    if op == "activation":
        _check_activation(layer, shape)
    if op == "residual":
        if not 0 <= layer["alpha"] <= 1:
            raise ValueError(f"a convex residual needs 0 <= alpha <= 1, not {layer['alpha']}")
        if layer["branch"] and output_shapes(layer["branch"], shape)[-1] != shape:
            raise ValueError(f"the residual branch must keep the shape {shape}")
    return shape


def _check_dense(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    weight = _finite(layer["weight"], "weight")
    if len(shape) != 1 or weight.ndim != 2 or weight.shape[1] != shape[0] or len(weight) < 1:
        raise ValueError(
            f"{layer['op']} weight {weight.shape} does not fit features {shape}; flatten images first, "
            "and give a weight of shape (out, features)"
        )
    if layer["op"] == "sortnet" and _finite(layer["center"], "center").shape != weight.shape:
        raise ValueError(f"sortnet needs a center of the weight's shape {weight.shape}")
    _check_bias(layer, len(weight))
    return (len(weight),)


def _check_window(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3:
        raise ValueError(f"{layer['op']} needs features (C, H, W), not {shape}")
    if layer["op"] == "conv2d":
        weight = _finite(layer["weight"], "weight")
        if weight.ndim != 4 or weight.shape[1] != shape[0]:
            raise ValueError(f"conv2d weight {weight.shape} does not fit features {shape}")
        _check_bias(layer, len(weight))
        channels, kernel, padding = len(weight), weight.shape[2:], layer["padding"]
    else:
        channels, kernel, padding = shape[0], layer["kernel"], (0, 0)
    if min(layer["stride"]) < 1 or min(padding) < 0:
        raise ValueError(f"{layer['op']} needs a stride >= 1 and a padding >= 0")
    sizes = [
        (n + 2 * p - k) // s + 1
        for n, p, k, s in zip(shape[1:], padding, kernel, layer["stride"], strict=True)
    ]
    if min(sizes) < 1:
        raise ValueError(f"the kernel {tuple(kernel)} is larger than the features {shape}")
    return (channels, *sizes)


def _check_activation(layer: Layer, shape: tuple[int, ...]) -> None:
    kind = layer["kind"]
    if kind not in EXACT_KINDS + FLOAT_KINDS:
        raise ValueError(f"unknown activation {kind!r}; choose from {', '.join(EXACT_KINDS + FLOAT_KINDS)}")
    if kind in ("leaky", "prelu") and _finite(layer["slope"], "slope").size not in (1, shape[0]):
        raise ValueError(f"{kind} needs one slope, or one for each of the {shape[0]} channels")
    if kind == "piecewise_linear":
        knots, values = _finite(layer["knots"], "knots"), _finite(layer["values"], "values")
        if knots.ndim != 1 or knots.shape != values.shape or len(knots) < 2 or np.any(np.diff(knots) <= 0):
            raise ValueError("piecewise_linear needs two or more increasing knots and as many values")


def _check_bias(layer: Layer, rows: int) -> None:
    if layer.get("bias") is not None and _finite(layer["bias"], "bias").shape != (rows,):
        raise ValueError(f"the bias must have shape ({rows},)")


def _finite(values, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype != object and not np.all(np.isfinite(array)):
        raise ValueError(f"the {name} holds NaN or infinity")
    return array


def _points(x) -> np.ndarray:
    x = _finite(x, "input")
    if x.ndim < 2:
        raise ValueError(f"give points of shape (B, features), not {x.shape}")
    if x.dtype == object:
        return fractions(x)
    return x.astype(np.int64) if x.dtype == bool else x


# --- the layers --------------------------------------------------------------------------------------------


def _wide(values) -> np.ndarray:
    """Return weights as they are if exact, else in float64, so that sums are not rounded to float32."""
    array = np.asarray(values)
    return array if array.dtype == object else array.astype(np.float64)


def _like(values, x: np.ndarray) -> np.ndarray:
    """Return a parameter in the arithmetic of x: fractions if x holds fractions, floats otherwise."""
    array = np.asarray(values)
    if x.dtype == object:
        return fractions(array)
    return array.astype(np.float64) if array.dtype == object else array


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
        knots, values = _like(layer["knots"], x), _like(layer["values"], x)
        slopes = np.diff(values) / np.diff(knots)
        piece = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(slopes) - 1)
        return values[piece] + slopes[piece] * (x - knots[piece])
    return {
        "relu": lambda: np.maximum(x, 0),
        "abs": lambda: np.abs(x),
        "identity": lambda: x,
        "tanh": lambda: np.tanh(x),
        "softplus": lambda: np.logaddexp(x, 0),
    }[kind]()


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
