"""Widths and kinds of the layers of a MonotoneNetwork, from what its user gives."""

from collections.abc import Sequence

from lablib.layers.partials import check_kinds
from lablib.ops.projections import check_kind

_AFTER = {
    "one": "one",
    "inf": "inf",
    "two": "two",
    "one-inf": "inf",
    "two-inf": "inf",
}  # a first layer of this kind


def checked_widths(inputs: int, hidden: Sequence[int], outputs: int, group_size: int) -> list[int]:
    """Return the widths of all layers, inputs and outputs included.

    Raises:
        ValueError: for numbers that are no widths, or that ``group_size`` does not divide.
    """
    for name, width in (("in_features", inputs), ("out_features", outputs)):
        if not isinstance(width, int) or width < 1:
            raise ValueError(f"{name} is an integer of at least 1, got {width!r}")
    if not isinstance(hidden, Sequence) or not all(isinstance(w, int) and w >= 1 for w in hidden):
        raise ValueError(f"hidden is a sequence of widths such as (16, 16), got {hidden!r}")
    if not isinstance(group_size, int) or group_size < 2:
        raise ValueError(f"group_size is at least 2 (a group of one is not sorted), got {group_size!r}")
    odd = [width for width in hidden if width % group_size]
    if odd:
        raise ValueError(f"group_size {group_size} does not divide the width {odd[0]}; choose one that does")
    return [inputs, *hidden, outputs]


def checked_kinds(kind: str | Sequence[str], depth: int) -> list[str]:
    """Return one kind for each of ``depth`` linear layers.

    Raises:
        ValueError: for unknown kinds, another number of them, or such that do not chain.
    """
    if isinstance(kind, str):
        check_kind(kind)
        return [kind] + [_AFTER[kind]] * (depth - 1)
    if not isinstance(kind, Sequence):
        raise ValueError(f"kind is a name such as 'one-inf', or one name per linear layer, got {kind!r}")
    kinds = [check_kind(one) for one in kind]
    if len(kinds) != depth:
        raise ValueError(f"{depth} linear layers need one kind or {depth} kinds, got {len(kinds)}")
    check_kinds(kinds)
    return kinds
