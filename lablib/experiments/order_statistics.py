"""How close to the maximum can a Lipschitz network be? The bound, explicit networks and trained ones."""

import dataclasses
from typing import Any

import numpy as np

from lablib.experiments.batched_networks import Architecture
from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.order_training import train_order_statistic
from lablib.experiments.recipe import Recipe
from lablib.theory.constructions import distance_networks
from lablib.theory.constructions.sorting_networks import averaged_tournament, tournament
from lablib.theory.network import Layer
from lablib.theory.order_statistics import best_standard, error_bound, error_surface, estimate_error, grid

NAME = "order_statistics"
GROUP, DEPTH = 2, 3  # the MaxMin networks here have three affine layers and two sorts
ARCHITECTURES = {
    "standard": Architecture("abs", (32, 32)),
    "maxmin": Architecture("maxmin", (32, 32)),
    "distance": Architecture("linf_distance", (32,)),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Numbers of inputs, and the training of ``seeds`` networks of each kind for each of them."""

    mode: str
    dims: tuple[int, ...]
    steps: int
    seeds: int
    surface: int = 41


def constructed(d: int) -> dict[str, list[Layer]]:
    """Return the explicit networks for the maximum of d inputs."""
    return {
        "standard": best_standard(d, 1),
        "maxmin": averaged_tournament(d, DEPTH, GROUP),
        "tournament": tournament(d, GROUP),
        "distance": distance_networks.order_statistic_network(d, 1),
    }


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Measure every network for every d; a stopped run goes on with the next number of inputs."""
    parts = Checkpoint(NAME, config.mode, dataclasses.asdict(config))
    with parts.bar({str(d): len(ARCHITECTURES) * config.steps for d in config.dims}, "step") as bar:
        for d in config.dims:
            if str(d) not in parts:
                bar.set_postfix_str(f"d = {d}")
                parts[str(d)] = _row(d, config, bar.update)
    rows = [parts[str(d)] for d in config.dims]
    return {"order": 1, "depth": DEPTH, "group": GROUP, "rows": rows}, surfaces(config)


def surfaces(config: Config) -> dict[str, np.ndarray]:
    """Return output and error over the unit square of explicit networks and a trained standard one."""
    trained = train_order_statistic(ARCHITECTURES["standard"], 2, 1, steps=config.steps, seeds=1)
    networks = constructed(2) | {"trained": trained.best}
    del networks["tournament"]  # for two inputs it is the MaxMin network
    arrays = {}
    for name, layers in networks.items():
        surface = error_surface(layers, 1, config.surface)
        arrays |= {f"{name}/{key}": surface[key].astype(np.float32) for key in ("output", "error")}
    return arrays | {"axis": np.linspace(0, 1, config.surface)}


def _row(d: int, config: Config, report) -> dict[str, Any]:
    vertices = grid(d, 2)  # integers: exact
    exact = {name: estimate_error(layers, 1, vertices)[0] for name, layers in constructed(d).items()}
    trained = {
        name: train_order_statistic(
            architecture, d, 1, steps=config.steps, seeds=config.seeds, seed=d, report=report
        ).errors.tolist()
        for name, architecture in ARCHITECTURES.items()
    }
    bound, bound_sorts = error_bound(d), error_bound(d, DEPTH, GROUP)
    return {
        "d": d,
        "bound": {"standard": float(bound), "maxmin": float(bound_sorts)},
        "bound_fraction": {"standard": str(bound), "maxmin": str(bound_sorts)},
        "constructed": {name: float(error) for name, error in exact.items()},
        "constructed_fraction": {name: str(error) for name, error in exact.items()},
        "trained": trained,
    }


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw the errors against d, the error surfaces, and the surfaces to be turned in a browser."""
    from lablib.plots.order_statistics import draw_errors, draw_surfaces, plotly_surfaces

    return {
        "order_statistics": draw_errors(record["metrics"]["rows"], record["metrics"]["depth"]),
        "order_statistics_surfaces": draw_surfaces(record["arrays"]),
        "order_statistics_turnable": plotly_surfaces(record["arrays"]),
    }


RECIPE = Recipe(
    name=NAME,
    question="How far from the maximum must a Lipschitz network stay, and do trained ones reach it?",
    sizes={
        "quick": Config("quick", dims=(2, 3, 5), steps=150, seeds=2),
        "standard": Config("standard", dims=tuple(range(2, 13)), steps=1000, seeds=4),
        "full": Config("full", dims=tuple(range(2, 17)), steps=6000, seeds=16, surface=81),
    },
    run=run,
    draw=draw,
)
