"""Result files: written and read back, damage and absence named, and a failed write changes nothing."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from lablib.experiments import RECIPES, load_recipe
from lablib.experiments.recipe import Recipe
from lablib.experiments.results import (
    MODES,
    atomic_write,
    current_mode,
    figures_dir,
    read_result,
    refuse_worse_data,
    results_dir,
    write_result,
)

STORED = Path(__file__).resolve().parents[2] / "figures" / "results"
ONE = {"radii": np.ones(1)}
RECORD = {"mode": "standard", "config": {"seed": 3}, "seconds": 1.234}


@pytest.fixture(autouse=True)
def own_figures(tmp_path, monkeypatch):
    """Keep the tree's figures out of it."""
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    monkeypatch.setenv("LABLIB_MODE", "standard")


def test_round_trip(tmp_path):
    metrics = {"accuracy": np.float32(0.5), "counts": np.arange(3), "text": "ok"}
    arrays = {"radii": np.linspace(0, 1, 7, dtype=np.float32)}
    path = write_result("toy", metrics=metrics, arrays=arrays, **RECORD)
    assert path == tmp_path / "results" / "toy.json"
    record = read_result("toy")
    assert record["metrics"] == {"accuracy": 0.5, "counts": [0, 1, 2], "text": "ok"}
    assert record["config"] == {"seed": 3}
    assert record["seconds"] == 1.23
    assert {"commit", "device", "packages", "python", "mode", "cores"} <= set(record)
    np.testing.assert_array_equal(record["arrays"]["radii"], arrays["radii"])
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["toy.json", "toy.npz"]


def test_quick_results_never_replace_measured_ones(tmp_path):
    write_result("toy", metrics={"n": 1}, **RECORD)
    write_result("toy", metrics={"n": 2}, **(RECORD | {"mode": "quick"}))
    assert read_result("toy")["metrics"]["n"] == 1
    assert read_result("toy", "quick")["metrics"]["n"] == 2
    assert results_dir("quick") == tmp_path / "quick" / "results"
    assert figures_dir("full") == tmp_path


def test_a_stand_in_replaces_no_result_of_better_data(tmp_path):
    refuse_worse_data("toy", "standard", "pictures", "bsds500")  # there is none yet
    for data, kept in (("pictures", False), ("bsds500", True)):
        write_result("toy", metrics={"data": data}, **RECORD)
        refuse_worse_data("toy", "standard", "bsds500", "bsds500")
        refuse_worse_data("toy", "quick", "pictures", "bsds500")
        if kept:
            with pytest.raises(ValueError, match=r"toy\.json is of bsds500 .* of pictures; put bsds500 into"):
                refuse_worse_data("toy", "full", "pictures", "bsds500")
        else:
            refuse_worse_data("toy", "full", "pictures", "bsds500")


@pytest.mark.parametrize(
    ("name", "wanted"), [("denoising", "bsds500"), ("plug_and_play", "bsds500"), ("wasserstein", "mnist")]
)
def test_recipes_say_and_refuse_what_stands_in(name, wanted, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("LABLIB_DATA", str(tmp_path / "empty"))
    monkeypatch.setenv("LABLIB_CACHE", str(tmp_path / "cache"))
    before = write_result(name, metrics={"data": wanted}, **RECORD).read_bytes()
    with pytest.raises(ValueError, match=rf"{name}\.json is of {wanted} and would be replaced"):
        load_recipe(name).make("standard")
    assert (tmp_path / "results" / f"{name}.json").read_bytes() == before
    said = [line for line in capsys.readouterr().err.splitlines() if "stand in" in line]
    assert len(said) == 1
    assert not list((tmp_path / "results").glob("*.partial.json"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_and_leaves_the_earlier_file(bad):
    write_result("toy", metrics={"n": 1}, **RECORD)
    with pytest.raises(ValueError, match="JSON"):
        write_result("toy", metrics={"n": bad}, **RECORD)
    with pytest.raises(TypeError, match="numbers, strings, lists"):
        write_result("toy", metrics={"n": object()}, **RECORD)
    assert read_result("toy")["metrics"] == {"n": 1}


def test_an_interrupted_write_leaves_the_earlier_file_and_no_litter(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with atomic_write(path) as file:
        file.write("first")
    with pytest.raises(KeyboardInterrupt):
        _stop_half_way(path)
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def _stop_half_way(path):
    with atomic_write(path) as file:
        file.write("sec")
        raise KeyboardInterrupt


def test_absent_and_damaged_files_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m lablib figures toy"):
        read_result("toy")
    path = write_result("toy", metrics={}, **RECORD)
    for content in (path.read_bytes()[:-20], b"", b"\xff\xfe", b"[]", b'{"name": "toy"}', b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"toy\.json is damaged .*python -m lablib figures toy"):
            read_result("toy")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", None])
def test_damaged_and_absent_arrays_say_what_to_do(content):
    stored = write_result("toy", metrics={}, arrays=ONE, **RECORD).with_suffix(".npz")
    stored.unlink() if content is None else stored.write_bytes(content)
    with pytest.raises(ValueError, match=r"toy\.npz is damaged .*python -m lablib figures toy"):
        read_result("toy")


def test_a_run_without_arrays_removes_those_of_the_run_before():
    path = write_result("toy", metrics={"n": 1}, arrays=ONE, **RECORD)
    write_result("toy", metrics={"n": 2}, **RECORD)
    assert not path.with_suffix(".npz").exists()
    assert "arrays" not in read_result("toy")


def test_a_stop_between_the_two_files_is_seen(monkeypatch):
    write_result("toy", metrics={"n": 1}, arrays=ONE, **RECORD)
    replace = os.replace

    def stop(source, target):
        if str(target).endswith(".json"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_result("toy", metrics={"n": 2}, arrays={"radii": np.zeros(1)}, **RECORD)
    with pytest.raises(ValueError, match=r"not those of the JSON file.*python -m lablib figures toy"):
        read_result("toy")


def test_pickled_arrays_are_neither_written_nor_loaded():
    trap = {"trap": np.array([object()], dtype=object)}
    with pytest.raises(ValueError, match="'trap' holds objects"):
        write_result("toy", metrics={}, arrays=trap, **RECORD)
    path = write_result("toy", metrics={}, arrays=ONE, **RECORD)
    np.savez(path.with_suffix(".npz"), **trap)
    record = json.loads(path.read_text())
    digest = hashlib.sha256(path.with_suffix(".npz").read_bytes()).hexdigest()
    path.write_text(json.dumps(record | {"arrays_sha256": digest}))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_result("toy")


@pytest.mark.parametrize("name", ["file", "allow_pickle"])
def test_arrays_whose_name_numpy_takes_are_refused(name):
    with pytest.raises(ValueError, match=f"cannot be called '{name}'"):
        write_result("toy", metrics={}, arrays={name: np.ones(1)}, **RECORD)


@pytest.mark.parametrize("name", ["../toy", "a/b", "/toy", "..", ""])
def test_results_stay_in_their_folder(name):
    with pytest.raises(ValueError, match="plain file name"):
        write_result(name, metrics={}, **RECORD)
    with pytest.raises(ValueError, match="plain file name"):
        read_result(name)


FINISHED = sorted(set(STORED.glob("*.json")) - set(STORED.glob("*.partial.json")))


@pytest.mark.parametrize("path", FINISHED, ids=lambda path: path.stem)
def test_stored_results_are_whole(path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(STORED.parent))
    assert ("arrays" in read_result(path.stem)) == path.with_suffix(".npz").exists()


def test_modes(monkeypatch):
    for mode in MODES:
        monkeypatch.setenv("LABLIB_MODE", mode)
        assert current_mode() == mode
    monkeypatch.setenv("LABLIB_MODE", "fast")
    with pytest.raises(ValueError, match="'fast'; set it to one of quick, standard, full"):
        current_mode()
    monkeypatch.delenv("LABLIB_MODE")
    assert current_mode() == "standard"


def test_unknown_recipe_lists_those_there_are():
    with pytest.raises(ValueError, match="no recipe 'nothing'; choose from"):
        load_recipe("nothing")
    with pytest.raises(ValueError, match="must state all of quick, standard, full"):
        Recipe("toy", "?", {"quick": None}, run=dict, draw=dict)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_states_its_sizes(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.question.endswith(("?", "."))
    assert set(recipe.sizes) == set(MODES)
    json.dumps([dataclasses.asdict(config) for config in recipe.sizes.values()])
