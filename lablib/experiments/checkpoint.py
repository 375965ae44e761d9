"""Finished parts of a long run, kept in one JSON file beside the result until that is written."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lablib.experiments.results import atomic_write, plain, results_dir


def partial_file(name: str, mode: str) -> Path:
    """Return where the parts of a recipe are kept; a recipe deletes it once its result is written."""
    return results_dir(mode) / f"{name}.partial.json"


class Checkpoint:
    """Parts of one run by name. A file from another config is ignored and overwritten.

    A damaged file is ignored too, with a line on stderr.

    Args:
        name: of the recipe; the file is ``<name>.partial.json`` in the folder of results.
        mode: of the run; quick runs have their own folder.
        config: all that the parts depend on, as plain JSON values.
    """

    def __init__(self, name: str, mode: str, config: Mapping[str, Any]) -> None:
        self.name, self.path = name, partial_file(name, mode)
        self._config = json.loads(json.dumps(config))
        self._parts = self._read()

    def _read(self) -> dict[str, Any]:
        try:
            stored = json.loads(self.path.read_bytes())
            config, parts = stored["config"], stored["parts"]
            if not isinstance(parts, dict):
                raise TypeError("parts are not a dict")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            print(f"{self.path} is damaged and ignored: the run starts anew", file=sys.stderr)
            return {}
        return parts if config == self._config else {}

    @contextlib.contextmanager
    def bar(self, sizes: Mapping[str, int], unit: str) -> Iterator[Any]:
        """Show a tqdm bar over all parts of the run; Ctrl-C inside then says how many of them are finished.

        It begins at what the finished parts count for, so that the time left is that of this run's own pace.

        Args:
            sizes: part -> how many units it counts for.
            unit: what is counted.
        """
        from tqdm.auto import tqdm

        before = sum(size for part, size in sizes.items() if part in self)
        total = sum(sizes.values())
        with tqdm(total=total, initial=before, unit=unit, desc=self.name, mininterval=1.0) as shown:
            try:
                yield shown
            except KeyboardInterrupt as stop:
                kept = sum(part in self for part in sizes)
                raise KeyboardInterrupt(f"{kept} of {len(sizes)} parts are finished and kept") from stop

    def __contains__(self, part: str) -> bool:
        return part in self._parts

    def __getitem__(self, part: str) -> Any:
        return self._parts[part]

    def __setitem__(self, part: str, value: Any) -> None:
        parts = self._parts | {part: value}
        text = json.dumps({"config": self._config, "parts": parts}, default=plain)  # fails before a change
        with atomic_write(self.path) as file:
            file.write(text)
        self._parts = parts
