"""Accuracy against epsilon, with and without clipping gradients; and how much of it is proven under perturbations.

Three networks. *Fixed filters*: public first layers that no data has shaped (:mod:`.private_filters`), then one
trained linear layer, by all three methods at the same noise multiplier, sample rate and steps: clipless, Opacus
with per-sample gradients, and Opacus with ghost clipping. *Lipschitz network*: two trained dense layers of
orthonormal weights on local averages, clipless. *Small tanh CNN*: per-sample clipping on a network that suits it.

Privacy is for adding or removing one sample, at the stated delta, by Poisson sampling; epsilon is what was spent by
privacy loss distributions. Hyper-parameters (learning rates, clipping norms, widths, steps) were chosen by looking at
results on held-out training rows: they are not private, here as in the published figures.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lablib.certify import certified_accuracy
from lablib.data import Dataset, load
from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.private_accuracy_certificates import certified_radii
from lablib.experiments.private_accuracy_designs import DESIGNS, Design
from lablib.experiments.private_accuracy_training import CLIPLESS, accuracy, train
from lablib.experiments.private_filters import features
from lablib.experiments.recipe import Recipe

NAME = "private_accuracy"
LEVELS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)  # l2 radii, in 1/255 of a pixel's range
# Accuracy in % at epsilon, delta 1e-5. Clipless and Opacus in the same plot: read from Bethune et al., ICLR 2024,
# arXiv 2305.16202. The tanh CNN with per-sample clipping, trained for longer than here: Papernot et al., AAAI 2021,
# arXiv 2007.14191.
PUBLISHED = {
    "mnist": {"clipless (paper)": {2.99: 91.3}, "tanh CNN, longer (paper)": {2.93: 98.1}},
    "cifar10": {
        "clipless (paper)": {2.0: 37.0, 4.0: 41.0, 8.0: 43.5, 15.0: 46.5},
        "tanh CNN, longer (paper)": {7.53: 66.2},
        "Opacus (same plot)": {2.0: 22.0, 4.0: 31.0, 8.0: 41.0, 15.0: 50.0},
    },
}
PUBLISHED_RADII = {"cifar10": {1.0: 39.1, 2.0: 35.6, 4.0: 30.9, 8.0: 25.9, 16.0: 19.7}}  # same, epsilon <= 20


@dataclasses.dataclass(frozen=True)
class Config:
    """Size of the comparison.

    Attributes:
        mode: of the run.
        epsilons: of each data set in :data:`DESIGNS`, the targets; each run spends at most this, and nearly as much.
        delta: of every epsilon.
        seeds: runs of each.
        certified: test images whose radii are proven, of the clipless runs of the first seed.
        longer: factor of all epochs.
    """

    mode: str
    epsilons: dict[str, tuple[float, ...]]
    delta: float
    seeds: int
    certified: int
    longer: int = 1


@dataclasses.dataclass(frozen=True)
class Part:
    """One run."""

    data: str
    design: str
    method: str
    epsilon: float
    seed: int

    def __str__(self) -> str:
        return f"{self.data}: {self.design}, {self.method}, epsilon {self.epsilon:g}, seed {self.seed}"


def parts(config: Config) -> list[Part]:
    """Return all runs, those of one network one after the other."""
    return [
        Part(data, name, method, epsilon, seed)
        for data, targets in config.epsilons.items()
        for name, design in DESIGNS[data].items()
        for method, epsilon, seed in itertools.product(design.settings, targets, range(config.seeds))
    ]


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train and certify all; return one row for each run, and the radii of the clipless ones of the first seed.

    Of those, a row has the shares of test images that are certified at :data:`LEVELS`.
    """
    plan = parts(config)
    kept = Checkpoint(NAME, config.mode, dataclasses.asdict(config) | {"designs": _plain(config)})
    with kept.bar({str(part): 1 for part in plan}, "run") as bar:
        for (data, name), group in itertools.groupby(plan, key=lambda part: (part.data, part.design)):
            todo = [part for part in group if str(part) not in kept]
            if not todo:
                continue
            rows = _Rows(load(data), DESIGNS[data][name])
            for part in todo:
                kept[str(part)] = _one(part, rows, config)
                bar.update()
    rows, arrays = [], {}
    for part in plan:
        row = dict(kept[str(part)])
        radii, row["certified"] = row.pop("radii"), None
        if radii is not None:
            proven = np.array(radii, np.float32)
            arrays[f"radii: {part.data}, {part.design}, {part.epsilon:g}"] = proven
            row["certified"] = certified_accuracy(proven, np.array(LEVELS) / 255).tolist()
        rows.append(dataclasses.asdict(part) | row)
    return {"rows": rows, "data": ", ".join(config.epsilons), "levels": LEVELS}, arrays


def _plain(config: Config) -> dict[str, Any]:
    """Return all settings of the runs: finished parts of other ones are not taken up again."""
    return {
        data: {
            name: {method: dataclasses.asdict(own) for method, own in design.settings.items()}
            for name, design in DESIGNS[data].items()
        }
        for data in config.epsilons
    }


class _Rows:
    """A data set behind the fixed layers of a design."""

    def __init__(self, data: Dataset, design: Design) -> None:
        self.design = design
        self.images = _pixels(data.x_test, data.scale)
        self.y, self.y_test = torch.from_numpy(data.y_train), torch.from_numpy(data.y_test)
        images = _pixels(data.x_train, data.scale)
        self.front = design.front(images.shape[1:]) if design.front else None
        self.x, self.x_test = (
            features(self.front, part) if self.front is not None else part for part in (images, self.images)
        )


def _pixels(images: np.ndarray, scale: int) -> Tensor:
    return torch.from_numpy(images).float().div_(scale)


def _one(part: Part, rows: _Rows, config: Config) -> dict[str, Any]:
    """Return accuracy on the test images, what was spent, and radii (None where there are none)."""
    design = rows.design
    settings = design.settings[part.method]
    settings = dataclasses.replace(settings, epochs=config.longer * settings.epochs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(part.seed)
        head = design.head(tuple(rows.x.shape[1:]))
    spent = train(
        part.method, head, rows.x, rows.y, settings, target=part.epsilon, delta=config.delta, seed=part.seed
    )
    found = {"label": design.label, "accuracy": accuracy(head, rows.x_test, rows.y_test)}
    found |= (
        {"spent": spent.pop("epsilon")} | spent | {"settings": dataclasses.asdict(settings), "radii": None}
    )
    if design.certified and part.method == CLIPLESS and part.seed == 0:
        images, labels = rows.images[: config.certified], rows.y_test[: config.certified]
        found["radii"] = certified_radii(rows.front, head, images, labels).tolist()
    return found


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Return accuracy against epsilon for each data set, and certified accuracy of the private models."""
    from lablib.plots.private_accuracy import draw_accuracy, draw_robust

    rows, figures = record["metrics"]["rows"], {}
    for data in record["config"]["epsilons"]:
        own = [row for row in rows if row["data"] == data]
        delta = record["config"]["delta"]
        figures[f"{NAME}_{data}"] = draw_accuracy(own, PUBLISHED.get(data, {}), data, delta)
    radii = {key.removeprefix("radii: "): value for key, value in record["arrays"].items()}
    figures["private_robust"] = draw_robust(radii, PUBLISHED_RADII)
    return figures


RECIPE = Recipe(
    NAME,
    "How accurate is private training without clipping, next to clipping, and how much of that is certified?",
    {
        "quick": Config("quick", {"digits": (3.0, 8.0)}, 1e-4, seeds=2, certified=60),
        "standard": Config(
            "standard", {"mnist": (1.0, 2.99, 8.0), "cifar10": (2.0, 4.0, 8.0)}, 1e-5, seeds=3, certified=1000
        ),
        "full": Config(
            "full",
            {"mnist": (1.0, 2.0, 2.99, 8.0), "cifar10": (1.0, 2.0, 3.0, 4.0, 8.0, 15.0)},
            1e-5,
            seeds=5,
            certified=10_000,
            longer=4,
        ),
    },
    run,
    draw,
)
