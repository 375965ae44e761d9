"""Boxes through a chain, differentiably and without rounding: for training losses, not for certificates.

What comes out is the interval bound of the real functions, as accurate as floats are. For bounds that hold
in spite of rounding see ``lablib.certify``. Letters: B batch, F features, C classes.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lablib.layers.base import layer_name
from lablib.layers.distance import LInfDistance, LInfDistanceConv2d, SortNetConv2d, SortNetLayer
from lablib.layers.intact import check_intact, is_chain, plain_class
from lablib.layers.shift import MeanShift, Normalise, Scale
from lablib.ops import linf_dist, sortnet

Box = tuple[Tensor, Tensor]


def propagate_box(chain: nn.Module, lower: Tensor, upper: Tensor) -> Box:
    """Return (lower, upper) outputs of ``chain`` for all inputs between ``lower`` and ``upper``.

    Source of the affine rule: Gowal et al., "On the effectiveness of interval bound propagation" (arXiv
    1810.12715), section 3; of the sorted neuron: SortNet paper (arXiv 2210.01787), appendix on certification.

    Args:
        chain: layers of this package's distance networks, and torch's Linear, Conv2d, Flatten, ReLU, Tanh.
        lower, upper: the box, of one shape, lower <= upper everywhere.

    Raises:
        ValueError: for an unknown layer (named), or ends of two shapes. That lower <= upper is not looked at: on a
            GPU, each step would wait for it.
    """
    check_intact(chain)
    if lower.shape != upper.shape:
        raise ValueError(
            f"the ends of a box have one shape, got {tuple(lower.shape)} and {tuple(upper.shape)}"
        )
    return _propagate(chain, lower, upper)


def _propagate(layer: nn.Module, lower: Tensor, upper: Tensor) -> Box:
    if is_chain(layer):
        for part in layer:
            lower, upper = _propagate(part, lower, upper)
        return lower, upper
    rule = _RULES.get(plain_class(layer))
    if rule is None:
        known = ", ".join(sorted(kind.__name__ for kind in _RULES))
        raise ValueError(f"no interval rule for {layer_name(layer)}; use layers among {known}")
    return rule(layer, lower, upper)


def linear_worst(head: nn.Linear, lower: Tensor, upper: Tensor, labels: Tensor) -> Tensor:
    """Return upper bounds of f_j - f_y over a box of the inputs of the last layer: (B, C), 0 at j = y.

    The rows of the two logits are subtracted first, so that what both share cancels.

    Args:
        head: linear, F -> C.
        lower, upper: (B, F).
        labels: (B,) int64.
    """
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    logits = head(center)
    difference = head.weight - head.weight[labels][:, None]  # (B, C, F)
    spread = torch.bmm(difference.abs(), radius[:, :, None])[:, :, 0]
    return logits - logits.gather(1, labels[:, None]) + spread


def _monotone(layer: nn.Module, lower: Tensor, upper: Tensor) -> Box:
    return layer(lower), layer(upper)


def _mean_shift(layer: MeanShift, lower: Tensor, upper: Tensor) -> Box:
    if layer.training:
        raise ValueError("MeanShift depends on the batch in training mode; call eval() first")
    return layer(lower), layer(upper)


def _scale(layer: Scale, lower: Tensor, upper: Tensor) -> Box:
    return (layer(lower), layer(upper)) if layer.constant >= 0 else (layer(upper), layer(lower))


def _affine(layer: nn.Linear | nn.Conv2d, lower: Tensor, upper: Tensor) -> Box:
    middle, radius = layer((lower + upper) / 2), (upper - lower) / 2
    if isinstance(layer, nn.Linear):
        spread = F.linear(radius, layer.weight.abs())
    else:
        if layer.padding_mode != "zeros":
            raise ValueError("interval bounds of a convolution need padding_mode='zeros'")
        options = layer.stride, layer.padding, layer.dilation, layer.groups
        spread = F.conv2d(radius, layer.weight.abs(), None, *options)
    return middle - spread, middle + spread


def _distance(layer: LInfDistance | SortNetLayer, lower: Tensor, upper: Tensor) -> Box:
    if isinstance(layer, SortNetLayer):
        low, high = sortnet.sortnet_bounds(lower, upper, -layer.weight, layer.rank_weight)
    else:
        low, high = linf_dist.linf_distance_bounds(lower, upper, layer.weight)
    return (low, high) if layer.bias is None else (low + layer.bias, high + layer.bias)


def _distance_conv(layer: Any, lower: Tensor, upper: Tensor) -> Box:
    rows = _distance(layer, layer.patches(lower), layer.patches(upper))
    low, high = (layer.as_images(y, lower) for y in rows)
    return low, high


_RULES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], Box]] = {
    **dict.fromkeys((Normalise, nn.Flatten, nn.Identity, nn.ReLU, nn.Tanh), _monotone),
    **dict.fromkeys((nn.Linear, nn.Conv2d), _affine),
    **dict.fromkeys((LInfDistance, SortNetLayer), _distance),
    **dict.fromkeys((LInfDistanceConv2d, SortNetConv2d), _distance_conv),
    MeanShift: _mean_shift,
    Scale: _scale,
}
