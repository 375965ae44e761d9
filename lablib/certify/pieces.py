"""A small network as plain float64 numbers: affine maps, and the comparisons that bend it.

Between comparisons everything is affine, so where all of them have one outcome (a *region* of the inputs) a network
of these layers is one affine function, and its slopes there are one product of matrices.
"""

import dataclasses
import functools

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from lablib.certify.chain import known_layers
from lablib.certify.rules import LINEAR
from lablib.certify.skips import MONOTONE, added_and_head
from lablib.layers.activations import Abs, FullSort, GroupSort, LeakyReLU, MaxMin, PReLU
from lablib.layers.base import layer_name
from lablib.layers.frozen import FrozenMonotone
from lablib.layers.intact import check_intact, plain_class
from lablib.layers.shift import MeanShift, Normalise, Scale

_DIAGONAL = {MeanShift, Normalise, Scale}
_BENT = {nn.ReLU, nn.LeakyReLU, Abs, LeakyReLU, PReLU}
_SORTS = {MaxMin, GroupSort, FullSort}


@dataclasses.dataclass(frozen=True)
class Affine:
    """x -> weight x + bias; weight (O, I), bias (O,)."""

    weight: np.ndarray
    bias: np.ndarray


@dataclasses.dataclass(frozen=True)
class Sort:
    """Ascending within consecutive groups of ``size``, by exchanges of neighbours in a fixed order."""

    size: int
    groups: int

    @functools.cached_property
    def exchanges(self) -> list[int]:
        """First place of each compared pair (k, k + 1) of a group; after all of them it is sorted."""
        return [k for last in range(self.size - 1, 0, -1) for k in range(last)]


@dataclasses.dataclass(frozen=True)
class Bend:
    """x where x >= 0 and slope x elsewhere; slope (C,)."""

    slope: np.ndarray

    @property
    def groups(self) -> int:
        """How many units bend, each for itself."""
        return len(self.slope)


Piece = Affine | Sort | Bend


@dataclasses.dataclass(frozen=True)
class MonotoneParts:
    """head(network(x) + added x), with the numbers as they are now.

    ``added`` (O, I) or (1, I) float64, signs included, and ``directions`` of the same shape: None where there are
    none. ``head``: None, "sigmoid" or "softplus".
    """

    network: nn.Module
    added: np.ndarray | None
    directions: np.ndarray | None
    head: str | None


def monotone_parts(model: nn.Module) -> MonotoneParts:
    """Return the parts of a MonotoneNetwork (also a frozen one) or MonotonicWrapper; others are their own network.

    A frozen network knows the directions of those inputs only that it adds something of.

    Raises:
        ValueError: for hooks, or a frozen network with a head of its own.
    """
    check_intact(model)
    kind = plain_class(model)
    with torch.no_grad(), parametrize.cached():
        if kind not in MONOTONE:
            return MonotoneParts(model, None, None, None)
        stored, head = added_and_head(model)
        added = stored.double().numpy()
        signs = np.sign(added) if kind is FrozenMonotone else model.directions.double().numpy()
        return MonotoneParts(model.network, added, signs, head)


def pieces(network: nn.Module) -> tuple[list[Piece], int]:
    """Return the pieces of a chain of known layers, first to last, and the number of its inputs.

    The weights are those it computes with now.

    Args:
        network: linear layers, shifts and scales, sorts, absolute values and (leaky) ReLU of vectors, in evaluation
            mode; the first layer with weights is linear.

    Raises:
        ValueError: for any other layer (the message names it), hooks, or sizes that do not fit.
    """
    with torch.no_grad(), parametrize.cached():
        layers = known_layers(network)
        inputs = next((layer.in_features for layer in layers if plain_class(layer) in LINEAR), None)
        if inputs is None:
            raise ValueError("the network has no linear layer, so its slopes need no search")
        found, width = [], inputs
        for layer in layers:
            piece = _piece(layer, width)
            if piece is not None:
                found.append(piece)
            if isinstance(piece, Affine):
                width = len(piece.weight)
    return found, inputs


def _piece(layer: nn.Module, width: int) -> Piece | None:
    kind = plain_class(layer)
    if kind is nn.Identity or (kind is nn.Flatten and layer.start_dim == 1):
        return None
    if kind in LINEAR:
        if not all(p.isfinite().all() for p in layer.parameters()):
            raise ValueError(f"the weights of {layer_name(layer)} contain NaN or infinity; train it again")
        if layer.in_features != width:
            raise ValueError(f"{layer_name(layer)} needs {layer.in_features} inputs and gets {width}")
        weight = layer.weight.double().numpy()
        return Affine(weight, np.zeros(len(weight)) if layer.bias is None else layer.bias.double().numpy())
    if kind in _DIAGONAL:
        return _diagonal(layer, width)
    if kind in _SORTS:
        if layer.dim not in (None, 1, -1):
            raise ValueError(
                f"{layer_name(layer)} sorts axis {layer.dim}; only axis 1, the units, is covered"
            )
        size = width if kind is FullSort else layer.size
        if width % size:
            raise ValueError(
                f"group size {size} does not divide the {width} units before {layer_name(layer)}"
            )
        return Sort(size, width // size)
    if kind in _BENT:
        return Bend(np.array(np.broadcast_to(_slope(layer), (width,)), dtype=np.float64))
    raise ValueError(
        f"{layer_name(layer)} is not made of linear pieces of vectors; exact slopes are for linear layers, sorts, "
        "absolute values and (leaky) ReLU (certify_slopes knows more layers)"
    )


def _diagonal(layer: nn.Module, width: int) -> Affine:
    kind = plain_class(layer)
    if kind is Scale:
        return Affine(layer.constant * np.eye(width), np.zeros(width))
    mean = (layer.running_mean if kind is MeanShift else layer.mean).double().numpy()
    factor = 1.0 if kind is MeanShift else 1.0 / layer.std
    return Affine(factor * np.eye(width), -factor * np.broadcast_to(mean, (width,)))


def _slope(layer: nn.Module) -> np.ndarray | float:
    kind = plain_class(layer)
    if kind is nn.ReLU or kind is Abs:
        return 0.0 if kind is nn.ReLU else -1.0
    if kind is PReLU:
        return layer.slope.double().numpy()
    return layer.negative_slope if kind is nn.LeakyReLU else layer.slope
