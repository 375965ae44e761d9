"""Checkpoints that are written whole, checked when read, and hold plain data only (``weights_only``).

``checkpoint.pt`` is the newest, ``previous.pt`` the one before it. A crash at any moment leaves at least one of
them whole.
"""

import io
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from lablib.files import atomic_write

NEWEST, PREVIOUS, DAMAGED = "checkpoint.pt", "previous.pt", "damaged.pt"
_UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError
)  # fmt: skip


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Write ``state`` as the newest checkpoint of ``folder``, and keep the one before.

    Args:
        folder: made where it does not exist.
        state: nested dicts and lists of tensors, numbers, strings, None.

    Raises:
        OSError: if it cannot be written (a full disk); what was there is left as it was.
    """
    newest = folder / NEWEST
    fresh = newest.with_name("fresh.pt")
    write(fresh, state)
    if newest.exists():
        os.replace(newest, folder / PREVIOUS)
    os.replace(fresh, newest)
    return newest


def write(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` to one file, whole or not at all.

    Raises:
        OSError: if it cannot be written; a file that was there is left as it was.
    """
    packed = io.BytesIO()  # first, since torch's own writer may end the process when a disk is full
    torch.save(state, packed)
    try:
        with atomic_write(path, "wb") as file:
            file.write(packed.getbuffer())
    except OSError as error:
        raise OSError(
            f"{path.name} could not be written to {path.parent} ({error.strerror}); earlier checkpoints are "
            "kept: make room there and resume"
        ) from error


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return what was written to ``path``, every byte checked.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds more than plain data.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; train first, or give the path of a checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch itself does not look at the checksums
        if broken is not None:
            raise zipfile.BadZipFile(f"the checksum of {broken} differs")
        state = torch.load(path, map_location=device, weights_only=True)
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged ({reason}); delete it, or restore it from a copy") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no checkpoint of a run; give one that a run has written")
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
    except ValueError as error:
        if not previous.exists():
            raise
        state = read(previous, device)
        print(f"{error}\ngoing on from {PREVIOUS} beside it", file=sys.stderr)
        os.replace(newest, folder / DAMAGED)
        return state
