"""Toys for monotone networks: extrapolation, an outlier, a flower, sets of gradients, and forced slopes.

Five small experiments (:mod:`~lablib.experiments.monotone_lines`, :mod:`~lablib.experiments.monotone_plane`), each
with all seeds trained at once. A stopped run goes on with the next unfinished part.
"""

import dataclasses
from typing import Any

import numpy as np
import torch

from lablib.experiments import monotone_lines as lines
from lablib.experiments import monotone_plane as plane
from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.monotone_population import GRADIENT_NORM
from lablib.experiments.recipe import Recipe

NAME = "monotone_toys"
Arrays = dict[str, np.ndarray]
FIT = {
    "log": lines.fit_log,
    "outlier": lines.fit_outlier,
    "flower": plane.fit_flower,
    "gradients": plane.fit_gradients,
    "forced": lines.fit_forced,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the five experiments."""

    mode: str
    log: lines.LogConfig
    outlier: lines.OutlierConfig
    flower: plane.FlowerConfig
    gradients: plane.GradientConfig
    forced: lines.ForcedConfig

    def jobs(self) -> list[tuple[str, str]]:
        """Return (experiment, part) of everything that is trained."""
        flower = [f"{kind} lambdas" for kind in GRADIENT_NORM]
        for sweep, values in self.flower.sweeps().items():
            flower += [f"{kind} {sweep} {value}" for kind in GRADIENT_NORM for value in values]
        outlier = [
            f"{loss} {model}" for loss in self.outlier.losses for model in ("lipschitz", "unconstrained")
        ]
        parts = {"log": lines.LOG_MODELS, "outlier": outlier, "flower": flower, "gradients": GRADIENT_NORM}
        parts["forced"] = lines.FORCED_MODELS
        return [(experiment, part) for experiment, names in parts.items() for part in names]


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train everything, and summarise; all seeds' numbers are kept."""
    device = "cuda" if config.log.device == "cuda" and torch.cuda.is_available() else "cpu"
    parts = Checkpoint(NAME, config.mode, dataclasses.asdict(config))
    jobs = config.jobs()
    sizes = {f"{name} {part}": getattr(config, name).steps for name, part in jobs}
    with parts.bar(sizes, "step") as bar:
        for experiment, part in jobs:
            size = dataclasses.replace(getattr(config, experiment), device=device)
            key, before = f"{experiment} {part}", bar.n
            if key not in parts:
                bar.set_postfix_str(key)
                parts[key] = FIT[experiment](size, part, lambda _: bar.update())
                bar.update(before + size.steps - bar.n)  # trees take no steps
    made = {
        (name, part): {key: np.array(value) for key, value in parts[f"{name} {part}"].items()}
        for name, part in jobs
    }
    arrays = {
        f"{name}/{part}/{key}": value.astype(np.float32) if value.size > 100 else value
        for (name, part), values in made.items()
        for key, value in values.items()
    }
    return {"device": device, "rows": summarise(config, made)}, arrays


def summarise(config: Config, made: dict[tuple[str, str], dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Return one row per experiment, part, setting and measure: median, lowest, highest over seeds."""
    rows = []
    for (experiment, part), values in made.items():
        for setting, measures in _measures(config, experiment, part, values):
            row = {"experiment": experiment, "part": part, **setting}
            for key, seeds in measures.items():
                row[key] = {"median": float(np.median(seeds)), "low": seeds.min(), "high": seeds.max()}
            rows.append(row)
    return rows


def _measures(config: Config, experiment: str, part: str, values: dict[str, np.ndarray]):
    """Yield (setting, {measure: (S,)}) of one part."""
    if experiment == "log":
        keys = ("inside", "outside", "decreasing", "certified_low", "certified_high")
        yield {}, {key: values[key] for key in keys if key in values}
    elif experiment == "outlier":
        lambdas = config.outlier.lambdas if part.endswith("lipschitz") else (None,)
        for number, lipschitz in enumerate(lambdas):
            yield {"lipschitz": lipschitz}, {key: values[key][number] for key in ("at", "away", "error")}
    elif experiment == "flower":
        lambdas = config.flower.lambdas if part.endswith("lambdas") else (config.flower.lipschitz,)
        for number, lipschitz in enumerate(lambdas):
            yield {"lipschitz": lipschitz}, {key: values[key][number] for key in ("accuracy", "error")}
    elif experiment == "gradients":
        miss = np.linalg.norm(values["mean"] - values["nearest"][:, None], axis=2)
        at = config.gradients.corner
        spent = {"spent": np.abs(values["mean"][at]).sum(1), "budget": values["budget"][at].sum(1)}
        yield {"wanted": "(λ, λ)"}, spent | {"certified": values["certified"][at].sum(1), "miss": miss[at]}
        yield {"wanted": "all"}, {"miss": miss.ravel(), "longest": values["longest"]}
    else:
        for number, slope in enumerate(config.forced.slopes):
            yield {"slope": slope}, {key: values[key][number] for key in ("mean", "smallest", "low", "rmse")}


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw one or two figures per experiment."""
    from lablib.plots import monotone, monotone_toys

    config, arrays = record["config"], record["arrays"]
    figures = {f"{NAME}_log": _draw_log(config["log"], arrays)}
    figures[f"{NAME}_extrapolation"] = monotone_toys.draw_log_errors(
        {name: (arrays[f"log/{name}/inside"], arrays[f"log/{name}/outside"]) for name in lines.LOG_MODELS},
        lines.LOG_MODELS,
    )
    figures[f"{NAME}_outlier"] = _draw_outlier(config["outlier"], arrays)
    flower = plane.FlowerConfig(**config["flower"])
    figures |= _draw_flower(flower, arrays)
    gradients = {
        norm: arrays[f"gradients/{kind}/gradients"].reshape(-1, 2) for kind, norm in GRADIENT_NORM.items()
    }
    size = plane.GradientConfig(**config["gradients"])
    spent = {
        norm: np.abs(arrays[f"gradients/{kind}/mean"][size.corner]).mean(0)
        for kind, norm in GRADIENT_NORM.items()
    }
    figures[f"{NAME}_gradients"] = monotone.draw_gradient_sets(
        gradients, size.lipschitz, wanted=size.wanted(), shares=spent
    )
    forced = lines.ForcedConfig(**config["forced"])
    fitted = {
        name: np.stack([arrays[f"forced/{name}/mean"], arrays[f"forced/{name}/rmse"]])
        for name in lines.FORCED_MODELS
    }
    figures[f"{NAME}_forced"] = monotone_toys.draw_forced(
        forced.slopes, fitted, lines.FORCED_MODELS, forced.mismatched - forced.lipschitz
    )
    return figures


def _draw_log(config: dict[str, Any], arrays: Arrays) -> Any:
    from lablib.plots.monotone import draw_slope_bands
    from lablib.plots.theme import method_look

    size = lines.LogConfig(**config)
    shown = np.linspace(size.inside[0], size.end, size.cells + 1)
    fits = {}
    for name, label in lines.LOG_MODELS.items():
        curves, errors = (arrays[f"log/{name}/{key}"] for key in ("curves", "outside"))
        median = int(np.argsort(errors)[len(errors) // 2])  # slopes are certified of the first seed
        look = {"bold": median, "colour": method_look(label).colour}
        fits[label.replace(", ", ",\n")] = {"values": curves[0], "others": curves, **look}
        if name != "boosting":
            low, high = arrays[f"log/{name}/band"].T
            fits[label.replace(", ", ",\n")] |= {"low": low, "high": high}
    x = np.linspace(*size.inside, size.points)
    data = (x, lines.log_data(size, 0))
    return draw_slope_bands(
        shown, fits, data=data, truth=np.log(shown), trained_on=size.inside, names=("x", "log x")
    )


def _draw_outlier(config: dict[str, Any], arrays: Arrays) -> Any:
    from lablib.plots.monotone_toys import draw_outlier

    size = lines.OutlierConfig(**config)
    loss = size.losses[-1]
    curves = arrays[f"outlier/{loss} lipschitz/curves"]
    shown = {f"λ = {value:g}": curves[size.lambdas.index(value)] for value in size.drawn}
    shown["unconstrained ReLU"] = arrays[f"outlier/{loss} unconstrained/curves"][0]
    pulls = {
        loss: np.stack([arrays[f"outlier/{loss} lipschitz/{key}"] for key in ("at", "away")])
        for loss in size.losses
    }
    free = {
        loss: np.stack([arrays[f"outlier/{loss} unconstrained/{key}"][0] for key in ("at", "away")])
        for loss in size.losses
    }
    x = np.linspace(-size.half, size.half, size.points)
    data = (x, arrays[f"outlier/{loss} lipschitz/data"])
    return draw_outlier(
        np.linspace(-size.half, size.half, size.shown), data, shown, size.lambdas, pulls, free
    )


def _draw_flower(size: plane.FlowerConfig, arrays: Arrays) -> dict[str, Any]:
    from lablib.plots.monotone_toys import draw_flower_scores, draw_flowers

    scores: dict[str, dict[str, np.ndarray]] = {"λ": {}, "width": {}, "group size": {}}
    for kind, norm in GRADIENT_NORM.items():
        by_lambda = arrays[f"flower/{kind} lambdas/accuracy"]
        kept = by_lambda[size.lambdas.index(size.lipschitz)]
        scores["λ"][norm] = by_lambda
        for title, sweep, values in (("width", "width", size.widths), ("group size", "group", size.groups)):
            one = [
                kept
                if value == getattr(size, sweep)
                else arrays[f"flower/{kind} {sweep} {value}/accuracy"][0]
                for value in values
            ]
            scores[title][norm] = np.stack(one)
    angle = np.linspace(0, 2 * np.pi, 1200)
    radius = (1 + plane.BOUNDARY) * (1 - size.depth * np.cos(size.petals * angle))
    fields = {
        (norm, lipschitz): arrays[f"flower/{kind} lambdas/field"][number]
        for kind, norm in GRADIENT_NORM.items()
        for number, lipschitz in enumerate(size.lambdas)
        if size.lipschitz / 8 <= lipschitz <= size.lipschitz
    }
    settings = {"λ": size.lambdas, "width": size.widths, "group size": size.groups}
    kept = {"λ": size.lipschitz, "width": size.width, "group size": size.group}
    tests, levels = plane.flower_tests(size)
    circle = ((np.hypot(*tests.T) > 1 + plane.BOUNDARY) == (levels > plane.BOUNDARY)).mean()
    axis = np.linspace(*plane.FRAME, size.side)
    truth = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return {
        f"{NAME}_flower": draw_flowers(axis, fields, truth, plane.BOUNDARY),
        f"{NAME}_flower_scores": draw_flower_scores(settings, scores, kept, circle),
    }


RECIPE = Recipe(
    name=NAME,
    question="What do bounded and monotone slopes do to extrapolation, outliers, wiggly boundaries and gradients?",
    sizes={
        "quick": Config(
            "quick",
            lines.LogConfig(seeds=2, steps=60, width=8, cells=20, trees=10),
            lines.OutlierConfig(2, 60, 8, lambdas=(1.0, 4.0, 16.0)),
            plane.FlowerConfig(1, 40, (1.0, 4.0), (8, 16), (2, 8), width=16, group=8, side=41),
            plane.GradientConfig(1, 60, reach=2),
            lines.ForcedConfig(2, 100, slopes=(0.0, 0.5, 1.0)),
        ),
        "standard": Config(
            "standard",
            lines.LogConfig(seeds=20, steps=3000, width=64),
            lines.OutlierConfig(seeds=10, steps=2000, width=32),
            plane.FlowerConfig(seeds=3, steps=1000),
            plane.GradientConfig(seeds=2, steps=800),
            lines.ForcedConfig(seeds=10, steps=2000),
        ),
        "full": Config(
            "full",
            lines.LogConfig(seeds=100, steps=3000, width=128, device="cuda"),
            lines.OutlierConfig(seeds=50, steps=3000, width=128, device="cuda"),
            plane.FlowerConfig(
                10, 10_000, widths=(16, 32, 64, 128, 256), width=256, batch=600, device="cuda", side=241
            ),
            plane.GradientConfig(seeds=20, steps=5000, device="cuda"),
            lines.ForcedConfig(seeds=50, steps=10_000, device="cuda"),
        ),
    },
    run=run,
    draw=draw,
)
