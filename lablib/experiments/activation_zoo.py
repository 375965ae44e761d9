"""The activations that the spline experiments compare, by name, all of constant 1 in l2."""

import inspect
from typing import Any

from lablib.layers import Abs, GroupSort, Householder, LeakyReLU, LearnableSpline, LipschitzLayer, PReLU

ACTIVATIONS = {
    "relu": "ReLU",
    "abs": "absolute value",
    "prelu": "PReLU",
    "groupsort": "GroupSort",
    "householder": "Householder",
    "spline": "learned spline",
}
"""Name -> label for figures, in the order in which they are drawn."""

_SPLINE_OPTIONS = set(inspect.signature(LearnableSpline).parameters) - {"channels", "dim"}


def make_activation(
    name: str, channels: int, *, group_size: int = 2, dim: int | None = None, **spline: Any
) -> LipschitzLayer:
    """Return the activation ``name`` for ``channels`` channels.

    One call serves a comparison: options that are not for the activation at hand are left aside.

    Args:
        name: one of :data:`ACTIVATIONS`.
        channels: C; PReLU and the spline learn one function for each.
        group_size: of "groupsort", a divisor of C.
        dim: channel axis; default 1 (0 for a vector).
        spline: options of :class:`~lablib.layers.LearnableSpline` (knots, range, init, slopes, scaling).

    Raises:
        ValueError: for an unknown name or option, channels that do not fit the group size (GroupSort) or are
            odd (Householder), and what the layers refuse.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"no activation {name!r}; choose from {', '.join(ACTIVATIONS)}")
    unknown = spline.keys() - _SPLINE_OPTIONS
    if unknown:
        raise ValueError(
            f"no option {', '.join(sorted(unknown))}; a spline takes {', '.join(sorted(_SPLINE_OPTIONS))}"
        )
    if name == "groupsort":
        if group_size < 1 or channels % group_size:
            raise ValueError(f"group size {group_size} does not divide {channels} channels; choose another")
        return GroupSort(group_size, dim)
    return {
        "relu": lambda: LeakyReLU(0.0),
        "abs": Abs,
        "prelu": lambda: PReLU(channels, dim=dim),
        "householder": lambda: Householder(channels, dim),
        "spline": lambda: LearnableSpline(channels, dim=dim, **spline),
    }[name]()
