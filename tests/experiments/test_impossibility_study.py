"""The runs over all pairs of classes: every certificate checked, resumable, figures from the result file."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lablib.data import load
from lablib.experiments import impossibility_cifar10, impossibility_mnist, impossibility_study
from lablib.experiments.impossibility_study import (
    StudyConfig,
    certify,
    class_points,
    decimal_down,
    decimal_up,
)
from lablib.experiments.recipe import Recipe
from lablib.plots.impossibility import study_figures
from lablib.theory.impossibility import Certificate, check

SMALL = StudyConfig("quick", "digits", (0, 4, 9), 25, 1e-3, ((4, 9),), (2, 4), ((4, 9),))


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    run = impossibility_study.run_study
    return Recipe(
        "impossibility_mnist", "?", dict.fromkeys(("quick", "standard", "full"), SMALL), run, study_figures
    )


def test_run_resume_and_draw(recipe, tmp_path, monkeypatch):
    record = recipe.make("quick")
    metrics, folder = record["metrics"], tmp_path / "quick" / "results"
    assert metrics["all_checked"]
    assert [row["classes"] for row in metrics["pairs"]] == [[0, 4], [0, 9], [4, 9]]
    data = load("digits")
    for row in metrics["pairs"]:
        certificate = Certificate.load(folder / row["certificate"])
        checked = check(certificate, [class_points(data, label, 25) for label in row["classes"]], scale=16)
        assert row["lower"] <= checked.lower <= Fraction(row["upper_exact"]) == checked.upper
        assert checked.upper <= Fraction(row["upper"])
        assert certificate.run["checked"]
    assert record["arrays"]["lambdas"].shape == (3, 1, 8, 8)
    np.testing.assert_allclose(record["arrays"]["lambdas"].sum(axis=(1, 2, 3)), 1, atol=1e-4)
    for curve in metrics["depth_curves"]:
        assert [point["budget"] for point in curve["points"]] == [
            curve["group"] ** (point["depth"] - 1) for point in curve["points"]
        ]
        assert curve["points"][-1]["lower"] == decimal_down(Fraction(curve["half_separation"]))
        assert curve["points"][-2]["upper"] < curve["half_separation"]
    assert {path.suffix for path in map(Path, recipe.redraw("quick"))} == {".svg", ".png"}

    stamps = {path: path.stat().st_mtime_ns for path in (folder / "certificates").iterdir()}
    broken = folder / "certificates" / "digits_0_9.json"
    broken.write_text(broken.read_text()[:200])
    solved = []
    solve = impossibility_study.solve
    monkeypatch.setattr(
        impossibility_study, "solve", lambda *a, **k: solved.append(k["names"]) or solve(*a, **k)
    )
    again = recipe.make("quick")
    assert solved == [["0", "9"]]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path != broken)
    drop = {"seconds", "check_seconds", "peak_memory_mb"}
    for old, new in zip(metrics["pairs"], again["metrics"]["pairs"]):
        assert {k: v for k, v in old.items() if k not in drop} == {
            k: v for k, v in new.items() if k not in drop
        }


def test_a_stopped_run_keeps_what_was_finished(recipe, tmp_path, monkeypatch):
    solve, calls = impossibility_study.solve, []

    def stop_at_the_second(*args, **kwargs):
        calls.append(kwargs["names"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return solve(*args, **kwargs)

    monkeypatch.setattr(impossibility_study, "solve", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        recipe.make("quick")
    kept = list((tmp_path / "quick" / "results" / "certificates").iterdir())
    assert [path.name for path in kept] == ["digits_0_4.json"]
    recipe.make("quick")
    assert calls.count(["0", "4"]) == 1


def test_a_kept_certificate_must_be_about_the_same_thing(tmp_path):
    data, path = load("digits"), tmp_path / "certificate.json"
    first = certify(data, (4, 9), path, limit=20)
    assert certify(data, (4, 9), path, limit=20).run == first.run
    for changed in ({"limit": 21}, {"limit": 20, "depth": 2, "group": 2}, {"limit": 20, "tolerance": 1e-2}):
        made = certify(data, (4, 9), path, **changed)
        assert made.run != first.run or made != first
        assert Certificate.load(path) == made
    unchecked = dataclasses.replace(first, run=first.run | {"checked": False})
    unchecked.save(path)
    assert certify(data, (4, 9), path, limit=20).run["checked"]


def test_a_quick_run_falls_back_to_the_bundled_digits_and_says_so(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LABLIB_DATA", str(tmp_path))
    monkeypatch.setenv("LABLIB_CACHE", str(tmp_path / "cache"))
    sizes = impossibility_mnist.RECIPE.sizes
    metrics, _ = impossibility_study.run_study(dataclasses.replace(sizes["quick"], limit=10))
    assert metrics["data"] == "digits"
    assert "digits" in capsys.readouterr().out
    with pytest.raises(OSError, match="digits"):
        impossibility_study.load("mnist", download=False)


def test_sizes_cover_all_pairs():
    for module in (impossibility_mnist, impossibility_cifar10):
        sizes = module.RECIPE.sizes
        assert sizes["standard"].classes == tuple(range(10))
        for config in sizes.values():
            assert set(config.curves) | set(config.shown) <= {
                (a, b) for a in config.classes for b in config.classes if a < b
            }
    assert impossibility_mnist.RECIPE.sizes["standard"].limit is None
    assert impossibility_cifar10.RECIPE.sizes["standard"].limit == 1000


def test_decimals_stay_bounds():
    third = Fraction(1, 3)
    assert decimal_down(third) < third < decimal_up(third)
    assert decimal_down(Fraction(1, 4)) == decimal_up(Fraction(1, 4)) == 0.25


@pytest.mark.parametrize("label", [-1, 10])
def test_unknown_class(label):
    with pytest.raises(ValueError, match="classes 0 to 9"):
        class_points(load("digits"), label)
    with pytest.raises(ValueError, match="limit"):
        class_points(load("digits"), 1, 0)
