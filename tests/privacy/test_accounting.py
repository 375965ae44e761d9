"""Epsilon of all accountants: published values, composition, noise found for a target, and refusals."""

import logging
import math
import re
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis import rdp

from lablib.privacy.accounting import (
    ACCOUNTANTS,
    COARSE,
    Ledger,
    effective_noise,
    epsilon,
    epsilon_curve,
    find_noise_multiplier,
    steps_within,
)
from lablib.privacy.auditing import gaussian_epsilon

DELTA = 1e-5


@pytest.mark.parametrize(
    ("accountant", "expected"),
    [("pld", 1.82824), ("prv", 1.83837), ("rdp", 2.10137), ("google-rdp", 2.10137)],
)
def test_published_values(accountant, expected):
    assert epsilon((1.0, 0.01, 1000), DELTA, accountant) == pytest.approx(expected, abs=6e-6)


def test_published_value_of_the_finer_prv():
    accountant = PRVAccountant()
    accountant.history = [(1.0, 0.01, 1000)]
    assert accountant.get_epsilon(DELTA, eps_error=0.001) == pytest.approx(1.82937, abs=6e-6)


def test_per_layer_noise_costs_what_its_effective_noise_says():
    # the published 2.11 and 49.6 are Renyi bounds at whole orders; six layers of sigma = 1 are one of 1 / sqrt(6)
    def whole_orders(sigma: float) -> float:
        orders = list(range(2, 64))
        spent = 1000 * rdp.compute_rdp(q=0.01, noise_multiplier=sigma, steps=1, orders=orders)
        return rdp.get_privacy_spent(orders=orders, rdp=spent, delta=DELTA)[0]

    assert whole_orders(effective_noise([1.0])) == pytest.approx(2.11, abs=5e-3)
    assert whole_orders(effective_noise([math.sqrt(6)] * 6)) == pytest.approx(2.11, abs=5e-3)
    with pytest.warns(UserWarning, match="smallest alpha"):
        assert whole_orders(effective_noise([1.0] * 6)) == pytest.approx(49.6, abs=0.05)
    # fractional orders and privacy loss distributions show that much of it was the bound
    fine = [epsilon((effective_noise([1.0] * 6), 0.01, 1000), DELTA, a) for a in ("pld", "rdp")]
    assert fine == pytest.approx([25.93, 29.59], abs=0.01)


@given(st.lists(st.floats(0.1, 50.0), min_size=1, max_size=8))
def test_effective_noise_is_that_of_the_joint_gaussian(sigmas):
    # a shift of each coordinate by its sensitivity 1, in units of its noise, has this length
    assert 1 / effective_noise(sigmas) == pytest.approx(float(np.linalg.norm(1 / np.array(sigmas))))
    assert effective_noise(sigmas) <= min(sigmas) * (1 + 1e-12)


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_without_sampling_it_is_the_gaussian_mechanism(accountant):
    from scipy.optimize import brentq
    from scipy.stats import norm

    mu = math.sqrt(10) / 4.0  # ten steps of sigma = 4 at q = 1 (Balle and Wang, ICML 2018, Theorem 8)
    exact = brentq(
        lambda e: norm.cdf(mu / 2 - e / mu) - math.exp(e) * norm.cdf(-mu / 2 - e / mu) - DELTA, 0.0, 50.0
    )
    found = epsilon((4.0, 1.0, 10), DELTA, accountant)
    assert exact - 1e-9 <= found <= exact * (1.2 if "rdp" in accountant else 1.01)


def test_the_rounding_of_fourier_transforms_is_allowed_for():
    # left alone, dp-accounting is below the exact epsilon here, by 0.008 and 0.04
    for mu, delta, steps in ((10.0, 2e-11, 10**4), (30.0, 2e-12, 1000)):
        found = epsilon((math.sqrt(steps) / mu, 1.0, steps), delta, interval=1e-3)
        assert 0.0 <= found - gaussian_epsilon(mu, delta) <= 3.0
    for accountant in ("pld", "prv"):
        with pytest.raises(ValueError, match="as large as delta 1e-12; rdp has none"):
            epsilon((1e3, 1.0, 10**4), 1e-12, accountant)
    assert epsilon((1e3, 1.0, 10**4), 1e-12, "rdp") < 0.7
    steps = steps_within(50.0, 1e-12, 1e3, 1.0)
    assert steps == 562  # as many as can be told, long before 50
    assert epsilon((1e3, 1.0, steps), 1e-12) < 0.2


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_composition(accountant):
    nothing, first, second = Ledger(), (1.5, 0.02, 40), (3.0, 0.05, 20)
    both = Ledger([first, second])
    assert epsilon(nothing, DELTA, accountant) == epsilon((1.0, 0.1, 0), DELTA, accountant) == 0.0
    assert epsilon((0.0, 0.1, 1), DELTA, accountant) == math.inf
    parts = [epsilon(step, DELTA, accountant) for step in (first, second)]
    assert max(parts) < epsilon(both, DELTA, accountant) < sum(parts)
    assert epsilon(Ledger([second, first]), DELTA, accountant) == epsilon(both, DELTA, accountant)
    halves = Ledger([(1.5, 0.02, 20), second, (1.5, 0.02, 20)])
    assert halves.to_list() == both.to_list()
    # the ledger of two equal kinds of steps, kept apart by a hair, costs what their sum costs
    apart = Ledger([(1.5, 0.02, 20), (1.5 * (1 + 1e-9), 0.02, 20)])
    assert epsilon(apart, DELTA, accountant) == pytest.approx(parts[0], rel=1e-2)


def test_ledger():
    ledger = Ledger()
    for _ in range(3):
        ledger.add(1.0, 0.1)
    ledger.add(2.0, 0.1, 4)
    assert ledger.to_list() == [[1.0, 0.1, 3], [2.0, 0.1, 4]]
    assert ledger.steps == 7
    assert Ledger(ledger.to_list()) == ledger != Ledger()
    assert repr(Ledger([(1, 1, np.int64(2))])) == "Ledger([[1.0, 1.0, 2]])"


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_noise_multiplier_for_a_target(accountant):
    sigma = find_noise_multiplier(2.0, DELTA, 0.05, 60, accountant)
    assert epsilon((sigma, 0.05, 60), DELTA, accountant) <= 2.0
    assert epsilon((sigma * 0.995, 0.05, 60), DELTA, accountant) > 2.0


def test_small_and_large_targets():
    sigma = find_noise_multiplier(10.0, DELTA, 0.05, 10)
    assert sigma < 1.0
    assert 9.9 < epsilon((sigma, 0.05, 10), DELTA) <= 10.0
    with pytest.raises(ValueError, match=r"up to 1e5 gives epsilon 0\.05 by rdp"):
        find_noise_multiplier(0.05, DELTA, 0.05, 40, "rdp")  # its orders end at 63
    with pytest.raises(ValueError, match="1e-2 of the sensitivity"):
        find_noise_multiplier(1e6, DELTA, 0.05, 1, "rdp")


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_steps_within_a_target(accountant):
    steps = steps_within(1.5, DELTA, 3.0, 0.3, accountant)
    assert steps > 3
    assert epsilon((3.0, 0.3, steps), DELTA, accountant) <= 1.5
    assert epsilon((3.0, 0.3, steps + 1), DELTA, accountant) > 1.5
    assert steps_within(0.01, DELTA, 0.5, 0.5, accountant) == 0
    assert steps_within(1.0, DELTA, 0.0, 0.5, accountant) == 0
    assert steps_within(5.0, DELTA, 1e5, 1e-3, "rdp") == 10**7


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_curve(accountant):
    steps = [0, 1, 7, 30]
    curve = epsilon_curve(1.2, 0.05, steps, DELTA, accountant)
    assert curve.dtype == np.float64
    assert curve.tolist() == [epsilon((1.2, 0.05, n), DELTA, accountant, interval=COARSE) for n in steps]
    assert (np.diff(curve) > 0).all()
    fine = [epsilon((1.2, 0.05, n), DELTA, accountant) for n in steps]
    assert (curve >= np.array(fine) - 1e-12).all()
    assert curve == pytest.approx(fine, abs=5e-3)


def test_what_the_libraries_do_besides_is_undone(monkeypatch):
    def noisy(**arguments):
        logging.getLogger().addHandler(logging.NullHandler())  # as Opacus does where it is imported
        logging.getLogger().setLevel(logging.DEBUG)
        warnings.warn("an order was left out", stacklevel=1)
        assert np.log(np.zeros(1)) == -np.inf
        return computed(**arguments)

    computed, root = rdp.compute_rdp, logging.getLogger()
    before = (list(root.handlers), root.level, logging.getLogger("absl").level)
    monkeypatch.setattr(rdp, "compute_rdp", noisy)
    assert epsilon((1.2345, 0.05, 500), DELTA, "rdp") > 0
    assert (list(root.handlers), root.level, logging.getLogger("absl").level) == before


def test_without_the_extra(monkeypatch):
    for name in {"opacus", "dp_accounting", *sys.modules}:
        if name.split(".")[0] in ("opacus", "dp_accounting"):
            monkeypatch.setitem(sys.modules, name, None)
    assert epsilon(Ledger(), DELTA) == 0.0
    for accountant in ACCOUNTANTS:
        with pytest.raises(ImportError, match=re.escape("pip install 'lablib[private]'")):
            epsilon((1.3579, 0.1, 1), DELTA, accountant)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: epsilon((1.0, 0.1, 1), 0.0), "delta"),
        (lambda: epsilon((1.0, 0.1, 1), math.nan), "delta"),
        (lambda: epsilon((1.0, 0.1, 1), DELTA, "moments"), "pld, prv, rdp, google-rdp"),
        (lambda: epsilon((1.0, 0.1, 1), DELTA, interval=0.0), "grid"),
        (lambda: epsilon((-1.0, 0.1, 1), DELTA), "noise multiplier"),
        (lambda: epsilon((math.nan, 0.1, 1), DELTA), "noise multiplier"),
        (lambda: epsilon((True, 0.1, 1), DELTA), "noise multiplier"),
        (lambda: epsilon((1.0, 0.0, 1), DELTA), "sample rate"),
        (lambda: epsilon((1.0, 1.1, 1), DELTA), "sample rate"),
        (lambda: epsilon((1.0, 0.1, -1), DELTA), "steps"),
        (lambda: epsilon((1.0, 0.1, 1.5), DELTA), "steps"),
        (lambda: epsilon((1.0, 0.1), DELTA), "entry is"),
        (lambda: Ledger([3.0]), "entry is"),
        (lambda: find_noise_multiplier(0.0, DELTA, 0.1, 10), "target"),
        (lambda: find_noise_multiplier(math.inf, DELTA, 0.1, 10), "target"),
        (lambda: find_noise_multiplier(1.0, DELTA, 0.1, 0), "number of steps"),
        (lambda: steps_within(-1.0, DELTA, 1.0, 0.1), "target"),
        (lambda: effective_noise([]), "there are none"),
        (lambda: effective_noise([1.0, -1.0]), "noise multiplier"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
