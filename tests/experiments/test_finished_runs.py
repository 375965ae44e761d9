"""Result files of training runs, found and put in one form."""

import math

import numpy as np
import pytest

from lablib.experiments.finished_runs import epoch_seconds, finished_runs
from lablib.experiments.results import results_dir, write_result


def test_no_runs_are_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    assert finished_runs("standard") == {}


def test_runs_are_found_by_name_and_mode(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    history = [{"epoch": 1, "seconds": 2.0, "clean": 0.5}, {"epoch": 2, "seconds": 4.5, "clean": 0.6}]
    metrics = {"clean": 0.9, "history": history, "note": "words", "done": True}
    options = {"config": {"model": {"width": 8}, "eps": 0.1}, "seconds": 5.0}
    write_result(
        "train_b", mode="standard", metrics=metrics, arrays={"radii": np.zeros(2, np.float32)}, **options
    )
    write_result("train_a", mode="standard", metrics={"clean": 0.8}, **options)
    write_result("train_a", mode="quick", metrics={"clean": 0.1}, **options)
    write_result("other", mode="standard", metrics={"clean": 0.1}, **options)
    runs = finished_runs("standard")
    assert list(runs) == ["a", "b"]
    assert runs["b"]["settings"] == {"model.width": 8, "eps": 0.1}
    assert runs["b"]["scores"] == {"clean": 0.9}
    assert runs["b"]["arrays"]["radii"].shape == (2,)
    assert math.isclose(epoch_seconds(runs["b"]), 2.25)
    assert finished_runs("quick")["a"]["scores"] == {"clean": 0.1}
    with pytest.raises(ValueError, match="no finished epoch"):
        epoch_seconds(runs["a"])


def test_a_damaged_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    folder = results_dir("standard")
    folder.mkdir(parents=True)
    (folder / "train_x.json").write_text("{")
    with pytest.raises(ValueError, match="train_x"):
        finished_runs("standard")
