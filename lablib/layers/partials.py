"""One constant for every slope of a chain: norms from layer to layer, where they fit together.

Increments along one input start with size 1 in every norm. A layer bounded from l_p to l_q takes them from l_p to
l_q; a vector that is bounded in l_p is so in every l_q with q >= p, never the other way round. So ``one-inf`` then
``inf`` fits, ``one-inf`` twice does not.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from torch import nn

from lablib.layers.base import layer_name
from lablib.layers.intact import check_intact, is_chain, plain_class
from lablib.layers.lipschitz_linear import LipschitzLinear
from lablib.layers.sequential import guarantee
from lablib.ops.norms import NORMS
from lablib.ops.projections import KINDS


def bound_partials(module: nn.Module) -> float:
    """Return c with |df_o/dx_i| <= c for every output o and input i of ``module``, from the constants it states.

    The product of the layers' constants, rounded up.

    Raises:
        ValueError: if a layer states no constant, hooks or changes make it void, or two layers do not fit
            together; the message names them.
    """
    check_intact(module)
    reached, bound, before = "l1", Fraction(1), "the input"
    for layer in _layers(module):
        maps, constant = _statement(layer)
        fitting = [end for start, end in maps if _order(start) >= _order(reached)]
        if not fitting:
            starts = " or ".join(start for start, _ in maps)
            raise ValueError(
                f"{layer_name(layer)} needs increments bounded in {starts}, but after {before} they are bounded "
                f"in {reached} only; after the first layer use kind 'inf' (or one kind 'one' or 'two' throughout)"
            )
        reached = min(fitting, key=_order)
        bound *= Fraction(constant)
        before = layer_name(layer)
    try:
        nearest = float(bound)
    except OverflowError as error:
        raise ValueError("the product of the layers' constants overflows; use smaller ones") from error
    return nearest if nearest >= bound else math.nextafter(nearest, math.inf)


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise ValueError unless linear layers of these kinds fit together, first to last."""
    reached = "l1"
    for place, kind in enumerate(kinds):
        start, end = KINDS[kind]
        if _order(start) < _order(reached):
            raise ValueError(
                f"kinds {', '.join(kinds)} do not chain: layer {place} bounds {start} -> {end}, but what comes in "
                f"is bounded in {reached} only; after the first layer use 'inf', or 'one' or 'two' throughout"
            )
        reached = end


def _order(norm: str) -> int:
    return NORMS.index(norm)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    if is_chain(module):
        for part in module:
            yield from _layers(part)
    else:
        yield module


def _statement(layer: nn.Module) -> tuple[list[tuple[str, str]], float]:
    if plain_class(layer) is LipschitzLinear:
        return [KINDS[layer.kind]], layer.lipschitz_const
    norms, constant = guarantee(layer)
    return [(norm, norm) for norm in norms], constant
