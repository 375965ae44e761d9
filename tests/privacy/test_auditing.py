"""Statistics of the audit: rates and bounds against exact sums, coverage on mechanisms whose epsilon is known."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from lablib.privacy.auditing import (
    Audit,
    audit_epsilon,
    audit_mu,
    bound_epsilon,
    bound_mu,
    bound_rate,
    gaussian_delta,
    gaussian_epsilon,
    refutes,
)


@given(st.integers(1, 60), st.data(), st.sampled_from([0.5, 0.9, 0.975]))
def test_the_rate_bound_leaves_exactly_the_tail(runs, data, confidence):
    events = data.draw(st.integers(0, runs))
    bound = bound_rate(events, runs, confidence)
    if events == runs:
        assert bound == 1.0
        return
    p = Fraction(bound)  # in exact arithmetic
    tail = sum(math.comb(runs, k) * p**k * (1 - p) ** (runs - k) for k in range(events + 1))
    assert float(tail) == pytest.approx(1 - confidence, rel=1e-9)


def test_many_rates_at_once():
    counts = np.array([0, 3, 50])
    assert np.array_equal(bound_rate(counts, 50, 0.9), [bound_rate(int(k), 50, 0.9) for k in counts])


@pytest.mark.parametrize("mu", [0.1, 0.7, 2.0, 9.0])
def test_gaussian_delta_is_the_hockey_stick(mu):
    """delta(epsilon) = integral of max(0, p - e^epsilon q), p and q the densities at mu and 0."""
    for epsilon in (0.0, 0.3, 2.0):
        start = epsilon / mu + mu / 2  # where p = e^epsilon q

        def excess(x, epsilon=epsilon):
            return stats.norm.pdf(x, mu) - math.exp(epsilon) * stats.norm.pdf(x)

        slow, _ = integrate.quad(excess, start, max(start, mu) + 12, epsabs=1e-13)
        assert gaussian_delta(mu, epsilon) == pytest.approx(slow, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("mu", [1e-3, 0.05, 1.0, 6.0, 40.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.1])
def test_gaussian_epsilon_inverts_delta(mu, delta):
    found = gaussian_epsilon(mu, delta)
    if found == 0:
        assert gaussian_delta(mu, 0.0) <= delta
    else:
        assert gaussian_delta(mu, found) == pytest.approx(delta, rel=1e-6)


def test_gaussian_epsilon_is_that_of_the_accountant():
    accounting = pytest.importorskip("lablib.privacy.accounting")
    pytest.importorskip("dp_accounting")
    assert gaussian_epsilon(2.0, 1e-5) == pytest.approx(accounting.epsilon((1.0, 1.0, 4), 1e-5), rel=1e-3)


def test_known_values():
    assert gaussian_epsilon(0.0, 1e-5) == 0.0
    assert bound_epsilon(0.01, 0.5, 1e-5) == pytest.approx(math.log(0.49999 / 0.01))
    assert bound_epsilon(0.5, 0.01, 1e-5) == bound_epsilon(0.01, 0.5, 1e-5)
    assert bound_epsilon(1.0, 1.0, 1e-5) == bound_epsilon(0.5, 0.5, 0.1) == 0.0
    assert bound_epsilon(0.0, 0.1, 1e-5) == math.inf
    assert bound_mu(stats.norm.cdf(-1.5), stats.norm.cdf(0.5)) == pytest.approx(1.0)
    assert bound_mu(0.9, 0.9) == bound_mu(1.0, 0.0) == 0.0


def test_no_bound_exceeds_the_truth_more_often_than_promised():
    """Randomised response of ln 3 and Gaussians of mu = 1, at 90 %, over 500 audits each."""
    rng, epsilon, mu, failures = np.random.default_rng(1), math.log(3.0), 1.0, [0, 0, 0]
    for _ in range(500):
        response = [(rng.random(200) < chance).astype(float) for chance in (0.25, 0.75)]
        failures[0] += audit_epsilon(*response, 1e-9, 0.9).bound > epsilon
        normal = [rng.normal(shift, 1.0, 200) for shift in (0.0, mu)]
        failures[1] += audit_mu(*normal, 0.9).bound > mu
        failures[2] += audit_epsilon(*normal, 0.05, 0.9).bound > gaussian_epsilon(mu, 0.05)
    assert max(failures) <= 50


def test_with_many_runs_the_bounds_come_close():
    rng = np.random.default_rng(2)
    response = [(rng.random(100_000) < chance).astype(float) for chance in (0.25, 0.75)]
    assert 0.97 * math.log(3.0) < audit_epsilon(*response, 1e-9).bound < math.log(3.0)
    normal = [rng.normal(shift, 1.0, 100_000) for shift in (0.0, 2.0)]
    assert 1.9 < audit_mu(*normal).bound < 2.0


def test_equal_groups_prove_nothing():
    same = np.zeros(1000)
    assert audit_epsilon(same, same, 1e-5).bound == audit_mu(same, same).bound == 0.0


def test_threshold_and_rates_are_those_of_different_halves():
    """The first half has no overlap and a wide gap; in the second all scores are alike."""
    without = np.r_[np.zeros(50), np.ones(50)]
    found = audit_epsilon(without, np.ones(100), 1e-5)
    assert isinstance(found, Audit)
    assert found.threshold < 1.0
    assert (found.false_positive_bound, found.bound, found.runs) == (1.0, 0.0, 50)


def test_a_profile_falls_only_to_rates_that_contradict_it():
    epsilons = np.linspace(0.0, 40.0, 2000)
    alpha = np.array([1e-4, 0.01, 0.3, 0.9])
    for a in alpha:
        b = float(stats.norm.cdf(-stats.norm.ppf(a) - 1.0))  # on the curve of mu = 1
        for mu, expected in ((1.0 + 1e-4, False), (0.97, True)):
            profile = np.array([gaussian_delta(mu, value) for value in epsilons])
            assert refutes(epsilons, profile, float(a), b) is expected


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bound_rate(3, 2, 0.9), "events between 0 and runs"),
        (lambda: bound_rate(0, 0, 0.9), "runs >= 1"),
        (lambda: bound_rate(0, 5, 1.0), "confidence"),
        (lambda: bound_epsilon(1.2, 0.1, 1e-5), "error rates"),
        (lambda: bound_epsilon(math.nan, 0.1, 1e-5), "error rates"),
        (lambda: bound_epsilon(0.1, 0.1, 0.0), "delta"),
        (lambda: gaussian_epsilon(-1.0, 0.1), "mu is"),
        (lambda: gaussian_epsilon(math.nan, 0.1), "mu is"),
        (lambda: audit_mu(np.zeros(1), np.zeros(5)), "two finite scores"),
        (lambda: audit_mu(np.zeros((5, 2)), np.zeros(5)), "two finite scores"),
        (lambda: audit_epsilon(np.zeros(5), np.array([0.0, math.nan]), 0.1), "two finite scores"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
