"""Parts of a long run: kept until the result is written, and never a reason to stop."""

import dataclasses

import numpy as np
import pytest

from lablib.experiments.checkpoint import Checkpoint, partial_file
from lablib.experiments.recipe import Recipe


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))


def test_a_checkpoint_of_another_config_is_ignored():
    first = Checkpoint("thing", "quick", {"a": (1, 2)})
    first["part"] = [1.5]
    assert Checkpoint("thing", "quick", {"a": [1, 2]})["part"] == [1.5]
    assert "part" not in Checkpoint("thing", "quick", {"a": [1, 3]})


@pytest.mark.parametrize(
    "content",
    [b'{"config"', b"\xff\xfe\x00", b"", b"[]", b"5", b'{"config": {}, "parts": 5}', b'{"config": {}}'],
)
def test_a_damaged_checkpoint_is_ignored_with_a_line(content, capsys):
    path = partial_file("thing", "quick")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    parts = Checkpoint("thing", "quick", {})
    assert "part" not in parts
    assert capsys.readouterr().err.count("thing.partial.json is damaged") == 1
    parts["part"] = 1
    assert Checkpoint("thing", "quick", {})["part"] == 1


def test_numpy_values_are_kept_and_a_bad_part_changes_nothing():
    parts = Checkpoint("thing", "quick", {})
    parts["radii"] = {"best": np.float32(0.5), "all": np.arange(3)}
    with pytest.raises(TypeError, match="numbers, strings, lists"):
        parts["bad"] = object()
    parts["good"] = 1
    stored = Checkpoint("thing", "quick", {})
    assert stored["radii"] == {"best": 0.5, "all": [0, 1, 2]}
    assert "bad" not in stored
    assert stored["good"] == 1


def test_the_bar_begins_at_what_is_finished_and_ctrl_c_counts(capsys):
    sizes = {"first": 3, "second": 5, "third": 7}
    for finished in range(3):
        parts = Checkpoint("thing", "quick", {})
        with pytest.raises(KeyboardInterrupt, match=f"^{finished} of 3 parts are finished and kept$"):
            _work(parts, sizes, stop=[*sizes][finished])
    with Checkpoint("thing", "quick", {}).bar(sizes, "step") as bar:
        assert (bar.n, bar.initial, bar.total) == (8, 8, 15)
        bar.update(7)
    assert "15/15" in capsys.readouterr().err


def _work(parts, sizes, stop):
    with parts.bar(sizes, "step") as bar:
        for part, size in sizes.items():
            if part == stop:
                raise KeyboardInterrupt
            if part not in parts:
                bar.update(size)
                parts[part] = 1


@dataclasses.dataclass(frozen=True)
class _Config:
    value: float


def _run(config):
    Checkpoint("thing", "quick", {})["part"] = 1
    return {"value": config.value}


def test_parts_stay_until_the_result_is_written():
    sizes = {"quick": _Config(float("nan")), "standard": _Config(0), "full": _Config(0)}
    recipe = Recipe("thing", "?", sizes, run=_run, draw=dict)
    with pytest.raises(ValueError, match="JSON"):
        recipe.make("quick")
    assert "part" in Checkpoint("thing", "quick", {})
    dataclasses.replace(recipe, sizes=sizes | {"quick": _Config(0.5)}).make("quick")
    assert not partial_file("thing", "quick").exists()
