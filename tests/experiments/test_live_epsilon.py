"""Epsilon for sliders: upper bounds near the exact accountants', in order, and quick."""

import time

import numpy as np
import pytest

from lablib.experiments.live_epsilon import HOPELESS, SLOW, epsilon_curves
from lablib.privacy.accounting import epsilon

RUN = (1.0, 0.01, 1000)


@pytest.fixture(scope="module")
def found():
    return epsilon_curves(*RUN, 1e-5)


def test_final_values_are_those_of_the_accountants(found):
    assert found.final["RDP"] == epsilon(RUN, 1e-5, "rdp")
    assert found.final["PRV"] == epsilon(RUN, 1e-5, "prv")
    exact = epsilon(RUN, 1e-5, "pld")
    assert exact <= found.final["PLD"] <= 1.01 * exact
    assert found.effective == RUN[0]


def test_curves_and_profiles_are_monotone_and_meet(found):
    for name, (steps, epsilons) in found.curves.items():
        assert steps[-1] == RUN[2]
        assert (np.diff(steps) > 0).all()
        assert (np.diff(epsilons) >= 0).all()
        assert epsilons[-1] == found.final[name]
    for epsilons, deltas in found.profile.values():
        assert (np.diff(deltas) < 0).all()
        assert (np.diff(epsilons) > 0).all()
    loose, tight = (dict(zip(*reversed(found.profile[name]))) for name in ("RDP", "PLD"))
    assert all(tight[delta] <= loose[delta] for delta in tight)
    assert loose[1e-5] == found.final["RDP"]


def test_releases_act_as_one_gaussian(found):
    six = epsilon_curves(6**0.5, 0.01, 1000, 1e-5, releases=6)
    assert six.effective == pytest.approx(1.0)
    assert six.final["PLD"] == pytest.approx(found.final["PLD"], rel=1e-6)


def test_slow_accountants_are_left_out_where_there_is_no_privacy():
    weak = epsilon_curves(0.5, 0.05, 500, 1e-5)
    assert weak.final["RDP"] > SLOW
    assert "PRV" not in weak.final
    none = epsilon_curves(0.3, 0.5, 500, 1e-5)
    assert none.final["RDP"] > HOPELESS
    assert set(none.final) == set(none.curves) == {"RDP"}


def test_one_step_and_full_batches():
    made = epsilon_curves(2.0, 1.0, 1, 1e-5)
    assert made.final["PLD"] == pytest.approx(epsilon((2.0, 1.0, 1), 1e-5), rel=0.01)


def test_a_slider_is_answered_quickly(found):
    times = []
    for noise in (1.5, 2.0, 3.0):
        start = time.process_time()
        epsilon_curves(noise, 0.017, 600, 1e-5)
        times.append(time.process_time() - start)
    assert np.median(times) < 0.4


@pytest.mark.parametrize(
    "wrong", [(-1.0, 0.1, 10, 1e-5), (1.0, 1.5, 10, 1e-5), (1.0, 0.1, 0, 1e-5), (1.0, 0.1, 10, 0.0)]
)
def test_refusals(wrong):
    with pytest.raises(ValueError, match=r"step|rate|delta|noise"):
        epsilon_curves(*wrong)
