"""The GPU benchmark's table without a GPU: what it says, what it leaves out, and its refusal. Kernels: tests/ops."""

import pytest
import torch

from lablib.experiments import gpu_bench


def lines(monkeypatch, contest, seconds):
    monkeypatch.setattr(gpu_bench, "take_turns", lambda calls, repeat: seconds[: len(calls)])
    return gpu_bench.measure(contest, {"max": 1e9}, 3)


def test_ratio_share_and_error(monkeypatch):
    exact = torch.ones(2, 3, dtype=torch.float64)
    contest = gpu_bench.Contest(
        "l_inf",
        5e8,
        "max",
        lambda: torch.ones(4, 3),
        {"peer": lambda: (torch.full((4, 3), 2.0), None)},
        lambda: exact,
    )
    made = lines(monkeypatch, contest, [1.0, 4.0])
    assert made["ratios"] == {"peer": 4.0}
    assert made["share_of_ceiling"] == 0.5
    assert made["errors"] == {"ours": 0.0, "peer": 1.0}
    text = gpu_bench.describe(made)
    assert "1000.000 ms" in text
    assert "50% of ceiling" in text
    assert "4.0 x peer" in text


def test_a_peer_that_fails_is_left_out_and_nan_is_told(monkeypatch, capsys):
    def fail():
        raise torch.OutOfMemoryError("out of memory")

    contest = gpu_bench.Contest(
        "wide",
        1.0,
        "",
        lambda: torch.full((2, 1), float("nan")),
        {"broadcast": fail},
        lambda: torch.ones(2, 1).double(),
    )
    made = lines(monkeypatch, contest, [1.0])
    assert made["ratios"] == {}
    assert made["errors"] == {"ours": "not finite"}
    assert "not finite" in gpu_bench.describe(made)
    assert "left out: broadcast in wide: out of memory" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so():
    with pytest.raises(ValueError, match="no CUDA device here"):
        gpu_bench.run([], 1)
