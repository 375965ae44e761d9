"""The benchmark command: every comparison can be prepared and run."""

import pytest

from lablib.__main__ import main
from lablib.experiments import kernel_bench, sortnet_bench
from lablib.experiments.bench import contests, take_turns


def test_every_side_runs(monkeypatch):
    for module in (kernel_bench, sortnet_bench):
        monkeypatch.setattr(module, "SHAPES", ((8, 30, 12),))
    for contest in contests():
        if "dense" not in contest.peer and "compile" not in contest.peer:  # seconds each
            for side in contest.prepare():
                side()


def test_the_ceiling_is_above_what_is_reached():
    from lablib.ops import native

    if native.kernels() != "native":
        pytest.skip(native.choice()[1])
    assert 1e8 < kernel_bench.vector_peak(1) < 1e12


def test_turns_alternate():
    calls = []
    take_turns(lambda: calls.append("a"), lambda: calls.append("b"), 3)
    assert calls == ["a", "b"] * 4


def test_command(capsys, monkeypatch):
    monkeypatch.setattr(
        "lablib.experiments.bench._set_threads", lambda threads: 1
    )  # leave the other tests theirs
    assert main(["bench", "GroupSort(8)", "--repeat", "1", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert " x     -  GroupSort(8)" in out


@pytest.mark.parametrize("words", [["bench", "nothing"], ["bench", "--repeat", "0"]])
def test_bad_words(words, capsys, monkeypatch):
    monkeypatch.setattr("lablib.experiments.bench._set_threads", lambda threads: 1)
    assert main(words) == 2
    assert "error:" in capsys.readouterr().err
