"""CIFAR-10: 50,000 + 10,000 colour images of 32 x 32, from the python-version folder or its tar.gz.

Copies of CIFAR-10 circulate with their rows in different orders. Neither the checksum nor the order of what
is returned depends on that: each row has a digest, sha256 of its label byte and its 3,072 pixel bytes; the
checksum of a split is the sha256 of its sorted digests, and rows are returned in the order of their digests,
not in that of the official files. "The first n of a class" is so the same n images from every source.

The batches are pickles, which can run code when read, and a pickled NumPy dtype can make any bytes count as
pointers. :class:`_BatchUnpickler` admits plain data only: a pickled array becomes a record of its bytes.
"""

import hashlib
import io
import pickle
import tarfile
import zlib
from pathlib import Path

import numpy as np

from lablib.data.contract import BUNDLED, DamagedDataError, MissingDataError, read_bytes

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SCALE = 255
FOLDER, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
BATCHES = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}
CHECKSUMS = {  # sha256 of the sorted row digests of a split
    "train": "55a61f79a40ece2ceda9fb5f9f7078f6ea2fc4952489cef56682bcf92cfcc260",
    "test": "325704b01eb92e1e2a6215ae6a916bb7db7de054af0c496be1c7be2e0fcfbf5f",
}
DOWNLOADS = {f"cifar10/{ARCHIVE}": (f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",)}


def locate(root: Path) -> Path | None:
    """Return the folder of batches or the archive under ``root``, else None."""
    for name in (FOLDER, ARCHIVE):
        for parent in (root / "cifar10", root):
            if (parent / name).exists():
                return parent / name
    return None


def missing(place: Path) -> list[str]:
    """Return the names of the files that ``place`` lacks."""
    if place.suffix == ".gz":
        return []
    return [name for names in BATCHES.values() for name in names if not (place / name).exists()]


def read(place: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x_train (50000, 3, 32, 32) uint8, y_train int64, x_test (10000, 3, 32, 32), y_test.

    Raises:
        MissingDataError: if a batch is not there or cannot be read.
        DamagedDataError: if a file is truncated, holds anything but arrays, or is not the official content.
    """
    batches = _read_archive(place) if place.suffix == ".gz" else _read_folder(place)
    x_train, y_train = _canonical(place, "train", batches)
    x_test, y_test = _canonical(place, "test", batches)
    return x_train, y_train, x_test, y_test


def _read_folder(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    absent = missing(folder)
    if absent:
        raise MissingDataError(
            f"{absent[0]} is not in {folder}; put it there, or use the bundled data set {BUNDLED!r}"
        )
    names = [name for names in BATCHES.values() for name in names]
    return {name: _read_batch(folder / name, read_bytes(folder / name)) for name in names}


def _read_archive(archive: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the batches out of the tar.gz one after the other; nothing is unpacked on disk."""
    wanted = {f"{FOLDER}/{name}": name for names in BATCHES.values() for name in names}
    batches = {}
    content = io.BytesIO(read_bytes(archive))
    try:
        with tarfile.open(fileobj=content, mode="r|gz") as tar:
            for member in tar:
                if member.isfile() and member.name in wanted:
                    batches[wanted[member.name]] = _read_batch(archive, tar.extractfile(member).read())
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DamagedDataError(archive, f"is not a whole tar.gz file ({error})") from error
    absent = [name for name in wanted.values() if name not in batches]
    if absent:
        raise DamagedDataError(archive, f"holds no {FOLDER}/{absent[0]}")
    return batches


class _Bytes8:
    """Stands in for the dtype of a pickled array: uint8 and nothing else."""

    def __init__(self, name: str | bytes, *_flags: object) -> None:
        if name not in ("u1", "|u1", b"u1", b"|u1"):
            raise pickle.UnpicklingError(f"it holds numbers of type {name!r}, not uint8")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order, fields and flags: they mean nothing for single bytes."""


class _Rows:
    """Stands in for a pickled array: rows of 3,072 bytes, and no NumPy code reads what the file says."""

    def __init__(self, *_kind: object) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _version, shape, kind, columns_first, content = state
        if type(kind) is not _Bytes8 or type(content) is not bytes or len(shape) != 2 or shape[1] != 3072:
            raise pickle.UnpicklingError("it holds an array that is not rows of 3072 bytes")
        order = "F" if columns_first else "C"
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order=order)


class _BatchUnpickler(pickle.Unpickler):
    """Reads numbers, strings, lists, dicts and byte arrays; refuses every other class or function."""

    def find_class(self, module: str, name: str) -> object:
        """Return a stand-in for one of the four things that a pickled array refers to."""
        # batches written with NumPy 1 and 2 name the same function by two module paths
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _Rows
        if module == "numpy" and name in ("ndarray", "dtype"):
            return _Rows if name == "ndarray" else _Bytes8
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stand in for codecs.encode, by which Python 3 stores bytes in a protocol-2 pickle (always latin1)."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding}")
    return text.encode("latin1")


def _read_batch(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (N, 3072) uint8 and labels (N,) int64 of one pickled batch."""
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
        rows, labels = batch[b"data"], batch[b"labels"]
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DamagedDataError(path, f"is not a CIFAR-10 batch ({type(error).__name__}: {error})") from error
    right_rows = isinstance(rows, _Rows) and rows.values is not None
    right_labels = isinstance(labels, list) and all(
        type(label) is int and 0 <= label < len(CLASS_NAMES) for label in labels
    )
    if not right_rows or not right_labels or len(labels) != len(rows.values):
        raise DamagedDataError(path, "does not hold uint8 rows of 3072 with one label in 0..9 each")
    return rows.values, np.array(labels, dtype=np.int64)


def _canonical(
    place: Path, split: str, batches: dict[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Check the content of a split and return its images and labels in the order of their digests."""
    rows = np.concatenate([batches[name][0] for name in BATCHES[split]])
    labels = np.concatenate([batches[name][1] for name in BATCHES[split]])
    digests = [hashlib.sha256(bytes((label,)) + row.tobytes()).digest() for row, label in zip(rows, labels)]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    if hashlib.sha256(b"".join(digests[i] for i in order)).hexdigest() != CHECKSUMS[split]:
        raise DamagedDataError(
            place,
            f"does not hold the official {split} images and labels (the checksum differs)",
        )
    return rows[order].reshape(-1, 3, 32, 32), labels[order]
