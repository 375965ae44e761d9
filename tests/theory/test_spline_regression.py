"""The convex optimum of penalised 1-Lipschitz regression, against another solver, and its sparsest form."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from lablib.theory.quadratic_program import solve
from lablib.theory.spline_regression import active_knots, fit, objective, sparsest
from lablib.theory.spline_targets import BrokenLine, make_target, sample

X, Y = sample(make_target("f2", 6, 3), 40, np.random.default_rng(1), 0.05)


@pytest.mark.parametrize("weight", [0.0, 1e-6, 1e-4, 1e-2, 1.0])
def test_no_function_beats_the_optimum(weight):
    best = fit(X, Y, weight)
    assert np.abs(best.line.slopes).max() <= 1 + 1e-12
    assert best.lower_bound <= best.objective * (1 + 1e-12)
    assert best.objective - best.lower_bound <= 1e-7 * max(best.objective, 1e-3)
    rng = np.random.default_rng(0)
    for _ in range(50):
        slopes = np.clip(best.line.slopes + 0.1 * rng.standard_normal(len(X) - 1), -1, 1)
        start = best.line.values[0] + 0.02 * rng.standard_normal()
        values = start + np.concatenate([[0.0], np.cumsum(slopes * np.diff(X))])
        assert objective(BrokenLine(X, values), X, Y, weight)[1] >= best.lower_bound


def test_a_general_solver_finds_the_same():
    x, y, weight = X[::4], Y[::4], 1e-3

    def smooth(z):  # the values, and t >= |changes of slope|
        return ((z[:10] - y) ** 2).mean() + weight * z[10:].sum()

    slopes = np.diff(np.eye(10), axis=0) / np.diff(x)[:, None]
    changes, none = np.diff(slopes, axis=0), np.zeros((9, 8))
    rows = np.block([[changes, np.eye(8)], [-changes, np.eye(8)], [slopes, none], [-slopes, none]])
    least = np.concatenate([np.zeros(16), -np.ones(18)])
    start = np.concatenate([np.full(10, y.mean()), np.ones(8)])
    constraint = {"type": "ineq", "fun": lambda z: rows @ z - least, "jac": lambda z: rows}
    found = optimize.minimize(smooth, start, constraints=constraint, options={"ftol": 1e-14, "maxiter": 500})
    assert found.fun == pytest.approx(fit(x, y, weight).objective, rel=1e-5)


def test_knots_vanish_and_finer_grids_come_closer():
    counts = [len(sparsest(fit(X, Y, weight).line).positions) - 2 for weight in (1e-6, 1e-4, 1e-3, 1.0)]
    assert len(X) - 2 >= counts[0] > counts[1] > counts[2] > counts[3] == 0
    best = fit(X, Y, 1e-4).objective
    gaps = [fit(X, Y, 1e-4, np.linspace(-1, 1, knots)).objective - best for knots in (11, 21, 41, 81)]
    assert all(before > after > -1e-10 for before, after in itertools.pairwise(gaps))
    assert gaps[-1] < 0.1 * best


def test_without_constraint_and_penalty_the_data_are_met():
    y = 0.5 * np.sin(X)
    assert fit(X, y, 0.0).mse < 1e-12


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=12), st.integers(0, 100))
def test_the_sparsest_line_is_the_same_on_the_points_with_fewest_knots(slopes, seed):
    gaps = np.random.default_rng(seed).uniform(0.1, 1.0, len(slopes))
    positions = np.concatenate([[0.0], np.cumsum(gaps)])
    line = BrokenLine(positions, np.concatenate([[0.0], np.cumsum(np.array(slopes) / 4 * gaps)]))
    fewer = sparsest(line)
    np.testing.assert_allclose(fewer(positions), line.values, atol=1e-12)
    assert fewer.second_variation == pytest.approx(line.second_variation, abs=1e-9)
    assert fewer.slopes.max() <= line.slopes.max() + 1e-9
    assert fewer.slopes.min() >= line.slopes.min() - 1e-9
    runs, before = [], (None, 0)  # (place, sign) of the bend before
    for place, change in enumerate(np.diff(slopes)):
        if change:
            joins = before == (place - 1, np.sign(change))
            runs = [*runs[:-1], runs[-1] + 1] if joins else [*runs, 1]
            before = (place, np.sign(change))
    assert len(fewer.positions) - 2 == sum(-(-run // 2) for run in runs)
    assert len(active_knots(line)) == sum(runs)


def test_a_quadratic_program_with_a_known_answer():
    # nearest point to (2, 1.5) with x + y <= 1, x >= 0, y >= 0
    program = (
        np.eye(2),
        -np.array([2.0, 1.5]),
        np.array([[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]),
        np.array([1.0, 0, 0]),
    )
    found = solve(*program)
    np.testing.assert_allclose(found.x, [0.75, 0.25], atol=1e-6)
    assert (found.multipliers >= 0).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: fit(X[::-1], Y, 1e-3),
        lambda: fit(X[:1], Y[:1], 1e-3),
        lambda: fit(X, Y * np.nan, 1e-3),
        lambda: fit(X, Y, -1.0),
        lambda: fit(X, Y, 1.0, np.zeros(3)),
        lambda: solve(np.eye(2), np.zeros(3), np.eye(2), np.ones(2)),
        lambda: solve(np.eye(1), np.zeros(1), np.array([[1.0], [-1.0]]), np.array([-1.0, -1.0])),
        lambda: solve(np.eye(1), np.array([np.inf]), np.eye(1), np.ones(1)),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError, match=r"[a-z]"):
        call()
