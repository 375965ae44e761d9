"""The published protocol on a table, as the scripts of github.com/niklasnolte/monotonic_tests do it.

Settings stand as in those scripts; the epoch with the best score on the *test* rows is reported, and for classes the
best of many thresholds on them too. Beside it stands the honest end of the same training: last epoch, threshold 0.
The scripts' slips are kept: COMPAS adds 1.3^4 per monotone input to a network of slopes up to 1.3^3;
Heart takes the row number for a feature and standardises test rows by their own statistics; Auto-MPG standardises by
all rows. Other methods come with the same rows, epochs and habit of choosing.
"""

import dataclasses
from typing import Any

import numpy as np

from lablib.data import Table, heart
from lablib.experiments.tabular_honest import module_of, settings_of
from lablib.experiments.tabular_networks import NETWORKS, OURS, PEER
from lablib.experiments.tabular_rows import OFFICIAL, REPEATED, Job, make_job, measure, split
from lablib.experiments.tabular_scores import accuracy, score_classes, score_numbers, squared_error


@dataclasses.dataclass(frozen=True)
class Script:
    """One published script.

    Attributes:
        widths, rate, batch, epochs, shuffle: of the training with Adam.
        lipschitz: product of the caps of its layers; ``residual``: what it adds per monotone input.
        thresholds: on the logit, among which the best on the test rows is taken.
    """

    widths: tuple[int, ...]
    rate: float
    batch: int | None
    epochs: int
    lipschitz: float = 1.0
    residual: float | None = None
    shuffle: bool = True
    thresholds: tuple[float, ...] = (0.0,)


def _logit(share: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(share) - np.log1p(-share)


SCRIPTS = {
    "compas": Script(
        (2, 2), 2e-4, 256, 2000, 1.3**3, 1.3**4, thresholds=tuple(_logit(np.linspace(0, 1, 50)).tolist())
    ),
    "heart": Script((4, 4), 2e-3, None, 300, thresholds=tuple(np.linspace(-1, 1, 100).tolist())),
    "auto-mpg": Script((8, 8), 1e-2, 64, 2000, shuffle=False),
}
HABITS = dataclasses.replace(SCRIPTS["heart"], rate=1e-2)  # for tables that no script is of


def judge(
    table: Table, method: str, seeds: int, epochs: int | None = None, rounds: int = 200
) -> dict[str, Any]:
    """Run one method as published; return a value per seed, as plain data.

    ``score``: best on the test rows. ``last``: of the last epoch (or round) at threshold 0, and ``nll`` and
    ``calibration`` there. ``epochs`` and ``rounds`` shorten.
    """
    script = SCRIPTS.get(table.name, HABITS)
    jobs = _jobs(table, seeds)
    if method in NETWORKS:
        per_epoch = -(-len(jobs[0].y) // (script.batch or len(jobs[0].y)))
        checks = [per_epoch * epoch for epoch in range(1, (epochs or script.epochs) + 1)]
        setting = _setting(script, method)
    else:
        checks, setting = list(range(1, rounds + 1)), settings_of(method, len(table.target))[1]
    courses = module_of(method).courses(method, setting, jobs, checks)
    kept: dict[str, list] = {name: [] for name in ("score", "last", "nll", "calibration")}
    for job, course in zip(jobs, courses):
        outputs, truth = job.scaling.outputs(course.astype(np.float64)), job.scaling.outputs(job.held_y)
        if job.classes:
            best = max(accuracy(outputs, truth, threshold).max() for threshold in script.thresholds)
            end = score_classes(outputs[-1], truth)
        else:
            errors = squared_error(outputs, truth)
            best, spread = (
                errors.min(),
                float(np.sqrt(errors[-1])),
            )  # these scripts predict no spread: the best one
            end = score_numbers(outputs[-1], truth, spread)
        found = {
            "score": float(best),
            "last": end["score"],
            "nll": end["nll"],
            "calibration": end["calibration"],
        }
        for name, value in found.items():
            kept[name].append(value)
    return kept


def _setting(script: Script, method: str) -> dict[str, Any]:
    """Return the script's training; only its own package adds what the script adds, ours adds what is needed."""
    setting = {"widths": script.widths, "rate": script.rate, "batch": script.batch, "shuffle": script.shuffle}
    if method in (OURS, PEER):
        setting["lipschitz"] = script.lipschitz
    return setting | ({"residual": script.residual} if method == PEER else {})


def _jobs(table: Table, seeds: int) -> list[Job]:
    if table.name == "heart":
        return [_with_row_number(table, seed) for seed in range(seeds)]
    if table.test is not None:
        return [make_job(table, *split(table, OFFICIAL, seed), seed) for seed in range(seeds)]
    every = np.arange(len(table.target))
    return [make_job(table, *split(table, REPEATED, seed), seed, statistics=every) for seed in range(seeds)]


def _with_row_number(table: Table, seed: int) -> Job:
    column = table.left_out[heart.INDEX]
    wide = dataclasses.replace(
        table,
        features=np.column_stack([column, table.features]),
        names=(heart.INDEX, *table.names),
        directions=(0, *table.directions),
    )
    train, test = split(wide, OFFICIAL, seed)
    own = measure(wide.features[test], None).features(wide.features[test])
    return dataclasses.replace(make_job(wide, train, test, seed), held_x=own)
