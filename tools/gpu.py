"""What to do with a GPU, in order of worth, within a time budget: tests, benchmarks, training, full experiments.

Usage: python tools/gpu.py [--minutes M] [--steps tests bench train experiments]      default 20 minutes, all steps

What was stopped is gone on with: run the same command again. A run that has its result file is not run again.
Without a CUDA device this says so and succeeds: the CPU tests cover the same functions.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_TESTS_COLLECTED = 5  # pytest's exit status
OUT_OF_TIME = 124
RECIPES = ("sortnet-mnist-0.3", "sortnet-mnist-0.1", "sortnet-cifar10-8", "sortnet-cifar10-2")
SEEDS = (0, 1, 2)  # every recipe once before any a second time
EXPERIMENTS = ("denoising", "wasserstein", "plug_and_play")  # at the papers' sizes; the last needs the first
STEPS = ("tests", "bench", "train", "experiments")
CERTIFY_SECONDS = 90.0  # kept back from a training step for the certificates at its end
TRAINING_MIN_SECONDS = 30.0
GRACE_SECONDS = 20.0  # from the interrupt, at which a run writes its checkpoint, to the end


def results_folder() -> Path:
    """Return where result files are, as :mod:`lablib.experiments.results` has it."""
    return Path(os.environ.get("LABLIB_FIGURES") or ROOT / "figures") / "results"


def finished(recipe: str, seed: int, folder: Path) -> bool:
    """Return whether the full run of this recipe and seed left its result; a damaged file counts as none."""
    record = _record(folder / f"train_{recipe}{f'_seed{seed}' if seed else ''}.json")
    return record.get("mode") == "full" and record.get("device", "cpu") != "cpu"


def _record(path: Path) -> dict:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def queue(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield (recipe, seed) of the runs that are still to be made or gone on with, the next one first."""
    for seed in SEEDS:
        for recipe in RECIPES:
            if not finished(recipe, seed, folder):
                yield recipe, seed


def run(what: str, command: list[str], deadline: float) -> int:
    """Run one step; at the deadline interrupt it, then end it. Return its exit status (124: out of time)."""
    print(f"gpu: {what}", flush=True)
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        return process.wait(max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        print(f"gpu: {what}: out of time; give more with --minutes", flush=True)
        process.send_signal(signal.SIGINT)
        return OUT_OF_TIME
    except KeyboardInterrupt:  # the step got it too, and writes its checkpoint
        return 128 + signal.SIGINT
    finally:
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def train(deadline: float, folder: Path, step: Callable[[str, list[str], float], int] = run) -> int:
    """Go through the training queue until the deadline; return the worst exit status."""
    worst = 0
    for recipe, seed in queue(folder):
        left = deadline - time.monotonic() - CERTIFY_SECONDS
        if left < TRAINING_MIN_SECONDS:
            print(f"gpu: no time left for {recipe}, seed {seed}; run this command again to go on", flush=True)
            return worst
        command = [sys.executable, "-m", "lablib", "train", recipe, "--mode", "full", "--device", "cuda"]
        command += ["--seed", str(seed), "--resume", "--seconds", f"{left:.0f}", "--no-bar"]
        status = step(f"train {recipe}, seed {seed}", command, deadline)
        worst = max(worst, status)
        if status in (OUT_OF_TIME, 128 + signal.SIGINT):
            return worst
    return worst


def experiments(deadline: float, folder: Path, step: Callable[[str, list[str], float], int] = run) -> int:
    """Run the experiments that have no result of full size, until the deadline; return the worst exit status."""
    worst = 0
    for name in EXPERIMENTS:
        if _record(folder / f"{name}.json").get("mode") == "full":
            continue
        if deadline - time.monotonic() < TRAINING_MIN_SECONDS:
            print(f"gpu: no time left for {name}; run this command again to go on", flush=True)
            return worst
        command = [sys.executable, "-m", "lablib", "figures", name, "--mode", "full"]
        status = step(name, command, deadline)
        worst = max(worst, status)
        if status in (OUT_OF_TIME, 128 + signal.SIGINT):
            return worst
    return worst


def test(deadline: float) -> int:
    """Run the tests marked gpu; return their exit status, 0 where there is nothing to run them with."""
    if not all(map(importlib.util.find_spec, ("pytest", "hypothesis"))):
        print("gpu: the test extra is not installed, so the GPU tests are left out: pip install -e '.[test]'")
        return 0
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    status = run("tests marked gpu", command, deadline)
    return 0 if status == NO_TESTS_COLLECTED else status


def main(argv: list[str] | None = None) -> int:
    """Run the steps one after the other; the worst exit status is the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="time for everything, default 20")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="default: all of them")
    args = parser.parse_args(argv)
    if not args.minutes > 0:
        parser.error(f"--minutes is {args.minutes}; give a positive number")
    if importlib.util.find_spec("torch") is None:
        print("gpu: torch is not installed: run make lab first")
        return 0
    import torch

    if not torch.cuda.is_available():
        print("gpu: no CUDA device, nothing to do; make test covers the same functions on the CPU")
        return 0
    print(f"gpu: {torch.cuda.get_device_name(0)}, {args.minutes:g} minutes", flush=True)
    deadline = time.monotonic() + 60 * args.minutes
    worst = 0
    if "tests" in args.steps:
        worst = test(deadline)
    if "bench" in args.steps:
        command = [sys.executable, "-m", "lablib", "bench", "--device", "cuda"]
        worst = max(worst, run("benchmarks", command, deadline))
    if "train" in args.steps:
        worst = max(worst, train(deadline, results_folder()))
    if "experiments" in args.steps:
        worst = max(worst, experiments(deadline, results_folder()))
    return worst


if __name__ == "__main__":
    sys.exit(main())
