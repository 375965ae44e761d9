"""Every activation side by side: graph, slope, effect on a budget, and what is left of a deep gradient."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np

from lablib.experiments.activation_study import ACTIVATIONS, Study, study
from lablib.experiments.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Config:
    """Depths of the random network; the first is drawn. Gradients are pooled over the seeds."""

    seeds: int
    depths: tuple[int, ...] = (4, 1, 2, 8)


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Study every activation at its default parameter, in each of its norms."""
    rows, arrays = [], {}
    for name, entry in ACTIVATIONS.items():
        value = entry.parameter.default if entry.parameter else 0.0
        for norm in entry.norms:
            made = {
                depth: [study(name, value, norm=norm, depth=depth, seed=seed) for seed in range(config.seeds)]
                for depth in config.depths
            }
            drawn = made[config.depths[0]][0]
            rows.append(_numbers(name, drawn, made))
            arrays |= {f"{name}/{norm}/{key}": getattr(drawn, key).astype(np.float32) for key in _DRAWN}
            pooled = [one.gradient_norms for one in made[config.depths[0]]]
            arrays[f"{name}/{norm}/gradient_norms"] = np.concatenate(pooled).astype(np.float32)
    return {"rows": rows}, arrays


_DRAWN = ("inputs", "graph", "derivative", "budget_before", "budget_after")


def _numbers(name: str, drawn: Study, made: dict[int, list[Study]]) -> dict[str, Any]:
    pooled = {
        depth: np.concatenate([one.gradient_norms for one in studies]) for depth, studies in made.items()
    }
    return {
        "activation": name,
        "title": drawn.title,
        "norm": drawn.norm,
        "dual": drawn.dual,
        "depth": drawn.depth,
        "steepest_slope": float(np.abs(drawn.derivative).max()),
        "budget_before": float(drawn.budget_before.sum()),
        "budget_after": float(drawn.budget_after.sum()),
        "mean_gradient_norm": {str(depth): float(norms.mean()) for depth, norms in pooled.items()},
        "largest_gradient_norm": float(max(norms.max() for norms in pooled.values())),
    }


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw one row per activation, each in the first norm it has."""
    from lablib.plots.activations import draw_gallery

    studies = []
    for name, entry in ACTIVATIONS.items():
        norm = entry.norms[0]
        row = next(r for r in record["metrics"]["rows"] if r["activation"] == name and r["norm"] == norm)
        stored = {key: record["arrays"][f"{name}/{norm}/{key}"] for key in (*_DRAWN, "gradient_norms")}
        kept = {key: row[key] for key in ("title", "norm", "dual", "depth")}
        studies.append(SimpleNamespace(**kept, **stored))
    return {"activation_gallery": draw_gallery(studies)}


RECIPE = Recipe(
    name="activation_gallery",
    question="What does each activation do to a slope, to a budget, and to the gradient of a deep network?",
    sizes={"quick": Config(seeds=1), "standard": Config(seeds=10), "full": Config(seeds=100)},
    run=run,
    draw=draw,
)
