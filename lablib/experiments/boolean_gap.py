"""The gap closed or open? The bound 1/(2m) against the best standard networks found, function by function.

For each Boolean function (every one of few variables, up to symmetry, and every symmetric one of more):

- *bound*: R of the linear program over all pairs of vertices, which is 1/(2m);
- *found*: the best radius that training reached from many random seeds, measured in exact arithmetic on a
  network whose rows and slopes are within 1 exactly: a proven lower bound;
- *explicit*: a network in fractions that attains the bound exactly, where one is known (the zigzag of
  the mean, or the optimum of the two-layer program).

A function whose explicit network is known is *closed*. One that training brings within a thousandth is
*reached*. For the rest the question is *open*: no network here reaches the bound, and no proof says that none can.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lablib.experiments.batched_networks import Architecture, Schedule, train
from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.recipe import Recipe
from lablib.theory.boolean import BooleanFunction, all_functions_up_to_symmetry, symmetric_functions
from lablib.theory.constructions.two_layer import best_two_layer, directions, exact_radius
from lablib.theory.constructions.zigzag import zigzag

NAME = "boolean_gap"
REACHED = 0.999  # a trained network this close to the bound counts as having reached it


@dataclasses.dataclass(frozen=True)
class Round:
    """One attempt at all functions that are still short of the bound."""

    architecture: Architecture
    seeds: int
    schedule: Schedule


@dataclasses.dataclass(frozen=True)
class Config:
    """What is searched, and how hard.

    Attributes:
        mode: which of the three sizes this is.
        classes_up_to: all functions of at most that many variables, up to symmetry.
        symmetric_up_to: symmetric functions of at most that many variables.
        largest: entries of the two-layer program's directions, tried from 1 up.
        rounds: one after the other, each for the functions that are still short of the bound.
        points: most vertices times networks in one step; a round that would pass it takes fewer seeds.
        seed: of everything.
    """

    mode: str
    classes_up_to: int
    symmetric_up_to: int
    largest: int
    rounds: tuple[Round, ...]
    points: int = 70_000
    seed: int = 0


def _rounds(*sizes: tuple[str, tuple[int, ...], int, int, float]) -> tuple[Round, ...]:
    return tuple(
        Round(Architecture(family, widths), seeds, Schedule(steps=steps, rate=rate))
        for family, widths, seeds, steps, rate in sizes
    )


SIZES = {
    "quick": Config("quick", 2, 4, 1, _rounds(("abs", (16, 16, 8), 2, 400, 0.02))),
    "standard": Config(
        "standard",
        4,
        8,
        2,
        _rounds(
            ("abs", (16, 16, 8), 4, 2000, 0.02),
            ("spline", (16, 8), 4, 2000, 0.01),
            ("abs", (32, 16), 8, 2000, 0.02),
            ("abs", (16, 16, 16, 8), 16, 2000, 0.01),
        ),
    ),
    "full": Config(
        "full",
        4,
        8,
        3,
        _rounds(
            ("abs", (16, 16, 8), 16, 4000, 0.02),
            ("spline", (16, 8), 16, 4000, 0.01),
            ("abs", (32, 16), 64, 4000, 0.02),
            ("abs", (32, 32, 16), 64, 6000, 0.01),
            ("spline", (32, 16, 8), 64, 6000, 0.01),
        ),
    ),
}


def groups(config: Config) -> dict[str, list[BooleanFunction]]:
    """Return the functions by group: ``"all d"`` and ``"symmetric d"``.

    Constant functions have no bound; functions with an irrelevant variable are functions of fewer variables,
    so both are left out, and so are symmetric functions already among all functions.
    """
    found = {}
    for d in range(1, config.classes_up_to + 1):
        found[f"all {d}"] = [g for g in all_functions_up_to_symmetry(d) if len(g.relevant()) == d]
    for d in range(config.classes_up_to + 1, config.symmetric_up_to + 1):
        chosen = symmetric_functions(d, up_to_symmetry=True)
        found[f"symmetric {d}"] = [g for g in chosen if not g.is_constant]
    return found


def run(config: Config) -> dict[str, Any]:
    """Search group by group; a stopped run goes on with the next unfinished group."""
    parts = Checkpoint(NAME, config.mode, dataclasses.asdict(config))
    functions = groups(config)
    steps = sum(attempt.schedule.steps for attempt in config.rounds)
    with parts.bar(dict.fromkeys(functions, steps), "step") as bar:
        for group, members in functions.items():
            if group in parts:
                continue
            bar.set_postfix_str(group)
            began = time.perf_counter()
            rows = _search(group, members, config, bar.update)
            parts[group] = {"rows": rows, "seconds": time.perf_counter() - began}
    rows = [row for group in functions for row in parts[group]["rows"]]
    seconds = sum(parts[group]["seconds"] for group in functions)
    for row in rows:
        row["program"] = _program_bounds(BooleanFunction([int(bit) for bit in row["table"]]))
    return {
        "search_seconds": round(seconds, 1),
        "reached": REACHED,
        "functions": rows,
        "summary": summary(rows),
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return per group: how many functions, closed exactly, reached by training, open, and the lowest
    ratio."""
    lines = []
    for group in dict.fromkeys(row["group"] for row in rows):
        members = [row for row in rows if row["group"] == group]
        lines.append(
            {
                "group": group,
                "functions": len(members),
                "closed": sum(row["explicit"] is not None for row in members),
                "reached": sum(row["ratio"] >= REACHED for row in members),
                "open": sum(row["explicit"] is None and row["ratio"] < REACHED for row in members),
                "lowest_ratio": min(row["ratio"] for row in members),
            }
        )
    return lines


def _search(
    group: str, members: list[BooleanFunction], config: Config, report: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Return one row per function of a group: bound, best found over the rounds, explicit network."""
    rows = []
    for function in members:
        explicit, neurons, program = _explicit(function, config.largest)
        rows.append(
            {
                "group": group,
                "function": describe(function),
                "table": "".join(str(int(value)) for value in function.table),
                "variables": function.variables,
                "bound": str(function.bound),
                "explicit": explicit,
                "explicit_neurons": neurons,
                "two_layer": program,
                "found": -1.0,
                "ratio": -1.0,
                "seeds": 0,
                "network": None,
            }
        )
    for number, attempt in enumerate(config.rounds):
        short = [index for index, row in enumerate(rows) if row["ratio"] < REACHED]
        if not short:
            report(attempt.schedule.steps)
            continue
        room = config.points // (len(short) * members[0].table.size)
        attempt = dataclasses.replace(attempt, seeds=max(1, min(attempt.seeds, room)))
        _train([members[i] for i in short], [rows[i] for i in short], attempt, config.seed + number, report)
    return rows


def _train(
    members: list[BooleanFunction],
    rows: list[dict[str, Any]],
    attempt: Round,
    seed: int,
    report: Callable[[int], None],
) -> None:
    """Train ``attempt.seeds`` networks per function; keep a better one in its row."""
    bound = float(members[0].bound)
    labels = np.array([2 * function.table.astype(np.int64) - 1 for function in members])
    population = train(
        attempt.architecture,
        labels.repeat(attempt.seeds, axis=0),
        attempt.schedule,
        scale=bound,
        seed=seed,
        report=report,
    )
    radii = population.radii.reshape(len(members), attempt.seeds)
    for index, (function, row) in enumerate(zip(members, rows)):
        row["seeds"] += attempt.seeds
        winner = int(radii[index].argmax())
        if radii[index, winner] <= row["found"]:
            continue
        radius = exact_radius(function, population.export(index * attempt.seeds + winner))
        row["found"] = float(radius)
        row["ratio"] = float(radius / function.bound)
        row["network"] = f"{attempt.architecture.family} {'-'.join(map(str, attempt.architecture.widths))}"


def _explicit(function: BooleanFunction, largest: int) -> tuple[str | None, int | None, float | None]:
    """Return the name of an exact network that attains the bound, its neurons, and the two-layer optimum /
    bound."""
    if function.is_symmetric:
        if exact_radius(function, zigzag(function)) != function.bound:
            raise AssertionError(f"the zigzag of {function} misses its bound")
        return "zigzag of the mean", 1, 1.0
    for entries in range(1, largest + 1):
        found = best_two_layer(function, directions(function.variables, entries))
        if found.layers is not None:
            return "two layers", len(found.layers[0]["weight"]), 1.0
    return None, None, found.radius / float(function.bound)


def _program_bounds(function: BooleanFunction) -> list[float]:
    """Return [lower, upper] bounds on R over all pairs of vertices, from the impossibility program."""
    from lablib.theory.impossibility import solve

    vertices = function.vertices()
    certificate = solve([vertices[~function.table], vertices[function.table]])
    lower, upper = float(certificate.lower), float(certificate.upper)
    if not lower * (1 - 1e-9) <= float(function.bound) <= upper * (1 + 1e-9):
        raise AssertionError(
            f"the program's [{lower}, {upper}] misses 1/(2m) = {function.bound} for {function}"
        )
    return [lower, upper]


def describe(function: BooleanFunction) -> str:
    """Return a short name: the label per number of ones for symmetric functions, else the truth table."""
    if function.is_symmetric:
        ones = (1 << np.arange(function.variables + 1)) - 1
        return "counts " + "".join(str(int(value)) for value in function.table[ones])
    return "table " + "".join(str(int(value)) for value in function.table)


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Return the figures: found / bound for every function, and the counts as a table."""
    from lablib.plots.boolean import gap_figure

    metrics = record["metrics"]
    return {"boolean_gap": gap_figure(metrics["functions"], metrics["summary"], metrics["reached"])}


RECIPE = Recipe(
    name=NAME,
    question="is the bound 1/(2m) attained by a standard network for every Boolean function?",
    sizes=SIZES,
    run=run,
    draw=draw,
)
