"""Schedules: functions from the step (0, 1, ..., steps - 1) to a value. Plain closures, no state."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(value: float) -> Schedule:
    """Return the schedule that is ``value`` at every step.

    >>> constant(0.1)(7)
    0.1
    """
    return lambda step: value


def cosine(start: float, steps: int, end: float = 0.0) -> Schedule:
    """Return end + (start - end) (1 + cos(pi t)) / 2, t = step / steps clipped to [0, 1].

    >>> cosine(2.0, 10)(5)
    1.0
    """
    _check_steps(steps)
    return lambda step: end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * _progress(step, steps)))


def exponential(start: float, end: float, steps: int, begin: int = 0) -> Schedule:
    """Return start (end / start)^t, t = (step - begin) / steps clipped to [0, 1].

    >>> round(exponential(8, 1000, 100)(100), 6)
    1000.0
    """
    _check_steps(steps)
    if not (start > 0 and end > 0):
        raise ValueError(f"an exponential schedule needs positive ends, got {start} and {end}")
    return lambda step: start * (end / start) ** _progress(step - begin, steps)


def _progress(step: int, steps: int) -> float:
    return min(1.0, max(0.0, step / steps))


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a schedule needs at least one step, got {steps}")
