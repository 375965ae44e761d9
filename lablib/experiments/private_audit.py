"""How much of the claimed epsilon an attack can prove, for the private mechanism and for ways to build it wrongly.

Each mechanism is run many times on two data sets that differ in a canary whose gradient attains the sensitivity
(:mod:`.private_audit_models`), simulated for thousands of runs at once (:mod:`.private_audit_simulator`) and, for
some hundreds, by the engine itself (:mod:`.private_audit_engine`). From the scores follow two lower bounds
(:mod:`lablib.privacy.auditing`): on epsilon at delta, for any mechanism, and on epsilon of a noise multiplier that
the runs refute. Both must stay below the claim where nothing is broken, and exceed it where something is.
"""

import dataclasses
import zlib
from typing import Any

import numpy as np

from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.private_audit_cases import (
    BROKEN,
    ENGINE,
    SIMULATED,
    Case,
    claimed_epsilon,
    refuted_epsilon,
)
from lablib.experiments.private_audit_engine import run_engine
from lablib.experiments.private_audit_models import SUBJECTS, Record, find_canary, mirrored, quiet
from lablib.experiments.private_audit_simulator import simulate
from lablib.experiments.recipe import Recipe
from lablib.experiments.threads import one_thread
from lablib.privacy.auditing import audit_epsilon, audit_mu

NAME = "private_audit"
CHUNK = 20_000  # runs simulated at once


@dataclasses.dataclass(frozen=True)
class Config:
    """Size of the audit.

    Attributes:
        mode: of the run.
        runs: simulated ones of each mechanism with the canary, and as many without.
        engine_runs: the same for the engine itself.
        delta: of every claim.
        confidence: with which all bounds of the audit hold at once; each has its share of the rest.
        thinned: only every so many of the mechanisms of each kind.
        seed: of the noise and the sampling.
    """

    mode: str
    runs: int
    engine_runs: int
    delta: float = 1e-5
    confidence: float = 0.95
    thinned: int = 1
    seed: int = 0


def other_record(case: Case, canary: Record) -> Record:
    """Return the record of which the data set holds N copies."""
    module = SUBJECTS[case.subject].build()
    kinds = {"quiet": quiet, "mirrored": mirrored, "copies": lambda module, canary: canary}
    return kinds[case.setting.kind](module, canary)


def simulated_scores(case: Case, canary: Record, present: bool, runs: int, seed: int) -> np.ndarray:
    """Return scores (R,) of simulated runs, in chunks; ``seed`` and the case's label name the random numbers."""
    own = [zlib.crc32(case.label.encode()), int(present), seed]
    seeds = np.random.SeedSequence(own).generate_state(-(-runs // CHUNK))
    other = other_record(case, canary)
    sizes = [min(CHUNK, runs - k * CHUNK) for k in range(len(seeds))]
    given = SUBJECTS[case.subject], case.setting, canary, other, present
    parts = [
        simulate(*given, size, int(state), gradient_canary=case.gradient_canary)
        for size, state in zip(sizes, seeds, strict=True)
    ]
    return np.concatenate([scores.numpy() for scores, _ in parts])


def judge(
    case: Case, without: np.ndarray, present: np.ndarray, delta: float, confidence: float
) -> dict[str, Any]:
    """Return claim and both lower bounds of one mechanism from the scores of its runs."""
    general = audit_epsilon(without, present, delta, confidence)
    profile = audit_mu(without, present, confidence)
    return {
        "label": case.label,
        "subject": case.subject,
        "setting": dataclasses.asdict(case.setting) | {"scale": [list(pair) for pair in case.setting.scale]},
        "sound": case.sound,
        "runs": [len(without), len(present)],
        "claimed": claimed_epsilon(case.setting, delta),
        "bound": general.bound,
        "refuted": refuted_epsilon(case.setting, profile, delta),
        "rates": [general.false_positive_bound, general.false_negative_bound],
    }


@one_thread()
def run(config: Config) -> dict[str, Any]:
    """Audit every mechanism; return the canaries' share of the sensitivity and one row for each mechanism."""
    canaries = {name: find_canary(subject) for name, subject in SUBJECTS.items()}
    plan = [("simulated", case) for case in (*SIMULATED[:: config.thinned], *BROKEN[:: config.thinned])]
    plan += [("engine", case) for case in ENGINE[:: config.thinned]]
    each = 1.0 - (1.0 - config.confidence) / (2 * len(plan))
    kept = Checkpoint(NAME, config.mode, dataclasses.asdict(config))
    with kept.bar({f"{by}: {case.label}": 1 for by, case in plan}, "mechanism") as bar:
        for by, case in plan:
            part = f"{by}: {case.label}"
            if part in kept:
                continue
            canary = canaries[case.subject][0]
            if by == "engine":
                groups = run_engine(case, canary, other_record(case, canary), config.engine_runs, config.seed)
            else:
                groups = [simulated_scores(case, canary, p, config.runs, config.seed) for p in (False, True)]
            kept[part] = judge(case, *groups, config.delta, each) | {"by": by}
            bar.update()
    rows = [kept[f"{by}: {case.label}"] for by, case in plan]
    shares = {name: share for name, (_, share) in canaries.items()}
    return {"canary_share": shares, "confidence_each": each, "rows": rows} | summarise(rows)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many sound mechanisms stay below their claim and how many broken ones are caught, and the power.

    ``power`` are shares of the claim that are proven, smallest and median, where all records are used in every step,
    of the simulated runs and of those of the engine, which are far fewer.
    """
    sound = [row for row in rows if row["sound"]]
    broken = [row for row in rows if not row["sound"]]
    power = {}
    for by in ("simulated", "engine"):
        own = [row for row in sound if row["by"] == by and row["setting"]["sample_rate"] == 1.0]
        shares = [row["refuted"] / row["claimed"] for row in own]
        power[by] = {"smallest": min(shares), "median": float(np.median(shares))}
    return {
        "sound": len(sound),
        "sound_below": sum(max(row["bound"], row["refuted"]) <= row["claimed"] for row in sound),
        "broken": len(broken),
        "broken_caught": sum(row["bound"] > row["claimed"] for row in broken),
        "broken_caught_by_profile": sum(row["refuted"] > row["claimed"] for row in broken),
        "power": power,
    }


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw audited against claimed epsilon."""
    from lablib.plots.private_audit import draw_audit

    return {NAME: draw_audit(record["metrics"]["rows"], record["config"]["delta"])}


RECIPE = Recipe(
    name=NAME,
    question="How much of the claimed epsilon can an attack prove, and does it catch a mechanism that is broken?",
    sizes={
        "quick": Config("quick", runs=4000, engine_runs=20, thinned=3),
        "standard": Config("standard", runs=100_000, engine_runs=600),
        "full": Config("full", runs=1_000_000, engine_runs=2000),
    },
    run=run,
    draw=draw,
)
