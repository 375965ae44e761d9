"""Plug-and-play reconstruction with 1-Lipschitz denoisers: does it converge as guaranteed, and how good is it?"""

import dataclasses
from typing import Any

import numpy as np
from torch import Tensor, nn

from lablib.experiments import imaging_problems
from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.denoiser import load_denoiser
from lablib.experiments.denoising_training import study_pictures
from lablib.experiments.imaging_problems import Problem
from lablib.experiments.plug_and_play_methods import (
    CLASSICAL,
    LABELS,
    Method,
    classical,
    constrained,
    network_settings,
    unconstrained,
)
from lablib.experiments.plug_and_play_solver import guaranteed_steps
from lablib.experiments.plug_and_play_study import Config, crops, picture_bytes, quality, solve_method
from lablib.experiments.recipe import Recipe
from lablib.experiments.unconstrained_denoiser import Training, load_plain
from lablib.layers import OrthonormalConv2d
from lablib.train import checkpoint

NAME = "plug_and_play"


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Solve every problem with every method; a stopped run goes on with the next method of a problem."""
    source = study_pictures(NAME, config.mode)
    tests = crops(source.test, config.pictures, config.size)
    choices = crops(source.val, config.validation, config.size)
    problems = [
        imaging_problems.tomography(config.size, config.angles),
        imaging_problems.mri(config.size, config.acceleration),
    ]
    settled = {"data": source.name, "denoisers": _digest(config)}
    parts = Checkpoint(NAME, config.mode, dataclasses.asdict(config) | settled)
    every = [f"{problem.name}/{name}" for problem in problems for name in config.methods]
    with parts.bar(dict.fromkeys(every, 1), "method") as bar:
        for problem in problems:
            for name in config.methods:
                part = f"{problem.name}/{name}"
                if part not in parts:
                    bar.set_postfix_str(part)
                    parts[part] = solve_method(_method(name, config), problem, tests, choices, config)
                    bar.update()
    metrics: dict[str, Any] = settled | {"problems": {}, "rows": []}
    arrays = {f"clean/{number}": picture_bytes(clean) for number, clean in enumerate(tests)}
    for problem in problems:
        metrics["problems"][problem.name] = _facts(problem, tests, config, arrays)
        for name in config.methods:
            metrics["rows"].append(_row(problem.name, name, parts[f"{problem.name}/{name}"], arrays))
    return metrics, arrays


def _digest(config: Config) -> str:
    """Return a sha256 of all constrained denoisers: parts made with others are of no use."""
    states = {
        f"{activation}/{sigma}": dict(load_denoiser(activation, sigma, config.mode).state_dict())
        for activation in config.activations
        for sigma in config.sigmas
    }
    return checkpoint.digest(states)


def _facts(
    problem: Problem, tests: list[Tensor], config: Config, arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Return what is known of a problem, and how good the start A^T y of every run is; store the starts."""
    starts = []
    for number, clean in enumerate(tests):
        start = problem.physics.A_adjoint(imaging_problems.measure(problem, clean, config.noise, number))
        arrays[f"{problem.name}/start/{number}"] = picture_bytes(start)
        starts.append(quality(start, clean))
    return problem.facts | {"square_norm": list(problem.square_norm), "start": starts}


def _row(problem: str, method: str, part: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the numbers of one method for one problem; store its curves and pictures."""
    row = {"problem": problem, "method": method, "label": LABELS[method], "tried": part["tried"]}
    for kind in ("chosen", "common"):
        if kind not in part:
            continue
        runs = [dict(run) for run in part[kind]["runs"]]
        for number, run in enumerate(runs):
            curve = np.array(run.pop("curve"), dtype=np.float32)  # None, after an overflow, becomes NaN
            arrays[f"{problem}/{method}/{kind}/residuals/{number}"] = curve
            arrays[f"{problem}/{method}/{kind}/picture/{number}"] = np.array(
                run.pop("picture"), dtype=np.uint8
            )
        row[kind] = part[kind] | {"runs": runs}
    return row


def _method(name: str, config: Config) -> Method:
    if name in CLASSICAL:
        return classical(name, config.weights[name])
    settings = network_settings(config.sigmas, config.shares)
    if name in config.activations:
        return constrained(name, settings, config.mode)
    return unconstrained(settings, {sigma: _plain(sigma, config) for sigma in config.sigmas})


def _plain(sigma: int, config: Config) -> nn.Sequential:
    """Return the network without constraint, of the size of the constrained ones."""
    twin = load_denoiser(config.activations[0], sigma, config.mode).branch
    layers = [layer for layer in twin if isinstance(layer, OrthonormalConv2d)]
    training = Training(layers[0].out_channels, len(layers) - 1, config.plain_steps, sigma)
    return load_plain(training, config.mode)


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw residuals against the guaranteed rate, PSNR of all methods, and the reconstructions of one picture."""
    from lablib.plots.plug_and_play import draw_quality, draw_reconstructions, draw_residuals

    rows, arrays, problems = record["metrics"]["rows"], record["arrays"], record["metrics"]["problems"]
    figures = {
        "plug_and_play_residuals": draw_residuals(rows, arrays, _rates(rows), record["config"]["tolerance"]),
        "plug_and_play_quality": draw_quality(
            rows, {name: facts["start"] for name, facts in problems.items()}
        ),
    }
    for name, facts in problems.items():
        chosen = [row for row in rows if row["problem"] == name]
        figures[f"plug_and_play_{name}"] = draw_reconstructions(name, chosen, arrays, facts["start"][0])
    return figures


def _rates(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return for each problem what is guaranteed for the first picture with the common setting, whatever the network.

    The guarantee is about ||x_{k+1} - x_k||; returned is what it allows for this over the norm of the last
    iterate, the largest over the constrained networks.
    """
    rates = {}
    for problem in dict.fromkeys(row["problem"] for row in rows):
        found = [row["common"] for row in rows if row["problem"] == problem and "common" in row]
        proven = [common for common in found if common["alpha"] is not None]
        distance = max(common["runs"][0]["distance"] / common["runs"][0]["norm"] for common in proven)
        longest = max(common["runs"][0]["iterations"] for common in found)
        rates[problem] = guaranteed_steps(proven[0]["alpha"], distance, longest)
    return rates


RECIPE = Recipe(
    name=NAME,
    question="Does plug-and-play with 1-Lipschitz denoisers converge as guaranteed, and how good are its pictures?",
    sizes={
        "quick": Config(
            "quick",
            size=32,
            pictures=1,
            validation=1,
            angles=20,
            iterations=1000,
            free_iterations=100,
            plain_steps=30,
            activations=("relu", "spline"),
            sigmas=(15,),
            shares=(0.5, 0.15),
            tv=(1e-2,),
            tgv=(),
        ),
        "standard": Config(
            "standard",
            size=64,
            pictures=4,
            validation=2,
            angles=40,
            iterations=5000,
            free_iterations=500,
            plain_steps=600,
        ),
        "full": Config(
            "full",
            size=256,
            pictures=12,
            validation=4,
            angles=60,
            iterations=10_000,
            free_iterations=2000,
            plain_steps=20_000,
            tgv=(3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
            shares=(0.5, 0.2, 0.1, 0.05, 0.025),
        ),
    },
    run=run,
    draw=draw,
)
