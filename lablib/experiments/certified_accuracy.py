"""Recipe: networks trained by one loop, and how much of their accuracy can be proved."""

import argparse
import dataclasses
from typing import Any

import numpy as np

from lablib.experiments import certify_command, train_command
from lablib.experiments.recipe import Recipe
from lablib.experiments.results import read_result
from lablib.experiments.training import MODEL_FILE, runs_dir

NAMES = {  # recipes of lablib train, and what the figures call them
    "sortnet-digits": "SortNet",
    "sortnet-mnist-0.3": "SortNet, trained for 0.3",
    "sortnet-mnist-0.1": "SortNet, trained for 0.1",
    "linfdist-mnist": "l∞-distance net (q = 1)",
    "groupsort-mnist": "linear, GroupSort",
    "linf-mnist": "linear, |x|",
    "ibp-mnist": "ReLU by interval bounds",
}
LEVELS = 9  # radii that are attacked
BASELINES = ("linfdist-mnist", "groupsort-mnist", "linf-mnist", "ibp-mnist")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared.

    Attributes:
        runs: training recipes; the first names the test images.
        mode: their size.
        count: test images that are attacked, in ``attack`` steps each.
        reach: largest radius drawn.
    """

    runs: tuple[str, ...]
    mode: str
    count: int
    attack: int
    reach: float = 0.4


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train what has no finished model yet, certify and attack each network, and collect the curves."""
    metrics, arrays = {}, {}
    for name in config.runs:
        folder = runs_dir() / f"{name}-{config.mode}-seed0"
        if not (folder / MODEL_FILE).exists():
            _command(train_command, [name, "--mode", config.mode, "--resume"])
        levels = [f"{eps:.4g}" for eps in np.linspace(0.0, config.reach, LEVELS)]
        options = ["--count", str(config.count), "--attack", str(config.attack), "--eps", *levels]
        _command(certify_command, [str(folder), *options])
        trained = read_result(f"train_{name}", config.mode)
        checked = read_result(f"certify_{folder.name}", config.mode)
        metrics[name] = {
            key: trained["metrics"][key] for key in ("clean", "certified_by", "test_rows", "parameters")
        }
        metrics[name] |= {"training_seconds": trained["seconds"], "device": trained["device"]}
        metrics[name] |= {
            key: checked["metrics"][key] for key in ("samples", "curves", "largest_logit_error")
        }
        metrics[name]["clean_of_samples"] = checked["metrics"]["clean"]
        arrays[name] = trained["arrays"]["radii"]
    return metrics, arrays


def _command(module: Any, words: list[str]) -> None:
    """Run one of the lab's commands as its command line would."""
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    status = module.main(parser.parse_args(words))
    if status:
        raise KeyboardInterrupt  # a signal stopped it; what is done is kept


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Return the curves of all networks, and for each SortNet the band in which the truth lies."""
    from lablib.plots.certified import draw_bracket
    from lablib.plots.training import draw_certified_curves

    metrics, config = record["metrics"], record["config"]
    proved = {NAMES[name]: record["arrays"][name] for name in metrics}
    data = f"the {next(iter(metrics.values()))['test_rows']:,} test images"
    figures = {
        "certified_accuracy": draw_certified_curves(np.linspace(0.0, config["reach"], 201), proved, data)
    }
    for name in metrics:
        if name.startswith("sortnet"):
            rows = metrics[name]["curves"]
            kinds = [kind for kind in ("margins", "intervals") if f"certified_{kind}" in rows[0]]
            figures[f"certified_bracket_{name.removeprefix('sortnet-')}"] = draw_bracket(
                np.array([row["eps"] for row in rows]),
                metrics[name]["clean_of_samples"],
                np.array([row["attacked"] for row in rows]),
                {f"by {kind}": np.array([row[f"certified_{kind}"] for row in rows]) for kind in kinds},
                title=f"{NAMES[name]}: the truth lies in the shaded band ({metrics[name]['samples']} test images)",
            )
    return figures


_MNIST = ("sortnet-mnist-0.3", "sortnet-mnist-0.1", *BASELINES)
RECIPE = Recipe(
    "certified_accuracy",
    "How much of the accuracy of each network can be proved, and how much is left under attack?",
    {
        "quick": Config(("sortnet-digits",), "quick", 100, 10),
        "standard": Config(_MNIST, "standard", 200, 40),
        "full": Config(_MNIST, "full", 1000, 100),
    },
    run,
    draw,
)
