"""How deep must a network be to find an order statistic exactly? Explicit networks beside the lower bound."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lablib.experiments.recipe import Recipe
from lablib.theory.constructions import distance_networks
from lablib.theory.constructions.sorting_networks import (
    depth_lower_bound,
    order_statistic_network,
    sorting_network,
    sorts,
)
from lablib.theory.network import Layer, evaluate
from lablib.theory.order_statistics import grid, order_statistic

NAME = "sorting_depth"
GROUPS = (2, 4, 8)
WIDEST = 6000  # a distance network for x_(k) has C(d, k) neurons; wider ones are not built


@dataclasses.dataclass(frozen=True)
class Config:
    """Largest d of the curves, largest d checked at every 0/1 vector, and random 0/1 vectors above it."""

    largest: int
    every_vertex_up_to: int
    samples: int = 2000


def run(config: Config) -> dict[str, Any]:
    """Count sorts and neurons of every construction; check each on 0/1 vectors (0-1 principle)."""
    from tqdm.auto import tqdm

    rows = []
    for d in tqdm(range(2, config.largest + 1), desc=NAME, unit="d"):
        vectors, every = _vectors(d, config)
        median = (d + 1) // 2
        row = {
            "d": d,
            "every_vertex": every,
            "lower_bound": {str(group): depth_lower_bound(d, group) for group in GROUPS},
            "transposition": _count(sorting_network(d, 2, "transposition"), vectors),
            "full_sort": _count(sorting_network(d, d), vectors),
        }
        for group in GROUPS:
            row[f"maximum_{group}"] = _count(order_statistic_network(d, 1, group), vectors, 1)
            row[f"sort_{group}"] = _count(sorting_network(d, group), vectors)
        row["distance"] = _distance(d, median, vectors)
        rows.append(row)
    return {"rows": rows}


def _vectors(d: int, config: Config) -> tuple[np.ndarray, bool]:
    """Return all 0/1 vectors of length d, or a sample of every number of ones; and whether these are all."""
    if d <= config.every_vertex_up_to:
        return grid(d, 2), True
    rng = np.random.default_rng(d)
    order = rng.random((config.samples, d)).argsort(axis=1)
    return (order < np.arange(config.samples)[:, None] % (d + 1)).astype(np.int64), False


def _count(layers: Sequence[Layer], vectors: np.ndarray, k: int | None = None) -> dict[str, Any]:
    """Return sorts, widest layer, and whether the network is exact on the vectors (k None: it sorts)."""
    values = evaluate(layers, vectors)
    expected = np.sort(vectors, axis=1) if k is None else order_statistic(vectors, k)[:, None]
    width = max(len(layer["weight"]) for layer in layers if layer["op"] == "affine")
    return {"sorts": sorts(layers), "width": width, "exact": bool((values == expected).all())}


def _distance(d: int, k: int, vectors: np.ndarray) -> dict[str, Any] | None:
    """Return width and exactness of the distance network for x_(k); None where it would be too wide."""
    layers = distance_networks.order_statistic_network(d, k) if d <= 14 else None
    if layers is None or len(layers[0]["weight"]) > WIDEST:
        return None
    plain = [{**layer, "weight": layer["weight"].astype(np.float64)} for layer in layers]  # 2 and 1/2: exact
    values = evaluate(plain, vectors)[:, 0]
    exact = bool((values == order_statistic(vectors, k)).all())
    return {"layers": len(layers), "width": len(layers[0]["weight"]), "exact": exact}


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw the number of sorts against d."""
    from lablib.plots.sorting import draw_depth

    return {NAME: draw_depth(record["metrics"]["rows"])}


RECIPE = Recipe(
    name=NAME,
    question="How many sorts does an exact order statistic take, and how few could there be?",
    sizes={
        "quick": Config(largest=16, every_vertex_up_to=7, samples=200),
        "standard": Config(largest=64, every_vertex_up_to=14),
        "full": Config(largest=256, every_vertex_up_to=16),
    },
    run=run,
    draw=draw,
)
