"""What every data set looks like once loaded, and the ways in which loading fails."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

BUNDLED = "digits"  # needs no file and no network: what each failure names as the way on


class MissingDataError(OSError):
    """A file of a data set is not there, cannot be read, or cannot be downloaded.

    Attributes:
        what: the message without the bundled data set ``instead``, for those who cannot take that.
    """

    def __init__(self, what: str, instead: str = "") -> None:
        super().__init__(f"{what}, or use the bundled data set {instead!r}" if instead else what)
        self.what = what


class DataFolderError(OSError):
    """LABLIB_DATA names no folder: a misspelt path, and so no reason to take other data."""


class DamagedDataError(ValueError):
    """A file of a data set is there, but its content is not the official one.

    Attributes:
        path: the damaged file.
    """

    def __init__(self, path: Path, what: str, instead: str = BUNDLED) -> None:
        super().__init__(
            f"{path.name} in {path.parent} {what}; replace it with the official file, or use the bundled "
            f"data set {instead!r}"
        )
        self.path = path


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled image data set, split into training and test rows.

    Attributes:
        name: the name given to :func:`lablib.data.load`.
        x_train: (N, C, H, W) uint8, raw values in 0..``scale``.
        y_train: (N,) int64 in 0..len(class_names) - 1.
        x_test: (M, C, H, W) uint8.
        y_test: (M,) int64.
        class_names: name of each label.
        scale: largest raw value; ``x / scale`` lies in [0, 1].
        source: where the files were found.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    scale: int
    source: str

    def __post_init__(self) -> None:
        for x, y in ((self.x_train, self.y_train), (self.x_test, self.y_test)):
            if x.ndim != 4 or x.dtype != np.uint8 or y.shape != x.shape[:1] or y.dtype != np.int64:
                raise ValueError(
                    f"{self.name}: give images as uint8 (N, C, H, W) with int64 labels (N,), not {x.dtype} "
                    f"{x.shape} with {y.dtype} {y.shape}"
                )
            if x.size and x.max() > self.scale:
                raise ValueError(f"{self.name}: values reach {x.max()}, give a scale of at least that")
            if y.size and not 0 <= y.min() <= y.max() < len(self.class_names):
                raise ValueError(f"{self.name}: give labels in 0..{len(self.class_names) - 1}")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Grey pictures of any size without labels, split into training, validation and test pictures.

    Attributes:
        name: the name given to :func:`lablib.data.load_pictures`.
        train, val, test: each a sequence of (H, W) uint8, raw values in 0..``scale``; H and W differ.
        scale: largest raw value; ``picture / scale`` lies in [0, 1].
        source: where the files were found.
    """

    name: str
    train: Sequence[np.ndarray]
    val: Sequence[np.ndarray]
    test: Sequence[np.ndarray]
    scale: int
    source: str

    def __post_init__(self) -> None:
        for split in (self.train, self.val, self.test):
            first = (
                split[0] if len(split) else np.zeros((1, 1), np.uint8)
            )  # the others may not be decoded yet
            if first.ndim != 2 or first.dtype != np.uint8:
                raise ValueError(
                    f"{self.name}: give pictures as uint8 (H, W), not {first.dtype} {first.shape}"
                )


TASKS = ("classification", "regression")


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of numbers with something to predict, and what is known of the direction of each feature.

    Attributes:
        name: the name given to :func:`lablib.data.load_table`.
        features: (N, D) float64, in their own units.
        target: (N,) float64; 0 or 1 if ``task`` is "classification".
        names: (D,) of the features. ``target_name``: what is predicted, with its unit.
        directions: (D,) +1 if the prediction should not fall as the feature rises, -1 if it should not rise, else 0.
        task: "classification" or "regression".
        notes: what the rows are, and what they are and are not fit for.
        source: where the files were found.
        test: (N,) bool, the test rows of the published split; None where there is none.
        left_out: name -> (N,) columns of the file that are no features but are in published figures.
    """

    name: str
    features: np.ndarray
    target: np.ndarray
    names: tuple[str, ...]
    target_name: str
    directions: tuple[int, ...]
    task: str
    notes: str
    source: str
    test: np.ndarray | None = None
    left_out: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        shape, rows = self.features.shape, self.features.shape[:1]
        if len(shape) != 2 or not self.features.size or self.target.shape != rows:
            raise ValueError(
                f"{self.name}: give (N, D) features and (N,) targets, not {shape}, {self.target.shape}"
            )
        if self.features.dtype != np.float64 or self.target.dtype != np.float64:
            raise ValueError(
                f"{self.name}: give float64, not {self.features.dtype} features and {self.target.dtype} targets"
            )
        if not (np.isfinite(self.features).all() and np.isfinite(self.target).all()):
            raise ValueError(f"{self.name}: there are entries that are not finite; drop or fill those rows")
        if not len(self.names) == len(self.directions) == shape[1] or not set(self.directions) <= {-1, 0, 1}:
            raise ValueError(
                f"{self.name}: give each of the {shape[1]} features a name and a direction +1, 0 or -1"
            )
        if self.task not in TASKS:
            raise ValueError(f"{self.name}: no task {self.task!r}; choose {' or '.join(TASKS)}")
        if self.task == "classification" and not np.isin(self.target, (0.0, 1.0)).all():
            raise ValueError(f"{self.name}: the targets of a classification are 0 and 1")
        for what, column in {"test": self.test, **self.left_out}.items():
            if column is not None and column.shape != rows:
                raise ValueError(f"{self.name}: give {what} as {rows}, not {column.shape}")
        if self.test is not None and (self.test.dtype != bool or self.test.all() or not self.test.any()):
            raise ValueError(f"{self.name}: give test as a mask that holds some rows and not all")


def read_bytes(path: Path, instead: str = BUNDLED) -> bytes:
    """Return the content of a file; ``instead`` is the bundled data set that a failure names.

    Raises:
        MissingDataError: if it is not there or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingDataError(f"{path.name} is missing in {path.parent}; put it there", instead) from error
    except OSError as error:
        what = f"{path.name} in {path.parent} cannot be read ({error.strerror}); make it readable"
        raise MissingDataError(what, instead) from error
