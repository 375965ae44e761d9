"""tools/gpu.py: the order of the training queue, what counts as done, and stopping in time."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_command", ROOT / "tools" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def store(folder, name, mode="full", device="NVIDIA H200"):
    (folder / f"{name}.json").write_text(json.dumps({"mode": mode, "device": device}))


def test_queue_in_order_of_worth(gpu, tmp_path):
    order = list(gpu.queue(tmp_path))
    assert order[:4] == [(name, 0) for name in gpu.RECIPES]
    assert order[4] == ("sortnet-mnist-0.3", 1)
    assert len(order) == len(set(order)) == 12
    store(tmp_path, "train_sortnet-mnist-0.3")
    store(tmp_path, "train_sortnet-mnist-0.1_seed1")
    left = list(gpu.queue(tmp_path))
    assert left[0] == ("sortnet-mnist-0.1", 0)
    assert set(order) - set(left) == {("sortnet-mnist-0.3", 0), ("sortnet-mnist-0.1", 1)}


def test_what_is_not_a_full_result_of_a_gpu_is_run(gpu, tmp_path):
    name = "train_sortnet-mnist-0.3"
    for mode, device in (("standard", "NVIDIA H200"), ("full", "cpu")):
        store(tmp_path, name, mode, device)
        assert not gpu.finished("sortnet-mnist-0.3", 0, tmp_path)
    for damaged in ("", "{", "[]", "{}", '"full"'):
        (tmp_path / f"{name}.json").write_text(damaged)
        assert not gpu.finished("sortnet-mnist-0.3", 0, tmp_path)


def test_the_recipes_and_options_exist(gpu):
    import argparse

    from lablib.experiments import bench, train_command
    from lablib.experiments.training_recipes import RECIPES

    assert set(gpu.RECIPES) <= set(RECIPES)
    commands = []
    gpu.train(
        time.monotonic() + 1000,
        Path("nowhere"),
        lambda what, command, deadline: commands.append(command) or 0,
    )
    for command, module in ((commands[0][4:], train_command), (["--device", "cuda"], bench)):
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        assert parser.parse_args(command).device == "cuda"
    assert train_command.result_name("sortnet-mnist-0.3", 0, []) == "train_sortnet-mnist-0.3"
    assert train_command.result_name("sortnet-mnist-0.3", 1, []) == "train_sortnet-mnist-0.3_seed1"


def test_training_stops_when_time_is_short_and_goes_on_after_a_failure(gpu, tmp_path, capsys):
    done = []

    def step(what, command, deadline):
        done.append(what)
        return 2 if len(done) == 1 else 0

    assert gpu.train(time.monotonic() + 10, tmp_path, step) == 0
    assert not done
    assert "run this command again" in capsys.readouterr().out
    assert gpu.train(time.monotonic() + 1000, tmp_path, step) == 2
    assert len(done) == 12
    assert gpu.train(time.monotonic() + 1000, tmp_path, lambda *a: done.append(a) or gpu.OUT_OF_TIME) == 124
    assert len(done) == 13


def test_a_step_is_interrupted_and_may_finish(gpu, tmp_path):
    note = tmp_path / "saved"
    code = f"""
import signal, sys, time, pathlib
signal.signal(signal.SIGINT, lambda *a: (pathlib.Path({str(note)!r}).write_text("yes"), sys.exit(0)))
time.sleep(60)
"""
    start = time.monotonic()
    assert gpu.run("sleep", [sys.executable, "-c", code], start + 1.5) == gpu.OUT_OF_TIME
    assert note.read_text() == "yes"
    assert time.monotonic() - start < 15
    assert gpu.run("exit", [sys.executable, "-c", "raise SystemExit(3)"], time.monotonic() + 60) == 3


def test_a_step_that_does_not_listen_is_ended(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "GRACE_SECONDS", 0.5)
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    start = time.monotonic()
    assert gpu.run("deaf", [sys.executable, "-c", code], start + 1.5) == gpu.OUT_OF_TIME
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("words", [["--minutes", "0"], ["--minutes", "nan"], ["--steps", "dance"]])
def test_bad_words(gpu, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        gpu.main(words)
    assert "error:" in capsys.readouterr().err


def test_experiments_without_a_full_result_are_run_in_their_order(gpu, tmp_path, capsys):
    from lablib.experiments import RECIPES

    assert set(gpu.EXPERIMENTS) <= set(RECIPES)
    store(tmp_path, "denoising", mode="standard")
    store(tmp_path, "wasserstein")
    run = []
    assert gpu.experiments(time.monotonic() + 1000, tmp_path, lambda *call: run.append(call[0]) or 0) == 0
    assert run == ["denoising", "plug_and_play"]
    assert gpu.experiments(time.monotonic() + 1, tmp_path, lambda *call: 1) == 0
    assert "no time left for denoising" in capsys.readouterr().out
