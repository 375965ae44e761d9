"""How far computed outputs are from the exact ones anywhere in a box, and what that does to "increasing"."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.certify.arithmetic import arithmetic
from lablib.certify.chain import check_inputs, known_layers
from lablib.certify.intervals import Box, prepare, through
from lablib.certify.rules import RULES
from lablib.certify.skips import Skip
from lablib.certify.slopes import Ends, box_of, input_shape
from lablib.layers.intact import plain_class
from lablib.layers.sequential import ConvexResidual

_EVALUATION = 1.0 + 2.0**-22  # of the bounds themselves, in float64: see lablib.certify.rounding


def bound_box_error(network: nn.Module, lower: Tensor, upper: Tensor) -> Tensor:
    """Return a proven bound of |computed output - exact output| for every input of the box.

    Errors are followed as in :func:`~lablib.certify.rounding.bound_output_error`, with the sizes of values from
    interval bounds, which hold for all inputs of the box and all orders of summation.

    Args:
        network: a chain of known layers in evaluation mode, float32 or float64.
        lower, upper: (B, ...), lower <= upper, in the network's dtype.

    Returns:
        (B, C) float64.

    Raises:
        ValueError: for a network that is not covered, boxes that do not fit, or values near overflow.
    """
    layers = prepare(network, lower, upper)
    with torch.no_grad(), parametrize.cached():
        error = torch.zeros_like(lower, dtype=torch.float64)
        return _chain(layers, (lower, upper), error) * _EVALUATION


def bound_step_back(
    network: nn.Module, lower: Ends, upper: Ends, *, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """Return by how much computed outputs may move against a direction that the exact function keeps.

    Let f_o be increasing in an input (``certify_slopes(network).low >= 0``). Computed values F of two points x
    <= x' of the box that differ in this input alone then satisfy

        F_o(x') >= f_o(x') - E_o >= f_o(x) - E_o >= F_o(x) - 2 E_o,

    with the bound E of :func:`bound_box_error`: increasing up to 2 E units of the output. With a slope of at least
    ``low`` > 0, steps of more than 2 E / low are strictly increasing as computed. In float64 (``network.double()``,
    and inputs likewise) the same is about 2^-29 as large.

    Args:
        network: a chain of known layers in evaluation mode.
        lower, upper: the box, numbers or arrays of one input's shape, rounded outward to the network's dtype.
        shape: of one input, where neither the network nor the box tells.

    Returns:
        2 E (O,) float64.

    Raises:
        ValueError: as :func:`bound_box_error`, and for a box that is not finite.
    """
    sizes = input_shape(known_layers(network), lower, upper, shape)
    box = box_of(network, lower, upper, sizes)
    if not bool(box[0].isfinite().all()):
        raise ValueError("rounding grows with the size of the inputs; give a finite lower and upper")
    check_inputs(network, *box)
    with torch.no_grad():
        network(box[0])  # says what is wrong with the shape
    error = bound_box_error(network, *box)
    return 2.0 * error[0].flatten().cpu().numpy()


def _chain(layers: list[nn.Module], box: Box, error: Tensor) -> Tensor:
    for layer in layers:
        kind = plain_class(layer)
        if kind is ConvexResidual:
            error = _residual(layer, box, error)
        elif kind is Skip:
            error = _skip(layer, box, error)
        else:
            error = _layer(layer, box, error)
        box = through([layer], box)
    return error


def _layer(layer: nn.Module, box: Box, error: Tensor) -> Tensor:
    rule, form = RULES[plain_class(layer)], arithmetic(box[0].dtype)
    after = through([layer], box)
    passed = rule.spread(layer, error)
    local = rule.local(layer, _size(box), _size(after), form)
    return passed if local is None else passed + local


def _residual(layer: ConvexResidual, box: Box, error: Tensor) -> Tensor:
    """(1 - alpha) x + alpha branch(x): see :mod:`lablib.certify.rounding`."""
    alpha, form, branch = layer.alpha.double(), arithmetic(box[0].dtype), known_layers(layer.branch)
    inner = _chain(branch, box, error)
    size = (1 - alpha) * _size(box) + alpha * _size(through(branch, box))
    return (1 - alpha) * error + alpha * inner + form.relative(4) * size + 8 * form.tiny


def _skip(layer: Skip, box: Box, error: Tensor) -> Tensor:
    inner = known_layers(layer.inner)
    both = tuple(torch.cat(ends, -1) for ends in zip(through(inner, box), box))
    return _layer(layer.join, both, torch.cat([_chain(inner, box, error), error], -1))


def _size(box: Box) -> Tensor:
    return torch.maximum(-box[0], box[1]).double()
