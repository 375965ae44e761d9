r"""Certified slopes: proven intervals for every output and input of a network, and radii of decisions from them.

With low_oi t <= f_o(x + t e_i) - f_o(x) <= high_oi t for all t >= 0 (:mod:`lablib.ops.slopes`, where rounding is
allowed for, and :mod:`lablib.certify.slope_rules`), going from x to x' one coordinate after the other gives

    |f_o(x') - f_o(x)|  <=  sum_i max(|low_oi|, |high_oi|) |x'_i - x_i|,

so a change of f needs a distance in l1 of at least the change over the largest slope, in linf over the sum of
slopes. Within a box the path stays in the box.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.certify.chain import known_layers
from lablib.certify.intervals import through
from lablib.certify.rules import LINEAR, run
from lablib.certify.skips import Skip
from lablib.certify.slope_rules import Box, slopes_through, whole_space
from lablib.layers.base import layer_name
from lablib.layers.intact import plain_class
from lablib.layers.sequential import ConvexResidual
from lablib.ops.rounding import EPS64
from lablib.ops.slope_state import SlopeState, tightened

Ends = float | np.ndarray | Tensor | None


@dataclasses.dataclass(frozen=True)
class Slopes:
    """Proven bounds of the slopes of each output (O) in each input (I), units of output per unit of input.

    Attributes:
        low, high: (O, I) float64. For inputs of more than one axis, I counts them flattened.
    """

    low: np.ndarray
    high: np.ndarray

    @property
    def increasing(self) -> np.ndarray:
        """(O, I) where the function is proven not to decrease."""
        return self.low >= 0.0

    @property
    def decreasing(self) -> np.ndarray:
        """(O, I) where the function is proven not to increase."""
        return self.high <= 0.0

    @property
    def largest(self) -> np.ndarray:
        """(O, I) the largest |slope| that is not ruled out."""
        return np.maximum(-self.low, self.high)


def certify_slopes(
    model: nn.Module, lower: Ends = None, upper: Ends = None, *, shape: tuple[int, ...] | None = None
) -> Slopes:
    """Return proven bounds of every slope of ``model``, over all inputs or over those of a box.

    Each bound holds for all increments and hence for every entry of Clarke's generalised Jacobian, of the real
    function that the stored weights define. They are computed from the weights as they are now, rounded outward
    in float64. Heads count: slopes are those of what the model returns. For computed values see
    :func:`~lablib.certify.box_rounding.bound_step_back`.

    Args:
        model: a chain of known layers in evaluation mode, MonotoneNetwork (also frozen) and MonotonicWrapper among
            them.
        lower, upper: the box, numbers or arrays of one input's shape. Activations that have one slope in it, and
            sorts whose order is fixed in it, tighten the bounds. With None or an infinity on any side the bounds
            are those of all inputs.
        shape: of one input, where neither the model nor a box tells: (I,) or (C, H, W).

    Raises:
        ValueError: for a layer that is not covered (the message names it), training mode, a box that is empty or of
            another shape, weights that are not finite or slopes that overflow.
    """
    layers = known_layers(model)
    check_gradual_underflow()
    with torch.no_grad(), parametrize.cached():
        sizes = input_shape(layers, lower, upper, shape)
        box = box_of(model, lower, upper, sizes)
        _check_finite(layers)
        state = slopes_of_chain(layers, box)
    low, high = (end.reshape(-1, *end.shape[-2:])[0].cpu().numpy() + 0.0 for end in (state.low, state.high))
    return Slopes(low, high)


def slopes_of_chain(layers: list[nn.Module], box: Box) -> SlopeState:
    """Return slopes behind ``layers`` for inputs in ``box`` (B, ...); the batch axis is left out where all agree.

    Raises:
        ValueError: as :func:`certify_slopes`.
    """
    state = SlopeState.of_inputs(box[0][0].numel(), device=box[0].device)
    return _checked(_walk(layers, state, box)[0])


def before_last_linear(layers: list[nn.Module], box: Box) -> tuple[SlopeState, Tensor | None]:
    """Return slopes of what the last linear layer is given, and its weight (O, U) in float64.

    Of a :class:`~lablib.certify.skips.Skip` with a linear end that is W z + R x, a linear map of [z, x]. Where the
    chain ends otherwise: the slopes behind it, and None.
    """
    state = SlopeState.of_inputs(box[0][0].numel(), device=box[0].device)
    last = layers[-1]
    if plain_class(last) in LINEAR:
        state, _ = _walk(layers[:-1], state, box)
        return _checked(state), last.weight.double()
    if plain_class(last) is Skip and plain_class(last.inner[-1]) in LINEAR:
        state, box = _walk(layers[:-1], state, box)
        inner, _ = _walk(list(last.inner[:-1]), state, box)
        weight = torch.cat([last.inner[-1].weight.double(), last.added.double()], 1)
        return _checked(inner.beside(state)), weight
    return slopes_of_chain(layers, box), None


def _check_finite(layers: list[nn.Module]) -> None:
    """Biases too, on which slopes do not depend: a function that is NaN everywhere has none."""
    for layer in layers:
        for name, weight in itertools.chain(layer.named_parameters(), layer.named_buffers()):
            if weight.is_floating_point() and not bool(weight.isfinite().all()):
                raise ValueError(
                    f"{name} of {layer_name(layer)} is not finite (NaN or infinity); look for the step that made it"
                )


def _checked(state: SlopeState) -> SlopeState:
    if not bool(state.low.isfinite().all() and state.high.isfinite().all()):
        raise ValueError(
            "weights are not finite, or slopes overflow; look for the step that made them so large"
        )
    return state


def check_gradual_underflow() -> None:
    """Raise ValueError where the processor is told to flush small numbers, which no allowance here covers."""
    least = torch.tensor([2.0**-1074], dtype=torch.float64)
    if int((least * 1.0).view(torch.int64)) == 0:
        raise ValueError(
            "slopes need gradual underflow; call torch.set_flush_denormal(False) before certifying"
        )


def input_shape(
    layers: list[nn.Module], lower: Ends, upper: Ends, shape: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Return the shape of one input, from ``shape``, the box, or the first layer that knows its inputs.

    Raises:
        ValueError: if nothing tells.
    """
    if shape is not None:
        if not isinstance(shape, Sequence) or not all(isinstance(n, int) and n > 0 for n in shape):
            raise ValueError(f"shape is that of one input, such as (3,) or (1, 28, 28), got {shape!r}")
        return tuple(shape)
    for end in (lower, upper):
        if np.ndim(end):
            return tuple(np.shape(end))
    for part in (part for layer in layers for part in layer.modules()):
        if hasattr(part, "in_features"):
            return (part.in_features,)
        if hasattr(part, "in_channels"):
            break
    raise ValueError(
        "the model does not tell the shape of its inputs; give shape=(I,) or (C, H, W), or a box of that shape"
    )


def box_of(model: nn.Module, lower: Ends, upper: Ends, shape: tuple[int, ...]) -> Box:
    """Return the box (1, *shape) in the dtype of ``model``, rounded outward; everything if a side is infinite.

    Raises:
        ValueError: for ends that are no numbers, of another shape, or NaN, or that enclose nothing.
    """
    like = next(
        (t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), torch.zeros(())
    )
    ends = []
    for end, outside in ((lower, -torch.inf), (upper, torch.inf)):
        try:
            value = torch.as_tensor(outside if end is None else end, dtype=torch.float64, device=like.device)
        except (TypeError, ValueError) as error:
            raise ValueError(f"lower and upper are numbers or arrays of one input's shape: {error}") from None
        if value.dim() and value.shape != shape:
            raise ValueError(f"the box must have the shape of one input, {shape}, got {tuple(value.shape)}")
        rounded = value.to(like.dtype)
        inside = rounded.double() > value if outside < 0 else rounded.double() < value
        rounded = torch.where(inside, torch.nextafter(rounded, torch.full_like(rounded, outside)), rounded)
        ends.append(rounded.expand(shape)[None])
    if not bool((ends[0] <= ends[1]).all()):
        raise ValueError("the box is empty or holds NaN: lower must not be larger than upper")
    finite = all(bool(end.isfinite().all()) for end in ends)
    return (ends[0], ends[1]) if finite else whole_space(shape, like.device)


def _walk(layers: list[nn.Module], state: SlopeState, box: Box) -> tuple[SlopeState, Box]:
    for layer in layers:
        kind = plain_class(layer)
        if kind is ConvexResidual:
            state = _residual(layer, state, box)
        elif kind is Skip:
            state = _skip(layer, state, box)
        else:
            state = slopes_through(layer, state, box)
        box = _after(layer, box)
    return state, box


def _after(layer: nn.Module, box: Box) -> Box:
    if bool(box[0].isfinite().all()):
        return through([layer], box)
    kind = next((t.dtype for t in layer.parameters()), torch.float32)
    after = run(layer, torch.zeros_like(box[0], dtype=kind))
    return whole_space(tuple(after.shape[1:]), after.device)


def _residual(layer: ConvexResidual, state: SlopeState, box: Box) -> SlopeState:
    alpha = float(layer.alpha)
    inner, _ = _walk(known_layers(layer.branch), state, box)
    kept = (1.0 - alpha) * (1.0 - EPS64), (1.0 - alpha) * (1.0 + EPS64)
    return state.elementwise(*kept).plus(inner.elementwise(alpha, alpha))


def _skip(layer: Skip, state: SlopeState, box: Box) -> SlopeState:
    inner, _ = _walk(known_layers(layer.inner), state, box)
    return inner.plus(added_slopes(layer.added, state))


def added_slopes(added: Tensor, state: SlopeState) -> SlopeState:
    """Slopes of R z: exactly R where ``state`` is that of the inputs themselves, so that r - r stays 0."""
    weight = added.double()
    eye = torch.eye(weight.shape[1], dtype=torch.float64, device=weight.device)
    if torch.equal(state.low, eye) and torch.equal(state.high, eye):
        infinite = {norm: torch.full_like(weight[0], torch.inf) for norm in state.norms}
        return tightened(weight, weight, infinite)
    return state.linear(added)
