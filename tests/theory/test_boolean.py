"""Boolean functions against brute force over their definitions."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.theory.boolean import BooleanFunction, all_functions_up_to_symmetry, symmetric_functions

tables = st.integers(1, 4).flatmap(lambda d: st.lists(st.integers(0, 1), min_size=2**d, max_size=2**d))


def flipped(point, j):
    return tuple(1 - value if i == j else value for i, value in enumerate(point))


@settings(max_examples=60, deadline=None)
@given(tables)
def test_relevant_variables_edges_and_witness_follow_their_definitions(table):
    g = BooleanFunction(table)
    value = {tuple(point): bool(table[n]) for n, point in enumerate(g.vertices().tolist())}
    relevant = []
    for j in range(g.variables):
        edges = {(x, flipped(x, j)) for x in value if x[j] == 0 and value[x] != value[flipped(x, j)]}
        assert {(tuple(a), tuple(b)) for a, b in g.sensitive_edges(j).tolist()} == edges
        relevant += [j] * bool(edges)
    assert g.relevant() == tuple(relevant)
    assert g.is_constant == (not relevant)
    if relevant:
        points, labels, variables = g.witness()
        assert g.bound == Fraction(1, 2 * len(relevant))
        assert variables.tolist() == relevant
        assert points.shape == (2 * len(relevant), g.variables)
        assert labels.tolist() == [value[tuple(point)] for point in points.tolist()]
        for pair, j in zip(points.reshape(-1, 2, g.variables), relevant, strict=True):
            assert np.flatnonzero(pair[0] != pair[1]).tolist() == [j]
        assert (labels[::2] != labels[1::2]).all()


@pytest.mark.parametrize("d", [1, 2, 5, 9])
def test_named_functions_count_ones(d):
    ones = BooleanFunction.parity(d).vertices().sum(axis=1)
    assert (BooleanFunction.parity(d).table == ones % 2).all()
    for k in range(1, d + 1):
        g = BooleanFunction.threshold(d, k)
        assert (g.table == (ones >= k)).all()
        assert g.is_symmetric
        assert g.bound == Fraction(1, 2 * d)


@pytest.mark.parametrize(
    ("expression", "meaning"),
    [
        ("x1 & (x2 | ~x3)", lambda a, b, c: a and (b or not c)),
        ("x1 and (x2 or not x3)", lambda a, b, c: a and (b or not c)),
        ("x1 ^ x2 ^ x3", lambda a, b, c: (a + b + c) % 2),
        ("x3", lambda a, b, c: c),
        ("x1 | x2 & x3", lambda a, b, c: a or (b and c)),
        ("(x1 ^ 1) | (x3 & 0)", lambda a, b, c: 1 - a),
        ("~x1 & True", lambda a, b, c: 1 - a),
    ],
)
def test_expressions_mean_what_they_say(expression, meaning):
    g = BooleanFunction.from_expression(expression, variables=3)
    for point in itertools.product((0, 1), repeat=3):
        assert g(point) == bool(meaning(*point))


def test_the_largest_index_sets_the_number_of_variables():
    g = BooleanFunction.from_expression("x4 & x2")
    assert g.variables == 4
    assert g.relevant() == (1, 3)
    assert g.bound == Fraction(1, 4)


@pytest.mark.parametrize(
    "expression",
    [
        "", "1", "x0", "x1 +", "x1 + x2", "y1", "x1.real", "f(x1)", "x1 if x2 else x3", "x1 == x2", "x01",
        "[x1]", "2 & x1", "-x1", "x1 & 0.0", "lambda: x1", "__import__('os')", "x21", "x1 << x2",
        "x999999999",         "x1 & 'a'", "(x1 := x2)", "x²",
        "~" * 3000 + "x1",
    ],
)  # fmt: skip
def test_other_expressions_are_refused(expression):
    with pytest.raises(ValueError, match=r"."):
        BooleanFunction.from_expression(expression)


def test_too_few_variables_are_refused():
    with pytest.raises(ValueError, match="uses x3"):
        BooleanFunction.from_expression("x3", variables=2)


def test_what_is_no_text_or_number_of_variables_is_refused():
    for text in (None, 3, b"x1"):
        with pytest.raises(ValueError, match="an expression is a text"):
            BooleanFunction.from_expression(text)
    for variables in (2.5, True, "3"):
        with pytest.raises(ValueError, match="is an integer"):
            BooleanFunction.from_expression("x1", variables)


@pytest.mark.parametrize("text", ["x1 & " * 900 + "y", "x1 &" * 900, "x" * 4000, "0 | " * 900 + "0"])
def test_long_expressions_are_cut_in_messages(text):
    with pytest.raises(ValueError, match=r"\.\.\.") as caught:
        BooleanFunction.from_expression(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("table", [[], [0], [0, 1, 1], [[0, 1]], [0, 2], [0, 1, 0, np.nan]])
def test_bad_tables_are_refused(table):
    with pytest.raises(ValueError, match="truth table"):
        BooleanFunction(table)


def test_sizes_are_limited_before_memory_is_taken():
    with pytest.raises(ValueError, match="between 1 and 20"):
        BooleanFunction.parity(40)
    with pytest.raises(ValueError, match="threshold"):
        BooleanFunction.threshold(3, 4)
    with pytest.raises(ValueError, match="d <= 4"):
        all_functions_up_to_symmetry(5)


def test_constants_have_no_bound():
    constant = BooleanFunction([1, 1, 1, 1])
    assert constant.relevant() == ()
    with pytest.raises(ValueError, match="constant"):
        constant.bound
    with pytest.raises(ValueError, match="constant"):
        constant.witness()


def test_vertices_are_checked_when_a_function_is_called():
    g = BooleanFunction.parity(2)
    assert g([[0, 1], [1, 1]]).tolist() == [True, False]
    for bad in ([0, 1, 1], [0, 0.5], 1):
        with pytest.raises(ValueError, match="vertices"):
            g(bad)


def test_functions_are_values():
    g = BooleanFunction.parity(3)
    assert g == BooleanFunction.from_expression("x1 ^ x2 ^ x3")
    assert len({g, BooleanFunction.parity(3), BooleanFunction.parity(2)}) == 2
    with pytest.raises(ValueError, match="read-only"):
        g.table[0] = True


@pytest.mark.parametrize(("d", "classes"), [(1, 2), (2, 4), (3, 14), (4, 222)])
def test_the_number_of_classes_is_the_known_one(d, classes):
    """Numbers of NPN classes: OEIS A000370."""
    functions = all_functions_up_to_symmetry(d)
    assert len(functions) == classes
    assert sum(g.is_constant for g in functions) == 1


def test_every_function_of_three_variables_is_in_exactly_one_class():
    vertices = list(itertools.product((0, 1), repeat=3))
    seen = {}
    for representative in all_functions_up_to_symmetry(3):
        for order in itertools.permutations(range(3)):
            for flips in vertices:
                moved = [tuple(x[i] ^ f for i, f in zip(order, flips, strict=True)) for x in vertices]
                values = tuple(bool(representative(point)) for point in moved)
                for table in (values, tuple(not value for value in values)):
                    assert seen.setdefault(table, representative) == representative
    assert len(seen) == 256


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_symmetric_functions_are_all_of_them(d):
    listed = set(symmetric_functions(d))
    everything = [BooleanFunction(table) for table in itertools.product((0, 1), repeat=2**d)] if d < 4 else []
    assert len(listed) == 2 ** (d + 1)
    assert all(g.is_symmetric for g in listed)
    assert not everything or {g for g in everything if g.is_symmetric} == listed


def test_symmetric_functions_up_to_symmetry_reach_all_by_complement_and_reversal():
    for d in (2, 3, 4, 5):
        reached = set()
        for g in symmetric_functions(d, up_to_symmetry=True):
            orbit = {
                g.table.tobytes(),
                g.table[::-1].tobytes(),
                (~g.table).tobytes(),
                (~g.table[::-1]).tobytes(),
            }
            assert not orbit & reached
            reached |= orbit
        assert len(reached) == 2 ** (d + 1)
