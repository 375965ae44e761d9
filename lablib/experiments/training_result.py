"""What a finished run is worth: proven radii of every test image, clean and attacked accuracy, its result file."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lablib.certify.attacks import attacked_at
from lablib.certify.intervals import bound_radius_box
from lablib.certify.margins import bound_radius_logits, certified_accuracy
from lablib.certify.rounding import bound_radius
from lablib.experiments.results import write_result
from lablib.experiments.training import Training
from lablib.layers import LipschitzSequential

ATTACK_STEPS, ATTACK_TARGETS = 20, 3  # steps of each attack, classes it goes for: those nearest
ROWS = 1000
CURVE = {  # radii at which the certified accuracy is recorded
    "digits": (0.05, 0.1, 0.15, 0.2),
    "mnist": (0.1, 0.2, 0.3, 0.4),
    "cifar10": (1 / 255, 2 / 255, 4 / 255, 8 / 255),
}


def certify(training: Training) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (metrics, arrays) of a finished model on the test rows, means as they are.

    Radii are proven, float32 rounding included: by Lipschitz margins where every logit has a constant, by interval
    bounds within the pixel box otherwise. ``plain`` are the margins without the rounding term. Attacked accuracy
    is an upper bound of the truth, by :func:`lablib.certify.adaptive` on the first ``config.attack_rows`` rows.
    """
    config, model = training.config, training.model.eval()
    network = model.network()
    x, y = training.x_test.float() / training.data.scale, training.y_test
    logits = _outputs(network, x)
    metrics: dict[str, Any] = {"test_rows": len(y), "eps": config.eps}
    metrics["clean"] = float((logits.argmax(1) == y).double().mean())
    if isinstance(network, LipschitzSequential):
        radii = np.concatenate([bound_radius(network, *rows, "linf") for rows in _blocks(x, y)])
        plain = bound_radius_logits(logits, y, "linf", network.lipschitz, each=True)
        metrics |= {"certified_by": "margins", "certified_plain": _at(plain, config.eps)}
    else:
        radii = np.concatenate([bound_radius_box(network, *rows) for rows in _blocks(x, y)])
        metrics |= {"certified_by": "intervals"}
    metrics["certified"] = _at(radii, config.eps)
    metrics["certified_at"] = {f"{eps:g}": _at(radii, eps) for eps in CURVE[config.data.name]}
    rows = min(config.attack_rows, len(y))
    if rows:
        standing = _attacked(network, x[:rows], y[:rows], config.eps, radii[:rows])
        metrics |= {"attacked": standing, "attacked_rows": rows, "attack_steps": ATTACK_STEPS}
        metrics["certified_of_attacked_rows"] = _at(radii[:rows], config.eps)
    arrays = {"radii": radii, "correct": (logits.argmax(1) == y).cpu().numpy(), "labels": y.cpu().numpy()}
    return metrics, arrays


def finish(training: Training, result: str) -> Path | None:
    """Recompute the means, save the model, certify, and write the result file ``result``; return its path.

    All ranks must call it; the first one certifies and writes, the others return None.
    """
    training.update_means()
    if not training.ranks.first:
        return None
    training.save_model()
    metrics, arrays = certify(training)
    run = training.run
    metrics |= {
        "seed": training.seed,
        "steps": run.step,
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "threads": torch.get_num_threads(),
        "processes": training.ranks.world,
        "history": run.history,
    }
    return write_result(
        result,
        mode=training.mode,
        config=json.loads(json.dumps(dataclasses.asdict(training.config))) | {"seed": training.seed},
        metrics=metrics,
        seconds=run.seconds,
        device=device_name(training.ranks.device),
        arrays=arrays,
    )


def describe_metrics(metrics: Mapping[str, Any]) -> str:
    """Return one line: clean and certified accuracy; what was attacked beside what is proved of the same rows."""
    line = (
        f"clean {metrics['clean']:.2%}, certified {metrics['certified']:.2%} at {metrics['eps']:.4g} "
        f"(by {metrics['certified_by']})"
    )
    if "attacked" not in metrics:
        return line
    return (
        f"{line}; of the first {metrics['attacked_rows']}: certified "
        f"{metrics['certified_of_attacked_rows']:.2%}, not broken by attack {metrics['attacked']:.2%}"
    )


def device_name(device: torch.device) -> str:
    """Return the device for the record in a result file: a GPU by its name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _attacked(network: torch.nn.Module, x: Tensor, y: Tensor, eps: float, radii: np.ndarray) -> float:
    """Return the share of samples that no attack turned within eps; those with a larger radius are not attacked."""
    standing = 0
    for (images, labels), safe in zip(_blocks(x, y), torch.from_numpy(radii).split(ROWS)):
        options = {"certified": safe, "steps": ATTACK_STEPS, "targets": ATTACK_TARGETS}
        standing += int((attacked_at(network, images, labels, [eps], **options) > eps).sum())
    return standing / len(y)


@torch.no_grad()
def _outputs(network: torch.nn.Module, x: Tensor) -> Tensor:
    return torch.cat([network(rows) for rows in x.split(ROWS)])


def _blocks(x: Tensor, y: Tensor):
    return zip(x.split(ROWS), y.split(ROWS))


def _at(radii: np.ndarray, eps: float) -> float:
    return float(certified_accuracy(radii, eps))
