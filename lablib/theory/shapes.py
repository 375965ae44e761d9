"""Networks as plain data, checked: the shape after every layer, or one sentence on the layer that does not fit.

The layers are those of :mod:`lablib.theory.network`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Layer = Mapping[str, Any]
OPS = (
    "affine",
    "conv2d",
    "avg_pool2d",
    "flatten",
    "residual",
    "activation",
    "group_sort",
    "linf_distance",
    "sortnet",
)
EXACT_KINDS = ("relu", "abs", "identity", "leaky", "prelu", "piecewise_linear")
FLOAT_KINDS = ("tanh", "softplus")


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
    if op not in OPS:
        raise ValueError(f"unknown op {op!r}; choose from {', '.join(OPS)}")
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
    weight = finite(layer["weight"], "weight")
    if len(shape) != 1 or weight.ndim != 2 or weight.shape[1] != shape[0] or len(weight) < 1:
        raise ValueError(
            f"{layer['op']} weight {weight.shape} does not fit features {shape}; flatten images first, "
            "and give a weight of shape (out, features)"
        )
    if layer["op"] == "sortnet" and finite(layer["center"], "center").shape != weight.shape:
        raise ValueError(f"sortnet needs a center of the weight's shape {weight.shape}")
    _check_bias(layer, len(weight))
    return (len(weight),)


def _check_window(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3:
        raise ValueError(f"{layer['op']} needs features (C, H, W), not {shape}")
    if layer["op"] == "conv2d":
        weight = finite(layer["weight"], "weight")
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
    if kind in ("leaky", "prelu") and finite(layer["slope"], "slope").size not in (1, shape[0]):
        raise ValueError(f"{kind} needs one slope, or one for each of the {shape[0]} channels")
    if kind == "piecewise_linear":
        knots, values = finite(layer["knots"], "knots"), finite(layer["values"], "values")
        if (
            knots.ndim not in (1, 2)
            or knots.shape != values.shape
            or knots.shape[-1] < 2
            or np.any(knots[..., 1:] <= knots[..., :-1])
        ):
            raise ValueError("piecewise_linear needs two or more increasing knots and as many values")
        if knots.ndim == 2 and len(knots) != shape[0]:
            raise ValueError(f"piecewise_linear has {len(knots)} functions for {shape[0]} channels")


def _check_bias(layer: Layer, rows: int) -> None:
    if layer.get("bias") is not None and finite(layer["bias"], "bias").shape != (rows,):
        raise ValueError(f"the bias must have shape ({rows},)")


def finite(values, name: str) -> np.ndarray:
    """Return the values as an array.

    Raises:
        ValueError: if one of them is NaN or infinite.
    """
    array = np.asarray(values)
    numbers = (
        array if array.dtype != object else [v for v in array.flat if isinstance(v, float | np.floating)]
    )
    if not np.all(np.isfinite(numbers)):
        raise ValueError(f"the {name} holds NaN or infinity")
    return array
