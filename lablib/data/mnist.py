"""MNIST: 60,000 + 10,000 images of 28 x 28 in the official order, from idx files, gzipped or not.

Checksums are of the uncompressed files, so a re-zipped copy passes.
"""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from lablib.data.contract import BUNDLED, DamagedDataError, MissingDataError, read_bytes

CLASS_NAMES = tuple("0123456789")
SCALE = 255
FOLDERS = ("mnist", "MNIST/raw")  # ours, and the one torchvision makes
HOSTS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
CHECKSUMS = {  # sha256 of the uncompressed file
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
DOWNLOADS = {f"mnist/{stem}.gz": tuple(host + stem + ".gz" for host in HOSTS) for stem in CHECKSUMS}


def locate(root: Path) -> Path | None:
    """Return the folder under ``root`` that holds MNIST files (some of them at least), else None."""
    for folder in FOLDERS:
        if any(_variants(root / folder, stem) for stem in CHECKSUMS):
            return root / folder
    return None


def missing(place: Path) -> list[str]:
    """Return the names of the files that ``place`` lacks."""
    return [f"{stem}.gz" for stem in CHECKSUMS if not _variants(place, stem)]


def read(place: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x_train (60000, 1, 28, 28) uint8, y_train int64, x_test (10000, 1, 28, 28), y_test.

    Raises:
        MissingDataError: if one of the four files is not there or cannot be read.
        DamagedDataError: if one is truncated or is not the official file.
    """
    x_train, y_train, x_test, y_test = (_read_idx(place, stem) for stem in CHECKSUMS)
    return x_train[:, None], y_train.astype(np.int64), x_test[:, None], y_test.astype(np.int64)


def _variants(folder: Path, stem: str) -> list[Path]:
    return [path for path in (folder / f"{stem}.gz", folder / stem) if path.exists()]


def _read_idx(folder: Path, stem: str) -> np.ndarray:
    """Return the array of one idx file: magic 0, 0, 8 (uint8), rank; rank big-endian sizes; the values."""
    present = _variants(folder, stem)
    if not present:
        raise MissingDataError(
            f"{stem}.gz is not in {folder}; put it there, or use the bundled data set {BUNDLED!r}"
        )
    path = present[0]
    content = read_bytes(path)
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DamagedDataError(path, f"is not a whole gzip file ({error})") from error
    rank = 3 if "images" in stem else 1
    header = 4 + 4 * rank
    if len(content) < header or content[:4] != bytes((0, 0, 8, rank)):
        raise DamagedDataError(path, f"is not an idx file of bytes of rank {rank}")
    shape = tuple(np.frombuffer(content, ">u4", count=rank, offset=4).tolist())
    if len(content) != header + int(np.prod(shape)):
        raise DamagedDataError(path, f"holds {len(content) - header} bytes where its header says {shape}")
    if hashlib.sha256(content).hexdigest() != CHECKSUMS[stem]:
        raise DamagedDataError(path, "does not have the content of the official file (its checksum differs)")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
