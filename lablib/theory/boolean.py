"""Boolean functions g: {0,1}^d -> {0,1} and what they say about standard Lipschitz networks.

A variable j is *relevant* if some edge of the cube (x, x with bit j flipped) changes g; such an edge is
*sensitive*. With m relevant variables no standard l_inf-Lipschitz network has certified radius above 1/(2m)
on the vertices: each relevant j has a sensitive edge, on which the output moves by at least 2r, so 2r <=
lambda_j by the budget lemma (:mod:`lablib.theory.budget`), and the lambda_j sum to at most 1. The 2m end
points of those edges are enough. For symmetric functions this is Thm 3.5 of the SortNet paper (arXiv
2210.01787).

Certified radius means the Lipschitz margin |f(x)| at a vertex with the right sign: what the network proves
by itself. It says nothing against the true robustness of sign(f), which may be larger: dividing all rows by a
constant makes any network standard and moves no decision boundary, only the margins shrink.
"""

import ast
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

MAX_VARIABLES = 20  # a truth table of 2^20 entries


class Witness(NamedTuple):
    """2m labelled vertices that force the bound: rows 2i and 2i + 1 differ in ``variables[i]`` only."""

    points: np.ndarray
    labels: np.ndarray
    variables: np.ndarray


class BooleanFunction:
    """A Boolean function by its truth table; equal tables are equal functions.

    Attributes:
        table: (2^d,) bool, read-only; bit j of the index is the value of variable j (``x1`` is variable 0).
        variables: d.
    """

    def __init__(self, table) -> None:
        """Build from a truth table of 0/1 values.

        Raises:
            ValueError: if the length is not a power of two from 2 to 2^20, or an entry is not 0 or 1.
        """
        values = np.asarray(table)
        size = values.size
        if values.ndim != 1 or size < 2 or size & (size - 1) or size > 1 << MAX_VARIABLES:
            raise ValueError(
                f"a truth table is a flat list of 2^d values, 1 <= d <= {MAX_VARIABLES}, not {values.shape}"
            )
        if not np.all((values == 0) | (values == 1)):
            raise ValueError("a truth table holds only 0 and 1")
        self.table = values.astype(bool)
        self.table.setflags(write=False)
        self.variables = size.bit_length() - 1

    @classmethod
    def from_table(cls, table) -> "BooleanFunction":
        """Return the function with this truth table, (2^d,) of 0/1."""
        return cls(table)

    @classmethod
    def symmetric(cls, values: Sequence[int]) -> "BooleanFunction":
        """Return the function that is ``values[n]`` where n variables are one; ``values`` has length d + 1.

        >>> BooleanFunction.symmetric([0, 1, 0]).table.astype(int)
        array([0, 1, 1, 0])
        """
        values = np.asarray(values)
        _check_variables(values.size - 1)
        return cls(values[_ones(values.size - 1)])

    @classmethod
    def threshold(cls, d: int, k: int) -> "BooleanFunction":
        """Return g(x) = 1 iff at least k of d variables are one: AND is k = d, OR is k = 1.

        Raises:
            ValueError: unless 1 <= k <= d.
        """
        _check_variables(d)
        if not 1 <= k <= d:
            raise ValueError(f"a threshold of {d} variables lies between 1 and {d}, not {k}")
        return cls.symmetric(np.arange(d + 1) >= k)

    @classmethod
    def parity(cls, d: int) -> "BooleanFunction":
        """Return the function that is 1 iff an odd number of the d variables is one."""
        _check_variables(d)
        return cls.symmetric(np.arange(d + 1) % 2)

    @classmethod
    def from_expression(cls, expression: str, variables: int | None = None) -> "BooleanFunction":
        """Return the function of an expression in ``x1 ... xd`` with ``& | ^ ~`` or ``and or not``, 0, 1, ().

        Args:
            expression: for example ``"x1 & (x2 | ~x3)"``; the operators bind as in Python.
            variables: d; by default the largest index that occurs.

        Raises:
            ValueError: if the expression is not a text, or has anything else in it, or no variable (the message
                names the part); or if the number of variables is not an integer from 1 to 20.

        >>> BooleanFunction.from_expression("x1 and not x2").table.astype(int)
        array([0, 1, 0, 0])
        """
        tree = _parse(expression)
        indices = [_variable(node.id) for node in ast.walk(tree) if isinstance(node, ast.Name)]
        d = max(indices, default=-1) + 1 if variables is None else variables
        if d == 0:
            raise ValueError(f"{_cut(expression)} has no variable; use x1, x2, ... or give their number")
        _check_variables(d)
        if max(indices, default=-1) >= d:
            raise ValueError(f"{_cut(expression)} uses x{max(indices) + 1}, but there are {d} variables")
        try:
            return cls(_evaluate(tree, (np.arange(1 << d)[:, None] >> np.arange(d)) & 1 == 1))
        except RecursionError:
            raise ValueError("the expression is nested too deeply; write it shorter") from None

    def vertices(self) -> np.ndarray:
        """Return all vertices of the cube, (2^d, d) of 0/1, in the order of the table."""
        return (np.arange(self.table.size)[:, None] >> np.arange(self.variables)) & 1

    def __call__(self, x) -> np.ndarray:
        """Return g at vertices x, (..., d) of 0/1, as bool.

        Raises:
            ValueError: if the last axis is not d, or an entry is not 0 or 1.
        """
        x = np.asarray(x)
        if x.ndim == 0 or x.shape[-1] != self.variables or not np.all((x == 0) | (x == 1)):
            raise ValueError(f"give vertices of shape (..., {self.variables}) with entries 0 and 1")
        return self.table[x.astype(np.int64) @ (1 << np.arange(self.variables))]

    def relevant(self) -> tuple[int, ...]:
        """Return the relevant variables, counted from 0."""
        return tuple(j for j in range(self.variables) if self._changes(j).any())

    def sensitive_edges(self, variable: int) -> np.ndarray:
        """Return the sensitive edges of one variable: (n, 2, d), the end with x_j = 0 first.

        Raises:
            ValueError: if there is no such variable.
        """
        if not 0 <= variable < self.variables:
            raise ValueError(f"variables are counted from 0 to {self.variables - 1}; there is no {variable}")
        lower = np.flatnonzero(self._changes(variable))
        return self.vertices()[np.stack([lower, lower | 1 << variable], axis=1)]

    def witness(self) -> Witness:
        """Return 2m labelled vertices on which no standard network is certified beyond 1/(2m).

        Raises:
            ValueError: if the function is constant.
        """
        relevant = self._relevant_or_raise()
        points = np.concatenate([self.sensitive_edges(j)[0] for j in relevant])
        return Witness(points, self(points).astype(np.int64), np.array(relevant))

    @property
    def bound(self) -> Fraction:
        """1/(2m): no standard network certifies a larger radius on the vertices by its margin |f(x)|.

        Not a bound of true robustness; see the module's docstring.

        Raises:
            ValueError: if the function is constant (a constant network is robust to every radius).
        """
        return Fraction(1, 2 * len(self._relevant_or_raise()))

    @property
    def is_constant(self) -> bool:
        """Whether all values are equal."""
        return bool(self.table.all() or not self.table.any())

    @property
    def is_symmetric(self) -> bool:
        """Whether the value depends only on the number of ones."""
        values = self.table[(1 << np.arange(self.variables + 1)) - 1]
        return bool(np.array_equal(self.table, values[_ones(self.variables)]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BooleanFunction) and np.array_equal(self.table, other.table)

    def __hash__(self) -> int:
        return hash(self.table.tobytes())

    def __repr__(self) -> str:
        bits = "".join("01"[int(value)] for value in self.table[:32])
        return f"BooleanFunction({bits}{'...' if self.table.size > 32 else ''})"

    def _changes(self, variable: int) -> np.ndarray:
        """Return (2^d,) bool: the vertices with x_j = 0 where flipping x_j changes the value."""
        index = np.arange(self.table.size)
        return (index >> variable & 1 == 0) & (self.table != self.table[index | 1 << variable])

    def _relevant_or_raise(self) -> tuple[int, ...]:
        relevant = self.relevant()
        if not relevant:
            raise ValueError("a constant function has no relevant variable and no bound; give another one")
        return relevant


def symmetric_functions(d: int, *, up_to_symmetry: bool = False) -> Iterator[BooleanFunction]:
    """Yield the 2^(d+1) symmetric functions of d variables, constants included.

    With ``up_to_symmetry`` only one of each orbit under exchanging the two labels and exchanging zeros and
    ones.
    """
    _check_variables(d)
    for values in itertools.product((0, 1), repeat=d + 1):
        complement = tuple(1 - value for value in values)
        orbit = (values, values[::-1], complement, complement[::-1])
        if not up_to_symmetry or values == min(orbit):
            yield BooleanFunction.symmetric(values)


def all_functions_up_to_symmetry(d: int) -> list[BooleanFunction]:
    """Return one function per class under permuting variables, flipping inputs and flipping the output.

    These are isometries of the cube and swaps of the labels, so every bound here is the same within a class.
    There are 2, 4, 14, 222 classes for d = 1, 2, 3, 4, the constant one among them.

    Raises:
        ValueError: if d > 4: there are 616,126 classes for d = 5.
    """
    if not 1 <= d <= 4:
        raise ValueError(f"functions up to symmetry are listed for 1 <= d <= 4, not {d}; sample larger ones")
    index = np.arange(1 << d)
    bits = (index[:, None] >> np.arange(d)) & 1
    powers = 1 << index
    tables = (np.arange(1 << (1 << d))[:, None] >> index & 1).astype(np.int64)
    smallest = np.arange(len(tables))
    for order in itertools.permutations(range(d)):
        for flips in range(1 << d):
            moved = tables[:, (bits[:, order] @ (1 << np.arange(d))) ^ flips] @ powers
            smallest = np.minimum(smallest, np.minimum(moved, powers.sum() - moved))
    return [BooleanFunction(table) for table in tables[smallest == np.arange(len(tables))]]


def _check_variables(d: int) -> None:
    if type(d) is bool or not isinstance(d, int | np.integer):
        raise ValueError(f"the number of variables is an integer, not {d!r}")
    if not 1 <= d <= MAX_VARIABLES:
        raise ValueError(f"the number of variables lies between 1 and {MAX_VARIABLES}, not {d}")


def _ones(d: int) -> np.ndarray:
    """Return the number of ones of every vertex, (2^d,)."""
    return ((np.arange(1 << d)[:, None] >> np.arange(d)) & 1).sum(axis=1)


def _cut(text: str) -> str:
    """Quote a text for a message, short enough to read."""
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."


def _parse(expression: str) -> ast.expr:
    if not isinstance(expression, str):
        raise ValueError(
            f"an expression is a text such as 'x1 & (x2 | ~x3)', not {type(expression).__name__}"
        )
    try:
        return ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"{_cut(expression)} is not an expression ({error}); write e.g. x1 & (x2 | ~x3)"
        ) from None


def _variable(name: str) -> int:
    digits = name[1:]
    if not name.startswith("x") or not digits.isascii() or not digits.isdigit() or digits.startswith("0"):
        raise ValueError(f"unknown name {_cut(name)}; the variables are x1, x2, ...")
    if len(digits) > 3 or int(digits) > MAX_VARIABLES:
        raise ValueError(f"{_cut(name)} is out of range; at most {MAX_VARIABLES} variables are possible")
    return int(digits) - 1


def _evaluate(node: ast.expr, columns: np.ndarray) -> np.ndarray:
    """Return the value of a parsed expression at every vertex; ``columns`` is (2^d, d) bool."""
    match node:
        case ast.Name(id=name):
            return columns[:, _variable(name)]
        case ast.Constant(value=value) if (
            value is True or value is False or (type(value) is int and value in (0, 1))
        ):
            return np.full(len(columns), bool(value))
        case ast.UnaryOp(op=ast.Invert() | ast.Not(), operand=operand):
            return ~_evaluate(operand, columns)
        case ast.BinOp(left=left, op=ast.BitAnd() | ast.BitOr() | ast.BitXor() as op, right=right):
            combine = {ast.BitAnd: np.logical_and, ast.BitOr: np.logical_or, ast.BitXor: np.logical_xor}[
                type(op)
            ]
            return combine(_evaluate(left, columns), _evaluate(right, columns))
        case ast.BoolOp(op=op, values=values):
            combine = np.logical_and if isinstance(op, ast.And) else np.logical_or
            return combine.reduce([_evaluate(value, columns) for value in values])
    raise ValueError(
        f"{_cut(ast.unparse(node))} is not allowed; use x1, x2, ..., & | ^ ~, and or not, 0, 1 and ()"
    )
