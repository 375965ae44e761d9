"""The training runs whose result files are there, in the one form that figures and the tuning widget read."""

from typing import Any

from lablib.experiments.results import read_result, results_dir
from lablib.train.run import flatten

PREFIX = "train_"
SCORES = ("certified", "attacked", "clean", "certified_plain")  # shares of the test images


def finished_runs(mode: str | None = None) -> dict[str, dict[str, Any]]:
    """Return name -> run for every ``figures/results/train_*.json``, in alphabetical order; {} without any.

    Args:
        mode: ``"quick"`` for quick runs, which are stored apart.

    Returns:
        For each run ``settings`` (dotted name -> value), ``scores`` (those of ``SCORES`` that it has), ``history``
        (one mapping per epoch), ``attacked_rows`` (how many of the first test images ``attacked`` is of),
        ``arrays``, ``device``, ``seconds`` and ``mode``.

    Raises:
        ValueError: if a file is damaged; the message names it.
    """
    runs = {}
    for path in sorted(results_dir(mode).glob(f"{PREFIX}*.json")):
        record = read_result(path.stem, mode)
        metrics = record["metrics"]
        runs[path.stem.removeprefix(PREFIX)] = {
            "settings": flatten(record["config"]),
            "scores": {name: metrics[name] for name in SCORES if name in metrics},
            "history": metrics.get("history", []),
            "attacked_rows": metrics.get("attacked_rows", 0),
            "arrays": record.get("arrays", {}),
            **{name: record[name] for name in ("device", "seconds", "mode")},
        }
    return runs


def epoch_seconds(run: dict[str, Any]) -> float:
    """Return the time of one epoch, in seconds: that of training, divided by the epochs.

    Raises:
        ValueError: for a run without epochs.
    """
    if not run["history"]:
        raise ValueError("this run has no finished epoch; let it train longer")
    return run["history"][-1]["seconds"] / len(run["history"])
