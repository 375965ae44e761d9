"""The benchmark command: every comparison can be prepared and run."""

import pytest
import torch

from lablib.__main__ import main
from lablib.experiments import kernel_bench, private_speed_sides, sortnet_bench, spline_bench
from lablib.experiments.bench import _set_threads, contests, take_turns
from lablib.ops.splines import linear_spline


def test_every_side_runs(monkeypatch):
    for module in (kernel_bench, sortnet_bench):
        monkeypatch.setattr(module, "SHAPES", ((8, 30, 12),))
    monkeypatch.setattr(spline_bench, "SHAPES", ((8, 6), (2, 4, 3, 3)))
    monkeypatch.setattr(private_speed_sides, "BATCHES", (4,))
    for contest in contests():
        if "dense" not in contest.peer and "compile" not in contest.peer:  # seconds each
            for side in contest.prepare():
                side()


def test_peers_of_splines_compute_splines():
    x, values = torch.randn(20, 6, 3, requires_grad=True), torch.randn(6, 21, requires_grad=True)
    grad = torch.randn(20, 6, 3)
    made = []
    for form in (linear_spline, spline_bench.gather_form, spline_bench.CustomAutograd.apply):
        y = form(x, values, 1.0)
        made.append((y, *torch.autograd.grad(y, (x, values), grad)))
    for ours, *theirs in zip(*made):
        assert all(torch.allclose(ours, other, atol=1e-4) for other in theirs)


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


def test_threads_are_those_torch_has_unless_told():
    before = torch.get_num_threads()
    assert _set_threads(None) == before == torch.get_num_threads()
    with pytest.raises(ValueError, match="at least 1"):
        _set_threads(0)


@pytest.mark.parametrize("words", [["bench", "nothing"], ["bench", "--repeat", "0"]])
def test_bad_words(words, capsys, monkeypatch):
    monkeypatch.setattr("lablib.experiments.bench._set_threads", lambda threads: 1)
    assert main(words) == 2
    assert "error:" in capsys.readouterr().err
