"""Auto MPG: 392 cars of 1970 to 1982 and their fuel consumption (UCI machine learning repository, data set 9).

Read from the official ``auto-mpg.data`` (columns apart by blanks, no header), the official zip archive that holds
it, or a CSV file with a header. Rows without horsepower are left out, as is usual. Directions as in Nolte, Kitouni
and Williams, "Expressive Monotonic Neural Networks" (arXiv 2307.07512), section 4.
"""

import functools
import io
import zipfile
from pathlib import Path

import numpy as np

from lablib.data.columns import absent_file, check_content, find_table, numbers, read_columns, read_text
from lablib.data.contract import DamagedDataError, read_bytes

INSTEAD = "diabetes"
FEATURES = ("cylinders", "displacement", "horsepower", "weight", "acceleration", "model year", "origin")
DIRECTIONS = (0, -1, -1, -1, 0, 0, 0)
TARGET, TARGET_NAME = "mpg", "miles per gallon"
TASK = "regression"
NOTES = (
    "392 cars sold in the United States in the model years 1970 to 1982; 6 more without horsepower are left out. A "
    "small, old and clean table for trying out regression; it says nothing about cars of today. Origin is a label "
    "(1 America, 2 Europe, 3 Japan) that the benchmark uses as a number."
)
PLAIN, ARCHIVE = "auto-mpg.data", "auto+mpg.zip"
FILES = ("auto-mpg.csv", PLAIN, ARCHIVE)
OTHER_FILES = FILES[:2]
UCI = "https://archive.ics.uci.edu"
DOWNLOADS = {f"tabular/{ARCHIVE}": (f"{UCI}/static/public/9/{ARCHIVE}",)}
CHECKSUM = "bb7608134fc947876bef23dc5dcde48a06df95f594d4ce35f55ef981417e50fa"


missing = absent_file
locate = functools.partial(find_table, names=FILES)


def read(place: Path) -> dict[str, np.ndarray]:
    """Return ``features`` (392, 7) and ``target`` (392,).

    Raises:
        MissingDataError: if the file cannot be read. DamagedDataError: if it does not have the official content.
    """
    columns = (
        read_columns(place, INSTEAD, (TARGET, *FEATURES)) if place.suffix == ".csv" else _read_plain(place)
    )
    whole = [horsepower != "?" for horsepower in columns["horsepower"]]
    kept = {name: [entry for entry, keep in zip(column, whole) if keep] for name, column in columns.items()}
    values = numbers(place, INSTEAD, kept)
    check_content(place, INSTEAD, CHECKSUM, values)
    return {"features": np.ascontiguousarray(values[:, 1:]), "target": values[:, 0].copy()}


def _read_plain(place: Path) -> dict[str, list[str]]:
    text = _unpack(place) if place.suffix == ".zip" else read_text(place, INSTEAD)
    rows = [line.split(None, 8)[:8] for line in text.splitlines() if line.strip()]
    if any(len(row) != 8 for row in rows):
        raise DamagedDataError(place, "has rows with too few numbers", INSTEAD)
    return dict(zip((TARGET, *FEATURES), map(list, zip(*rows)))) if rows else {"horsepower": []}


def _unpack(archive: Path) -> str:
    content = io.BytesIO(read_bytes(archive, INSTEAD))
    try:
        with zipfile.ZipFile(content) as files:
            return files.read(PLAIN).decode("utf-8")
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise DamagedDataError(archive, f"is not the whole zip file ({error})", INSTEAD) from error
