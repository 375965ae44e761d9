"""Heart: 303 patients of the Cleveland clinic, in the two files of the published monotone benchmark.

Training and test rows are those of github.com/niklasnolte/monotonic_tests, as in Nolte, Kitouni and Williams,
"Expressive Monotonic Neural Networks" (arXiv 2307.07512), section 4; so are the directions. The first column of
these files is the row's number in the unsplit file. The published script takes it for a feature; here it is no
feature, but kept in ``left_out``, so that the published figure can be made again.
"""

from pathlib import Path

import numpy as np

from lablib.data.columns import check_content, numbers, read_columns

INSTEAD = "breast-cancer"
FEATURES = (
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg",
    "thalach", "exang", "oldpeak", "slope", "ca", "thal",
)  # fmt: skip
DIRECTIONS = tuple(int(name in ("trestbps", "chol")) for name in FEATURES)
TARGET, TARGET_NAME = "target", "heart disease found"
TASK = "classification"
NOTES = (
    "242 + 61 patients examined for chest pain at one clinic in the 1980s, 28 % of them with the disease by the "
    "coding of these files (the original coding has 46 %). Good for trying out methods on few rows; 61 test rows are "
    "too few to tell methods apart (one row is 1.6 %), and nothing here is fit for medical advice. Codes such as "
    "cp and thal are labels that the benchmark uses as numbers."
)
INDEX = "row number"
FILES = ("heart_train.csv", "heart_test.csv")
REPOSITORY = "https://raw.githubusercontent.com/niklasnolte/monotonic_tests"
COMMIT = "7d795ccbea303d8b29db23240e500163113a587a"
DOWNLOADS = {
    f"tabular/{name}": tuple(f"{REPOSITORY}/{version}/data/{name}" for version in (COMMIT, "main"))
    for name in FILES
}
CHECKSUMS = {
    "heart_train.csv": "cc7f883bd01dc717e51da25dd82cd9cf0b2eecf75f36bfab6a5d9cd73c30bd25",
    "heart_test.csv": "36d510b325fd8c68dbd43577df69f222c607f60a7c76f854bb644edaa88b5e6c",
}


def locate(root: Path) -> Path | None:
    """Return the folder under ``root`` that holds one of the files, else None."""
    for folder in (root / "tabular", root):
        if any((folder / name).exists() for name in FILES):
            return folder
    return None


def missing(place: Path) -> list[str]:
    """Return the files that lack in ``place``."""
    return [name for name in FILES if not (place / name).exists()]


def read(place: Path) -> dict:
    """Return ``features`` (303, 13), ``target``, the mask ``test`` and ``left_out``: training rows first.

    Raises:
        MissingDataError: if a file cannot be read. DamagedDataError: if it does not have the official content.
    """
    parts = [_read(place / name) for name in FILES]
    values = np.concatenate(parts)
    test = np.arange(len(values)) >= len(parts[0])
    return {
        "features": np.ascontiguousarray(values[:, 1:-1]),
        "target": values[:, -1].copy(),
        "test": test,
        "left_out": {INDEX: values[:, 0].copy()},
    }


def _read(path: Path) -> np.ndarray:
    values = numbers(path, INSTEAD, read_columns(path, INSTEAD, ("", *FEATURES, TARGET)))
    check_content(path, INSTEAD, CHECKSUMS[path.name], values)
    return values
