"""The data sets by name, and the search: the folder LABLIB_DATA, then the cache, then the official hosts."""

import dataclasses
import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from lablib.data import (
    auto_mpg,
    breast_cancer,
    bsds500,
    cifar10,
    compas,
    diabetes,
    digits,
    heart,
    mnist,
    sample_pictures,
)
from lablib.data.contract import (
    BUNDLED,
    DamagedDataError,
    DataFolderError,
    Dataset,
    MissingDataError,
    Pictures,
    Table,
)

LABELLED = ("digits", "mnist", "cifar10")  # for load
PICTURES = ("bsds500", "pictures")  # for load_pictures
TABLES = ("compas", "heart", "auto-mpg", "diabetes", "breast-cancer")  # for load_table
NAMES = LABELLED + PICTURES + TABLES
_BUNDLED: dict[str, ModuleType] = {
    "digits": digits,
    "pictures": sample_pictures,
    "diabetes": diabetes,
    "breast-cancer": breast_cancer,
}
# each module holds locate, missing, read, DOWNLOADS and what its contract names
_FILED: dict[str, ModuleType] = {
    "mnist": mnist,
    "cifar10": cifar10,
    "bsds500": bsds500,
    "compas": compas,
    "heart": heart,
    "auto-mpg": auto_mpg,
}
CONNECT_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Status:
    """Where a data set stands on this machine.

    Attributes:
        name: its name.
        state: "bundled", "folder" (in LABLIB_DATA), "cache", "incomplete" or "absent".
        place: where it is, or where it is looked for.
        advice: what to do about it; empty if it is at hand.
    """

    name: str
    state: str
    place: str
    advice: str = ""

    @property
    def ready(self) -> bool:
        """Whether ``load`` needs no network."""
        return self.state in ("bundled", "folder", "cache")


def load(name: str, *, download: bool = True) -> Dataset:
    """Return a labelled data set, its content checked.

    Args:
        name: one of :data:`LABELLED`.
        download: fetch missing files from the official hosts into the cache; False never opens a connection.

    Raises:
        ValueError: if there is no such data set, or its pictures have no labels (see :func:`load_pictures`).
        MissingDataError: if a file is absent, unreadable or cannot be downloaded (an OSError).
        DataFolderError: if LABLIB_DATA names no folder (an OSError).
        DamagedDataError: if a file does not hold the official content (a ValueError).
    """
    _check_name(name)
    if name not in LABELLED:
        raise _other_kind(name, "load", LABELLED)
    module, arrays, source = _find(name, download)
    return Dataset(name, *arrays, class_names=module.CLASS_NAMES, scale=module.SCALE, source=source)


def load_pictures(name: str, *, download: bool = True) -> Pictures:
    """Return grey pictures without labels, their content checked: :data:`PICTURES`.

    ``bsds500`` is as :func:`load` says of files; ``pictures`` comes with scikit-learn.

    Raises:
        ValueError, MissingDataError, DataFolderError, DamagedDataError: as :func:`load`.
    """
    _check_name(name)
    if name not in PICTURES:
        raise _other_kind(name, "load_pictures", PICTURES)
    module, splits, source = _find(name, download)
    return Pictures(name, *splits, scale=module.SCALE, source=source)


def load_table(name: str, *, download: bool = True) -> Table:
    """Return rows of numbers with something to predict, their content checked: :data:`TABLES`.

    ``compas``, ``heart`` and ``auto-mpg`` are as :func:`load` says of files; the others come with scikit-learn.

    Raises:
        ValueError, MissingDataError, DataFolderError, DamagedDataError: as :func:`load`.
    """
    _check_name(name)
    if name not in TABLES:
        raise _other_kind(name, "load_table", TABLES)
    module, arrays, source = _find(name, download)
    return Table(
        name,
        **arrays,
        names=module.FEATURES,
        target_name=module.TARGET_NAME,
        directions=module.DIRECTIONS,
        task=module.TASK,
        notes=module.NOTES,
        source=source,
    )


def _other_kind(name: str, asked: str, offered: tuple[str, ...]) -> ValueError:
    """Return the error of a name that another function loads."""
    kinds = (
        ("load", "labelled images", LABELLED),
        ("load_pictures", "pictures without labels", PICTURES),
        ("load_table", "rows of numbers", TABLES),
    )
    use, what = next((function, what) for function, what, names in kinds if name in names)
    return ValueError(f"{name!r} has {what}; use {use}, or with {asked} one of: {', '.join(offered)}")


def _find(name: str, download: bool) -> tuple[ModuleType, Any, str]:
    """Return the module of a data set, what its ``read`` returned, and where the files are."""
    if name in _BUNDLED:
        if importlib.util.find_spec("sklearn") is None:
            raise MissingDataError(f"the data set {name!r} comes with scikit-learn: pip install -e '.[lab]'")
        return _BUNDLED[name], _BUNDLED[name].read(), "bundled with scikit-learn"
    module, folder = _FILED[name], offline_folder(_instead(_FILED[name]))
    place = module.locate(folder) if folder else None
    if place:
        return module, module.read(place), str(place)
    place, arrays = _read_cached(module, download)
    return module, arrays, str(place)


def available(name: str) -> Status:
    """Say where a data set stands by looking for its files only: nothing is read, checked or downloaded.

    Raises:
        ValueError: if there is no such data set. DataFolderError: if LABLIB_DATA names no folder.
    """
    _check_name(name)
    if name in _BUNDLED:
        if importlib.util.find_spec("sklearn") is None:
            return Status(name, "absent", "scikit-learn", "pip install -e '.[lab]'")
        return Status(name, "bundled", "scikit-learn")
    module, fetch = _FILED[name], f"lablib data fetch {name}"
    for state, root in (("folder", offline_folder(_instead(module))), ("cache", cache_folder())):
        place = module.locate(root) if root else None
        if place and module.missing(place):
            lost = module.missing(place)[0]
            return Status(name, "incomplete", str(place), f"put {lost} there" if state == "folder" else fetch)
        if place:
            return Status(name, state, str(place))
    return Status(name, "absent", str(cache_folder()), f"{fetch}, or set LABLIB_DATA=DIR")


def offline_folder(instead: str = BUNDLED) -> Path | None:
    """Return the folder that LABLIB_DATA names, None if it is not set.

    ``instead``: the bundled data set that the error names.

    Raises:
        DataFolderError: if it is set to anything but a folder (a misspelt path must not start a download).
    """
    text = os.environ.get("LABLIB_DATA")
    if not text:
        return None
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise DataFolderError(
            f"LABLIB_DATA={text} is not a folder; correct it, or unset it and use the bundled data set {instead!r}"
        )
    return folder


def cache_folder() -> Path:
    """Return LABLIB_CACHE, else the user's cache folder for lablib."""
    text = os.environ.get("LABLIB_CACHE")
    if text:
        return Path(text).expanduser()
    if importlib.util.find_spec("pooch") is None:  # the base install downloads nothing
        return Path.home() / ".cache" / "lablib"
    import pooch

    return Path(pooch.os_cache("lablib"))


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"no data set {name!r}; there are: {', '.join(NAMES)}")


def _instead(module: ModuleType) -> str:
    """Return the bundled data set to use where this one is missing."""
    return getattr(module, "INSTEAD", BUNDLED)


def _read_cached(module: ModuleType, download: bool) -> tuple[Path, Any]:
    """Read a data set from the cache, fetching what is missing; a damaged download is fetched once more."""
    root = cache_folder()
    try:
        return _fetch_and_read(module, root, download)
    except DamagedDataError as error:
        ours = error.path in [root / relative for relative in module.DOWNLOADS]
        if not (download and ours):
            raise
        error.path.unlink()
    return _fetch_and_read(module, root, download)


def _fetch_and_read(module: ModuleType, root: Path, download: bool) -> tuple[Path, Any]:
    place = module.locate(root)
    if place is None or module.missing(place):
        _fetch(module, root, download)
        place = module.locate(root)
    return place, module.read(place)


def _fetch(module: ModuleType, root: Path, download: bool) -> None:
    """Download the files that the cache lacks, each all or nothing, from the first host that has it."""
    for relative, urls in module.DOWNLOADS.items():
        path = root / relative
        if path.exists():
            continue
        if importlib.util.find_spec("pooch") is None:
            reason = "that needs pooch: pip install -e '.[lab]'"
        else:
            reason = _download(path, urls) if download else "downloading is off"
        if reason:
            names = getattr(module, "OTHER_FILES", ())  # that hold the same and are found as well
            others = f"(or {' or '.join(names)}) " if names else ""
            raise MissingDataError(
                f"{path.name} is not in {path.parent} and was not downloaded ({reason}); put it {others}there, set "
                f"LABLIB_DATA to a folder that has {relative}",
                _instead(module),
            )


def _download(path: Path, urls: tuple[str, ...]) -> str:
    """Fetch ``path`` from the first of ``urls`` that answers; return "" or why none did."""
    import pooch

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"the folder cannot be made: {error.strerror}"
    pooch.get_logger().setLevel("WARNING")
    reasons = []
    for url in urls:
        try:
            downloader = pooch.HTTPDownloader(progressbar=True, timeout=CONNECT_SECONDS)
            # no hash here: read() checks the uncompressed content, which is the same however it was packed
            pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent, downloader=downloader)
            return ""
        except OSError as error:  # what requests raises is an OSError too
            reasons.append(f"{url}: {type(error).__name__}")
    return ", ".join(reasons)
