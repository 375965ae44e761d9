"""Time per event of fitted models, side by side in one process on one thread.

A trigger decides event by event, so what counts is the time of one call with one row, and with a large batch. A
model here is a function of rows (B, I) float32 that returns B predictions; the ``*_call`` functions make one of a
torch module, an ONNX file, a C file or fitted trees, each limited to one thread. What is timed is the call from
Python, as a person would make it: with one row most of it is the call itself (compare ``c_call``).
"""

import contextlib
import ctypes
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lablib.experiments.threads import one_thread

Call = Callable[[np.ndarray], np.ndarray]

BATCHES = 64  # different batches that are taken in turn, so that no call repeats the one before
CALLS = 20_000  # at most in one turn
COMPILE_SECONDS = 120
C_FLAGS = ("-std=c99", "-O3", "-march=native", "-fPIC", "-shared")


def measure_latency(
    models: Mapping[str, Call],
    rows: np.ndarray,
    batch_sizes: Sequence[int] = (1, 1024),
    *,
    turns: int = 31,
    seconds: float = 0.005,
) -> dict[str, Any]:
    """Return the median time per event of each model, in microseconds.

    The models take turns, in another order each time, so that a busy machine disturbs all alike. A turn is as many
    calls as fill ``seconds`` (at least one), each with other rows.

    Args:
        models: name -> function of (B, I) float32 that returns B predictions, on one thread.
        rows: (N, I) events, at least as many as the largest batch.
        batch_sizes: B, how many rows a call gets.
        turns: of each model and batch size.
        seconds: about how long one turn lasts.

    Returns:
        Plain numbers: ``threads`` (1), ``turns`` and ``microseconds_per_event``: model -> batch size (as a string)
        -> ``median``, ``lower`` and ``upper`` quartile over the turns.

    Raises:
        ValueError: for no models, too few rows, or a model that does not return one prediction per row.
    """
    batches = {size: _batches(rows, size) for size in batch_sizes}
    if not models or not batches:
        raise ValueError("nothing to measure: give at least one model and one batch size")
    if turns < 1 or not 0 < seconds < math.inf:
        raise ValueError(f"turns >= 1 and positive seconds expected, got {turns} and {seconds}")
    with _one_thread_everywhere():
        taken = {size: _take_turns(models, given, turns, seconds) for size, given in batches.items()}
    return {
        "threads": 1,
        "turns": turns,
        "microseconds_per_event": {
            name: {str(size): _quartiles(times[name], size) for size, times in taken.items()}
            for name in models
        },
    }


def _batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    values = np.asarray(rows, dtype=np.float32)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"rows (N, I) of finite numbers expected, got shape {values.shape}")
    if not 1 <= size <= len(values):
        raise ValueError(f"a batch of {size} needs as many rows, at least 1; there are {len(values)}")
    count = min(BATCHES, len(values) // size)
    return [np.ascontiguousarray(values[k * size : (k + 1) * size]) for k in range(count)]


@contextlib.contextmanager
def _one_thread_everywhere() -> Iterator[None]:
    """One thread for torch and for every OpenMP and BLAS library of the process."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_thread())
        with contextlib.suppress(ModuleNotFoundError):  # comes with scikit-learn, the one that needs it
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(1))
        yield


def _take_turns(
    models: Mapping[str, Call], batches: list[np.ndarray], turns: int, seconds: float
) -> dict[str, list[float]]:
    """Return the seconds per call of each turn."""
    calls = {name: _calls(name, model, batches, seconds) for name, model in models.items()}
    taken: dict[str, list[float]] = {name: [] for name in models}
    order = list(models)
    for _ in range(turns):
        order.append(order.pop(0))
        for name in order:
            taken[name].append(_time(models[name], batches, calls[name]))
    return taken


def _calls(name: str, model: Call, batches: list[np.ndarray], seconds: float) -> int:
    """Check and warm up a model; return how many calls make a turn."""
    for batch in batches:  # first use compiles and fills caches
        found = np.asarray(model(batch))
        if found.ndim == 0 or len(found) != len(batch):
            raise ValueError(
                f"model {name!r} returned shape {found.shape} for {len(batch)} rows; one prediction per row expected"
            )
    each = min(_time(model, batches, 3) for _ in range(3))
    return int(np.clip(seconds / max(each, 1e-9), 1, CALLS))


def _time(model: Call, batches: list[np.ndarray], calls: int) -> float:
    given = [batches[k % len(batches)] for k in range(calls)]
    start = time.perf_counter()
    for batch in given:
        model(batch)
    return (time.perf_counter() - start) / calls


def _quartiles(times: list[float], size: int) -> dict[str, float]:
    lower, median, upper = np.quantile(times, [0.25, 0.5, 0.75]) * 1e6 / size
    return {"median": float(median), "lower": float(lower), "upper": float(upper)}


# --- models as functions of rows


def torch_call(module: nn.Module, compiled: bool = False) -> Call:
    """Return ``module`` (evaluation mode, float32, on the CPU) as a function of rows, eager or by torch.compile."""
    module = module.eval()
    forward = torch.compile(module) if compiled else module

    def call(rows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return forward(torch.from_numpy(rows)).numpy()

    return call


def onnx_call(path: Path | str) -> Call:
    """Return the network of an ONNX file with one input and one output, run by ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    return lambda rows: session.run(None, {name: rows})[0]


def c_call(path: Path | str) -> Call:
    """Compile a file of :func:`lablib.experiments.monotone_export.export_c`; return its function of rows.

    A batch is one call of the compiled ``<name>_forward_rows``, which calls ``<name>_forward`` row by row: its time
    per event in a large batch is that of single events for a program in C. With one row it is the way through Python.

    Raises:
        OSError: without a C compiler, or if it fails.
        ValueError: for a file that is no such export.
    """
    from lablib.experiments.monotone_export import c_interface

    name, inputs, outputs = c_interface(path)
    forward = getattr(_compiled(Path(path)), f"{name}_forward_rows")
    forward.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    forward.restype = None

    def call(rows: np.ndarray) -> np.ndarray:
        if rows.ndim != 2 or rows.shape[1] != inputs or rows.dtype != np.float32:
            raise ValueError(f"rows (B, {inputs}) float32 expected, got {rows.shape} of {rows.dtype}")
        rows = np.ascontiguousarray(rows)
        found = np.empty((len(rows), outputs), dtype=np.float32)
        forward(_address(rows), _address(found), len(rows))
        return found

    return call


def _address(values: np.ndarray) -> int:
    return values.__array_interface__["data"][0]  # quicker than values.ctypes


def _compiled(source: Path) -> ctypes.CDLL:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise OSError(
            "no C compiler (cc, gcc or clang) on this machine: install one to run the exported C file"
        )
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "exported.so"
        command = [compiler, *C_FLAGS, "-o", str(made), str(source), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise OSError(
                f"the C compiler refused {source.name}: {next((x for x in lines if 'error' in x), lines[-1])}"
            )
        return ctypes.CDLL(str(made))  # stays loaded when the file is gone


def tree_call(model: Any) -> Call:
    """Return fitted boosted trees as a function of rows, on one thread: raw scores of classifiers, or values.

    Args:
        model: HistGradientBoostingClassifier or -Regressor, or one of LightGBM's or XGBoost's scikit-learn classes.

    Raises:
        ValueError: for another model.
    """
    package = type(model).__module__.partition(".")[0]
    if package == "sklearn" and hasattr(model, "predict"):  # heeds the limit set while it is measured
        return getattr(model, "decision_function", model.predict)
    if package == "lightgbm":
        booster = model.booster_
        return lambda rows: booster.predict(rows, raw_score=True, num_threads=1)
    if package == "xgboost":
        booster = model.get_booster()
        booster.set_param({"nthread": 1})
        return lambda rows: booster.inplace_predict(rows, predict_type="margin")
    raise ValueError(
        f"{type(model).__name__} is not known here; give a fitted HistGradientBoosting, LightGBM or XGBoost model, "
        "or a function of rows of your own"
    )
