"""The best two-layer standard network for a Boolean function, found by a linear program and rebuilt in
fractions.

Fix directions u in Z^d for the hidden neurons. A two-layer network with any 1-Lipschitz activations is then

    f(x) = c + sum_u H_u(u . x),   |H_u(t) - H_u(t')| <= w_u |t - t'|,   sum_u w_u ||u||_1 <= 1,

because H_u is the output weight w_u ||u||_1 times a 1-Lipschitz function of u . x / ||u||_1, a row of l1 norm
one. On the vertices only the values of H_u at the finitely many t = u . x count, and the constraint between
neighbouring values is enough. So "maximise the smallest margin" is a linear program in w, H, c and r. Its
optimum is the best radius of all two-layer networks with these directions: a lower bound on what standard
networks of any depth can do.

Where it equals 1/(2m) the bound of :mod:`lablib.theory.boolean` is attained; the solver's floats are then
rounded to fractions and the network is checked exactly, so "attained" never rests on a float.

Seen here: with |u_j| <= 2 the bound is attained for every function of at most three variables; see
``figures/results/boolean_gap.json`` for four.
"""

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from lablib.theory.boolean import BooleanFunction
from lablib.theory.network import Layer, affine, evaluate, fractions, is_standard

_LARGEST_DENOMINATORS = (
    30,
    1000,
    30_000,
)  # tried in turn; optimal vertices of these programs have small ones
_ZERO = 1e-9


@dataclasses.dataclass(frozen=True)
class TwoLayer:
    """Optimum of the program: ``radius`` (float), and where it attains 1/(2m) the exact ``layers``, else
    None."""

    radius: float
    layers: list[Layer] | None


def directions(d: int, largest: int) -> np.ndarray:
    """Return the integer vectors u with |u_j| <= ``largest``, one of each line: first entry positive, no
    factor.

    Raises:
        ValueError: if d or ``largest`` is below 1, or more than 200,000 vectors would be listed.
    """
    if d < 1 or largest < 1 or (2 * largest + 1) ** d > 400_000:
        raise ValueError(
            f"directions of {d} entries up to {largest} are out of range; take fewer or smaller ones"
        )
    grid = itertools.product(range(-largest, largest + 1), repeat=d)
    return np.array([u for u in grid if next((v for v in u if v), 0) > 0 and math.gcd(*u) == 1])


def best_two_layer(function: BooleanFunction, hidden: np.ndarray) -> TwoLayer:
    """Solve the program for these directions; where the bound is attained, rebuild the network in fractions.

    Args:
        function: not constant.
        hidden: (n, d) integers, none of them all zero, as from :func:`directions`.

    Raises:
        ValueError: if the function is constant or the directions do not fit it.
    """
    bound = function.bound
    hidden = np.asarray(hidden)
    if hidden.ndim != 2 or hidden.shape[1] != function.variables or not hidden.any(axis=1).all():
        raise ValueError(f"give directions of shape (n, {function.variables}) with no zero row")
    program = _Program(function, hidden)
    radius, weights, rises = program.solve()
    if radius < float(bound) * (1 - 1e-6):
        return TwoLayer(radius, None)
    for denominator in _LARGEST_DENOMINATORS:
        layers = program.network(weights, rises, denominator)
        if layers is not None and exact_radius(function, layers) == bound:
            return TwoLayer(radius, layers)
    return TwoLayer(radius, None)


def exact_radius(function: BooleanFunction, layers: list[Layer]) -> Fraction:
    """Return the smallest margin over all vertices of a scalar network, exactly.

    Raises:
        ValueError: if the network is not a standard one (rows of l1 norm <= 1, 1-Lipschitz activations),
            exactly.
    """
    if not is_standard(layers):
        raise ValueError("the network is not standard: a row's l1 norm or an activation's slope exceeds one")
    return smallest_margin(function, layers)


def smallest_margin(function: BooleanFunction, layers: list[Layer]) -> Fraction:
    """Return min over vertices of f(x) where g = 1 and of -f(x) where g = 0, exactly, for any scalar
    network."""
    values = evaluate(layers, fractions(function.vertices()))[:, 0]
    return min(value if label else -value for value, label in zip(values, function.table))


class _Program:
    """Variables: w_u, then the rises of H_u between neighbouring values of u . x, then c and r."""

    def __init__(self, function: BooleanFunction, hidden: np.ndarray) -> None:
        self.signs = np.where(function.table, 1, -1)
        self.hidden = hidden
        projections = function.vertices() @ hidden.T
        self.values = [np.unique(column) for column in projections.T]
        self.places = [np.searchsorted(values, column) for values, column in zip(self.values, projections.T)]
        counts = [len(values) - 1 for values in self.values]
        self.starts = len(hidden) + np.concatenate([[0], np.cumsum(counts)])
        self.constant, self.radius = self.starts[-1], self.starts[-1] + 1

    def solve(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Return r, the weights w (n,) and the rises, end to end."""
        n, size = len(self.hidden), self.radius + 1
        rises = self.starts[-1] - n
        steps = np.concatenate([np.diff(values) for values in self.values])
        owner = np.repeat(np.arange(n), np.diff(self.starts))
        row = np.arange(rises)
        entries = [
            (row, n + row, np.ones(rises)),
            (row, owner, -steps),
            (rises + row, n + row, -np.ones(rises)),
            (rises + row, owner, -steps),
        ]
        first = 2 * rises
        vertices = np.arange(len(self.signs))
        for u, place in enumerate(self.places):
            vertex, rise = np.nonzero(np.arange(len(self.values[u]) - 1) < place[:, None])
            entries.append((first + vertex, self.starts[u] + rise, -self.signs[vertex]))
        entries.append((first + vertices, np.full(len(vertices), self.constant), -self.signs))
        entries.append((first + vertices, np.full(len(vertices), self.radius), np.ones(len(vertices))))
        last = first + len(vertices)
        entries.append((np.full(n, last), np.arange(n), np.abs(self.hidden).sum(axis=1)))
        rows, columns, values = (np.concatenate(parts) for parts in zip(*entries))
        upper = np.zeros(last + 1)
        upper[last] = 1
        cost = np.zeros(size)
        cost[self.radius] = -1
        answer = linprog(
            cost,
            A_ub=csr_array((values, (rows, columns)), shape=(last + 1, size)),
            b_ub=upper,
            bounds=[(0, None)] * n + [(None, None)] * (size - n),
            method="highs-ds",
        )
        if answer.status != 0:
            raise RuntimeError(f"the linear program was not solved: {answer.message}")
        return float(answer.x[self.radius]), answer.x[:n], answer.x[n : self.constant]

    def network(self, weights: np.ndarray, rises: np.ndarray, denominator: int) -> list[Layer] | None:
        """Return the network with all numbers rounded to small denominators; None if that breaks a
        constraint.

        One activation serves every neuron: neuron k is shifted to the interval [2k, 2k + 1], where the shared
        function runs through H_u / (w_u ||u||_1) from zero; between the intervals it comes back to zero.
        """
        rows, output, knots, heights = [], [], [], []
        shifts = []
        for u in np.flatnonzero(weights > _ZERO):
            norm = int(np.abs(self.hidden[u]).sum())
            weight = norm * Fraction(float(weights[u])).limit_denominator(denominator)
            if weight == 0:
                continue
            rise = rises[self.starts[u] - len(weights) : self.starts[u + 1] - len(weights)]
            steps = [Fraction(float(value)).limit_denominator(denominator) for value in rise]
            levels = itertools.accumulate(steps)
            start = 2 * len(rows)
            rows.append([Fraction(int(v), norm) for v in self.hidden[u]])
            low = int(self.values[u][0])
            shifts.append(start - Fraction(low, norm))
            knots += [start + Fraction(int(value) - low, norm) for value in self.values[u]]
            heights += [Fraction(0), *(level / weight for level in levels)]
            output.append(weight)
        if not rows or sum(output) > 1:
            return None
        shared = {"op": "activation", "kind": "piecewise_linear", "knots": knots, "values": heights}
        layers = [affine(rows, shifts), shared, affine([output])]
        if not is_standard(layers):
            return None
        values = evaluate(
            layers, fractions((np.arange(len(self.signs))[:, None] >> np.arange(self.hidden.shape[1])) & 1)
        )
        low = min(value for value, sign in zip(values[:, 0], self.signs) if sign > 0)
        high = max(value for value, sign in zip(values[:, 0], self.signs) if sign < 0)
        return [*layers[:2], affine([output], [-(low + high) / 2])]
