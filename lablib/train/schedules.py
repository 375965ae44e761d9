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


def smooth_ramp(end: float, steps: int, bend: float = 0.4) -> Schedule:
    """Return a ramp from 0 to ``end`` that starts flat: k r^4 end below r = a, then linear, r = step / steps.

    a = ``bend`` in (0, 1), k = 1 / ((4 - 3 a) a^3), which joins the two with one slope. After ``steps`` steps it
    stays at ``end``; with steps = 0 it is there from the start. Source: public code of SortNet (arXiv
    2210.01787), its "eps-smooth".

    >>> [round(smooth_ramp(1.0, 10)(step), 4) for step in (0, 2, 4, 10)]
    [0.0, 0.0089, 0.1429, 1.0]
    """
    if steps == 0:
        return constant(end)
    _check_steps(steps)
    if not 0.0 < bend < 1.0:
        raise ValueError(f"the ramp bends at a share strictly between 0 and 1, got {bend}")
    factor = 1.0 / ((4.0 - 3.0 * bend) * bend**3)
    slope = (1.0 - factor * bend**4) / (1.0 - bend)

    def value(step: int) -> float:
        r = _progress(step, steps)
        return end * (factor * r**4 if r < bend else 1.0 + slope * (r - 1.0))

    return value


P_GRIDS = ("real", "powers")


def p_schedule(start: float, end: float, begin: int, steps: int, grid: str = "real") -> Schedule:
    """Return the exponent of the neurons: start (end / start)^r, and inf from r = 1 on.

    r = (step - begin) / steps clipped to [0, 1]. Source: l_inf-distance nets (arXiv 2102.05363), section 4.

    Args:
        start, end: 1 <= start <= end; 8 and 1000 in the papers.
        begin, steps: when it starts to grow, and for how long.
        grid: ``"real"``, or ``"powers"``: rounded down to 2^k or 1.5 * 2^k (but not below ``start``), since
            repeated squaring is several times faster than a real power.

    >>> p = p_schedule(8.0, 1000.0, 0, 100, grid="powers")
    >>> [p(step) for step in (0, 9, 15, 99, 100)]
    [8.0, 12.0, 16.0, 768.0, inf]
    """
    if not 1.0 <= start <= end < math.inf:
        raise ValueError(f"the exponent grows from start >= 1 to a finite end, got {start} and {end}")
    if grid not in P_GRIDS:
        raise ValueError(f"the grid of p is one of {', '.join(P_GRIDS)}, got {grid!r}")
    real = exponential(start, end, steps, begin)

    def value(step: int) -> float:
        if step - begin >= steps:
            return math.inf
        p = real(step)
        return max(start, _power_below(p)) if grid == "powers" else p

    return value


def _power_below(p: float) -> float:
    power = 2.0 ** math.floor(math.log2(p))
    return 1.5 * power if p >= 1.5 * power else power


def _progress(step: int, steps: int) -> float:
    return min(1.0, max(0.0, step / steps))


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a schedule needs at least one step, got {steps}")
