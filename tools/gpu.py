"""What to do with a GPU, in order of worth, within a time budget: tests, benchmarks, the training queue.

Usage: python tools/gpu.py [--minutes M]       default 20

Without a CUDA device it says so and succeeds: the CPU tests cover the same code paths' results.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_TESTS_COLLECTED = 5  # pytest's exit status
TRAINING_QUEUE: tuple[list[str], ...] = ()  # commands that resume where they stopped, the next one first


def run(what: str, command: list[str], deadline: float) -> int:
    """Run one step until the deadline; return its exit status (124: out of time)."""
    print(f"gpu: {what}", flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        left = max(1.0, deadline - time.monotonic())
        return subprocess.run(command, cwd=ROOT, env=environment, timeout=left, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f"gpu: {what}: out of time; give more with --minutes", flush=True)
        return 124


def main() -> int:
    """Run the steps one after the other; a failing test or benchmark is the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="time for everything, default 20")
    minutes = parser.parse_args().minutes
    if not minutes > 0:
        parser.error(f"--minutes is {minutes}; give a positive number")
    if importlib.util.find_spec("torch") is None:
        print("gpu: torch is not installed: run make lab first")
        return 0
    import torch

    if not torch.cuda.is_available():
        print("gpu: no CUDA device, nothing to do; make test covers the same functions on the CPU")
        return 0
    print(f"gpu: {torch.cuda.get_device_name(0)}, {minutes:g} minutes", flush=True)
    deadline = time.monotonic() + 60 * minutes
    worst = 0
    if not all(map(importlib.util.find_spec, ("pytest", "hypothesis"))):
        print("gpu: the test extra is not installed, so the GPU tests are left out: pip install -e '.[test]'")
    else:
        tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
        status = run("tests marked gpu", tests, deadline)
        worst = 0 if status == NO_TESTS_COLLECTED else status
    bench = [sys.executable, "-m", "lablib", "bench"]
    known = subprocess.run([*bench, "--help"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if "--device" in known:
        worst = max(worst, run("benchmarks", [*bench, "--device", "cuda"], deadline))
    else:
        print("gpu: the benchmarks have no kernels to compare on a GPU yet, so they are left out")
    if not TRAINING_QUEUE:
        print("gpu: the training queue is empty")
    for command in TRAINING_QUEUE:
        if time.monotonic() >= deadline:
            break
        worst = max(worst, run(" ".join(command), [sys.executable, *command], deadline))
    return worst


if __name__ == "__main__":
    sys.exit(main())
