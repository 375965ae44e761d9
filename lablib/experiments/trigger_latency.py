"""Time per event of the trigger's classifiers, from raw features to a score, and the exported network checked."""

import copy
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lablib.experiments.latency import Call, c_call, measure_latency, onnx_call, torch_call
from lablib.experiments.monotone_export import certify_export, export_c, export_onnx
from lablib.experiments.trigger_events import DIRECTIONS
from lablib.experiments.trigger_models import Trained

BATCHES = (1, 1024)
LARGEST_DIFFERENCE = 1e-3  # of a float32 score to that in float64; scores are log-odds, of a few units


def time_classifiers(fitted: Mapping[str, Trained], rows: np.ndarray, turns: int) -> dict[str, Any]:
    """Return the result of :func:`~lablib.experiments.latency.measure_latency`, and what is proven of the exports.

    Args:
        fitted: model name -> classifier; ``"monotone"`` is one of them.
        rows: (N, 4) features, at least 1024.
        turns: as :func:`~lablib.experiments.latency.measure_latency`.

    Returns:
        Its numbers, with ``largest_difference`` (implementation -> from the float64 score, over all rows),
        ``exported_slopes`` (file -> ``low`` and ``high`` (4,)) and ``left_out`` (implementation -> reason).

    Raises:
        ValueError: if an implementation does not compute the score, or an exported slope has the wrong sign.
    """
    with tempfile.TemporaryDirectory() as folder:
        files, left_out = _export(fitted["monotone"], Path(folder))
        calls = {"Unconstrained network, torch": _torch(fitted["unconstrained"], lambda network: network)}
        calls["Monotone network, torch, as trained"] = _torch(fitted["monotone"], lambda network: network)
        calls["Monotone network, torch, frozen"] = _torch(
            fitted["monotone"], lambda network: network.frozen()
        )
        sources = dict.fromkeys(calls, "monotone") | {"Unconstrained network, torch": "unconstrained"}
        for kind, make in (("ONNX Runtime", onnx_call), ("C", c_call)):
            if kind in files:
                calls[f"Monotone network, {kind}"] = make(files[kind])
                sources[f"Monotone network, {kind}"] = "monotone"
        for name, label in (("lightgbm", "LightGBM"), ("boosting", "scikit-learn")):
            if name in fitted:
                calls[f"Monotone trees, {label}"] = fitted[name].raw
                sources[f"Monotone trees, {label}"] = name
        rows = rows.astype(np.float32)
        differences = {name: _difference(call, fitted[sources[name]], rows) for name, call in calls.items()}
        slopes = {kind: _slopes(path) for kind, path in files.items()}
        taken = measure_latency(calls, rows, BATCHES, turns=turns)
    return taken | {"largest_difference": differences, "exported_slopes": slopes, "left_out": left_out}


def _export(trained: Trained, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return implementation -> file, and implementation -> why there is none."""
    network = copy.deepcopy(trained.network).float()
    scale = {"mean": trained.mean, "deviation": trained.deviation}
    files, left_out = {}, {}
    absent = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if absent:
        left_out["ONNX Runtime"] = f"not installed: {', '.join(absent)}"
    else:
        files["ONNX Runtime"] = export_onnx(network, folder / "trigger.onnx", **scale)
    if any(shutil.which(compiler) for compiler in ("cc", "gcc", "clang")):
        files["C"] = export_c(network, folder / "trigger.c", **scale)
    else:
        left_out["C"] = "no C compiler"
    return files, left_out


def _torch(trained: Trained, form: Callable[[nn.Module], nn.Module]) -> Call:
    call = torch_call(form(copy.deepcopy(trained.network).float()))
    mean, deviation = trained.mean.astype(np.float32), trained.deviation.astype(np.float32)
    return lambda rows: call((rows - mean) / deviation)


def _difference(call: Call, trained: Trained, rows: np.ndarray) -> float:
    found = float(np.abs(np.asarray(call(rows)).reshape(-1) - trained.score(rows)).max())
    if not found <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"an implementation of {trained.name!r} is off by {found}: it computes something else"
        )
    return found


def _slopes(path: Path) -> dict[str, list[float]]:
    low, high = (end[0] for end in certify_export(path))
    if (low[np.array(DIRECTIONS) > 0] < 0.0).any():
        raise ValueError(f"the exported {path.name} may decrease where it must not: slopes from {low}")
    return {"low": low.tolist(), "high": high.tolist()}
