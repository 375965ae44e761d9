"""Piecewise linear layers as linear constraints with binary variables.

Values between layers are linear expressions A v + b of the variables v, so that linear layers cost nothing. A
bend (a maximum) costs one variable and one binary; M constants come from interval bounds of the expressions.
"""

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from scipy import sparse
from torch import nn

from lablib.certify.rules import CONVOLUTIONS, LINEAR
from lablib.layers.activations import Abs, FullSort, GroupSort, LeakyReLU, MaxMin, PReLU
from lablib.layers.base import layer_name
from lablib.layers.distance import LInfDistance, LInfDistanceConv2d, SortNetConv2d, SortNetLayer
from lablib.layers.intact import is_chain, plain_class
from lablib.layers.sequential import ConvexResidual
from lablib.layers.shift import MeanShift, Normalise, Scale

_RESHAPE = {nn.Flatten, nn.Unflatten, nn.Identity}
_AFFINE = LINEAR | CONVOLUTIONS | {MeanShift, Normalise, Scale, nn.AvgPool2d}
_BENT = {nn.ReLU, nn.LeakyReLU, Abs, LeakyReLU, PReLU}
_SORTS = {MaxMin, GroupSort, FullSort}
_DISTANCES = {LInfDistance, SortNetLayer, LInfDistanceConv2d, SortNetConv2d}


def check_pieces(module: nn.Module) -> None:
    """Raise ValueError for a layer of known ones that is not made of linear pieces covered here."""
    kind = plain_class(module)
    if is_chain(module) or kind is ConvexResidual:
        for part in module if is_chain(module) else [module.branch]:
            check_pieces(part)
    elif kind not in _RESHAPE | _AFFINE | _BENT | _SORTS | _DISTANCES:
        raise ValueError(f"the exact search does not cover {layer_name(module)}; use bound_radius")


@dataclasses.dataclass(frozen=True)
class Found:
    """Result of one program: proven-in-floats lower ``bound``, ``point`` or None, and whether it was finished."""

    bound: float
    point: np.ndarray | None
    optimal: bool


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    """HiGHS prints some lines past Python, whatever its options: send them nowhere."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


@dataclasses.dataclass
class _Values:
    """Expressions rows @ v + shift (N,) with bounds, and the shape of the features they form."""

    rows: sparse.csr_matrix
    shift: np.ndarray
    low: np.ndarray
    high: np.ndarray
    shape: tuple[int, ...]

    def pick(self, index) -> "_Values":
        index = np.atleast_1d(index)
        return _Values(self.rows[index], self.shift[index], self.low[index], self.high[index], (len(index),))


class Program:
    """Variables and constraints of one network over a box.

    Args:
        low, high: (1, ...), the box of the inputs, which are the first variables.
        binaries: how many binary variables are allowed.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, binaries: int):
        self.inputs, self.limit = low.size, binaries
        self.lower, self.upper = [*low.ravel()], [*high.ravel()]
        self.binary = [0] * low.size
        self._entries: list[tuple[list[int], list[float], float]] = []  # sum a_i v_i <= b
        rows = sparse.identity(low.size, format="csr")
        self.start = _Values(rows, np.zeros(low.size), low.ravel(), high.ravel(), low.shape[1:])

    def through(self, layers: Iterable[nn.Module]) -> _Values:
        """Add the layers (in float64, those that :func:`check_pieces` knows) one after the other; return the outputs.

        Raises:
            ValueError: for too many binaries, or a leaky ReLU of slope above 1.
        """
        return self._chain(layers, self.start)

    def nearest(
        self, centre: np.ndarray, outputs: _Values, label: int, target: int, limit: float, seconds: float
    ) -> Found:
        """Minimise |x' - centre|_inf over the inputs with f_label <= f_target, below ``limit``."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        count = len(self.lower)
        entries = list(self._entries)
        both = self._widened(outputs.pick([label, target]))
        gap = sparse.csr_matrix(both.rows[0] - both.rows[1])
        entries.append(([*gap.indices], [*gap.data], both.shift[1] - both.shift[0]))
        for i, value in enumerate(centre.ravel()):
            entries.append(([i, count], [1.0, -1.0], value))
            entries.append(([i, count], [-1.0, -1.0], -value))
        lengths = [len(columns) for columns, _, _ in entries]
        matrix = sparse.csr_matrix(
            (
                np.concatenate([values for _, values, _ in entries]),
                np.concatenate([columns for columns, _, _ in entries]).astype(int),
                np.concatenate([[0], np.cumsum(lengths)]),
            ),
            shape=(len(entries), count + 1),
        )
        with _no_output():
            done = milp(
                np.eye(count + 1)[count],
                integrality=np.array([*self.binary, 0]),
                bounds=Bounds([*self.lower, 0.0], [*self.upper, limit]),
                constraints=LinearConstraint(matrix, ub=[bound for _, _, bound in entries]),
                options={"time_limit": seconds, "mip_rel_gap": 1e-9},
            )
        if done.status == 2:  # infeasible
            return Found(math.inf, None, True)
        if done.status not in (0, 1):
            raise ValueError(
                f"HiGHS could not solve the program ({done.message}); scale weights or inputs down"
            )
        if any(self.binary):
            bound = 0.0 if done.mip_dual_bound is None else float(done.mip_dual_bound)
        else:  # a linear program, for which SciPy gives no such bound
            bound = float(done.fun) if done.status == 0 else 0.0
        point = None if done.x is None else done.x[: self.inputs]
        return Found(max(bound, 0.0), point, done.status == 0)

    # --- layers

    def _chain(self, layers: Iterable[nn.Module], values: _Values) -> _Values:
        for layer in layers:
            values = self._layer(layer, values)
        return values

    def _layer(self, layer: nn.Module, values: _Values) -> _Values:
        kind = plain_class(layer)
        if kind is ConvexResidual:
            alpha = float(layer.alpha.detach())
            inner = self._layer(layer.branch, values)
            return self._sum(values, inner, 1 - alpha, alpha)
        if is_chain(layer):
            return self._chain(layer, values)
        if kind in _RESHAPE:
            shape = layer(torch.zeros(1, *values.shape, dtype=torch.float64)).shape[1:]
            return dataclasses.replace(values, shape=tuple(shape))
        if kind in _AFFINE:
            return self._affine(layer, values)
        if kind in _BENT:
            return self._bends(values, _slopes(layer, values.shape))
        if kind in _SORTS:
            return self._sort(layer, values)
        if kind in (LInfDistance, SortNetLayer, LInfDistanceConv2d, SortNetConv2d):
            return self._distance(layer, values)
        raise ValueError(f"the exact search does not cover {layer_name(layer)}; use bound_radius")

    def _affine(self, layer: nn.Module, values: _Values) -> _Values:
        """An affine map of the features: its matrix is read off at 0 and the unit vectors, in float64."""
        size = int(np.prod(values.shape))
        with torch.no_grad():
            units = torch.cat([torch.zeros(1, size), torch.eye(size)]).double().reshape(-1, *values.shape)
            mapped = layer(units)
        shape = tuple(mapped.shape[1:])
        mapped = mapped.reshape(size + 1, -1).numpy()
        matrix = sparse.csr_matrix((mapped[1:] - mapped[0]).T)
        return self._bounded(
            matrix @ values.rows, matrix @ values.shift + mapped[0], matrix, mapped[0], values, shape
        )

    def _bounded(self, rows, shift, matrix, offset, values: _Values, shape) -> _Values:
        """Bounds from the layer's inputs and from all variables, whichever is tighter."""
        centre, radius = (values.low + values.high) / 2, (values.high - values.low) / 2
        middle, reach = matrix @ centre + offset, abs(matrix) @ radius
        lower, upper = np.array(self.lower)[: rows.shape[1]], np.array(self.upper)[: rows.shape[1]]
        other, far = rows @ ((lower + upper) / 2) + shift, abs(rows) @ ((upper - lower) / 2)
        low, high = np.maximum(middle - reach, other - far), np.minimum(middle + reach, other + far)
        return _Values(sparse.csr_matrix(rows), shift, low, np.maximum(low, high), shape)

    def _sum(self, first: _Values, second: _Values, a: float, b: float) -> _Values:
        first, second = self._widened(first), self._widened(second)
        low, high = a * first.low + b * second.low, a * first.high + b * second.high
        rows, shift = a * first.rows + b * second.rows, a * first.shift + b * second.shift
        return _Values(sparse.csr_matrix(rows), shift, low, high, second.shape)

    def _bends(self, values: _Values, slopes: np.ndarray) -> _Values:
        """max(h, s h) for slopes s <= 1."""
        parts = [self._max([values.pick(i)], slope) for i, slope in enumerate(slopes)]
        return self._stack(parts, values.shape)

    def _sort(self, layer: nn.Module, values: _Values) -> _Values:
        """Compare and exchange neighbours until sorted, group by group along the channels."""
        if layer.dim not in (None, 1):
            raise ValueError("only sorts along axis 1 have an exact form here")
        index = np.arange(int(np.prod(values.shape))).reshape(values.shape)
        size = layer.size if isinstance(layer, GroupSort) else values.shape[0]
        groups = np.moveaxis(index.reshape(-1, size, *values.shape[1:]), 1, -1).reshape(-1, size)
        parts: list[_Values | None] = [None] * index.size
        for group in groups:
            wires = [values.pick(i) for i in group]
            for last in range(size - 1, 0, -1):
                for k in range(last):
                    wires[k], wires[k + 1] = self._exchange(wires[k], wires[k + 1])
            for place, wire in zip(group, wires):
                parts[place] = wire
        return self._stack(parts, values.shape)

    def _distance(self, layer: nn.Module, values: _Values) -> _Values:
        weight = layer.weight.detach().double().numpy()
        bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().numpy()
        patches, positions = _patches(layer, values.shape)
        parts = []
        for patch in patches:  # -1 is padding: the number 0
            inputs = [values.pick(i) if i >= 0 else self._constant(0.0) for i in patch]
            for row, shift in zip(weight, bias):
                gaps = [self._shifted(value, -w) for value, w in zip(inputs, row)]
                if isinstance(layer, LInfDistance):
                    out = self._largest(gaps)
                else:
                    out = self._ranked(gaps, layer.rank_weight.detach().double().numpy())
                parts.append(self._shifted(out, shift))
        if positions:
            order = np.arange(len(parts)).reshape(-1, len(weight)).T.ravel()
            return self._stack([parts[i] for i in order], (len(weight), *positions))
        return self._stack(parts, (len(weight),))

    def _ranked(self, gaps: list[_Values], ranks: np.ndarray) -> _Values:
        """sum_k c_k |gap|_(k): the largest is carried to the end once for each rank."""
        wires = [self._max([gap], -1.0) for gap in gaps]
        total = self._constant(0.0)
        for rank in ranks:
            for k in range(len(wires) - 1):
                wires[k], wires[k + 1] = self._exchange(wires[k], wires[k + 1])
            total = self._sum(total, wires.pop(), 1.0, float(rank))
        return total

    def _exchange(self, a: _Values, b: _Values) -> tuple[_Values, _Values]:
        """(min, max) of two expressions."""
        if a.high[0] <= b.low[0]:
            return a, b
        if b.high[0] <= a.low[0]:
            return b, a
        top = self._max([a, b], None)
        both = self._sum(a, b, 1.0, 1.0)
        bottom = self._sum(both, top, 1.0, -1.0)
        bottom.low[:], bottom.high[:] = np.minimum(a.low, b.low), np.minimum(a.high, b.high)
        return bottom, top

    def _largest(self, gaps: list[_Values]) -> _Values:
        """max_i |gap_i|: only those that can reach the largest lower bound take part."""
        signed = [self._sum(gap, self._constant(0.0), sign, 0.0) for gap in gaps for sign in (1.0, -1.0)]
        for k in range(1, len(signed), 2):
            gap = gaps[k // 2]
            signed[k].low, signed[k].high = -gap.high, -gap.low
        least = max(0.0, *(value.low[0] for value in signed))
        return self._max([value for value in signed if value.high[0] >= least], None, least)

    # --- the one kind of bend

    def _max(self, terms: list[_Values], slope: float | None, least: float = -math.inf) -> _Values:
        """The largest of ``terms``; with a ``slope`` s <= 1, max(h, s h) of the one term."""
        if slope is not None:
            (h,) = terms
            if slope == 1.0 or h.low[0] >= 0.0:
                return h
            scaled = self._sum(h, self._constant(0.0), slope, 0.0)
            scaled.low, scaled.high = (
                np.minimum(slope * h.low, slope * h.high),
                np.maximum(slope * h.low, slope * h.high),
            )
            if h.high[0] <= 0.0:
                return scaled
            terms = [h, scaled]
            least = 0.0 if slope <= 0.0 else -math.inf
        low = max(least, *(t.low[0] for t in terms)) if len(terms) > 1 else terms[0].low[0]
        high = max(t.high[0] for t in terms)
        if len(terms) == 1:
            return terms[0]
        out = self._variable(low, high)
        choices = [self._binary() for _ in terms]
        for term, choice in zip(terms, choices):
            term = self._widened(term)
            row = sparse.csr_matrix(term.rows)
            columns, values = [*row.indices], [*row.data]
            # term <= out, and out <= term + M (1 - choice)
            self._entries.append(([*columns, out], [*values, -1.0], -term.shift[0]))
            big = high - term.low[0]
            opposite = [-value for value in values]
            self._entries.append(([*columns, out, choice], [*opposite, 1.0, big], term.shift[0] + big))
        self._entries.append((choices, [-1.0] * len(choices), -1.0))
        rows = sparse.csr_matrix(([1.0], ([0], [out])), shape=(1, len(self.lower)))
        return _Values(rows, np.zeros(1), np.array([low]), np.array([high]), (1,))

    def _variable(self, low: float, high: float) -> int:
        self.lower.append(low)
        self.upper.append(high)
        self.binary.append(0)
        return len(self.lower) - 1

    def _binary(self) -> int:
        index = self._variable(0.0, 1.0)
        self.binary[index] = 1
        if sum(self.binary) > self.limit:
            raise ValueError(f"the network needs more than {self.limit} binary variables; take a smaller one")
        return index

    # --- expressions

    def _widened(self, values: _Values) -> _Values:
        """The same expressions over all variables there are by now."""
        rows = values.rows.tocsr(copy=True)
        rows.resize(rows.shape[0], len(self.lower))
        return dataclasses.replace(values, rows=rows)

    def _stack(self, parts: list[_Values], shape: tuple[int, ...]) -> _Values:
        parts = [self._widened(part) for part in parts]
        join = [np.concatenate([getattr(p, name) for p in parts]) for name in ("shift", "low", "high")]
        return _Values(sparse.vstack([p.rows for p in parts], format="csr"), *join, shape)

    def _shifted(self, values: _Values, by: float) -> _Values:
        return _Values(values.rows, values.shift + by, values.low + by, values.high + by, values.shape)

    def _constant(self, value: float) -> _Values:
        number = np.array([value])
        return _Values(sparse.csr_matrix((1, len(self.lower))), number, number, number, (1,))


def _slopes(layer: nn.Module, shape: tuple[int, ...]) -> np.ndarray:
    """Return one slope per feature."""
    kind = plain_class(layer)
    if kind is nn.ReLU or kind is Abs:
        return np.full(int(np.prod(shape)), 0.0 if kind is nn.ReLU else -1.0)
    if kind is nn.LeakyReLU and layer.negative_slope > 1.0:
        raise ValueError(f"a leaky ReLU of slope {layer.negative_slope} is not convex; use one of at most 1")
    if kind is not PReLU:
        return np.full(int(np.prod(shape)), getattr(layer, "slope", getattr(layer, "negative_slope", None)))
    slope = layer.slope.detach().double().numpy().reshape(-1, *[1] * (len(shape) - 1))
    return np.broadcast_to(slope, shape).ravel()


def _patches(layer: nn.Module, shape: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the inputs of each position (P, I), -1 for padding, and the shape of positions; () for dense ones."""
    if not hasattr(layer, "patches"):
        return np.arange(shape[0])[None], ()
    index = torch.arange(1, int(np.prod(shape)) + 1, dtype=torch.float64).reshape(1, *shape)
    rows = layer.patches(index)[0].long().numpy() - 1
    images = layer.as_images(torch.zeros(1, len(rows), 1), index)
    return rows, tuple(images.shape[2:])
