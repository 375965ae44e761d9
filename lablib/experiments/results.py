"""Result files: the numbers that figures, notebooks and the scoreboard read.

``figures/results/<name>.json`` holds config, seed, commit, package versions, device, wall time and metrics;
``<name>.npz`` beside it holds arrays, where there are any. Writing is atomic: a full disk or Ctrl-C
leaves the earlier file as it was.
"""

import contextlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np

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


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside ``path`` and move it there only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


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
        ValueError: if a metric is not plain JSON (NaN and infinity included).
    """
    record = {"name": name, "mode": mode, "config": dict(config), "seconds": round(seconds, 2)}
    record |= describe_machine(device) | {"metrics": dict(metrics)}
    text = json.dumps(record, indent=1, allow_nan=False, default=_plain) + "\n"
    folder = results_dir(mode)
    if arrays:
        with atomic_write(folder / f"{name}.npz", "wb") as file:
            np.savez_compressed(file, **arrays)
    with atomic_write(folder / f"{name}.json") as file:
        file.write(text)
    return folder / f"{name}.json"


def read_result(name: str, mode: str | None = None) -> dict[str, Any]:
    """Return the record of one result file; its arrays, where there are any, under ``"arrays"``.

    Raises:
        FileNotFoundError: if it was never made; the message says which command makes it.
        ValueError: if the file is damaged.
    """
    path = results_dir(mode) / f"{name}.json"
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; make it: python -m lablib figures {name}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); restore it, or run: lablib figures {name}") from None
    arrays = path.with_suffix(".npz")
    if arrays.exists():
        with np.load(arrays, allow_pickle=False) as stored:
            record["arrays"] = {key: stored[key] for key in stored.files}
    return record


def _plain(value: Any) -> Any:
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
