"""Best trained against the bound, d = 1 to 12: standard networks climb to 1/(2d) and stop, others go past it.

AND, majority and parity of d variables; every radius is the smallest margin over all 2^d vertices. No standard
network exceeds 1/(2d), the optimum is 1/2, and l_inf-distance networks that attain 1/2 exist for each of them
(:mod:`lablib.theory.constructions.distance_networks`), but not at any width: two layers as built there need a
neuron per vertex with g = 1, 2^(d-1) of them for parity. Where a family that can escape the bound falls short of 1/2,
its fixed size or its training is to blame, not the bound.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lablib.experiments.batched_networks import Architecture, Population, Schedule, train
from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.recipe import Recipe
from lablib.theory.boolean import BooleanFunction

NAME = "boolean_curves"
FUNCTIONS: dict[str, Callable[[int], BooleanFunction]] = {
    "AND": lambda d: BooleanFunction.threshold(d, d),
    "majority": lambda d: BooleanFunction.threshold(d, d // 2 + 1),
    "parity": BooleanFunction.parity,
}
OPTIMUM = 0.5  # half the l_inf distance between vertices with different labels


@dataclasses.dataclass(frozen=True)
class Family:
    """One curve of the figure: a kind of network and how it is trained."""

    name: str
    architecture: Architecture
    rate: float
    standard: bool = False

    def scale(self, d: int) -> float:
        """Return the radius to expect, which sets the units of the soft minimum."""
        return 1 / (2 * d) if self.standard else OPTIMUM / 2


FAMILIES = (
    Family("standard, |·|", Architecture("abs", (16, 8)), 0.02, standard=True),
    Family("standard, learned spline", Architecture("spline", (16, 8)), 0.01, standard=True),
    Family("MaxMin", Architecture("maxmin", (16, 16, 16)), 0.01),
    Family("l∞-distance", Architecture("linf_distance", (32,)), 0.02),
    Family("SortNet", Architecture("sortnet", (16,)), 0.02),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """``curve_at``: the d whose radius is recorded during training; ``every``: steps between its records."""

    mode: str
    variables: tuple[int, ...]
    seeds: int
    steps: int
    batch: int
    curve_at: int
    every: int = 10
    seed: int = 0


SIZES = {
    "quick": Config("quick", (1, 2, 3, 4), seeds=2, steps=300, batch=128, curve_at=4),
    "standard": Config("standard", tuple(range(1, 13)), seeds=4, steps=1500, batch=256, curve_at=8),
    "full": Config("full", tuple(range(1, 13)), seeds=16, steps=6000, batch=512, curve_at=8),
}


def run(config: Config) -> dict[str, Any]:
    """Train every family at every d; a stopped run goes on with the next unfinished pair."""
    parts = Checkpoint(NAME, config.mode, dataclasses.asdict(config))
    jobs = [(d, family) for d in config.variables for family in FAMILIES]
    with parts.bar({f"{family.name} {d}": config.steps for d, family in jobs}, "step") as bar:
        for d, family in jobs:
            part = f"{family.name} {d}"
            if part not in parts:
                bar.set_postfix_str(part)
                began = time.perf_counter()
                trained = _train(d, family, config, bar.update)
                parts[part] = {**trained, "seconds": time.perf_counter() - began}
    rows = [row for d, family in jobs for row in parts[f"{family.name} {d}"]["rows"]]
    at = config.curve_at
    curves = {family.name: parts[f"{family.name} {at}"]["curves"] for family in FAMILIES}
    seconds = sum(parts[f"{family.name} {d}"]["seconds"] for d, family in jobs)
    return {
        "search_seconds": round(seconds, 1),
        "optimum": OPTIMUM,
        "families": {family.name: dataclasses.asdict(family.architecture) for family in FAMILIES},
        "rows": rows,
        "curve_at": at,
        "curves": curves,
    }


def train_family(
    d: int, family: Family, *, seeds: int, schedule: Schedule, seed: int = 0, report=None
) -> tuple[Population, np.ndarray]:
    """Train ``seeds`` networks for each of :data:`FUNCTIONS`; return them and their radii (functions,
    seeds)."""
    labels = np.array([2 * make(d).table.astype(np.int64) - 1 for make in FUNCTIONS.values()])
    population = train(
        family.architecture,
        labels.repeat(seeds, axis=0),
        schedule,
        scale=family.scale(d),
        seed=seed,
        report=report,
    )
    return population, population.radii.reshape(len(FUNCTIONS), seeds)


def _train(d: int, family: Family, config: Config, report: Callable[[int], None]) -> dict[str, Any]:
    """Return the rows of one family at one d, and the curves of its training where they are wanted."""
    recorded = d == config.curve_at
    schedule = Schedule(
        steps=config.steps, rate=family.rate, batch=config.batch, every=config.every if recorded else 50
    )
    population, radii = train_family(
        d, family, seeds=config.seeds, schedule=schedule, seed=config.seed + d, report=report
    )
    rows = [
        {
            "family": family.name,
            "standard": family.standard,
            "function": function,
            "d": d,
            "bound": 1 / (2 * d),
            "best": float(values.max()),
            "median": float(np.median(values)),
            "worst": float(values.min()),
        }
        for function, values in zip(FUNCTIONS, radii)
    ]
    if not recorded:
        return {"rows": rows}
    curve = population.curve.reshape(len(population.checked), len(FUNCTIONS), config.seeds)
    by_function = {name: curve[:, index].T.round(6).tolist() for index, name in enumerate(FUNCTIONS)}
    return {"rows": rows, "curves": {"steps": population.checked.tolist(), "radii": by_function}}


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Return the figures: radius against d, and radius during training."""
    from lablib.plots.boolean import climb_figure, radius_figure

    metrics = record["metrics"]
    curves = {name: _curve_of(entry, "AND") for name, entry in metrics["curves"].items()}
    d = metrics["curve_at"]
    return {
        "boolean_curves": radius_figure(metrics["rows"]),
        "boolean_climb": climb_figure(curves, bound=1 / (2 * d), title=f"AND of {d} variables"),
    }


def _curve_of(entry: dict[str, Any], function: str) -> tuple[np.ndarray, np.ndarray]:
    """Return steps (n,) and radii (seeds, n)."""
    return np.array(entry["steps"]), np.array(entry["radii"][function])


RECIPE = Recipe(
    name=NAME,
    question="how far do trained networks get, of the kind that the bound covers and of kinds that escape it?",
    sizes=SIZES,
    run=run,
    draw=draw,
)
