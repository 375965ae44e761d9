"""The honest protocol on a table: nothing that judges a model has any part in making it.

For each seed: test rows apart; five folds of the other rows, one model each, choose settings and the number of steps
(or rounds); with these a model learns anew from all those rows, and is judged once, at the fixed threshold. Settings
stand from simple to rich, and the first is taken whose least mean loss is within one standard error of the best, at
the step where its loss is least: on few rows the least of many noisy means is luck (Breiman and others,
"Classification and Regression Trees", 1984, section 3.4). Means and spreads are of the rows that are learned from.
Loss is the negative log-likelihood, or the squared error.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lablib.data import Table, compas
from lablib.experiments import tabular_networks, tabular_trees
from lablib.experiments.tabular_networks import MLP, NETWORKS, OURS, PEER, PEER_DEFAULT, Trained
from lablib.experiments.tabular_rows import Job, folds, make_job, split
from lablib.experiments.tabular_scores import (
    count_falls,
    log_loss,
    score_classes,
    score_numbers,
    squared_error,
)

METHODS = (OURS, PEER, PEER_DEFAULT, MLP, *tabular_trees.PACKAGES)
LOGGED = {"compas": compas.COUNTS}  # counts, mostly 0 and up to 38: networks read log(1 + count)
FALL_ROWS, FALL_GRID = 100, 20
MANY_ROWS, BATCH = 1000, 512


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is tried.

    Attributes:
        seeds: how many splits, starts and choices.
        folds: parts that choose in turn.
        steps, rounds: most steps of a network and rounds of boosting; ``checks``: how many points to stop at.
        narrow: only the first setting of each method.
    """

    seeds: int
    folds: int
    steps: int
    rounds: int
    checks: int
    narrow: bool = False


def settings_of(method: str, rows: int) -> list[dict[str, Any]]:
    """Return what the folds choose from, of a method on a table of so many rows, from simple to rich.

    Raises:
        ValueError: for an unknown method.
    """
    batch = BATCH if rows > MANY_ROWS else None
    rate = (
        1e-2 if rows > 350 else 3e-3
    )  # on 250 rows and fewer, 1e-2 is past the best step before the second check
    common = {"rate": rate, "batch": batch}
    small, large = (8, 8), (16, 16)
    if method in (OURS, PEER):
        tried = ((small, 1.0), (small, 2.0), (small, 4.0), (large, 2.0))
        return [common | {"widths": widths, "lipschitz": constant} for widths, constant in tried]
    if method == PEER_DEFAULT:
        return [common | {"widths": small, "lipschitz": 1.0}]
    if method == MLP:
        tried = ((small, 1.0), (small, 0.0), ((32, 32), 1.0))
        return [common | {"widths": widths, "decay": decay} for widths, decay in tried]
    if method in tabular_trees.PACKAGES:
        return [{"rate": 0.05, "leaves": leaves, "least": 10} for leaves in (3, 8, 24)]
    raise ValueError(f"no method {method!r}; choose from {', '.join(METHODS)}")


def module_of(method: str):
    """Return the module that trains a method: it has ``courses`` and ``fit``."""
    return tabular_networks if method in NETWORKS else tabular_trees


def judge(table: Table, kind: str, method: str, effort: Effort) -> dict[str, Any]:
    """Run one method under the protocol; return what is kept, as plain data, a value per seed.

    ``score`` (accuracy, or squared error in the target's unit), ``nll``, ``calibration``, ``parameters``, ``chosen``
    settings, ``steps``, ``outputs`` (logits, or numbers) of the test rows and their ``truth``, ``spread`` of the
    predicted normal law (1 for classes); ``falls``: counts over all seeds.
    """
    table = _logged(table) if method in NETWORKS else table
    settings = settings_of(method, len(table.target))[: 1 if effort.narrow else None]
    most = effort.steps if method in NETWORKS else effort.rounds
    checks = sorted({max(1, round(most * part / effort.checks)) for part in range(1, effort.checks + 1)})
    splits = [split(table, kind, seed) for seed in range(effort.seeds)]
    losses = np.stack([_fold_losses(table, method, setting, splits, checks, effort) for setting in settings])
    chosen, stops, least = simplest(losses)
    jobs = [make_job(table, train, test, seed) for seed, (train, test) in enumerate(splits)]
    models = _fit(method, settings, jobs, checks, chosen, stops)
    kept: dict[str, list] = {
        name: [] for name in ("score", "nll", "calibration", "outputs", "truth", "spread")
    }
    for job, model, loss in zip(jobs, models, least):
        outputs, truth = job.scaling.outputs(model.score(job.held_x)), job.scaling.outputs(job.held_y)
        spread = 1.0 if job.classes else float(np.sqrt(loss))
        found = score_classes(outputs, truth) if job.classes else score_numbers(outputs, truth, spread)
        for name, value in (
            found | {"outputs": outputs.tolist(), "truth": truth.tolist(), "spread": spread}
        ).items():
            kept[name].append(value)
    return kept | {
        "parameters": [model.parameters for model in models],
        "chosen": [settings[number] for number in chosen],
        "steps": [checks[stop] for stop in stops],
        "falls": _falls(table, jobs, models),
    }


def _fold_losses(
    table: Table,
    method: str,
    setting: Mapping[str, Any],
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    checks: Sequence[int],
    effort: Effort,
) -> np.ndarray:
    """Return the loss on each fold, in the target's unit: (seeds, folds, checks)."""
    jobs = [
        make_job(table, learn, choose, seed)
        for seed, (train, _) in enumerate(splits)
        for learn, choose in folds(train, effort.folds, seed)
    ]
    courses = module_of(method).courses(method, setting, jobs, checks)
    losses = np.stack([_loss(job, scores) for job, scores in zip(jobs, courses)])
    return losses.reshape(len(splits), effort.folds, len(checks))


def _loss(job: Job, scores: np.ndarray) -> np.ndarray:
    """Scores (C, M) -> (C,)."""
    outputs, truth = job.scaling.outputs(scores.astype(np.float64)), job.scaling.outputs(job.held_y)
    return log_loss(outputs, truth) if job.classes else squared_error(outputs, truth)


def simplest(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return setting, check and mean loss there for each seed, by the rule of one standard error.

    ``losses``: (settings, seeds, folds, checks), settings from simple to rich.
    """
    means = losses.mean(2)  # (settings, seeds, checks)
    stops, least = means.argmin(2), means.min(2)
    seeds = np.arange(losses.shape[1])
    best = least.argmin(0)
    at_best = losses[best, seeds, :, stops[best, seeds]]  # (seeds, folds)
    error = at_best.std(1, ddof=1) / np.sqrt(losses.shape[2])
    chosen = (least <= least.min(0) + error).argmax(0)  # the first
    return chosen, stops[chosen, seeds], least[chosen, seeds]


def _fit(method, settings, jobs, checks, chosen, stops) -> list[Trained]:
    """Train the job of each seed with its own choice; those of one setting side by side."""
    models: dict[int, Trained] = {}
    for number in sorted(set(chosen)):
        members = np.flatnonzero(chosen == number)
        some = [jobs[index] for index in members]
        made = module_of(method).fit(method, settings[number], some, checks, stops[members])
        models |= {int(index): model for index, model in zip(members, made)}
    return [models[index] for index in range(len(jobs))]


def _falls(table: Table, jobs: Sequence[Job], models: Sequence[Trained]) -> dict[str, float]:
    """Count wrong steps of all seeds together: test rows, each monotone feature through the table's range."""
    ends = np.linspace(table.features.min(0), table.features.max(0), FALL_GRID)
    each = [
        count_falls(model.score, job.held_x[:FALL_ROWS], job.scaling.features(ends), table.directions)
        for job, model in zip(jobs, models)
    ]
    sums = {name: sum(getattr(one, name) for one in each) for name in ("pairs", "falls", "beyond_rounding")}
    return sums | {"worst": max(one.worst for one in each)}


def _logged(table: Table) -> Table:
    features = table.features.copy()
    for place, name in enumerate(table.names):
        if name in LOGGED.get(table.name, ()):
            features[:, place] = np.log1p(features[:, place])
    return dataclasses.replace(table, features=features)
