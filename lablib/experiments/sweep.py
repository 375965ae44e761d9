"""Search over settings and seeds with Ray Tune (the extra ``sweep``): ``python -m lablib.experiments.sweep``.

The example runs here in a minute: two trials of the digits recipe, the better certified accuracy wins.

    pip install -c constraints.txt -e '.[lab,sweep]'
    python -m lablib.experiments.sweep sortnet-digits --mode quick --try optim.lr=0.01,0.03

Each trial is one run of ``lablib train`` with its own folder; a sweep that was stopped goes on where it stood, as
its trials resume from their checkpoints. Nothing here is needed for training itself.
"""

import argparse
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from lablib.experiments.results import MODES, atomic_write, current_mode
from lablib.experiments.training import Training, runs_dir
from lablib.experiments.training_config import override
from lablib.experiments.training_recipes import recipe_config
from lablib.experiments.training_result import certify
from lablib.train.distributed import Ranks


def trials(tried: list[str], seeds: int) -> list[dict[str, Any]]:
    """Return one dict of settings and a seed per trial: every combination of ``section.name=a,b,c`` and seeds.

    >>> len(trials(["optim.lr=0.01,0.03", "model.keep=0.7,0.8"], seeds=2))
    8
    """
    names = [setting.partition("=")[0] for setting in tried]
    values = [setting.partition("=")[2].split(",") for setting in tried]
    return [
        {"settings": [f"{name}={value}" for name, value in zip(names, chosen)], "seed": seed}
        for *chosen, seed in itertools.product(*values, range(seeds))
    ]


def train_trial(trial: dict[str, Any], name: str, mode: str, device: str, folder: str) -> dict[str, Any]:
    """Train and certify one trial; return its metrics, with the name of its folder under ``run``."""
    config = override(recipe_config(name, mode), trial["settings"])
    label = "_".join([*trial["settings"], f"seed{trial['seed']}"])
    here = Ranks(0, 1, torch.device(device))
    training = Training(name, mode, config, trial["seed"], here, Path(folder) / label, progress=False)
    training.run.resume()
    training.run.go()
    if not training.run.finished:
        raise KeyboardInterrupt
    training.update_means()
    training.save_model()
    metrics, _ = certify(training)
    return metrics | {"run": label, "train_seconds": round(training.run.seconds, 1)}


def sweep(
    name: str, mode: str, tried: list[str], seeds: int = 1, device: str = "cpu", folder: Path | None = None,
    at_once: int = 1,
) -> list[dict[str, Any]]:  # fmt: skip
    """Run all trials by Ray Tune, ``at_once`` side by side; return their metrics, best certified accuracy first.

    They are also written to ``sweep.json`` in ``folder``.

    Raises:
        ModuleNotFoundError: without Ray; the message says what to install.
        ValueError: for a setting that does not exist, before anything is started.
    """
    planned = trials(tried, seeds)
    for trial in planned:
        override(recipe_config(name, mode), trial["settings"])
    try:
        import ray
        from ray import tune
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a sweep needs Ray: pip install -c constraints.txt -e '.[lab,sweep]'"
        ) from error

    folder = (folder or runs_dir() / f"sweep-{name}-{mode}").resolve()
    # workers find the library where this process did
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    cores = max(1, (os.cpu_count() or 1) // at_once)
    needs = {"cpu": cores} | ({"gpu": 1} if device.startswith("cuda") else {})

    def one(space: dict[str, Any]) -> None:
        tune.report(train_trial(space["trial"], name, mode, device, str(folder)))

    environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(cores)}
    ray.init(include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": environment})
    try:
        tuner = tune.Tuner(
            tune.with_resources(one, needs),
            param_space={"trial": tune.grid_search(planned)},
            tune_config=tune.TuneConfig(metric="certified", mode="max", max_concurrent_trials=at_once),
            run_config=tune.RunConfig(name="ray", storage_path=str(folder), verbose=0),
        )
        results = tuner.fit()
    finally:
        ray.shutdown()
    if results.errors:
        raise ValueError(
            f"{len(results.errors)} of {len(planned)} trials failed; the first: {results.errors[0]}"
        )
    keys = ("run", "clean", "certified", "attacked", "eps", "train_seconds")
    table = [{key: result.metrics[key] for key in keys if key in result.metrics} for result in results]
    table.sort(key=lambda row: -row["certified"])
    with atomic_write(folder / "sweep.json") as file:
        file.write(json.dumps(table, indent=1) + "\n")
    return table


def main(argv: list[str] | None = None) -> int:
    """Run a sweep and print its table; 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m lablib.experiments.sweep", description=__doc__.splitlines()[0]
    )
    parser.add_argument("name", nargs="?", default="sortnet-digits", help="recipe of lablib train")
    parser.add_argument("--mode", choices=MODES, help="size of the runs; default LABLIB_MODE, else standard")
    parser.add_argument(
        "--try",
        dest="tried",
        action="append",
        metavar="KEY=A,B",
        help="values of a setting; may be given again",
    )
    parser.add_argument("--seeds", type=int, default=1, help="seeds per setting")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="default runs/sweep-NAME-MODE")
    parser.add_argument("--at-once", type=int, default=1, help="trials side by side")
    args = parser.parse_args(argv)
    tried = args.tried or ["optim.lr=0.01,0.03"]
    try:
        table = sweep(
            args.name, args.mode or current_mode(), tried, args.seeds, args.device, args.folder, args.at_once
        )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in table:
        print(
            "  ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
