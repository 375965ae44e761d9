"""Certify a trained network on test images: ``python -m lablib certify RUN [--eps 0.1 0.3 ...]``.

RUN is the folder of a finished run of ``lablib train`` (or one of its checkpoints). For each eps: the share of
images classified right; right and not turned by an attack within eps; and certified, by Lipschitz margins (where
the network has a constant) and by interval bounds within the pixel box [0, 1], float rounding included. Blocks of
images are kept, so the same command goes on where it stopped, also with a larger --count.
"""

import argparse
import dataclasses
import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lablib.certify import Bracket

HELP = "certified accuracy of a trained network, with clean and attacked accuracy beside it"
BLOCK = 50
TARGETS = 3  # other classes that the attack goes for, those nearest
EPSILONS = {
    "digits": ("0.05", "0.1", "0.2"),
    "mnist": ("0.1", "0.2", "0.3"),
    "cifar10": ("2/255", "8/255"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lablib certify``."""
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run, or a checkpoint in it")
    parser.add_argument("--data", metavar="NAME", help="test images of; default: what it was trained on")
    parser.add_argument("--count", type=int, metavar="N", help="the first N (1000; in quick runs 100)")
    parser.add_argument(
        "--eps", nargs="+", metavar="E", help="radii in pixels of [0, 1], numbers or fractions such as 8/255"
    )
    parser.add_argument(
        "--attack", type=int, default=50, metavar="STEPS", help="steps of each attack (50); 0 for none"
    )
    parser.add_argument("--norm", choices=("linf", "l2"), help="of the radii; default the network's own")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--seconds", type=float, help="stop after so many seconds; what is done is kept")


@dataclasses.dataclass(frozen=True)
class _Task:
    """What is certified: ``network`` a chain, radii in ``norm``, by ``kinds`` of certificates."""

    network: "nn.Module"
    norm: str
    kinds: tuple[str, ...]
    epsilons: tuple[float, ...]
    attack: int


def main(args: argparse.Namespace) -> int:
    """Certify block by block, print the table, write the result; 0 also when --seconds stopped it."""
    from lablib.experiments.checkpoint import Checkpoint
    from lablib.experiments.training import SHAPES, load_run

    if args.attack < 0 or (args.seconds is not None and not args.seconds > 0):
        raise ValueError("--attack must not be negative, and --seconds must be positive")
    model, config, run = load_run(args.run)
    data = args.data or config.data.name
    count = args.count if args.count is not None else (100 if run["mode"] == "quick" else 1000)
    x, y = _images(data, count, args.device)
    if data != config.data.name and x.shape[1:] != SHAPES[config.data.name][0]:
        raise ValueError(
            f"the network is for {config.data.name}, and images of {data} have another shape; leave out --data"
        )
    task = _task(model, args, data)
    folder = args.run if args.run.is_dir() else args.run.parent
    finished = _finished(args.run)
    # a result of the finished model is not overwritten by one of a checkpoint
    name = f"certify_{folder.resolve().name}" + ("" if finished else "_checkpoint")
    name += "" if data == config.data.name else f"_{data}"
    settings = {
        "run": run,
        "weights_sha256": _digest(model),
        "data": data,
        "norm": task.norm,
        "certificates": list(task.kinds),  # each by itself
        "epsilons": list(task.epsilons),
        "attack_steps": task.attack,
        "attack_targets": TARGETS,
        "device": args.device,
    }
    if args.run.is_dir() and not finished:
        print(
            "the run is not finished: its newest checkpoint is certified, with the running means of training"
        )
    parts = Checkpoint(name, run["mode"], settings)
    began = time.perf_counter()
    done = _run(task, x, y, parts, args.seconds)
    if not done:
        raise ValueError("no block was finished in that time; give --seconds more")
    columns = {key: [value for part in done for value in part[key]] for key in done[0] if key != "seconds"}
    bracket, error = _curves(task, columns), max(columns.pop("error"))
    _print(task, bracket, error, data)
    if len(columns["correct"]) < len(x):
        print(
            f"stopped after {len(columns['correct'])} of {len(x)} images; the same command goes on from there"
        )
        return 0
    seconds = sum(part["seconds"] for part in done)
    path = _write(name, run["mode"], settings | {"count": len(x)}, task, bracket, columns, error, seconds)
    parts.path.unlink(missing_ok=True)
    print(f"{time.perf_counter() - began:.1f} s; written: {path}")
    return 0


def _finished(run: Path) -> bool:
    """Return whether ``run``, a folder or file, gives the finished model rather than a checkpoint of training."""
    from lablib.experiments.training import MODEL_FILE

    return (run / MODEL_FILE).exists() if run.is_dir() else run.name == MODEL_FILE


def _task(model: "nn.Module", args: argparse.Namespace, data: str) -> _Task:
    from lablib.layers import LipschitzSequential

    network = (model.network() if hasattr(model, "network") else model).eval().to(args.device)
    norms = network.norms if isinstance(network, LipschitzSequential) else ()
    norm = args.norm or ("linf" if "linf" in norms or not norms else norms[0])
    kinds = [*(["margins"] if norm in norms else []), *(["intervals"] if norm == "linf" else [])]
    if not kinds:
        raise ValueError(
            f"no certificate of this network is in {norm}; its margins are in {', '.join(norms)}"
        )
    epsilons = tuple(sorted({_number(word) for word in args.eps or EPSILONS[data]}))
    return _Task(network, norm, tuple(kinds), epsilons, args.attack)


def _number(word: str) -> float:
    from fractions import Fraction

    try:
        value = float(Fraction(word))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"--eps {word!r} is no number; write 0.1 or 8/255") from None
    if value < 0:
        raise ValueError(f"--eps {word} must not be negative")
    return value


def _images(name: str, count: int, device: str) -> tuple["torch.Tensor", "torch.Tensor"]:
    import torch

    from lablib.data import load

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device; leave out --device, or give cpu")
    if count < 1:
        raise ValueError(f"--count {count} must be at least 1")
    data = load(name)
    pixels = torch.from_numpy(data.x_test[:count]).to(device)
    return pixels.float() / data.scale, torch.from_numpy(data.y_test[:count]).to(device)


def _digest(model: "nn.Module") -> str:
    """Return the sha256 of all weights: finished blocks belong to these."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _run(task: _Task, x, y, parts, seconds: float | None) -> list[dict[str, Any]]:
    """Return finished blocks in order, stopping early when the time is up."""
    from tqdm import tqdm

    began, done = time.perf_counter(), []
    with tqdm(total=len(x), desc="certifying", unit=" images", disable=None, leave=False) as bar:
        for start in range(0, len(x), BLOCK):
            stop = min(start + BLOCK, len(x))
            key = f"{start}-{stop}"
            if key not in parts:
                if seconds is not None and time.perf_counter() - began > seconds:
                    break
                parts[key] = _block(task, x[start:stop], y[start:stop])
            done.append(parts[key])
            bar.update(stop - start)
    return done


def _block(task: _Task, x, y) -> dict[str, Any]:
    """Return per-image columns of one block: plain lists."""
    import numpy as np
    import torch

    from lablib.certify import attacked_at, bound_output_error, bound_radius, bound_radius_box
    from lablib.certify.rules import run

    began = time.perf_counter()
    with torch.no_grad():
        correct = (run(task.network, x).argmax(1) == y).cpu().numpy()
    columns: dict[str, Any] = {"correct": correct.tolist()}
    best = np.zeros(len(x), np.float32)
    for kind in task.kinds:
        if kind == "margins":
            radii = bound_radius(task.network, x, y, task.norm)
        else:
            radii = bound_radius_box(task.network, x, y, margins=False)
        columns[kind], best = radii.tolist(), np.maximum(best, radii)
    columns["error"] = bound_output_error(task.network, x).amax(1).tolist()
    attacked = torch.where(torch.from_numpy(correct), torch.inf, 0.0).double()
    if task.attack:
        attacked = attacked_at(
            task.network,
            x,
            y,
            list(task.epsilons),
            task.norm,
            certified=torch.from_numpy(best),
            steps=task.attack,
            targets=TARGETS,
        )
    # -1 stands for "no attack found": JSON knows no infinity
    columns["attacked"] = [value if value < float("inf") else -1.0 for value in attacked.tolist()]
    columns["seconds"] = time.perf_counter() - began
    return columns


def _curves(task: _Task, columns: dict[str, list]) -> "Bracket":
    import numpy as np

    from lablib.certify import bracket

    found = np.array(columns["attacked"])
    attacked = np.where(found < 0, np.inf, found)
    radii = {kind: np.array(columns[kind]) for kind in task.kinds}
    # a sample that ties for the largest logit counts as right for argmax, and has no radius
    return bracket(task.epsilons, np.array(columns["correct"]), attacked, radii)


def _print(task: _Task, bracket: "Bracket", error: float, data: str) -> None:
    heads = [
        "clean",
        *(["attacked"] if task.attack else []),
        *(f"certified by {kind}" for kind in task.kinds),
    ]
    print(f"{data}, {bracket.samples:,} test images, {task.norm} radii in pixels of [0, 1]; shares in %")
    print("     eps  " + "  ".join(f"{head:>8}" for head in heads))
    for i, eps in enumerate(bracket.epsilons):
        values = [bracket.clean, *([bracket.attacked[i]] if task.attack else [])]
        values += [bracket.certified[kind][i] for kind in task.kinds]
        cells = (f"{100 * value:{max(8, len(head))}.2f}" for head, value in zip(heads, values))
        print(f"{eps:8.4f}  " + "  ".join(cells))
    print(f"float32 rounding: a computed logit is within {error:.1e} of the exact one (subtracted above)")


def _write(name, mode, settings, task: _Task, bracket: "Bracket", columns, error, seconds) -> Path:
    import numpy as np

    from lablib.experiments.results import write_result

    rows = [
        {"eps": float(eps), "attacked": float(bracket.attacked[i]) if task.attack else None}
        | {f"certified_{kind}": float(bracket.certified[kind][i]) for kind in task.kinds}
        for i, eps in enumerate(bracket.epsilons)
    ]
    metrics = {
        "samples": bracket.samples,
        "clean": bracket.clean,
        "curves": rows,
        "certificates": list(task.kinds),
        "largest_logit_error": error,
    }
    arrays = {f"radius_{kind}": np.array(columns[kind], np.float32) for kind in task.kinds}
    arrays["correct"] = np.array(columns["correct"])
    if task.attack:
        arrays["attacked"] = np.array(columns["attacked"])  # -1 where none was found
    return write_result(
        name,
        mode=mode,
        config=settings,
        metrics=metrics,
        seconds=seconds,
        device=settings["device"],
        arrays=arrays,
    )
