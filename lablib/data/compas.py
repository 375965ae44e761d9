"""COMPAS: arrests within two years of 6172 people scored in Broward County, Florida, 2013 and 2014 (ProPublica).

Read from ProPublica's ``compas-scores-two-years.csv`` or a copy with fewer columns. Rows are kept as ProPublica
keeps them; features, directions and the split into 4937 + 1235 rows are those of the published monotone benchmarks
(Liu and others, "Certified Monotonic Neural Networks", 2020, used again by arXiv 2307.07512, section 4).
"""

import functools
from pathlib import Path

import numpy as np

from lablib.data.columns import absent_file, check_content, find_table, numbers, read_columns

INSTEAD = "breast-cancer"
COUNTS = ("priors_count", "juv_fel_count", "juv_misd_count", "juv_other_count")
RACES = ("African-American", "Hispanic", "Asian", "Caucasian", "Native American", "Other")
SEXES = ("Male", "Female")
FEATURES = (*COUNTS, "age", *(f"race {value}" for value in RACES), *(f"sex {value}" for value in SEXES))
DIRECTIONS = tuple(int(name in COUNTS) for name in FEATURES)
TARGET, TARGET_NAME = "two_year_recid", "arrested again within two years"
TASK = "classification"
NOTES = (
    "6172 people whom the police of one county arrested in 2013 and 2014, with their counts of earlier offences. "
    "Collected by ProPublica to examine a commercial risk score for racial bias. The target is a new arrest, not a "
    "new crime: it carries the bias of who gets arrested, and so does every model fitted to it. Race and sex are "
    "features only because the published benchmark has them. Fit for comparing methods with published figures and "
    "for teaching what such data hide; not fit for deciding about people, for claims about groups of people, or for "
    "a tool that anyone is judged by."
)
FILES = ("compas-two-years.csv", "compas-scores-two-years.csv")
OTHER_FILES = FILES[:1]
DOWNLOADS = {
    f"tabular/{FILES[1]}": (
        f"https://raw.githubusercontent.com/propublica/compas-analysis/master/{FILES[1]}",
    )
}
USED = (
    *COUNTS,
    "age",
    "race",
    "sex",
    TARGET,
    "days_b_screening_arrest",
    "is_recid",
    "c_charge_degree",
    "score_text",
)
SPLIT_SEED, TRAIN_SHARE = 78712, 0.8  # of the published loader
CHECKSUM = "00ca7ea1a2dcc813097a8c7e3c592ddfcfbc18cc0153e6d06ce1790e06c626c8"


missing = absent_file
locate = functools.partial(find_table, names=FILES)


def read(place: Path) -> dict[str, np.ndarray]:
    """Return ``features`` (6172, 13), ``target`` and the mask ``test``, in the order of the file.

    Raises:
        MissingDataError: if the file cannot be read. DamagedDataError: if it does not have the official content.
    """
    columns = read_columns(place, INSTEAD, USED)
    kept = [number for number in range(len(columns[TARGET])) if _is_kept(columns, number)]
    columns = {name: [column[number] for number in kept] for name, column in columns.items()}
    values = numbers(place, INSTEAD, {name: columns[name] for name in (*COUNTS, "age", TARGET)})
    groups = [_one_hot(columns["race"], RACES), _one_hot(columns["sex"], SEXES)]
    features, target = np.hstack([values[:, :-1], *groups]), values[:, -1].copy()
    check_content(place, INSTEAD, CHECKSUM, features, target)
    return {"features": features, "target": target, "test": _test_rows(len(target))}


def _is_kept(columns: dict[str, list[str]], number: int) -> bool:
    """ProPublica's rule: charged within 30 days of the screening, a case and a score known, no traffic offence."""
    try:
        near = abs(float(columns["days_b_screening_arrest"][number])) <= 30
    except ValueError:  # empty: no arrest on record
        near = False
    known = columns["is_recid"][number] != "-1" and columns["score_text"][number] not in ("N/A", "")
    return near and known and columns["c_charge_degree"][number] != "O"


def _one_hot(labels: list[str], values: tuple[str, ...]) -> np.ndarray:
    return np.array([[float(label == value) for value in values] for label in labels]).reshape(
        -1, len(values)
    )


def _test_rows(rows: int) -> np.ndarray:
    """Return the last fifth of the published shuffle, as a mask."""
    order = np.arange(rows)
    np.random.RandomState(SPLIT_SEED).shuffle(order)  # as the published loader draws it
    test = np.zeros(rows, dtype=bool)
    test[order[int(rows * TRAIN_SHARE) :]] = True
    return test
