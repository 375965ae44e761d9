"""Private speed: every method takes a real step on the same layers, memory and largest batches are measured."""

import os
import sys

import pytest
import torch

from lablib.experiments import private_speed, private_speed_memory
from lablib.experiments.private_speed import Config, draw, methods_at_hand, run, take_rounds
from lablib.experiments.private_speed_memory import largest_batch, peak_memory
from lablib.experiments.private_speed_sides import (
    CLIPLESS,
    METHODS,
    NETWORKS,
    PER_SAMPLE,
    PLAIN,
    Side,
    prepare,
)

SMALL = Config("quick", batches=(8, 16), turns=5, seconds=0.1, limit=2**20, threads=1)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_the_same_layers(method, network, monkeypatch):
    if method not in (CLIPLESS, PLAIN):
        pytest.importorskip("opacus")
    made = []
    build = NETWORKS[network]
    monkeypatch.setitem(NETWORKS, network, lambda: made.append(build()) or made[-1])
    side = prepare(method, network, 6)
    (module,) = made
    shapes = [tuple(p.shape) for p in module.parameters()]
    assert shapes == [tuple(p.shape) for p in build().parameters()]
    before = [p.detach().clone() for p in module.parameters()]
    for _ in range(2):
        side()
    assert all(not torch.equal(then, now) for then, now in zip(before, module.parameters(), strict=True))
    assert all(p.isfinite().all() for p in module.parameters())


def test_what_there_is_not():
    for wrong in (("clipped", "convolutional", 4), (PLAIN, "MLP", 4), (PLAIN, "convolutional", 0)):
        with pytest.raises(ValueError, match="methods: clipless"):
            prepare(*wrong)


def test_rounds_take_turns_and_time_the_step_alone():
    calls = []

    def noted(name: str) -> Side:
        return Side(lambda: (calls.append(f"draw {name}"), name), lambda _, drawn: calls.append(drawn))

    sides = {name: noted(name) for name in "ab"}
    taken = take_rounds(sides, 6, 100.0)
    assert [len(times) for times in taken.values()] == [6, 6]
    steps = calls[8:]  # behind two warm-up rounds
    assert steps[::2] == [f"draw {name}" for name in steps[1::2]]
    assert steps[1::2] == list("baab" * 3)
    assert len(take_rounds(sides, 50, 0.0)["a"]) == private_speed.LEAST_TURNS


@pytest.mark.parametrize("fixed", [0, 5_000_000])
def test_the_largest_batch_is_between_two_that_were_measured(fixed):
    limit, tried = 100_000_000, []

    def measure(size: int) -> int:
        tried.append(size)
        return fixed + 12_345 * size

    found = largest_batch({64: fixed + 12_345 * 64}, limit, measure)
    true = (limit - fixed) // 12_345
    assert found["fits"] <= true < found["exceeds"] <= 1.08 * found["fits"]
    assert {found["fits"], found["exceeds"]} <= set(tried)
    assert len(tried) <= private_speed_memory.TRIES


def test_no_batch_fits_where_memory_does_not_depend_on_it():
    found = largest_batch({64: 10}, 5, lambda size: 10)
    assert found["fits"] is None
    assert found["exceeds"] >= 1
    with pytest.raises(ValueError, match="at least one"):
        largest_batch({}, 5, lambda size: 10)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of Linux")
def test_peak_memory_sees_a_tensor_that_is_gone(monkeypatch):
    held = 64 * 2**20

    def prepared(method: str, network: str, batch_size: int) -> Side:
        return Side(lambda: (None, None), lambda x, y: torch.ones(batch_size * held // 4 // 8).sum())

    monkeypatch.setattr(private_speed_memory, "prepare", prepared)
    assert 0.95 * held <= private_speed_memory._peak_here(PLAIN, "MLP 784-256-10", 8) <= 1.5 * held


def _die(*args: object) -> None:
    os._exit(9)


def test_a_killed_process_and_a_failed_one_are_told(monkeypatch):
    with pytest.raises(ValueError, match="methods: clipless"):
        peak_memory("no method", "convolutional", 4)
    monkeypatch.setattr(private_speed_memory, "_answer", _die)
    with pytest.raises(ValueError, match="was killed; take a smaller batch"):
        peak_memory(PLAIN, "convolutional", 4)


def test_the_recipe_measures_and_draws(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    monkeypatch.setattr(private_speed, "peak_memory", lambda method, network, size, *others: 1000 * size)
    before = torch.get_num_threads()
    metrics = run(SMALL)
    assert torch.get_num_threads() == before
    assert metrics["methods"] == list(methods_at_hand())
    assert metrics["entries"]["MLP 784-256-10"] == 203_530
    assert len(metrics["times"]) == 4
    assert len(metrics["memory"]) == 2 * len(metrics["methods"])
    row = metrics["times"][0]
    times = row["seconds"]
    assert times[CLIPLESS]["lower"] <= times[CLIPLESS]["median"] <= times[CLIPLESS]["upper"]
    assert row["over_plain"] == pytest.approx(times[CLIPLESS]["median"] / times[PLAIN]["median"])
    if PER_SAMPLE in times:
        assert row["per_sample_over"] == pytest.approx(
            times[PER_SAMPLE]["median"] / times[CLIPLESS]["median"]
        )
    assert 1000 <= metrics["memory"][0]["largest"]["fits"] <= 2**20 // 1000
    (figure,) = draw({"metrics": metrics}).values()
    text = " ".join(t.get_text() for axis in figure.axes for t in (axis.title, axis._left_title))
    assert f"{row['network']}, batch 16" in text
    assert "Largest batch" in text


def test_without_opacus_the_rest_is_measured(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert methods_at_hand() == (CLIPLESS, PLAIN)
