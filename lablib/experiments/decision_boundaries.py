"""Decision boundaries: data sets x architectures, with certified squares (linf) and discs (l2)."""

import dataclasses
from typing import Any

import numpy as np

from lablib.experiments import toy_data
from lablib.experiments.planar_training import ARCHITECTURES, Trained, fit
from lablib.experiments.recipe import Recipe

FIELD_SIDE = 51


@dataclasses.dataclass(frozen=True)
class Config:
    """Which networks are trained, and for how long; of all seeds the largest mean radius is drawn."""

    steps: int
    seeds: int
    data: tuple[str, ...] = ("XOR", "moons", "circles", "spirals")
    linf: tuple[str, ...] = ("standard ReLU", "standard |x|", "MaxMin", "linf distance", "SortNet")
    l2: tuple[str, ...] = ("standard ReLU", "standard |x|", "MaxMin", "Householder")
    width: int = 32
    depth: int = 3


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train every combination; return the numbers, and radii and fields of the networks that are drawn."""
    from tqdm.auto import tqdm

    cases = [
        (norm, name, label)
        for norm in ("linf", "l2")
        for name in config.data
        for label in getattr(config, norm)
    ]
    metrics: dict[str, Any] = {"architectures": {key: list(value) for key, value in ARCHITECTURES.items()}}
    metrics["cases"], arrays = [], {}
    for norm, name, label in tqdm(cases, desc="networks"):
        data = toy_data.load(name)
        options = {"architecture": label, "norm": norm, "width": config.width, "depth": config.depth}
        trained = [fit(data, steps=config.steps, seed=seed, **options) for seed in range(config.seeds)]
        drawn = max(trained, key=lambda network: network.radii.mean())
        metrics["cases"].append(_numbers(norm, name, label, trained, drawn))
        arrays[f"{norm}/{name}/{label}/radii"] = drawn.radii
        arrays[f"{norm}/{name}/{label}/field"] = field(drawn)[1].astype(np.float32)
    return metrics, arrays


def field(trained: Trained, side: int = FIELD_SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Return the axis (side,) and the output (side, side) on the data's frame, row = second coordinate."""
    axis = np.linspace(*trained.data.frame, side)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return axis, trained.evaluate(grid).reshape(side, side)


def count_violations(trained: Trained, side: int = 401) -> int:
    """Return how many points of a dense grid inside a certified region are classified otherwise (want: 0)."""
    axis = np.linspace(*trained.data.frame, side)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    outputs = trained.evaluate(grid)
    order = np.inf if trained.norm == "linf" else 2
    wrong = 0
    for point, sign, radius in zip(trained.data.points, trained.data.signs, trained.radii, strict=True):
        inside = np.linalg.norm(grid - point, ord=order, axis=1) < radius
        wrong += int((sign * outputs[inside] <= 0).sum())
    return wrong


def _numbers(norm: str, name: str, label: str, trained: list[Trained], drawn: Trained) -> dict[str, Any]:
    best = drawn.data.half_separation(norm)
    return {
        "norm": norm,
        "data": name,
        "architecture": label,
        "best_radius_possible": best,
        "smallest_radius": [float(network.radii.min()) for network in trained],
        "mean_radius": [float(network.radii.mean()) for network in trained],
        "accuracy": [float((network.radii > 0).mean()) for network in trained],
        "certified_at_half_best": [float((network.radii > best / 2).mean()) for network in trained],
        "seconds": [round(network.seconds, 2) for network in trained],
        "grid_points_misclassified_inside": sum(count_violations(network, 101) for network in trained),
    }


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw, for each norm, the grid of boundaries and the certified-accuracy curves."""
    from lablib.plots.boundary import draw_curves, draw_grid

    figures = {}
    seconds = {
        (c["norm"], c["data"], c["architecture"]): np.median(c["seconds"]) for c in record["metrics"]["cases"]
    }
    for norm in ("linf", "l2"):
        panels, curves, best = [], {}, {}
        for name in record["config"]["data"]:
            data = toy_data.load(name)
            axis = np.linspace(*data.frame, FIELD_SIDE)
            row = []
            for label in record["config"][norm]:
                stored = {key: record["arrays"][f"{norm}/{name}/{label}/{key}"] for key in ("radii", "field")}
                panel = {
                    "data": data,
                    "field_at": axis,
                    "title": label,
                    "seconds": seconds[norm, name, label],
                }
                row.append(panel | stored)
            panels.append(row)
            curves[name] = {panel["title"]: panel["radii"] for panel in row}
            best[name] = data.half_separation(norm)
        figures[f"decision_boundaries_{norm}"] = draw_grid(panels, norm)
        figures[f"decision_boundaries_{norm}_curves"] = draw_curves(curves, best, norm)
    return figures


RECIPE = Recipe(
    name="decision_boundaries",
    question="How large are the regions that each architecture certifies around points in the plane?",
    sizes={
        "quick": Config(steps=300, seeds=1),
        "standard": Config(steps=500, seeds=2),
        "full": Config(steps=2000, seeds=5),
    },
    run=run,
    draw=draw,
)
