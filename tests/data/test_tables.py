"""Tables: made-up files in each format they come in, damage named, the real rows where they are, the bundled two."""

import csv
import io
import zipfile

import numpy as np
import pytest

from lablib.data import (
    TABLES,
    DamagedDataError,
    MissingDataError,
    Table,
    auto_mpg,
    available,
    compas,
    heart,
    load,
    load_table,
)
from lablib.data.columns import content_digest
from lablib.data.command import _fetch

CARS = [  # mpg, 7 features; the third has no horsepower
    ("18.0", "8", "307.0", "130.0", "3504.", "12.0", "70", "1"),
    ("9.0", "8", "304.0", "193.0", "4732.", "18.5", "70", "1"),
    ("25.0", "4", "98.00", "?", "2046.", "19.0", "71", "1"),
    ("27.0", "4", "97.00", "88.00", "2130.", "14.5", "71", "3"),
]


@pytest.fixture
def tiny_cars(monkeypatch):
    """Bytes of three made-up files by name that hold the same cars; the checksum installed."""
    used = np.array([[float(entry) for entry in row] for row in CARS if "?" not in row])
    monkeypatch.setattr(auto_mpg, "CHECKSUM", content_digest(used))
    plain = "".join("   ".join(row) + f'\t"car no {n}"\n' for n, row in enumerate(CARS)).encode()
    rows = [("mpg", *auto_mpg.FEATURES, "car name")]
    rows += [(*(entry if entry == "?" else f"{float(entry):g}" for entry in row), "a, car") for row in CARS]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("auto-mpg.names", "about")
        files.writestr("auto-mpg.data", plain)
    return {"auto-mpg.csv": _csv(rows), "auto-mpg.data": plain, "auto+mpg.zip": archive.getvalue()}


def _csv(rows, end="\r\n"):
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows(rows)
    return text.getvalue().encode("utf-8")


def _put(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("name", ["auto-mpg.csv", "auto-mpg.data", "auto+mpg.zip"])
def test_cars_are_the_same_from_every_format(empty_home, tiny_cars, name):
    place = _put(empty_home[0] / "tabular", name, tiny_cars[name])
    table = load_table("auto-mpg", download=False)
    assert (table.source, table.task, table.test) == (str(place), "regression", None)
    assert table.features.tolist() == [[float(e) for e in row[1:]] for row in CARS if "?" not in row]
    assert table.target.tolist() == [18, 9, 27]
    assert dict(zip(table.names, table.directions))["weight"] == -1
    assert available("auto-mpg").state == "folder"


def test_damaged_and_missing_cars_are_named(empty_home, tiny_cars):
    folder, cache = empty_home
    with pytest.raises(MissingDataError, match=r"auto\+mpg\.zip is not in .*auto-mpg\.csv .*'diabetes'"):
        load_table("auto-mpg", download=False)
    for name, content, says in (
        ("auto-mpg.data", tiny_cars["auto-mpg.data"].replace(b"307", b"308"), "checksum"),
        ("auto-mpg.data", b"18.0 8\n", "too few numbers"),
        ("auto-mpg.data", b"", "checksum|no number"),
        ("auto-mpg.data", bytes(range(128, 160)), "not a text file"),
        ("auto-mpg.csv", tiny_cars["auto-mpg.csv"].replace(b"weight", b"mass"), "no column 'weight'"),
        ("auto-mpg.csv", tiny_cars["auto-mpg.csv"].replace(b"3504", b"much"), "no number"),
        ("auto-mpg.csv", tiny_cars["auto-mpg.csv"].replace(b",3504", b""), "different lengths"),
        ("auto+mpg.zip", tiny_cars["auto+mpg.zip"][:-30], "not the whole zip file"),
    ):
        path = _put(folder / "tabular", name, content)
        with pytest.raises(DamagedDataError, match=says):
            load_table("auto-mpg")
        path.unlink()
    _put(cache / "tabular", "auto+mpg.zip", tiny_cars["auto+mpg.zip"])
    assert len(load_table("auto-mpg", download=False).target) == 3


def test_compas_keeps_the_rows_that_propublica_keeps(empty_home, monkeypatch):
    header = [
        "id",
        "sex",
        "age",
        "race",
        "juv_fel_count",
        "decile_score",
        "juv_misd_count",
        "juv_other_count",
    ]
    header += ["priors_count", "days_b_screening_arrest", "c_charge_degree", "is_recid", "score_text"]
    header += ["priors_count", "two_year_recid"]  # a second column of that name stands in the official file
    kept = [
        [1, "Male", 69, "Other", 0, 1, 0, 0, 7, -30, "F", 0, "Low", 99, 0],
        [2, "Female", 20, "Caucasian", 1, 8, 2, 3, 4, 30.0, "M", 1, "High", 99, 1],
        *([n, "Male", n, "Hispanic", 0, 2, 0, 0, 0, 0, "M", 1, "Low", 99, n % 2] for n in range(30, 38)),
    ]
    changes = ((9, 31), (9, ""), (11, -1), (12, "N/A"), (10, "O"))
    dropped = [
        [value if at == place else entry for at, entry in enumerate(kept[1])] for place, value in changes
    ]
    path = _put(empty_home[0] / "tabular", compas.FILES[1], _csv([header, kept[0], *dropped, *kept[1:]]))
    features = np.zeros((10, 13))
    features[:2, :5] = [[7, 0, 0, 0, 69], [4, 1, 2, 3, 20]]
    features[2:, 4] = range(30, 38)
    features[range(10), [10, 8, *[6] * 8]] = 1
    features[range(10), [11, 12, *[11] * 8]] = 1
    digest = content_digest(features, np.array([0.0, 1, *[0, 1] * 4]))
    monkeypatch.setattr(compas, "CHECKSUM", digest)
    table = load_table("compas", download=False)
    np.testing.assert_array_equal(table.features, features)
    assert table.test.sum() == 2
    assert table.source == str(path)
    assert table.directions == (1, 1, 1, 1) + (0,) * 9
    assert "not fit for deciding about people" in table.notes


def test_heart_keeps_its_row_numbers_apart(empty_home, monkeypatch):
    rng = np.random.default_rng(3)
    header, sums, values = ["", *heart.FEATURES, "target"], {}, []
    for name, rows in zip(heart.FILES, (5, 2)):
        part = np.column_stack([rng.permutation(rows), rng.integers(0, 200, (rows, 13)), np.arange(rows) % 2])
        _put(empty_home[0], name, _csv([header, *part.tolist()], "\n"))
        values.append(part)
        sums[name] = content_digest(part.astype(float))
    monkeypatch.setattr(heart, "CHECKSUMS", sums)
    table = load_table("heart", download=False)
    both = np.concatenate(values)
    np.testing.assert_array_equal(table.features, both[:, 1:-1])
    np.testing.assert_array_equal(table.left_out[heart.INDEX], both[:, 0])
    assert table.test.tolist() == [False] * 5 + [True] * 2
    assert [n for n, d in zip(table.names, table.directions) if d] == ["trestbps", "chol"]
    (empty_home[0] / heart.FILES[1]).unlink()
    assert available("heart").state == "incomplete"
    with pytest.raises(MissingDataError, match=r"heart_test\.csv is missing in .*; put it there"):
        load_table("heart", download=False)


@pytest.mark.parametrize("name", ["diabetes", "breast-cancer"])
def test_bundled_tables_need_no_file(empty_home, name):
    from sklearn import datasets

    table = load_table(name, download=False)
    bunch = datasets.load_breast_cancer() if name == "breast-cancer" else datasets.load_diabetes()
    assert list(table.names) == list(bunch.feature_names)
    assert table.features.shape == bunch.data.shape
    assert available(name).ready
    rising = [correlation(table, d) for d in range(len(table.names)) if table.directions[d]]
    assert min(rising) > 0.3, "directions go with the data"


def correlation(table, column):
    return np.corrcoef(table.features[:, column], table.target)[0, 1]


def test_a_table_says_what_is_wrong_with_it():
    good = {"names": ("a",), "target_name": "b", "directions": (1,), "notes": "", "source": ""}
    x, y = np.zeros((3, 1)), np.zeros(3)
    for features, target, task, more, says in (
        (x[:, 0], y, "regression", {}, r"\(N, D\)"),
        (x.astype(np.float32), y, "regression", {}, "float64"),
        (x * np.nan, y, "regression", {}, "not finite"),
        (x, y, "sorting", {}, "no task 'sorting'"),
        (x, y + 2, "classification", {}, "0 and 1"),
        (x, y, "regression", {"directions": (2,)}, "direction"),
        (x, y, "regression", {"test": np.ones(3, bool)}, "not all"),
        (x, y, "regression", {"left_out": {"row": y[:2]}}, "give row"),
    ):
        with pytest.raises(ValueError, match=says):
            Table("toy", features, target, task=task, **good | more)


def test_kinds_of_data_do_not_mix():
    with pytest.raises(
        ValueError, match="'heart' has rows of numbers; use load_table, or with load one of: digits"
    ):
        load("heart")
    with pytest.raises(ValueError, match="use load, or with load_table one of: compas"):
        load_table("mnist")


def test_the_command_says_what_a_table_is_for(empty_home):
    line = _fetch("diabetes")
    assert line.startswith("442 rows of 10 features for regression; bundled")
    assert "not fit for medical advice" in line


@pytest.mark.parametrize("name", [name for name in TABLES if name not in ("diabetes", "breast-cancer")])
def test_the_real_rows_where_they_are(name):
    if not available(name).ready:
        pytest.skip(f"{name} is not at hand: {available(name).advice}")
    table = load_table(name, download=False)
    sizes = {"compas": (6172, 13, 1235), "heart": (303, 13, 61), "auto-mpg": (392, 7, 0)}
    tests = 0 if table.test is None else table.test.sum()
    assert (*table.features.shape, tests) == sizes[name]
