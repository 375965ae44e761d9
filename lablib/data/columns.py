"""Tables from text files: columns by name, numbers or one sentence, and the checksum of what is used of them."""

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lablib.data.contract import DamagedDataError, read_bytes


def find_table(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first file of these names in ``root``/tabular or ``root``, else None."""
    paths = [folder / name for folder in (root / "tabular", root) for name in names]
    return next((path for path in paths if path.exists()), None)


def absent_file(place: Path) -> list[str]:
    """Return what lacks of a table that is one file."""
    return [] if place.exists() else [place.name]


def read_text(path: Path, instead: str) -> str:
    """Return the content of a text file; ``instead`` is the bundled table that a failure names.

    Raises:
        MissingDataError: if it cannot be read. DamagedDataError: if it is not text.
    """
    try:
        return read_bytes(path, instead).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DamagedDataError(path, "is not a text file", instead) from error


def read_columns(path: Path, instead: str, wanted: Sequence[str]) -> dict[str, list[str]]:
    """Return columns of a CSV file with a header by name; of two with one name the first, as published scripts do.

    Raises:
        MissingDataError: if it cannot be read. DamagedDataError: if a column or a part of a row is not there.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(read_text(path, instead), newline="")) if row]
    except csv.Error as error:
        raise DamagedDataError(path, f"is not a CSV file ({error})", instead) from error
    header = rows[0] if rows else []
    absent = [name for name in wanted if name not in header]
    if absent:
        raise DamagedDataError(path, f"has no column {absent[0]!r}", instead)
    if any(len(row) != len(header) for row in rows):
        raise DamagedDataError(path, "has rows of different lengths", instead)
    return {name: [row[header.index(name)] for row in rows[1:]] for name in wanted}


def numbers(path: Path, instead: str, columns: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Return columns of numbers as (N, D) float64.

    Raises:
        DamagedDataError: if an entry is no number.
    """
    try:
        return np.array([[float(entry) for entry in column] for column in columns.values()]).T
    except ValueError as error:
        raise DamagedDataError(path, f"holds an entry that is no number ({error})", instead) from error


def check_content(path: Path, instead: str, checksum: str, *arrays: np.ndarray) -> None:
    """Compare the sha256 of the numbers that are used, in the order of the rows, with the official one.

    It does not depend on line ends, on how a number is written, or on columns that nothing reads.

    Raises:
        DamagedDataError: if it differs.
    """
    if content_digest(*arrays) != checksum:
        raise DamagedDataError(path, "does not hold the official rows (the checksum differs)", instead)


def content_digest(*arrays: np.ndarray) -> str:
    """Return the sha256 of shapes and numbers, as little-endian float64."""
    digest = hashlib.sha256()
    for values in arrays:
        digest.update(f"{values.shape}".encode())
        digest.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
    return digest.hexdigest()
