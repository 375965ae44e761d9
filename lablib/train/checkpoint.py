"""Checkpoints that are written whole, checked when read, and hold plain data only (``weights_only``).

``checkpoint.pt`` is the newest, ``previous.pt`` the one before it. A crash at any moment leaves at least one of
them whole. Each file carries a sha256 of what it holds: zip has checksums, but none of the names and attributes by
which a reader finds its parts.
"""

import hashlib
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lablib.files import atomic_write

NEWEST, PREVIOUS, DAMAGED, FRESH = "checkpoint.pt", "previous.pt", "damaged.pt", "fresh.pt"
DIGEST = "sha256"  # key of a file beside those of the state
_RESTORE = "delete it, or restore it from a copy"


class Unusable(ValueError):
    """A file that cannot be read as a checkpoint: the ``reason`` names it, the message adds what to do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason}; {advice}")
        self.reason = reason


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Write ``state`` as the newest checkpoint of ``folder``, and keep the one before.

    Args:
        folder: made where it does not exist.
        state: nested dicts and lists of tensors, numbers, strings, None.

    Raises:
        ValueError: for anything else in ``state``.
        OSError: if it cannot be written (a full disk); what was there is left as it was.
    """
    newest = folder / NEWEST
    fresh = newest.with_name(FRESH)
    write(fresh, state)
    if newest.exists():
        os.replace(newest, folder / PREVIOUS)
    os.replace(fresh, newest)
    return newest


def write(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` and its :func:`digest` to one file, whole or not at all.

    Raises:
        ValueError: if ``state`` holds other things than :func:`save` takes.
        OSError: if it cannot be written; a file that was there is left as it was.
    """
    packed = io.BytesIO()  # first, since torch's own writer may end the process when a disk is full
    torch.save(dict(state) | {DIGEST: digest(state)}, packed)
    try:
        with atomic_write(path, "wb") as file:
            file.write(packed.getbuffer())
    except OSError as error:
        raise OSError(
            f"{path.name} could not be written to {path.parent} ({error.strerror}); earlier checkpoints are "
            "kept: make room there and resume"
        ) from error


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return what was written to ``path``: its sha256 is that of the state that was saved.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, holds more than plain data, or no run has written it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; train first, or give the path of a checkpoint")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file makes the readers of zip and pickle fail in any way
        raise Unusable(
            f"{path} is damaged (it is cut, or holds other things than a run writes)", _RESTORE
        ) from error
    if not isinstance(state, dict) or DIGEST not in state:
        raise Unusable(f"{path} is no checkpoint of a run", "give one that a run of this version has written")
    stored = state.pop(DIGEST)
    try:
        found = digest(state)
    except ValueError as error:
        found = str(error)
    if stored != found:
        raise Unusable(f"{path} is damaged (its sha256 is not that of what was saved)", _RESTORE)
    return state


def read_newest(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Return the newest whole checkpoint of ``folder``, None where there is none at all.

    A damaged one is put aside as ``damaged.pt``, with a line on stderr, and the previous one is read.

    Raises:
        ValueError: if there are only damaged ones.
    """
    newest, previous = folder / NEWEST, folder / PREVIOUS
    if not newest.exists():  # stopped just between its two moves, or never begun
        return read(previous, device) if previous.exists() else None
    try:
        return read(newest, device)
    except Unusable as error:
        if not previous.exists():
            raise
        try:
            state = read(previous, device)
        except Unusable as second:
            raise Unusable(
                f"{error.reason}, and so is {PREVIOUS} beside it", "restore one of them, or begin anew"
            ) from second
        print(f"{error.reason}; going on from {PREVIOUS}, it is kept as {DAMAGED}", file=sys.stderr)
        os.replace(newest, folder / DAMAGED)
        return state


def clean(folder: Path, also: tuple[str, ...] = ()) -> None:
    """Delete the temporary files that a killed process left while it wrote a checkpoint, or a file of ``also``."""
    for name in (FRESH, *also):
        for path in folder.glob(f".{name}.????????"):  # as tempfile calls them
            path.unlink(missing_ok=True)


def remove(folder: Path, also: tuple[str, ...] = ()) -> None:
    """Delete the checkpoints of ``folder``, the files ``also``, and what :func:`clean` deletes; nothing else."""
    for name in (NEWEST, PREVIOUS, DAMAGED, FRESH, *also):
        (folder / name).unlink(missing_ok=True)
    clean(folder, also)


def digest(state: Mapping[str, Any]) -> str:
    """Return the sha256 of nested dicts and lists of tensors, numbers, strings and None: of all their values.

    Raises:
        ValueError: for anything else.
    """
    found = hashlib.sha256()
    _feed(found, state)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        found.update(f"tensor {plain.dtype} {tuple(plain.shape)};".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        found.update(f"dict {len(value)};".encode())
        for key, inner in value.items():
            _feed(found, key)
            _feed(found, inner)
    elif isinstance(value, list | tuple):
        found.update(f"{type(value).__name__} {len(value)};".encode())
        for inner in value:
            _feed(found, inner)
    elif value is None or type(value) in (bool, int, float, str):
        content = repr(value).encode()
        found.update(f"{type(value).__name__} {len(content)};".encode() + content)
    else:
        raise ValueError(
            f"a checkpoint holds tensors, numbers, strings, lists and dicts, not {type(value).__name__}"
        )
