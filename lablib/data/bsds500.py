"""BSDS500: the 200 + 100 + 200 photographs of the Berkeley segmentation set, as grey pictures of 321 x 481.

Some stand upright (481 x 321). Only the photographs are read, from the official archive or a folder with the
JPEG files under ``train/``, ``val/`` and ``test/``; the hand-drawn segmentations are not. The checksum of a
split is the sha256 of the sha256 of its files in the order of their numbers: of the JPEG files and not of the
pixels, which decoders round differently.

The test pictures of the older BSDS300, and with them the 68 that papers on denoising call BSD68, are in ``val``.
"""

import hashlib
import io
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lablib.data.contract import DamagedDataError, MissingDataError, read_bytes

INSTEAD = "pictures"  # the bundled data set that serves where this one is missing
SCALE = 255
SPLITS = {"train": 200, "val": 100, "test": 200}
ARCHIVE, INSIDE = "BSR_bsds500.tgz", "BSR/BSDS500/data/images"
FOLDERS = ("bsds500", f"bsds500/{INSIDE}", INSIDE)
CHECKSUMS = {
    "train": "b29faf9730631764221972ae4a9cd90ec900efd4a490bd321751636f8f439ccf",
    "val": "27bfef33605f59e52bc41ebb9e20f334d8fb6561453d4103c108e9e0357df881",
    "test": "adc20d1bbad55cd30cebe4eb3394515499e2287edc5156f31b00b7abfeb99e7b",
}
PAGE = "Research/Projects/CS/vision/grouping/BSR/"
DOWNLOADS = {
    f"bsds500/{ARCHIVE}": tuple(
        f"{host}/{PAGE}{ARCHIVE}"
        for host in ("https://www2.eecs.berkeley.edu", "http://www.eecs.berkeley.edu")
    )
}


class JpegPictures(Sequence):
    """Pictures kept as the bytes of their JPEG files; ``[i]`` decodes one: (H, W) uint8, luma of ITU-R 601."""

    def __init__(self, files: Sequence[bytes]) -> None:
        self._files = tuple(files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return JpegPictures(self._files[index])
        from PIL import Image

        with Image.open(io.BytesIO(self._files[index])) as picture:
            return np.array(picture.convert("L"))


def locate(root: Path) -> Path | None:
    """Return the folder of splits or the archive under ``root``, else None."""
    for folder in FOLDERS:
        if any(_numbered(root / folder / split) for split in SPLITS):
            return root / folder
    for path in (root / "bsds500" / ARCHIVE, root / ARCHIVE):
        if path.exists():
            return path
    return None


def missing(place: Path) -> list[str]:
    """Return the splits that lack pictures in ``place``, as ``train/*.jpg``."""
    if place.suffix == ".tgz":
        return []
    return [f"{split}/*.jpg" for split, count in SPLITS.items() if len(_numbered(place / split)) < count]


def read(place: Path) -> tuple[JpegPictures, JpegPictures, JpegPictures]:
    """Return the pictures of train, val and test, each in the order of their numbers.

    Raises:
        MissingDataError: if a file is not there or cannot be read.
        DamagedDataError: if the archive is damaged, or a split does not have the official content.
    """
    files = _read_archive(place) if place.suffix == ".tgz" else _read_folder(place)
    return tuple(_checked(place, split, files[split]) for split in SPLITS)


def _numbered(folder: Path) -> list[Path]:
    """Return the pictures of a folder in the order of their numbers; other files may lie there too."""
    return sorted((path for path in folder.glob("*.jpg") if path.stem.isdecimal()), key=_number)


def _number(path: Path) -> int:
    return int(path.stem)


def _read_folder(folder: Path) -> dict[str, list[bytes]]:
    absent = missing(folder)
    if absent:
        raise MissingDataError(
            f"{absent[0]} in {folder} are not all there; put the official files there, or use the bundled "
            f"data set {INSTEAD!r}"
        )
    return {split: [read_bytes(path, INSTEAD) for path in _numbered(folder / split)] for split in SPLITS}


def _read_archive(archive: Path) -> dict[str, list[bytes]]:
    """Read the pictures out of the tar.gz one after the other; nothing is unpacked on disk."""
    found: dict[str, dict[int, bytes]] = {split: {} for split in SPLITS}
    content = io.BytesIO(read_bytes(archive, INSTEAD))
    try:
        with tarfile.open(fileobj=content, mode="r|gz") as tar:
            for member in tar:
                path = Path(member.name)
                split = path.parent.name if path.parent.parent == Path(INSIDE) else None
                if member.isfile() and split in found and path.suffix == ".jpg" and path.stem.isdecimal():
                    found[split][_number(path)] = tar.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DamagedDataError(archive, f"is not a whole tar.gz file ({error})", INSTEAD) from error
    return {split: [files[number] for number in sorted(files)] for split, files in found.items()}


def _checked(place: Path, split: str, files: Sequence[bytes]) -> JpegPictures:
    digests = b"".join(hashlib.sha256(content).digest() for content in files)
    if hashlib.sha256(digests).hexdigest() != CHECKSUMS[split]:
        raise DamagedDataError(
            place, f"does not hold the official {split} pictures (the checksum differs)", INSTEAD
        )
    return JpegPictures(files)
