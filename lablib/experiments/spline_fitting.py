"""Fit one-dimensional functions of slope at most 1: which activation gets how close, under l2 and linf weights?

Networks 1-10-10-10-1, mean squared error, Adam; settings of Ducotterd et al. (arXiv 2210.16222), section on
one-dimensional fitting. All seeds of an activation and a norm are trained at once
(:mod:`lablib.experiments.spline_population`). A seed draws the training points and the start; these are the same
for every activation, so that comparisons are paired. The error is that of the trained network as a chain of the
lab's layers, on an even grid.

The published runs take 100,000 steps on 10 points at a constant rate. Standard takes 12,000 steps on 100 points and
lets the rate fall to a hundredth over the last quarter. Tried before on fewer seeds: the number of steps at the full
rate matters more than the number of points in each, so that a rate which falls from the first step on ends higher;
which activation comes first is settled from 6,000 steps on, but not at 3,000. The stored errors in the course of
training show it.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lablib.experiments.activation_zoo import ACTIVATIONS
from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.recipe import Recipe
from lablib.experiments.spline_population import Population, count_knots, evaluate, train
from lablib.layers import guarantee
from lablib.theory.spline_targets import TARGETS, make_target, sample
from lablib.train.schedules import constant, cosine

NAME = "spline_fitting"
NORMS = ("l2", "linf")
SHOWN = np.linspace(-1.0, 1.0, 401)  # where the drawn curves and the course of training are evaluated


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the runs; the rest are the published settings.

    Attributes:
        steps, batch: of training; ``checks`` is how often the error is recorded on the way.
        last_rate: in the last quarter of the steps the rate falls to this share of ``rate``; 1 keeps it constant.
        switches, target_seed: draw f1 and f2; of the seeds below 40 this one leaves most room between switches.
        weight: lambda, of TV(2).
        tolerance: a knot is active if it bends by more.
    """

    mode: str
    seeds: int
    steps: int
    batch: int
    last_rate: float = 0.01
    checks: int = 20
    test_points: int = 10_000
    points: int = 1000
    width: int = 10
    hidden: int = 3
    rate: float = 2e-3
    switches: int = 9
    target_seed: int = 4
    group_size: int = 5
    knots: int = 101
    range: float = 0.5
    init: str = "relu"
    weight: float = 1e-7
    tolerance: float = 0.01


SIZES = {
    "quick": Config("quick", seeds=2, steps=150, batch=50, checks=4, test_points=1000),
    "standard": Config("standard", seeds=25, steps=12_000, batch=100),
    "full": Config("full", seeds=25, steps=100_000, batch=10, last_rate=1.0, checks=50),
}


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train everything; a stopped run goes on with the next unfinished activation."""
    parts = Checkpoint(NAME, config.mode, dataclasses.asdict(config))
    jobs = [(norm, name) for norm in NORMS for name in ACTIVATIONS if offered(name, norm)]
    with parts.bar({f"{norm} {name}": config.steps for norm, name in jobs}, "step") as bar:
        for norm, name in jobs:
            part = f"{norm} {name}"
            if part not in parts:
                bar.set_postfix_str(part)
                parts[part] = fit_all(config, name, norm, lambda _: bar.update())
    rows = [row for norm, name in jobs for row in _rows(norm, name, parts[f"{norm} {name}"])]
    arrays = {"x": SHOWN, "targets": np.stack([target(SHOWN) for target in _targets(config)])}
    for norm, name in jobs:
        part = parts[f"{norm} {name}"]
        arrays[f"mse {norm} {name}"] = np.array(part["mse"])
        arrays[f"fitted {norm} {name}"] = np.array(part["fitted"], dtype=np.float32)
        arrays[f"course {norm} {name}"] = np.array(part["course"], dtype=np.float32)
    course_at = parts[" ".join(jobs[0])]["course_at"]
    seconds = {f"{norm} {name}": round(parts[f"{norm} {name}"]["seconds"], 1) for norm, name in jobs}
    return {"rows": rows, "course_at": course_at, "training_seconds": seconds}, arrays


def offered(activation: str, norm: str) -> bool:
    """Whether the activation is 1-Lipschitz in the norm: Householder reflections are not in linf."""
    return norm == "l2" or activation != "householder"


def build(config: Config, activation: str, norm: str) -> tuple[Population, np.ndarray, np.ndarray]:
    """Return untrained networks, targets f1, f2, f3 with all seeds each, and their data (3 S, N) twice."""
    seeds = range(config.seeds)
    options = {"group_size": config.group_size, "knots": config.knots, "range": config.range}
    population = Population(
        activation, norm, [*seeds] * len(TARGETS), config.width, config.hidden, init=config.init, **options
    )
    data = [
        sample(target, config.points, np.random.default_rng(seed))
        for target in _targets(config)
        for seed in seeds
    ]
    points, values = (np.stack(part) for part in zip(*data))
    return population, points, values


def fit_all(
    config: Config, activation: str, norm: str, on_step: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Train one activation under one norm on all targets and seeds; return what is kept, as plain data.

    ``mse``, ``knots`` (3, S) and ``steepest`` (3, S), the steepest secant between neighbours of the test grid;
    ``fitted`` (3, 401) the median member; ``course`` (checks, 3, S) errors after ``course_at`` steps.
    """
    began = time.perf_counter()
    population, points, values = build(config, activation, norm)
    course_at, course = [], []

    def record(step: int) -> None:
        done = step + 1
        if done * config.checks // config.steps > step * config.checks // config.steps:
            course_at.append(done)
            course.append(_errors_on_the_way(population, config))
        if on_step is not None:
            on_step(step)

    rate = _rate(config)
    weight = config.weight if activation == "spline" else 0.0
    sizes = {"steps": config.steps, "batch": config.batch}
    train(population, points, values, rate=rate, weight=weight, on_step=record, **sizes)
    made = _measure(population, config)
    return made | {"course_at": course_at, "course": course, "seconds": time.perf_counter() - began}


def _rate(config: Config) -> Callable[[int], float]:
    """Return the schedule: constant, then down to ``last_rate`` of it over the last quarter of the steps."""
    falling = config.steps // 4
    if config.last_rate == 1.0 or not falling:
        return constant(config.rate)
    end = cosine(config.rate, falling, config.rate * config.last_rate)
    return lambda step: end(max(0, step - (config.steps - falling)))


def _targets(config: Config) -> list[Callable[[np.ndarray], np.ndarray]]:
    return [make_target(name, config.switches, config.target_seed) for name in TARGETS]


@torch.no_grad()
def _errors_on_the_way(population: Population, config: Config) -> np.ndarray:
    x = torch.as_tensor(SHOWN, dtype=torch.float32)
    wanted = np.stack([target(SHOWN) for target in _targets(config)])[:, None]
    outputs = population(x.expand(population.size, -1)).unflatten(0, (len(TARGETS), -1))
    return ((outputs.numpy() - wanted) ** 2).mean(2)


def _measure(population: Population, config: Config) -> dict[str, Any]:
    """Return errors, knots, steepest secants and the median curves of the members as the lab's own chains."""
    grid = np.linspace(-1.0, 1.0, config.test_points)
    made: dict[str, list] = {"mse": [], "knots": [], "steepest": [], "fitted": []}
    for number, target in enumerate(_targets(config)):
        chosen = range(number * config.seeds, (number + 1) * config.seeds)
        networks = [network.double() for network in population.members(chosen)]  # secants need the digits
        for network in networks:
            norms, constant_ = guarantee(network)
            if population.norm not in norms or constant_ > 1.0:
                raise ValueError(
                    f"a trained network is {constant_}-Lipschitz in {norms}; this is a mistake here"
                )
        outputs = np.stack([evaluate(network, grid) for network in networks])
        mse = ((outputs - target(grid)) ** 2).mean(1)
        median = networks[int(np.argsort(mse)[len(mse) // 2])]
        made["mse"].append(mse.tolist())
        made["knots"].append([count_knots(network, config.tolerance) for network in networks])
        made["steepest"].append((np.abs(np.diff(outputs)).max(1) / (grid[1] - grid[0])).tolist())
        made["fitted"].append(evaluate(median, SHOWN).tolist())
    return made


def _rows(norm: str, activation: str, part: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the summary of each target."""
    rows = []
    for number, target in enumerate(TARGETS):
        mse = np.array(part["mse"][number])
        row = {"norm": norm, "activation": activation, "target": target}
        row |= {"median_mse": float(np.median(mse)), "min_mse": mse.min(), "max_mse": mse.max()}
        row["quartiles_mse"] = np.quantile(mse, [0.25, 0.75])
        row["steepest_secant"] = max(part["steepest"][number])
        if activation == "spline":
            row["active_knots"] = float(np.median(part["knots"][number]))
        rows.append(row)
    return rows


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw the errors of all seeds, the median networks, and the errors in the course of training."""
    from lablib.plots.spline_fitting import draw_courses, draw_errors, draw_fits

    arrays = record["arrays"]
    labels = {
        (norm, name): label for norm in NORMS for name, label in ACTIVATIONS.items() if offered(name, norm)
    }
    errors = {key: arrays[f"mse {key[0]} {key[1]}"] for key in labels}
    fits = {name: arrays[f"fitted l2 {name}"] for name in ACTIVATIONS}
    medians = {name: np.median(errors["l2", name], axis=1) for name in ACTIVATIONS}
    courses = {key: np.median(arrays[f"course {key[0]} {key[1]}"], axis=2) for key in labels}
    return {
        NAME: draw_errors(errors, ACTIVATIONS, TARGETS),
        f"{NAME}_curves": draw_fits(arrays["x"], arrays["targets"], fits, medians, ACTIVATIONS, TARGETS),
        f"{NAME}_training": draw_courses(record["metrics"]["course_at"], courses, ACTIVATIONS, TARGETS),
    }


RECIPE = Recipe(
    name=NAME,
    question="How close does each activation get to functions of slope at most 1, in l2 and in linf?",
    sizes=SIZES,
    run=run,
    draw=draw,
)
