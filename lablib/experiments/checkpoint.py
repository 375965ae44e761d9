"""Finished parts of a long run, kept in one JSON file beside the result until the run is complete."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from lablib.experiments.results import atomic_write, results_dir


class Checkpoint:
    """Parts of one run by name. A file from another config is ignored and overwritten.

    Args:
        name: of the recipe; the file is ``<name>.partial.json`` in the folder of results.
        mode: of the run; quick runs have their own folder.
        config: all that the parts depend on, as plain JSON values.
    """

    def __init__(self, name: str, mode: str, config: Mapping[str, Any]) -> None:
        self.path = results_dir(mode) / f"{name}.partial.json"
        self._config = json.loads(json.dumps(config))
        self._parts: dict[str, Any] = {}
        with contextlib.suppress(OSError, json.JSONDecodeError, KeyError, TypeError):
            stored = json.loads(self.path.read_text())
            if stored["config"] == self._config:
                self._parts = stored["parts"]

    def __contains__(self, part: str) -> bool:
        return part in self._parts

    def __getitem__(self, part: str) -> Any:
        return self._parts[part]

    def __setitem__(self, part: str, value: Any) -> None:
        self._parts[part] = value
        with atomic_write(self.path) as file:
            json.dump({"config": self._config, "parts": self._parts}, file)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Delete the file, but only if the metrics can be written as a result: else the parts stay.

        Raises:
            ValueError: if a metric is not plain JSON (NaN and infinity included).
        """
        json.dumps(metrics, allow_nan=False)
        self.path.unlink(missing_ok=True)
