"""The search: against the whole linear program, known values, duality in fractions, and awkward data."""

from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from lablib.theory.impossibility import check, solve


def whole_program(classes, scale, budget):
    """R by one linear program over all pairs, a budget per logit: no constraint generation, no symmetry used."""
    count, width = len(classes), classes[0].shape[1]
    rows = []
    for y, z in combinations(range(count), 2):
        for a, b in product(classes[y].astype(float), classes[z].astype(float)):
            row = np.zeros((count, width))
            row[[y, z]] = -np.abs(a - b) / (4 * scale)
            rows.append([*row.ravel(), 1.0])
    sums = np.hstack([np.kron(np.eye(count), np.ones(width)), np.zeros((count, 1))])
    matrix = np.vstack([rows, sums])
    limits = np.concatenate([np.zeros(len(rows)), np.full(count, budget)])
    bounds = [(0, 1)] * (count * width) + [(None, None)]
    return -linprog(-np.eye(count * width + 1)[-1], A_ub=matrix, b_ub=limits, bounds=bounds).fun


def half_separation(classes, scale):
    steps = [
        np.abs(classes[y][:, None].astype(int) - classes[z][None].astype(int)).max(axis=2).min()
        for y, z in combinations(range(len(classes)), 2)
    ]
    return Fraction(int(min(steps)), 2 * scale)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize(("depth", "group"), [(1, 1), (2, 2), (3, 2), (2, 5)])
def test_bounds_meet_at_the_optimum_of_the_whole_program(count, depth, group):
    random = np.random.default_rng(count * 10 + depth + group)
    classes = [random.integers(0, 256, (9 + y, 12), dtype=np.uint8) for y in range(count)]
    certificate = solve(classes, depth=depth, group=group, tolerance=1e-5)
    best = min(whole_program(classes, 255, group ** (depth - 1)), float(half_separation(classes, 255)))
    assert float(certificate.lower) <= best * (1 + 1e-9)
    assert float(certificate.upper) >= best * (1 - 1e-9)
    assert float(certificate.upper - certificate.lower) <= 3e-5 * best
    assert certificate.half_separation == half_separation(classes, 255)
    assert check(certificate, classes).pairs == sum(len(a) * len(b) for a, b in combinations(classes, 2))


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_and_of_d_variables_has_radius_one_over_2d_per_unit_of_budget(d, depth):
    vertices = np.array(list(product([0, 1], repeat=d)))
    classes = [vertices[~vertices.all(axis=1)], vertices[vertices.all(axis=1)]]
    certificate = solve(classes, depth=depth, group=2)
    exact = min(Fraction(1, 2), Fraction(2 ** (depth - 1), 2 * d))
    assert certificate.half_separation == Fraction(1, 2)
    assert certificate.lower <= exact <= certificate.upper
    assert float(certificate.upper - certificate.lower) < 1e-4
    check(certificate, classes)


@given(st.integers(0, 2**32 - 1), st.integers(2, 3), st.integers(1, 4))
def test_any_weights_prove_a_bound_above_any_budgets(seed, count, budget):
    """Weak duality, in fractions: the bound of random pairs and weights is above the value of random budgets."""
    from lablib.theory.impossibility.check import difference, dual_bound

    random = np.random.default_rng(seed)
    points = [random.integers(-9, 9, (3, 4)) for _ in range(count)]
    everything = [
        (y, a, z, b) for y, z in combinations(range(count), 2) for a, b in product(range(3), repeat=2)
    ]
    weights = [int(weight) for weight in random.integers(1, 9, len(everything))]
    shares = random.integers(0, 20, (count, 4))
    lambdas = []
    for row in shares.tolist():  # scaled into the polytope: entries <= 1, sum <= budget
        top = max(max(row), Fraction(sum(row), budget), 1)
        lambdas.append([Fraction(entry) / top for entry in row])
    radius = min(
        sum((lambdas[p[0]][j] + lambdas[p[2]][j]) * step for j, step in enumerate(difference(points, p)))
        / (4 * 7)
        for p in everything
    )
    assert radius <= dual_bound(points, 7, everything, weights, budget)


def test_floats_of_every_width_and_wide_ranges_are_certified_exactly():
    random = np.random.default_rng(0)
    for dtype, spread in ((np.float16, 1.0), (np.float32, 1e6), (np.float64, 1e-3), (np.float64, 1e300)):
        classes = [(random.normal(size=(20, 6)) * spread + y * spread).astype(dtype) for y in range(2)]
        certificate = solve(classes)
        checked = check(certificate, classes)
        assert checked.exhaustive
        assert checked.upper - checked.lower <= checked.upper / 1000
        direct = min(np.abs(a - b).max() for a in classes[0].astype(float) for b in classes[1].astype(float))
        assert float(certificate.separation) == pytest.approx(direct, rel=1e-12)


def test_numbers_of_very_different_size_still_give_a_proof():
    classes = [np.array([[1e-300, 5e-324], [1.0, 0.0]]), np.array([[1e300, 3.0], [1.0, 1e-10]])]
    certificate = solve(classes)
    assert 0 <= certificate.lower <= certificate.upper == certificate.half_separation
    check(certificate, classes)


def test_a_point_in_both_classes_means_radius_zero():
    random = np.random.default_rng(1)
    a, b = random.integers(0, 9, (700, 5)), random.integers(0, 9, (800, 5))
    b[777] = a[333]
    for classes in ([a, b], [a[300:340], b[770:]], [a, b, a + 20]):
        certificate = solve(classes)
        assert certificate.upper == certificate.lower == certificate.half_separation == 0
        check(certificate, classes)


def test_one_point_per_class_and_one_coordinate():
    certificate = solve([np.array([[3]]), np.array([[10]])])
    assert certificate.lower == certificate.upper == certificate.half_separation == Fraction(7, 2)


def test_scale_and_units():
    a, b = np.array([[0, 4], [1, 8]], dtype=np.uint8), np.array([[16, 5], [12, 0]], dtype=np.uint8)
    plain, scaled = solve([a, b], scale=1), solve([a, b], scale=16)
    assert scaled.upper == plain.upper / 16
    assert scaled.half_separation == plain.half_separation / 16
    assert solve([a, b]).scale == 255


def test_a_certificate_is_a_good_start_for_another_depth():
    random = np.random.default_rng(2)
    classes = [random.integers(0, 256, (200, 40), dtype=np.uint8) for _ in range(2)]
    first = solve(classes)
    again = solve(classes, depth=2, group=2, start=first)
    fresh = solve(classes, depth=2, group=2)
    assert again.run["rounds"] < fresh.run["rounds"]
    assert float(again.upper) == pytest.approx(float(fresh.upper), rel=2e-4)
    check(again, classes)


def test_stopped_early_the_bounds_hold_all_the_same():
    random = np.random.default_rng(3)
    classes = [random.integers(0, 256, (150, 60), dtype=np.uint8) for _ in range(2)]
    early, late = solve(classes, max_seconds=0), solve(classes)
    assert early.run["rounds"] < late.run["rounds"]
    assert early.lower <= late.upper
    assert late.lower <= early.upper
    check(early, classes)


def test_progress_reports_bounds_in_data_units():
    classes = [np.array([[0.0], [50.0]]), np.array([[100.0]])]
    seen = []
    certificate = solve(classes, progress=lambda *report: seen.append(report))
    assert seen[-1][2] == pytest.approx(25.0)
    assert certificate.upper == 25


def test_several_thousand_points_in_two_stages_with_and_without_numba():
    pytest.importorskip("numba")
    random = np.random.default_rng(4)
    classes = [(random.random((900, 24)) ** (2 + y) * 255).astype(np.uint8) for y in range(2)]
    compiled, plain = (solve(classes, compiled=flag, tolerance=1e-4) for flag in (True, False))
    assert compiled.separation == plain.separation
    assert float(compiled.upper) == pytest.approx(float(plain.upper), rel=3e-4)
    assert check(plain, classes).pairs == 810_000
    check(compiled, classes)


@pytest.mark.parametrize(
    ("classes", "options", "what"),
    [
        ([np.zeros((2, 3))], {}, "at least two"),
        ([np.zeros((2, 3)), np.zeros((0, 3))], {}, "non-empty"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], {}, "one shape"),
        ([np.zeros((2, 3)), np.zeros((2, 3), dtype=np.uint8)], {}, "one dtype"),
        ([np.zeros((2, 3)), np.full((2, 3), np.nan)], {}, "NaN"),
        ([np.zeros((2, 3)), np.full((2, 3), np.inf)], {}, "infinity"),
        ([np.zeros(3), np.zeros(3)], {}, "shape"),
        ([np.zeros((2, 3)) + 1j, np.zeros((2, 3)) + 1j], {}, "dtype"),
        ([np.array([["a"]]), np.array([["b"]])], {}, "dtype"),
        ([np.zeros((2, 3)), np.ones((2, 3))], {"depth": 0}, "depth"),
        ([np.zeros((2, 3)), np.ones((2, 3))], {"group": 0}, "group"),
        ([np.zeros((2, 3)), np.ones((2, 3))], {"tolerance": 0}, "tolerance"),
        ([np.zeros((2, 3)), np.ones((2, 3))], {"tolerance": float("nan")}, "tolerance"),
        ([np.zeros((2, 3)), np.ones((2, 3))], {"names": ["a"]}, "names"),
        ([np.zeros((2, 3)), np.ones((2, 3))], {"names": ["a", "a"]}, "names"),
        ([np.zeros((2, 3), int), np.ones((2, 3), int)], {"scale": 0}, "scale"),
    ],
)
def test_unusable_input_is_refused(classes, options, what):
    with pytest.raises(ValueError, match=what):
        solve(classes, **options)


def test_a_start_about_other_points_is_refused():
    random = np.random.default_rng(5)
    ours, others = ([random.random((6, 4)) for _ in range(2)] for _ in range(2))
    with pytest.raises(ValueError, match="other points"):
        solve(ours, start=solve(others))


@pytest.mark.parametrize(
    "wrong", [{"depth": 2.5}, {"depth": True}, {"group": 0}, {"scale": 2.5}, {"scale": True}]
)
def test_counts_are_whole_numbers(wrong):
    classes = [np.array([[0, 1]], dtype=np.uint8), np.array([[1, 1]], dtype=np.uint8)]
    with pytest.raises(ValueError, match="must be"):
        solve(classes, **wrong)


def test_values_beyond_floats_are_refused_with_one_sentence():
    with pytest.raises(ValueError, match="divide the data"):
        solve([np.array([[1.7e308]]), np.array([[-1.7e308]])])
