"""Result files: the numbers that figures, notebooks and the scoreboard read.

``figures/results/<name>.json`` holds config, seed, commit, package versions, device, wall time and metrics;
``<name>.npz`` beside it holds arrays, where there are any, and the JSON file their sha256. Writing is atomic: a
full disk or Ctrl-C leaves the earlier file as it was. Should the two files be of different runs (stopped just
between them, or one restored alone), reading says so.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import subprocess
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from lablib.files import atomic_write

MODES = ("quick", "standard", "full")
PACKAGES = ("lablib", "torch", "numpy", "scipy", "numba", "scikit-learn")


def current_mode() -> str:
    """Return ``LABLIB_MODE``: ``quick``, ``standard`` (default) or ``full``.

    Raises:
        ValueError: if the variable holds anything else.
    """
    mode = os.environ.get("LABLIB_MODE", "standard")
    if mode not in MODES:
        raise ValueError(f"LABLIB_MODE is {mode!r}; set it to one of {', '.join(MODES)}")
    return mode


def figures_dir(mode: str | None = None) -> Path:
    """Return where figures go: ``figures/`` at the root of the checkout, or ``LABLIB_FIGURES``.

    Quick runs go to ``figures/quick/`` (not stored), so that a smoke test never replaces measured numbers.
    """
    root = os.environ.get("LABLIB_FIGURES")
    base = Path(root) if root else Path(__file__).resolve().parents[2] / "figures"
    return base / "quick" if mode == "quick" else base


def results_dir(mode: str | None = None) -> Path:
    """Return the folder of result files that belongs to :func:`figures_dir`."""
    return figures_dir(mode) / "results"


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Return device, thread count, commit and package versions, for the record in a result file."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "commit": _commit(),
        "device": device,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": versions,
    }


def write_result(
    name: str,
    *,
    mode: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    seconds: float,
    device: str = "cpu",
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write one result file (and its arrays) and return its path.

    Raises:
        ValueError: if a metric is not plain JSON (NaN and infinity included), the name is not a file name, or an
            array holds objects or is called ``file`` or ``allow_pickle``, which NumPy does not store.
    """
    path = _result_file(name, mode)
    record = {"name": name, "mode": mode, "config": dict(config), "seconds": round(seconds, 2)}
    record |= describe_machine(device) | {"metrics": dict(metrics)}
    packed = _pack(arrays) if arrays else None
    if packed is not None:
        record["arrays_sha256"] = hashlib.sha256(packed).hexdigest()
    text = json.dumps(record, indent=1, allow_nan=False, default=plain) + "\n"
    with atomic_write(path) as file:
        file.write(text)
        if packed is not None:  # inside: it takes its place just before the JSON file does
            with atomic_write(path.with_suffix(".npz"), "wb") as stored:
                stored.write(packed)
    if packed is None:
        path.with_suffix(".npz").unlink(missing_ok=True)
    return path


def refuse_worse_data(name: str, mode: str, found: str, wanted: str) -> None:
    """Let no stand-in replace a result of better data; recipes call this before they begin.

    Args:
        found, wanted: the data set at hand, and the one that it stands in for; alike where nothing stands in.

    Raises:
        ValueError: if the result says, in ``metrics["data"]``, that it is of ``wanted``. Quick ones are replaced.
    """
    path = _result_file(name, mode)
    if found == wanted or mode == "quick" or not path.exists():
        return
    if read_result(name, mode)["metrics"].get("data") == wanted:
        raise ValueError(
            f"{path} is of {wanted} and would be replaced by a result of {found}; put {wanted} into LABLIB_DATA "
            f"(see: python -m lablib doctor), or set LABLIB_FIGURES=DIR to write elsewhere"
        )


def read_result(name: str, mode: str | None = None) -> dict[str, Any]:
    """Return the record of one result file; its arrays, where there are any, under ``"arrays"``.

    Raises:
        FileNotFoundError: if it was never made; the message says which command makes it.
        ValueError: if a file is damaged, or the arrays are not those of the JSON file.
    """
    path = _result_file(name, mode)
    again = f"restore it, or make it again: python -m lablib figures {name}"
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; make it: python -m lablib figures {name}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); {again}") from None
    if not isinstance(record, dict) or not isinstance(record.get("metrics"), dict):
        raise ValueError(f"{path} is damaged (it holds no metrics); {again}")
    if "arrays_sha256" in record:
        try:
            record["arrays"] = _unpack(path.with_suffix(".npz"), record["arrays_sha256"])
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path.with_suffix('.npz')} is damaged ({error}); {again}") from None
    return record


def _result_file(name: str, mode: str | None) -> Path:
    if not name or name.startswith(".") or Path(name).name != name:
        raise ValueError(f"a result is called by a plain file name, not {name!r}")
    return results_dir(mode) / f"{name}.json"


def _pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the content of an npz file."""
    for key, values in arrays.items():
        if key in ("file", "allow_pickle"):  # arguments of NumPy's function
            raise ValueError(f"an array cannot be called {key!r}; give it another name")
        if np.asarray(values).dtype.hasobject:
            raise ValueError(f"the array {key!r} holds objects; give numbers or strings")
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def _unpack(path: Path, digest: str) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file with this sha256."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError("its arrays are not those of the JSON file")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def plain(value: Any) -> Any:
    """Turn NumPy scalars and arrays into JSON numbers and lists."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a result file holds numbers, strings, lists and dicts, not {type(value).__name__}")


def _commit() -> str:
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
