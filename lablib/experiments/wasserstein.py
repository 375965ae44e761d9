"""Wasserstein-1 by 1-Lipschitz potentials: how much of the exact distance does each activation reach?

Each network's value is a proven lower bound of the distance between the two clouds it is evaluated on
(:func:`lablib.experiments.wasserstein_training.bound_dual`); POT solves the same clouds exactly. So no value can be
above the exact one, and the run stops if one is: the guarantee of a layer would be wrong.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lablib.experiments.activation_zoo import ACTIVATIONS
from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.recipe import Recipe
from lablib.experiments.results import refuse_worse_data
from lablib.experiments.wasserstein_clouds import TOYS, Clouds, Transport, exact_transport, toy
from lablib.experiments.wasserstein_images import Images, image_clouds, load_images
from lablib.experiments.wasserstein_training import Potential, bound_dual, fit

NAME = "wasserstein"
FIELD_SIDE = 61
ALONG = (0.25, 0.5, 0.75)  # where on its ray a gradient is read


@dataclasses.dataclass(frozen=True)
class Training:
    """Size of the potentials and their training: see :func:`~lablib.experiments.wasserstein_training.fit`."""

    widths: tuple[int, ...]
    steps: int
    batch: int = 256
    rate: float = 0.02


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared.

    Attributes:
        mode: which of the three sizes this is.
        seeds: trainings of each activation on each pair of clouds.
        data, pool: images (see :func:`~lablib.experiments.wasserstein_images.load_images`).
        problems: of the images, each against its counterpart.
        points: images in each cloud; of these, the first ``matched`` are given to the exact solver as well.
        images, plane: training on images and on toys.
        toys: clouds in the plane, of ``toy_points`` points each.
        device: where to train, if there is such a device; else on the CPU.
    """

    mode: str
    seeds: int
    data: str
    pool: int
    points: int
    matched: int
    images: Training
    plane: Training
    problems: tuple[str, ...] = ("offset", "shift", "blur", "generator")
    toys: tuple[str, ...] = tuple(TOYS)
    toy_points: int = 256
    device: str = "cpu"


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train every activation on every pair of clouds; a stopped run goes on behind the last finished network.

    Raises:
        AssertionError: if a value is above the exact distance: a guarantee does not hold.
        ValueError: if digits would stand in, and the stored result is of better data.
    """
    images = load_images(config.data, config.pool)
    refuse_worse_data(NAME, config.mode, images.data, config.data)
    device = config.device if config.device != "cuda" or torch.cuda.is_available() else "cpu"
    metrics: dict[str, Any] = {"data": images.data, "side": images.side, "trained_on": device, "problems": []}
    halves = image_clouds("halves", images, min(config.matched, len(images.pixels) // 2))
    metrics["another_sample"] = exact_transport(halves).distance
    parts = Checkpoint(NAME, config.mode, dataclasses.asdict(config) | {"found": images.data})
    arrays: dict[str, np.ndarray] = {}
    trainings = dict.fromkeys(config.problems, config.images) | dict.fromkeys(config.toys, config.plane)
    sizes = {
        key: training.steps
        for problem, training in trainings.items()
        for activation in ACTIVATIONS
        for key in _keys(problem, activation, config.seeds)
    }
    with parts.bar(sizes, "step") as bar:
        for problem, training in trainings.items():
            bar.set_postfix_str(problem)
            contest = Contest(problem, _clouds(problem, config, images), training, config.matched, device)
            row, own = contest.run(config.seeds, parts, bar.update)
            metrics["problems"].append(row)
            arrays |= own
    return metrics, arrays


def _clouds(problem: str, config: Config, images: Images) -> Clouds:
    if problem in config.problems:
        return image_clouds(problem, images, min(config.points, len(images.pixels)))
    return toy(problem, config.toy_points)


def _keys(problem: str, activation: str, seeds: int) -> list[str]:
    """Return the names of the parts of one activation on one problem."""
    return [f"{problem}/{activation}/{seed}" for seed in range(seeds)]


class Contest:
    """One pair of clouds with its exact distance, and the networks that are trained on it."""

    def __init__(self, problem: str, clouds: Clouds, training: Training, matched: int, device: str) -> None:
        self.problem, self.clouds, self.training, self.device = problem, clouds, training, device
        self.matched = clouds.head(matched)
        self.transport = exact_transport(self.matched)

    def run(
        self, seeds: int, parts: Checkpoint, report: Callable[[int], Any]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Train all that is not among the finished ``parts``; return the numbers, and what is drawn in the plane."""
        name, arrays = self.clouds.name, {}
        row = {
            "problem": name,
            "features": self.clouds.features,
            "points": len(self.clouds.first),
            "matched": len(self.matched.first),
            "frame": self.clouds.frame,
            "known": self.clouds.known,
            "exact": self.transport.distance,
            "exact_lower": self.transport.lower,
            "runs": {},
        }
        for activation in ACTIVATIONS:
            keys = _keys(self.problem, activation, seeds)
            for seed, key in enumerate(keys):
                if key not in parts:
                    parts[key] = self.train(activation, seed, report)
            runs = [parts[key] for key in keys]
            row["runs"][activation] = _collect(runs, row["exact"])
            if self.clouds.frame:
                arrays[f"{name}/{activation}"] = np.array(runs[0]["field"], dtype=np.float32)
        if self.clouds.frame:
            arrays[f"{name}/rays"] = self.transport.rays(self.matched)
        return row, arrays

    def train(self, activation: str, seed: int, report: Callable[[int], Any]) -> dict[str, Any]:
        """Train one network and return its proven values; in the plane its gradients, and seed 0's picture too."""
        potential = fit(
            self.clouds,
            activation,
            **dataclasses.asdict(self.training),
            seed=seed,
            device=self.device,
            on_step=lambda step, _model: report(step > 0),
        )
        dual = bound_dual(potential.model, self.matched)
        check_below(dual, self.transport, f"{activation} on {self.clouds.name}")
        part = {"dual": dual, "seconds": round(potential.seconds, 2)}
        part["dual_all"] = (
            potential.bound_dual() if len(self.matched.first) < len(self.clouds.first) else dual
        )
        if self.clouds.frame:
            part["ray_slope"] = ray_slope(potential, self.matched, self.transport)
            if seed == 0:
                part["field"] = potential.field(FIELD_SIDE)[1].astype(np.float32).tolist()
        return part


def check_below(dual: float, transport: Transport, what: str) -> None:
    """Raise AssertionError if a proven lower bound is above the exact distance (beyond the solver's rounding)."""
    if dual > transport.distance * (1.0 + 1e-9):
        raise AssertionError(
            f"{what} reaches {dual}, above the exact {transport.distance}: a Lipschitz guarantee does not hold"
        )


def ray_slope(potential: Potential, clouds: Clouds, transport: Transport) -> float:
    """Return the mean gradient norm on the transport rays, each weighted by its length: 1 for an optimal potential.

    Gulrajani et al., arXiv 1704.00028, Proposition 1: an optimal potential has gradient norm 1 almost everywhere
    on the segments between coupled points.
    """
    start, end = transport.rays(clouds).astype(np.float64).swapaxes(0, 1)
    lengths = np.linalg.norm(end - start, axis=1)
    slopes = [potential.slopes((1 - t) * start + t * end) for t in ALONG]
    return float(np.average(np.mean(slopes, axis=0), weights=lengths))


def _collect(runs: list[dict[str, Any]], exact: float) -> dict[str, Any]:
    """Return lists over the seeds, and what is missing to the exact distance in percent."""
    keys = [key for key in runs[0] if key != "field"]
    found: dict[str, Any] = {key: [run[key] for run in runs] for key in keys}
    found["gap_percent"] = [100.0 * (1.0 - dual / exact) for dual in found["dual"]]
    return found


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw what share of the exact distance each network reaches, and the potentials in the plane."""
    from lablib.plots.wasserstein import draw_potentials, draw_shares

    metrics = record["metrics"]
    panels, pictures = [], []
    for row in metrics["problems"]:
        name = row["problem"]
        shares = {
            ACTIVATIONS[key]: [100.0 - gap for gap in runs["gap_percent"]]
            for key, runs in row["runs"].items()
        }
        panels.append({"title": name, "exact": row["exact"], "known": row["known"], "shares": shares})
        if row["frame"]:
            axis = np.linspace(*row["frame"], FIELD_SIDE)
            rays = record["arrays"][f"{name}/rays"]
            pictures += [
                {
                    "row": name,
                    "title": ACTIVATIONS[key],
                    "axis": axis,
                    "field": record["arrays"][f"{name}/{key}"],
                    "rays": rays,
                    "note": f"{100 * runs['dual'][0] / row['exact']:.1f} % · slope {runs['ray_slope'][0]:.2f}",
                }
                for key, runs in row["runs"].items()
            ]
    figures = {NAME: draw_shares(panels)}
    if pictures:
        figures[f"{NAME}_plane"] = draw_potentials(pictures)
    return figures


RECIPE = Recipe(
    name=NAME,
    question="How much of the exact Wasserstein-1 distance does a potential with each activation reach?",
    sizes={
        "quick": Config(
            mode="quick",
            seeds=2,
            data="digits",
            pool=1,
            points=256,
            matched=256,
            images=Training((32, 32), steps=40, batch=128),
            plane=Training((16, 16, 16), steps=60, batch=128),
            problems=("offset", "shift"),
            toys=("eight Gaussians and one",),
            toy_points=128,
        ),
        "standard": Config(
            mode="standard",
            seeds=3,
            data="mnist",
            pool=2,
            points=1000,
            matched=1000,
            images=Training((128, 128), steps=500),
            plane=Training((32, 32, 32), steps=600),
        ),
        "full": Config(
            mode="full",
            seeds=3,
            data="mnist",
            pool=1,
            points=20_000,
            matched=2000,
            images=Training((1024, 1024), steps=2000, batch=4096, rate=2e-3),
            plane=Training((64, 64, 64), steps=4000),
            toy_points=1000,
            device="cuda",
        ),
    },
    run=run,
    draw=draw,
)
