"""An attack on private training proves less than is claimed, and more as soon as the mechanism is broken."""

import dataclasses

import pytest

from lablib.experiments import private_audit as audit
from lablib.experiments.private_audit_cases import BROKEN, ENGINE, SIMULATED, Case
from lablib.experiments.private_audit_engine import run_engine
from lablib.experiments.private_audit_models import SUBJECTS, find_canary
from lablib.experiments.private_audit_simulator import Setting

CONFIDENCE = 0.998  # of each bound: all of them together then hold at 95 %
FULL = [case for case in SIMULATED if case.setting.sample_rate == 1.0]


@pytest.fixture(scope="module")
def canaries():
    return {name: find_canary(subject)[0] for name, subject in SUBJECTS.items()}


@pytest.fixture
def audited(canaries):
    def judge(case, runs):
        canary = canaries[case.subject]
        groups = [audit.simulated_scores(case, canary, present, runs, 1) for present in (False, True)]
        return audit.judge(case, *groups, 1e-5, CONFIDENCE)

    return judge


@pytest.mark.parametrize("case", FULL[::3], ids=lambda case: case.label)
def test_full_batches_stay_below_their_claim_and_near_it(case, audited):
    row = audited(case, 8000)
    assert max(row["bound"], row["refuted"]) <= row["claimed"]
    assert row["refuted"] >= 0.6 * row["claimed"]


def test_poisson_samples_stay_below_their_claim(audited):
    row = audited(Case("dense", "dense", Setting(1.0, 4, 0.5, others=3)), 8000)
    assert row["bound"] <= row["claimed"]
    assert 0.4 * row["claimed"] < row["refuted"] <= row["claimed"]


@pytest.mark.parametrize("case", BROKEN[:4:3], ids=lambda case: case.label)
def test_too_little_noise_is_caught(case, audited):
    row = audited(case, 8000)
    assert min(row["bound"], row["refuted"]) > row["claimed"]


@pytest.mark.parametrize("flaw", ["drawn", "shuffled", "silent"])
def test_broken_sampling_is_caught(flaw, audited):
    case = next(case for case in BROKEN if case.setting.flaw == flaw)
    case = dataclasses.replace(case, setting=dataclasses.replace(case.setting, steps=20))
    row = audited(case, 3000)
    assert row["refuted"] > row["claimed"]
    sound = dataclasses.replace(case, setting=dataclasses.replace(case.setting, flaw=None))
    row = audited(sound, 3000)
    assert max(row["refuted"], row["bound"]) <= row["claimed"]


def test_the_engine_stays_below_its_claim_and_half_its_noise_is_caught(canaries):
    case = dataclasses.replace(ENGINE[0], setting=Setting(0.5, 4, others=3), micro=3)
    canary = canaries[case.subject]
    scores = run_engine(case, canary, audit.other_record(case, canary), 50, 0)
    row = audit.judge(case, *scores, 1e-5, 0.95)
    assert 0.2 * row["claimed"] < row["refuted"] <= row["claimed"]
    boast = dataclasses.replace(case, setting=dataclasses.replace(case.setting, noise_multiplier=3.0))
    row = audit.judge(boast, *scores, 1e-5, 0.95)
    assert row["refuted"] > row["claimed"]
