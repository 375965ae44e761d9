"""What privacy costs in time and memory: clipless training, Opacus in both its modes, and plain SGD, side by side.

The same trained layers, synthetic images of MNIST's size (what is in them changes no time), one process, the methods
taking turns. The clipless network has one layer more, the one that clips inputs, and its projection, sensitivities
and noise are in the step. ReLU between layers: the cheapest activation makes the hardest comparison with plain SGD.
"""

import dataclasses
import importlib.util
import statistics
import time
from typing import Any

import numpy as np
import torch

from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.private_speed_memory import largest_batch, peak_memory
from lablib.experiments.private_speed_sides import (
    CLIPLESS,
    METHODS,
    NETWORKS,
    PER_SAMPLE,
    PLAIN,
    Side,
    prepare,
)
from lablib.experiments.recipe import Recipe

NAME = "private_speed"
LEAST_TURNS = 5


@dataclasses.dataclass(frozen=True)
class Config:
    """Batch sizes; how long the turns of one batch size last, and how many there are at most; memory; where.

    Attributes:
        batches: samples per step.
        turns: of each method, at most; at least 5 are taken.
        seconds: after which no further turn begins, for each network and batch size.
        limit: bytes that the step of the largest batch may take; None looks for no largest batch.
        threads: of torch, on the CPU.
        device: "cpu", or "cuda" where there is a card.
    """

    mode: str
    batches: tuple[int, ...]
    turns: int
    seconds: float
    limit: int | None
    threads: int
    device: str = "cpu"


def run(config: Config) -> dict[str, Any]:
    """Measure times, peaks and largest batches; a stopped run goes on with the next network and batch size."""
    device = config.device if config.device == "cpu" or torch.cuda.is_available() else "cpu"
    methods = methods_at_hand()
    parts = Checkpoint(NAME, config.mode, dataclasses.asdict(config) | {"on": device, "methods": methods})
    plan = {f"time, {name}, {size}": (name, size) for name in NETWORKS for size in config.batches}
    weighed = {f"memory, {name}, {method}": (name, method) for name in NETWORKS for method in methods}
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with parts.bar(dict.fromkeys([*plan, *weighed], 1), "part") as bar:
            for part, (network, size) in plan.items():
                if part not in parts:
                    bar.set_postfix_str(part)
                    parts[part] = step_times(network, size, methods, config, device)
                    bar.update(1)
            for part, (network, method) in weighed.items():
                if part not in parts:
                    bar.set_postfix_str(part)
                    parts[part] = memory(network, method, config, device)
                    bar.update(1)
    finally:
        torch.set_num_threads(before)
    return {
        "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
        "threads": config.threads,
        "methods": list(methods),
        "entries": {name: sum(p.numel() for p in make().parameters()) for name, make in NETWORKS.items()},
        "times": [{"network": n, "batch": size} | parts[part] for part, (n, size) in plan.items()],
        "memory": [{"network": n, "method": m} | parts[part] for part, (n, m) in weighed.items()],
        "limit": config.limit,
    }


def methods_at_hand() -> tuple[str, ...]:
    """Return the methods that can run here: without Opacus, ours and plain SGD."""
    found = importlib.util.find_spec("opacus") is not None
    return METHODS if found else (CLIPLESS, PLAIN)


def step_times(
    network: str, batch_size: int, methods: tuple[str, ...], config: Config, device: str
) -> dict[str, Any]:
    """Return ``turns``, seconds per step of each method (median and quartiles), and two ratios of medians.

    ``over_plain``: time of clipless over plain SGD. ``per_sample_over``: time of Opacus per sample over clipless.
    """
    sides = {method: prepare(method, network, batch_size, device) for method in methods}
    taken = take_rounds(sides, config.turns, config.seconds, device)
    quartiles = {method: np.quantile(times, [0.25, 0.5, 0.75]).tolist() for method, times in taken.items()}
    found = {
        "turns": len(taken[CLIPLESS]),
        "seconds": {m: dict(zip(("lower", "median", "upper"), q)) for m, q in quartiles.items()},
        "over_plain": quartiles[CLIPLESS][1] / quartiles[PLAIN][1],
    }
    if PER_SAMPLE in methods:
        found["per_sample_over"] = quartiles[PER_SAMPLE][1] / quartiles[CLIPLESS][1]
    return found


def take_rounds(
    sides: dict[str, Side], turns: int, seconds: float, device: str = "cpu"
) -> dict[str, list[float]]:
    """Return the seconds of each step of each side; they take turns, in another order each time.

    Drawing a batch is not timed. At most ``turns`` rounds, none begun after ``seconds``, but at least 5.
    """
    for side in sides.values():  # first use fills caches and makes momentum
        side(), side()
    taken: dict[str, list[float]] = {name: [] for name in sides}
    order, begun = list(sides), time.perf_counter()
    for turn in range(turns):
        if turn >= LEAST_TURNS and time.perf_counter() - begun > seconds:
            break
        order.append(order.pop(0))
        for name in order:
            sides[name].draw()
            _finish(device)
            start = time.perf_counter()
            sides[name].step()
            _finish(device)
            taken[name].append(time.perf_counter() - start)
    return taken


def _finish(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def memory(network: str, method: str, config: Config, device: str) -> dict[str, Any]:
    """Return ``peaks``, batch size (as a string) -> bytes, and the ``largest`` batch within the limit, if any."""

    def measure(batch_size: int) -> int:
        return peak_memory(method, network, batch_size, device, config.threads)

    peaks = {size: measure(size) for size in config.batches}
    largest = largest_batch(peaks, config.limit, measure) if config.limit else None
    return {"peaks": {str(size): peak for size, peak in peaks.items()}, "largest": largest}


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw steps per second, peak memory, and name the largest batches."""
    from lablib.plots.private_speed import draw_speed

    metrics = record["metrics"]
    return {NAME: draw_speed(metrics["times"], metrics["memory"], metrics["limit"], described(metrics))}


def described(metrics: dict[str, Any]) -> str:
    """Say in one line where the times are from."""
    threads = metrics["threads"]
    where = f"{threads} CPU thread{'s' * (threads > 1)}" if metrics["device"] == "cpu" else metrics["device"]
    turns = statistics.median(row["turns"] for row in metrics["times"])
    return f"{where}, medians of about {turns:.0f} turns"


RECIPE = Recipe(
    name=NAME,
    question="What does a private training step cost without clipping, in time and memory, against Opacus?",
    sizes={
        "quick": Config("quick", batches=(128,), turns=5, seconds=0.5, limit=None, threads=1),
        "standard": Config(
            "standard", batches=(128, 512, 2048), turns=41, seconds=15.0, limit=2**29, threads=1
        ),
        "full": Config(
            "full",
            batches=(128, 512, 2048, 8192),
            turns=101,
            seconds=60.0,
            limit=2**34,
            threads=8,
            device="cuda",
        ),
    },
    run=run,
    draw=draw,
)
