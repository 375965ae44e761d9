"""Monotone models on COMPAS, Heart and Auto-MPG: how good, how calibrated, and is each really monotone?

Two protocols side by side. *Honest* (:mod:`lablib.experiments.tabular_honest`): folds of the training rows choose
settings and steps, test rows judge once. *Published* (:mod:`lablib.experiments.tabular_published`): the best test
epoch, as in the scripts of Nolte, Kitouni, Williams, "Expressive Monotonic Neural Networks" (arXiv 2307.07512),
section 4. Heart's official test set has 61 rows, so its rows are also split anew for each seed; Auto-MPG has no
official split.

What the tables are and are not fit for stands in ``load_table(name).notes``. COMPAS is here because published figures
are: its target is a new arrest, which carries the bias of who gets arrested.
"""

import dataclasses
from typing import Any

import numpy as np

from lablib.data import MissingDataError, load_table
from lablib.experiments import tabular_honest, tabular_published, tabular_trees
from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.recipe import Recipe
from lablib.experiments.tabular_honest import METHODS, Effort
from lablib.experiments.tabular_networks import PEER_DEFAULT
from lablib.experiments.tabular_rows import OFFICIAL, REPEATED
from lablib.experiments.tabular_scores import probability, reliability
from lablib.plots.tabular import draw_calibration, draw_scores

NAME = "monotone_tabular"
LABELS = {
    "monotone": "Monotone network (ours)",
    "package": "monotonicnetworks, README kinds",
    "package_default": "monotonicnetworks, default kinds",
    "mlp": "Unconstrained network",
    "hist": "Monotone trees (scikit-learn)",
    "xgboost": "Monotone trees (XGBoost)",
    "lightgbm": "Monotone trees (LightGBM)",
}
TITLES = {
    "compas": "COMPAS",
    "heart": "Heart",
    "auto-mpg": "Auto-MPG",
    "diabetes": "Diabetes",
    "breast-cancer": "Breast cancer",
}
PUBLISHED = "published"
OPTIONAL = {"package": "monotonicnetworks", "package_default": "monotonicnetworks"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the runs.

    Attributes:
        parts: (table, split) pairs of the honest protocol; the published one runs on each table once.
        effort: of the honest protocol.
        epochs: of the published protocol; None takes those of the scripts.
    """

    mode: str
    parts: tuple[tuple[str, str], ...]
    effort: Effort
    epochs: int | None = None


REAL = (("compas", OFFICIAL), ("heart", OFFICIAL), ("heart", REPEATED), ("auto-mpg", REPEATED))
SIZES = {
    "quick": Config(
        "quick",
        (("breast-cancer", REPEATED), ("diabetes", REPEATED)),
        Effort(seeds=2, folds=2, steps=60, rounds=20, checks=4, narrow=True),
        epochs=40,
    ),
    "standard": Config("standard", REAL, Effort(seeds=10, folds=5, steps=800, rounds=200, checks=32)),
    "full": Config("full", REAL, Effort(seeds=25, folds=5, steps=2000, rounds=400, checks=80)),
}


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train everything; a stopped run goes on with the next unfinished method."""
    parts = Checkpoint(NAME, config.mode, dataclasses.asdict(config))
    names = list(dict.fromkeys(name for name, _ in config.parts))
    try:
        tables = {name: load_table(name) for name in names}
    except MissingDataError as error:
        advice = "or run with --mode quick, which takes bundled tables"
        raise MissingDataError(f"{error.what}, {advice}") from error
    methods = [method for method in METHODS if _at_hand(method)]
    pairs = [*config.parts, *((name, PUBLISHED) for name in names)]
    jobs = [(*pair, m) for pair in pairs for m in methods if pair[1] != PUBLISHED or m != PEER_DEFAULT]
    with parts.bar({f"{name} {kind} {method}": 1 for name, kind, method in jobs}, "run") as bar:
        for name, kind, method in jobs:
            key = f"{name} {kind} {method}"
            if key not in parts:
                bar.set_postfix_str(key)
                parts[key] = _judge(tables[name], kind, method, config)
                bar.update()
    rows, arrays = [], {}
    for name, kind, method in jobs:
        part = dict(parts[f"{name} {kind} {method}"])
        if kind != PUBLISHED:
            arrays[f"outputs {name} {kind} {method}"] = np.array(part.pop("outputs"), dtype=np.float32)
            arrays[f"truth {name} {kind}"] = np.array(part.pop("truth"), dtype=np.float32)
        rows.append({"table": name, "protocol": kind, "method": method, **part, **_summary(part)})
    about = {name: {"task": t.task, "rows": len(t.target), "notes": t.notes} for name, t in tables.items()}
    return {"rows": rows, "tables": about, "missing": [m for m in METHODS if m not in methods]}, arrays


def _judge(table, kind: str, method: str, config: Config) -> dict[str, Any]:
    if kind == PUBLISHED:
        effort = config.effort
        return tabular_published.judge(table, method, effort.seeds, config.epochs, effort.rounds)
    return tabular_honest.judge(table, kind, method, config.effort)


def _summary(part: dict[str, Any]) -> dict[str, float]:
    """Return mean and standard deviation over the seeds of what is measured per seed."""
    found = {}
    for name in ("score", "last", "nll", "calibration"):
        if name in part:
            found |= {f"mean_{name}": float(np.mean(part[name])), f"spread_{name}": float(np.std(part[name]))}
    return found


def _at_hand(method: str) -> bool:
    from importlib.util import find_spec

    if method in tabular_trees.PACKAGES:
        return tabular_trees.at_hand(method)
    return method not in OPTIONAL or find_spec(OPTIONAL[method]) is not None


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Return the figures: scores of all seeds under both protocols, and calibration under the honest one."""
    metrics, arrays = record["metrics"], record["arrays"]
    labels = {m: LABELS[m] for m in METHODS if m not in metrics["missing"]}
    scores: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for row in metrics["rows"]:
        table = scores.setdefault(row["table"], {})
        table.setdefault(row["protocol"], {})[row["method"]] = np.array(row["score"])
    tasks = {name: about["task"] for name, about in metrics["tables"].items()}
    titles = {name: TITLES[name] for name in scores}
    kinds = {
        name: REPEATED if REPEATED in table else OFFICIAL for name, table in scores.items()
    }  # most people
    held = {
        f"{titles[name]}, {kind} split": {m: _bins(arrays, name, kind, m) for m in labels}
        for name, kind in kinds.items()
        if tasks[name] == "classification"
    }
    return {
        NAME: draw_scores(scores, tasks, titles, labels),
        f"{NAME}_calibration": draw_calibration(held, labels),
    }


def _bins(arrays: dict[str, np.ndarray], name: str, kind: str, method: str) -> tuple[np.ndarray, ...]:
    """Return (mean probability, share that came true, rows) of each bin over all seeds.

    An official split has the same test rows for every seed; each is counted once.
    """
    truth = arrays[f"truth {name} {kind}"]
    mean, share, rows = reliability(
        probability(arrays[f"outputs {name} {kind} {method}"].ravel()), truth.ravel()
    )
    return mean, share, rows / len(truth) if kind == OFFICIAL else rows


RECIPE = Recipe(
    name=NAME,
    question="How good are monotone models on published tables, when test rows choose nothing?",
    sizes=SIZES,
    run=run,
    draw=draw,
)
