"""How each layer carries bounds of slopes on: :class:`~lablib.ops.slope_state.SlopeState` through known layers.

``slopes_through(layer, state, box)`` is defined for exactly the classes of :data:`RULES`. ``box`` holds what goes
into the layer, bounds (B, ...) of the exact values from :mod:`lablib.certify.intervals`; ends may be infinite where
nothing is known, and then the slopes hold everywhere. Within a box, an activation that is on one side of its
kinks has one slope, and members of a sorted group that cannot change places keep theirs.

Why a fixed order may be used. On a segment of the box the k-th smallest is always one of the members that can be
k-th there. It is Lipschitz, so the integral of its derivative; at almost every point it and all members have
derivatives, and it agrees with some member on a sequence that converges there, so its derivative is that
member's. Hence its increments lie in the hull of theirs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lablib.certify.arithmetic import ULPS
from lablib.certify.rules import CONVOLUTIONS, LINEAR
from lablib.certify.rules import RULES as ROUNDING
from lablib.certify.skips import StableSoftplus
from lablib.layers.activations import Abs, FullSort, GroupSort, Householder, LeakyReLU, MaxMin, PReLU
from lablib.layers.base import layer_name
from lablib.layers.distance import LInfDistance, LInfDistanceConv2d, SortNetConv2d, SortNetLayer
from lablib.layers.intact import plain_class
from lablib.layers.shift import MeanShift, Normalise, Scale
from lablib.layers.splines import LearnableSpline
from lablib.ops.activations import per_channel
from lablib.ops.rounding import EPS64
from lablib.ops.slope_state import SlopeState, tightened
from lablib.ops.slopes import through_linear
from lablib.ops.sorting import channel_dim

Box = tuple[Tensor, Tensor]
LARGEST_MATRIX = 2**26  # entries of a convolution written as a matrix: 512 MiB


def slopes_through(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    """Return the slopes behind ``layer``.

    Args:
        layer: of a class in :data:`RULES`.
        state: slopes of the U = prod(...) units before it.
        box: (B, ...) twice, bounds of these units.

    Raises:
        ValueError: for a class that is not covered, or features of another shape than it takes.
    """
    kind = plain_class(layer)
    if kind not in RULES:
        names = ", ".join(sorted(known.__name__ for known in RULES))
        raise ValueError(f"no slopes are known of {layer_name(layer)}; they are of {names}")
    return RULES[kind](layer, state, box)


def whole_space(shape: tuple[int, ...], device: torch.device | None = None) -> Box:
    """Return the box (1, *shape) of all numbers."""
    ends = torch.full((1, *shape), torch.inf, dtype=torch.float64, device=device)
    return -ends, ends


def _same(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    """Values are moved, kept in order, or shifted."""
    return state


def _linear(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    if box[0].dim() != 2 or box[0].shape[1] != layer.in_features:
        raise ValueError(
            f"{layer_name(layer)} needs {layer.in_features} features (B, I), got {tuple(box[0].shape[1:])} per "
            "input; add nn.Flatten() before it, or change its size"
        )
    return state.linear(layer.weight)


def _convolution(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    weight = layer.weight.double()
    return state.linear(
        _matrix(layer, box, lambda x: ROUNDING[plain_class(layer)].apply(layer, x, weight, None))
    )


def _average(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    return state.linear(_matrix(layer, box, layer))  # entries 1 / k, one rounding each


def _matrix(layer: nn.Module, box: Box, apply: Callable[[Tensor], Tensor]) -> Tensor:
    """The matrix (O, U) of a linear map of images, column by column: no entry is a sum."""
    units = box[0][0].numel()
    outputs = apply(torch.zeros_like(box[0][:1], dtype=torch.float64)).numel()
    if units * outputs > LARGEST_MATRIX:
        raise ValueError(
            f"{layer_name(layer)} from {units} to {outputs} units is too large to follow every slope through; "
            "certify smaller images, or use Lipschitz constants (bound_radius)"
        )
    eye = torch.eye(units, dtype=torch.float64, device=box[0].device)
    return apply(eye.view(units, *box[0].shape[1:])).flatten(1).T


def _sides(below: float | Tensor, above: float | Tensor, box: Box) -> Box:
    """Slopes of activations with slope ``below`` on x < 0 and ``above`` on x > 0."""
    low, high = (v.flatten(1) for v in box)
    below, above = (torch.as_tensor(v, dtype=torch.float64, device=low.device) for v in (below, above))
    least, most = torch.minimum(below, above), torch.maximum(below, above)
    left, right = high < 0, low > 0
    return tuple(torch.where(left, below, torch.where(right, above, end)) for end in (least, most))


def _relu(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    return state.elementwise(*_sides(0.0, 1.0, box))


def _abs(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    return state.elementwise(*_sides(-1.0, 1.0, box))


def _leaky(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    slope = layer.negative_slope if isinstance(layer, nn.LeakyReLU) else layer.slope
    ends = [_sides(end, 1.0, box) for end in as_stored(slope)]
    return state.elementwise(torch.minimum(ends[0][0], ends[1][0]), torch.maximum(ends[0][1], ends[1][1]))


def _prelu(layer: PReLU, state: SlopeState, box: Box) -> SlopeState:
    slope = per_channel(layer.slope.double(), box[0], layer.dim).expand(box[0].shape).flatten(1)
    return state.elementwise(*_sides(slope, 1.0, box))


def _clipped(layer: nn.Hardtanh, state: SlopeState, box: Box) -> SlopeState:
    low, high = (v.flatten(1) for v in box)
    inside = (low > layer.min_val) & (high < layer.max_val)
    outside = (high < layer.min_val) | (low > layer.max_val)
    return state.elementwise(inside.double(), (~outside).double())


def _sigmoid(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    return state.elementwise(*_sigmoid_slopes(box))


def _softplus(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    """softplus' = sigmoid, which is increasing."""
    low, high = (v.double().flatten(1).sigmoid() for v in box)
    allowance = (ULPS + 4) * EPS64
    return state.elementwise(low * (1 - allowance), (high * (1 + allowance) + 2.0**-1000).clamp(max=1.0))


def _tanh(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    """tanh' (x) = 4 sigmoid'(2 x)."""
    low, high = _sigmoid_slopes((2 * box[0].double(), 2 * box[1].double()))
    return state.elementwise(4 * low, (4 * high).clamp(max=1.0))


def _sigmoid_slopes(box: Box) -> Box:
    """sigmoid'(x) = sigmoid(x) sigmoid(-x) falls with |x|: ends at the nearest and the farthest point from 0."""
    low, high = (v.double().flatten(1) for v in box)
    near = torch.maximum(low, -high).clamp(min=0.0)
    far = torch.maximum(-low, high)
    least, most = (v.sigmoid() * (-v).sigmoid() for v in (far, near))
    allowance = (2 * ULPS + 8) * EPS64
    return least * (1.0 - allowance), (most * (1.0 + allowance) + 2.0**-1000).clamp(max=0.25)


def _scale(layer: Scale, state: SlopeState, box: Box) -> SlopeState:
    return state.elementwise(*as_stored(layer.constant))


def as_stored(number: float) -> tuple[float, float]:
    """The hull of a number and what a float32 network multiplies with in its place."""
    near = float(torch.tensor(number, dtype=torch.float32))
    return min(number, near), max(number, near)


def _normalise(layer: Normalise, state: SlopeState, box: Box) -> SlopeState:
    slope = 1.0 / layer.std
    return state if slope == 1.0 else state.elementwise(slope * (1.0 - EPS64), slope * (1.0 + EPS64))


def _spline(layer: LearnableSpline, state: SlopeState, box: Box) -> SlopeState:
    """s'(x) = S'(a x): the slopes of the segments in reach, each of three roundings."""
    axis, last = channel_dim(box[0], layer.dim), layer.knots - 1
    scale = torch.ones(1) if layer.scale is None else layer.scale
    scale = per_channel(scale.double().to(box[0].device), box[0], layer.dim)
    places = [(v.double() * scale / layer.range + 1) * (last / 2) for v in box]
    slack = layer.knots * 2.0**-40
    first = (places[0] - slack).floor().clamp(0, last - 1)
    final = (places[1] + slack).floor().clamp(0, last - 1)
    slopes = layer.values.double().diff(dim=1) * (last / (2 * layer.range))
    shape = [1] * first.dim()
    shape[axis] = -1
    least, most = torch.full_like(first, torch.inf), torch.full_like(first, -torch.inf)
    for segment, slope in enumerate(slopes.T):
        reached = (first <= segment) & (segment <= final)
        slope = slope.reshape(shape)
        least = torch.where(reached, torch.minimum(least, slope), least)
        most = torch.where(reached, torch.maximum(most, slope), most)
    allowance = 4 * EPS64
    least, most = least - allowance * least.abs(), most + allowance * most.abs()
    return state.elementwise(least.flatten(1), most.flatten(1))


def _sort(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    axis = channel_dim(box[0], layer.dim)
    size = layer.size if isinstance(layer, GroupSort) else box[0].shape[axis]
    order, back = _channels_last(box[0], axis)
    low, high = (v.flatten(1)[:, order] for v in box)
    moved = tightened(state.low[..., order, :], state.high[..., order, :], state.norms)
    if size > 1 and _some_order_is_certain(low, high, size):
        moved = _sort_within(moved, low, high, size)
    else:
        moved = moved.group_sort(size)
    return tightened(moved.low[..., back, :], moved.high[..., back, :], moved.norms)


def _channels_last(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The order of units in which channels are consecutive, and the way back."""
    order = torch.arange(x[0].numel(), device=x.device).view(x.shape[1:]).movedim(axis - 1, -1).flatten()
    return order, order.argsort()


def _some_order_is_certain(low: Tensor, high: Tensor, size: int) -> bool:
    groups = low.unflatten(1, (-1, size)), high.unflatten(1, (-1, size))
    return bool((groups[1].amin(-1) < groups[0].amax(-1)).any())


def _sort_within(state: SlopeState, low: Tensor, high: Tensor, size: int) -> SlopeState:
    """Slopes behind a sort of values between ``low`` and ``high`` (B, U), from the members that can be k-th."""
    least, most = (v.unflatten(1, (-1, size)) for v in (low, high))
    certain = most[..., :, None] < least[..., None, :]  # [j, i]: j below i
    below, above = certain.sum(-2), certain.sum(-1)  # of each member
    ends = [v.unflatten(-2, (-1, size)) for v in (state.low, state.high)]
    found = [[], []]
    for rank in range(size):
        possible = ((below <= rank) & (rank <= size - 1 - above)).unsqueeze(-1)
        found[0].append(torch.where(possible, ends[0], torch.inf).amin(-2))
        found[1].append(torch.where(possible, ends[1], -torch.inf).amax(-2))
    lows, highs = (torch.stack(values, -2).flatten(-3, -2) for values in found)
    return tightened(lows, highs, state.norms)


def _householder(layer: Householder, state: SlopeState, box: Box) -> SlopeState:
    """Increments of a pair are kept or reflected: the hull of both; never longer in l2."""
    axis = channel_dim(box[0], layer.dim)
    order, back = _channels_last(box[0], axis)
    low, high = state.low[..., order, :], state.high[..., order, :]
    cos, sin = layer.angle.double().cos(), layer.angle.double().sin()  # good to 4 units in the last place
    blocks = torch.stack([torch.stack([cos, sin], -1), torch.stack([sin, -cos], -1)], -2)
    count = len(order) // 2
    reflection = torch.block_diag(*blocks.repeat(count // len(blocks), 1, 1))
    other_low, other_high = through_linear(low, high, reflection)
    low, high = torch.minimum(low, other_low), torch.maximum(high, other_high)
    norms = {norm: size if norm == "l2" else 1.4143 * size for norm, size in state.norms.items()}
    return tightened(low[..., back, :], high[..., back, :], norms)


def _distance(layer: nn.Module, state: SlopeState, box: Box) -> SlopeState:
    """1-Lipschitz in linf, each output: by at most the largest |slope| of the inputs, up or down."""
    shape = layer(torch.zeros_like(box[0][:1], dtype=layer.weight.dtype)).shape
    largest = torch.maximum(-state.low, state.high).amax(-2, keepdim=True)
    most = largest.expand(*largest.shape[:-2], shape[1:].numel(), largest.shape[-1])
    return tightened(-most, most, {norm: torch.full_like(v, torch.inf) for norm, v in state.norms.items()})


SlopeRule = Callable[[nn.Module, SlopeState, Box], SlopeState]
RULES: dict[type[nn.Module], SlopeRule] = {
    **dict.fromkeys((nn.Identity, nn.Flatten, nn.Unflatten, MeanShift), _same),
    **dict.fromkeys(LINEAR, _linear),
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys((LeakyReLU, nn.LeakyReLU), _leaky),
    **dict.fromkeys((GroupSort, MaxMin, FullSort), _sort),
    **dict.fromkeys((nn.Hardtanh, nn.ReLU6), _clipped),
    **dict.fromkeys((LInfDistance, SortNetLayer, LInfDistanceConv2d, SortNetConv2d), _distance),
    nn.AvgPool2d: _average,
    nn.ReLU: _relu,
    nn.Sigmoid: _sigmoid,
    nn.Tanh: _tanh,
    Abs: _abs,
    Householder: _householder,
    LearnableSpline: _spline,
    Normalise: _normalise,
    PReLU: _prelu,
    Scale: _scale,
    StableSoftplus: _softplus,
}
