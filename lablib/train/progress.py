"""What a run shows while it trains: a bar, and TensorBoard event files; both only where they are installed."""

import importlib.util
import sys
import time
from collections.abc import Mapping
from pathlib import Path

REDRAW_SECONDS = 0.5
REDRAW_SECONDS_IN_A_LOG = 30.0
LOG_SUFFIX = ".lablib"  # marks the event files that are ours among others of a folder


class Bar:
    """A bar over steps with time left and a few numbers; with no tqdm, a line each time it would be redrawn."""

    def __init__(self, total: int, done: int, shown: bool):
        terminal = sys.stderr.isatty()
        self._seconds = REDRAW_SECONDS if terminal else REDRAW_SECONDS_IN_A_LOG
        self._next = time.monotonic() + self._seconds
        self._total, self._shown, self._bar = total, shown, None
        if shown and importlib.util.find_spec("tqdm"):
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=done, unit="step", mininterval=0, ncols=None if terminal else 110
            )

    @property
    def due(self) -> bool:
        """Whether it is time to :meth:`show` new numbers."""
        return self._shown and time.monotonic() >= self._next

    def show(self, done: int, numbers: Mapping[str, float]) -> None:
        """Draw the bar at ``done`` steps."""
        self._next = time.monotonic() + self._seconds
        text = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._shown:
            print(f"step {done} of {self._total}: {text}", file=sys.stderr, flush=True)

    def close(self, done: int) -> None:
        """Leave the bar standing at ``done`` steps."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            self._bar.close()


class Log:
    """Scalars for TensorBoard in ``folder``; does nothing where tensorboard is not installed, or not wanted."""

    def __init__(self, folder: Path | None, step: int):
        self._writer = None
        if folder is not None and importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            # what a killed run logged after its last checkpoint is logged again
            purge = step + 1 if step else None
            self._writer = SummaryWriter(str(folder), purge_step=purge, filename_suffix=LOG_SUFFIX)

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Add one point to each curve."""
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()


def remove_logs(folder: Path) -> None:
    """Delete the event files that :class:`Log` wrote to ``folder``, and no others."""
    for path in folder.glob(f"events.out.tfevents.*{LOG_SUFFIX}"):
        path.unlink()
