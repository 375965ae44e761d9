"""A torch network as a list of plain dicts, for :mod:`lablib.theory`, which knows no torch.

The ops are those of ``lablib.theory.network``; weights are NumPy arrays in the dtype of the module (float32 for
bfloat16, which NumPy lacks), so that exact arithmetic sees the numbers that are stored. Knots and values of learned
splines, which are quotients of such numbers, are fractions.
"""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lablib.layers.activations import Abs, FullSort, GroupSort, LeakyReLU, MaxMin, PReLU
from lablib.layers.conv import L1Conv2d, LInfConv2d, OrthonormalConv2d, SpectralConv2d
from lablib.layers.distance import LInfDistance, SortNetLayer
from lablib.layers.intact import check_intact, is_chain, plain_class
from lablib.layers.linear import L1Linear, LInfLinear, OrthonormalLinear, SpectralLinear
from lablib.layers.lipschitz_linear import LipschitzLinear
from lablib.layers.monotone import MonotoneNetwork
from lablib.layers.sequential import ConvexResidual
from lablib.layers.shift import MeanShift, Normalise, Scale
from lablib.layers.splines import LearnableSpline

Op = dict[str, Any]


@dataclasses.dataclass
class _Features:
    """What is known of the features between two layers: how many channels, and whether they form images."""

    channels: int | None = None
    image: bool | None = None


def describe(module: nn.Module, input_shape: tuple[int, ...] | None = None) -> list[Op]:
    """Return ``module`` (a layer or a chain) as layer dicts, first layer first.

    Args:
        module: layers of :mod:`lablib.layers`, ``nn.Sequential`` and torch's Linear, Conv2d, AvgPool2d,
        Flatten,
            Identity, ReLU, LeakyReLU, PReLU, Tanh, Hardtanh, ReLU6; Dropout in evaluation mode.
        input_shape: (F,) or (C, H, W). Needed only where a :class:`MeanShift`, :class:`Normalise` or
            :class:`FullSort` comes before any layer that tells the features.

    Raises:
        ValueError: for a module or an option that has no such form, which includes subclasses (their forward
            may be another) and hooks; the message names it.
    """
    check_intact(module)
    features = _Features()
    if input_shape is not None:
        features = _Features(input_shape[0], len(input_shape) > 1)
    return _chain([module], features)


def _chain(modules, features: _Features) -> list[Op]:
    return [op for module in modules for op in _ops(module, features)]


def _ops(module: nn.Module, features: _Features) -> list[Op]:
    if is_chain(module):
        return _chain(module, features)
    kind = plain_class(module)
    if kind not in _MAKERS:
        raise ValueError(
            f"{kind.__name__} has no form as plain data; describe() knows exactly "
            f"{', '.join(sorted({known.__name__ for known in _MAKERS}))}, and chains of them"
        )
    return _MAKERS[kind](module, features)


def _array(tensor: Tensor | None) -> np.ndarray | None:
    if tensor is None:
        return None
    stored = tensor.detach().cpu()
    return (stored.float() if stored.dtype == torch.bfloat16 else stored).numpy().copy()


def _affine(layer, features: _Features) -> list[Op]:
    weight = _array(layer.weight)
    features.channels, features.image = len(weight), False
    return [{"op": "affine", "weight": weight, "bias": _array(layer.bias)}]


def _conv(layer, features: _Features) -> list[Op]:
    stride, padding = _pair(layer.stride), layer.padding
    plain = getattr(layer, "groups", 1) == 1 and _pair(getattr(layer, "dilation", 1)) == (1, 1)
    if layer.padding_mode != "zeros" or isinstance(padding, str) or not plain:
        raise ValueError(
            "only convolutions with zero padding given as numbers, no groups and no dilation, have a form"
        )
    weight = _array(layer.weight)
    features.channels, features.image = len(weight), True
    return [
        {
            "op": "conv2d",
            "weight": weight,
            "bias": _array(layer.bias),
            "stride": stride,
            "padding": _pair(padding),
        }
    ]


def _avg_pool(pool: nn.AvgPool2d, features: _Features) -> list[Op]:
    if _pair(pool.padding) != (0, 0) or pool.ceil_mode or pool.divisor_override is not None:
        raise ValueError("AvgPool2d with padding, ceil_mode or divisor_override has no form as plain data")
    features.image = True
    return [{"op": "avg_pool2d", "kernel": _pair(pool.kernel_size), "stride": _pair(pool.stride)}]


def _flatten(layer: nn.Flatten, features: _Features) -> list[Op]:
    if (layer.start_dim, layer.end_dim) != (1, -1):
        raise ValueError("only Flatten() of everything but the batch has a form as plain data")
    if features.image is not False:
        features.channels, features.image = None, False
    return [{"op": "flatten"}]


def _activation(kind: str, **entries) -> list[Op]:
    return [{"op": "activation", "kind": kind, "slope": None} | entries]


def _piecewise(knots, values) -> list[Op]:
    return _activation(
        "piecewise_linear", knots=np.array(knots, dtype=float), values=np.array(values, dtype=float)
    )


def _hardtanh(layer: nn.Hardtanh, features: _Features) -> list[Op]:
    low, high = float(layer.min_val), float(layer.max_val)
    if not low - 1 < low < high < high + 1:
        raise ValueError(
            f"Hardtanh from {low:g} to {high:g} has no form as plain data; use ends of moderate size"
        )
    return _piecewise([low - 1, low, high, high + 1], [low, low, high, high])


def _dropout(layer: nn.Dropout, features: _Features) -> list[Op]:
    if layer.training:
        raise ValueError("Dropout is random in training mode; call eval() before describe()")
    return []


def _group_sort(layer: GroupSort | FullSort, features: _Features) -> list[Op]:
    if layer.dim not in (None, 1):
        raise ValueError("only a sort along axis 1 has a form as plain data")
    size = layer.size if isinstance(layer, GroupSort) else features.channels
    if size is None:
        raise ValueError("FullSort needs to know how many features there are; pass input_shape to describe()")
    return [{"op": "group_sort", "size": size}]


def _prelu(layer: PReLU | nn.PReLU, features: _Features) -> list[Op]:
    if getattr(layer, "dim", None) not in (None, 1):
        raise ValueError("only a PReLU along axis 1 has a form as plain data")
    return _activation("prelu", slope=_array(layer.slope if isinstance(layer, PReLU) else layer.weight))


def _spline(layer: LearnableSpline, features: _Features) -> list[Op]:
    """Knots t_k / alpha and values v_k / alpha as fractions: in floats the slopes would leave their bounds."""
    if layer.dim not in (None, 1):
        raise ValueError("only a LearnableSpline along axis 1 has a form as plain data")
    reach, last = Fraction(layer.range), layer.knots - 1
    places = [reach * (2 * k - last) / last for k in range(layer.knots)]
    scale = [1] * layer.channels if layer.scale is None else map(Fraction, layer.scale.tolist())
    knots, values = np.empty((2, layer.channels, layer.knots), dtype=object)
    for c, (alpha, row) in enumerate(zip(scale, layer.values.tolist())):
        knots[c] = [place / alpha for place in places]
        values[c] = [Fraction(value) / alpha for value in row]
    if layer.channels == 1:  # shared
        knots, values = knots[0], values[0]
    return _activation("piecewise_linear", knots=knots, values=values)


def _distance(layer: LInfDistance, features: _Features) -> list[Op]:
    features.channels, features.image = layer.out_features, False
    return [{"op": "linf_distance", "weight": _array(layer.weight), "bias": _array(layer.bias)}]


def _sortnet(layer: SortNetLayer, features: _Features) -> list[Op]:
    center = -_array(layer.weight)
    weight = np.zeros_like(center)
    weight[:, : layer.top] = _array(layer.rank_weight)
    features.channels, features.image = layer.out_features, False
    return [{"op": "sortnet", "weight": weight, "center": center, "bias": _array(layer.bias)}]


def _mean_shift(layer: MeanShift, features: _Features) -> list[Op]:
    if layer.training:
        raise ValueError("MeanShift depends on the batch in training mode; call eval() before describe()")
    return _translation(-_array(layer.running_mean), layer.channels, "MeanShift", features)


def _normalise(layer: Normalise, features: _Features) -> list[Op]:
    bias = -_array(layer.mean)
    channels = features.channels if len(bias) == 1 else len(bias)
    shift = _translation(bias, channels, "Normalise", features)
    return shift + _piecewise([0.0, layer.std], [0.0, 1.0])  # a slope of exactly 1 / std


def _translation(bias: np.ndarray, channels: int | None, name: str, features: _Features) -> list[Op]:
    """x + bias per channel as an affine map, for images by 1 x 1 patches."""
    if features.image is None or channels is None:
        raise ValueError(f"{name} needs to know whether features are vectors or images; pass input_shape")
    bias = np.broadcast_to(bias, channels).copy()
    identity = np.eye(channels, dtype=bias.dtype)
    if not features.image:
        return [{"op": "affine", "weight": identity, "bias": bias}]
    kernel = identity[:, :, None, None]
    return [{"op": "conv2d", "weight": kernel, "bias": bias, "stride": (1, 1), "padding": (0, 0)}]


def _residual(layer: ConvexResidual, features: _Features) -> list[Op]:
    branch = _chain([layer.branch], features)
    return [{"op": "residual", "branch": branch, "alpha": float(layer.alpha.detach())}]


def _monotone(net: MonotoneNetwork, features: _Features) -> list[Op]:
    """A plain chain: the residual rides along as one group of equal entries per output, which no sort changes."""
    if net.head not in (None, "softplus"):
        raise ValueError(
            f"the head {net.head!r} has no form as plain data; describe the network without its head"
        )
    weights = [_array(layer.weight) for layer in net.network[::2]]
    biases = [_array(layer.bias) for layer in net.network[::2]]
    copies = net.group_size if len(weights) > 1 else 1
    carried = np.repeat(_array(net.directions * net.residual()), copies, axis=0)
    rest = net.out_features * copies
    # first copy of each group: what the last layer adds to the output
    chosen = np.repeat(np.eye(net.out_features, dtype=carried.dtype), copies, axis=1)
    chosen[:, np.arange(rest) % copies != 0] = 0
    ops = []
    for place, (weight, bias) in enumerate(zip(weights, biases)):
        below = np.eye(rest, dtype=weight.dtype) if place else carried
        wide = np.zeros((len(weight) + rest, weight.shape[1] + (rest if place else 0)), weight.dtype)
        wide[: len(weight), : weight.shape[1]] = weight
        wide[len(weight) :, -below.shape[1] :] = below
        ops.append(
            {"op": "affine", "weight": wide, "bias": np.concatenate([bias, np.zeros(rest, bias.dtype)])}
        )
        if place + 1 < len(weights):
            ops.append({"op": "group_sort", "size": copies})
    total = np.concatenate([np.eye(net.out_features, dtype=chosen.dtype), chosen], axis=1)
    ops.append({"op": "affine", "weight": total, "bias": None})
    features.channels, features.image = net.out_features, False
    return ops + (_activation("softplus") if net.head else [])


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


_MAKERS: dict[type[nn.Module], Callable[[Any, _Features], list[Op]]] = {
    **dict.fromkeys(
        (nn.Linear, LInfLinear, L1Linear, LipschitzLinear, SpectralLinear, OrthonormalLinear), _affine
    ),
    **dict.fromkeys((nn.Conv2d, LInfConv2d, L1Conv2d, SpectralConv2d, OrthonormalConv2d), _conv),
    **dict.fromkeys((nn.PReLU, PReLU), _prelu),
    **dict.fromkeys((nn.Hardtanh, nn.ReLU6), _hardtanh),
    **dict.fromkeys((GroupSort, MaxMin, FullSort), _group_sort),
    nn.AvgPool2d: _avg_pool,
    nn.Flatten: _flatten,
    nn.Identity: lambda layer, features: [],
    nn.Dropout: _dropout,
    nn.ReLU: lambda layer, features: _activation("relu"),
    nn.Tanh: lambda layer, features: _activation("tanh"),
    nn.LeakyReLU: lambda layer, features: _activation("leaky", slope=float(layer.negative_slope)),
    Abs: lambda layer, features: _activation("abs"),
    LeakyReLU: lambda layer, features: _activation("leaky", slope=layer.slope),
    LearnableSpline: _spline,
    LInfDistance: _distance,
    SortNetLayer: _sortnet,
    MeanShift: _mean_shift,
    Normalise: _normalise,
    Scale: lambda layer, features: _piecewise([0.0, 1.0], [0.0, layer.constant]),
    ConvexResidual: _residual,
    MonotoneNetwork: _monotone,
}
