"""``lablib certify``: the table and result of a run, stopping and going on, and clear refusals."""

import types

import numpy as np
import pytest
import torch
from torch import nn

from lablib import certify
from lablib import layers as L
from lablib.__main__ import main
from lablib.certify import intervals
from lablib.experiments import certify_command, training
from lablib.experiments.results import read_result

CONFIG = types.SimpleNamespace(data=types.SimpleNamespace(name="digits"))
RUN = {"name": "tiny", "mode": "quick", "seed": 3, "device": "cpu"}


class _Sorted(nn.Module):
    """Nearest template in linf, as a model with a chain."""

    def __init__(self):
        super().__init__()
        self.distance = L.LInfDistance(64, 10)

    def network(self):
        return L.LipschitzSequential(nn.Flatten(), self.distance, L.Scale(-1.0))


def _templates() -> nn.Module:
    from lablib.data import load

    data, model = load("digits"), _Sorted()
    x = torch.from_numpy(data.x_train).float() / data.scale
    with torch.no_grad():
        for digit in range(10):
            model.distance.weight[digit] = x[data.y_train == digit].mean(0).flatten()
    return model.eval()


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """A folder that stands for a run; models are made by ``_templates`` unless replaced."""
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path / "figures"))
    made = types.SimpleNamespace(model=_templates(), path=tmp_path / "tiny-quick-seed3")
    made.path.mkdir()
    (made.path / training.MODEL_FILE).touch()
    monkeypatch.setattr(training, "load_run", lambda path: (made.model, CONFIG, RUN))
    return made


def test_table_and_result(run_folder, capsys):
    words = ["certify", str(run_folder.path), "--count", "60", "--eps", "8/255", "0.2", "--attack", "5"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "60 test images" in out
    assert "not finished" not in out
    assert "certified by margins" in out
    assert "certified by intervals" in out
    record = read_result("certify_tiny-quick-seed3", "quick")
    arrays, metrics = record["arrays"], record["metrics"]
    assert metrics["samples"] == 60
    assert metrics["largest_logit_error"] < 1e-6
    assert [row["eps"] for row in metrics["curves"]] == [8 / 255, 0.2]
    for row in metrics["curves"]:
        assert 0 < row["certified_margins"] <= row["attacked"] <= metrics["clean"]
        assert 0 < row["certified_intervals"] <= row["attacked"]
        share = np.mean(arrays["radius_intervals"] > row["eps"])
        assert share == pytest.approx(row["certified_intervals"])
    assert arrays["radius_margins"].dtype == np.float32
    assert metrics["clean"] == pytest.approx(arrays["correct"].mean())
    found = arrays["attacked"]
    assert (found[found > 0] > arrays["radius_intervals"][found > 0]).all()


def test_each_certificate_stands_by_itself(run_folder, monkeypatch):
    """Radii by margins do not enter those by intervals; the attack spares what either certifies."""
    spared = []
    attack = certify.attacked_at
    monkeypatch.setattr(
        certify, "attacked_at", lambda *args, **kw: spared.append(kw["certified"]) or attack(*args, **kw)
    )
    for place in (certify, intervals):
        monkeypatch.setattr(place, "bound_radius", lambda network, x, *rest: np.full(len(x), 0.9, np.float32))
    assert main(["certify", str(run_folder.path), "--count", "20", "--eps", "0.01", "--attack", "2"]) == 0
    arrays = read_result("certify_tiny-quick-seed3", "quick")["arrays"]
    assert (arrays["radius_margins"] == np.float32(0.9)).all()
    assert (arrays["radius_intervals"] < 0.9).all()
    assert (spared[0].numpy() == np.float32(0.9)).all()


def test_a_checkpoint_has_a_result_of_its_own(run_folder, capsys):
    words = ["--count", "10", "--attack", "0", "--eps", "0.1"]
    assert main(["certify", str(run_folder.path / training.MODEL_FILE), *words]) == 0
    finished = read_result("certify_tiny-quick-seed3", "quick")
    (run_folder.path / "checkpoint.pt").touch()
    assert main(["certify", str(run_folder.path / "checkpoint.pt"), *words, "--count", "9"]) == 0
    assert read_result("certify_tiny-quick-seed3_checkpoint", "quick")["metrics"]["samples"] == 9
    (run_folder.path / training.MODEL_FILE).unlink()
    capsys.readouterr()
    assert main(["certify", str(run_folder.path), *words, "--count", "8"]) == 0
    assert "not finished" in capsys.readouterr().out
    assert read_result("certify_tiny-quick-seed3_checkpoint", "quick")["metrics"]["samples"] == 8
    kept = read_result("certify_tiny-quick-seed3", "quick")
    assert kept["metrics"] == finished["metrics"]


def test_stopping_and_going_on(run_folder, capsys, monkeypatch):
    blocks = []
    block = certify_command._block
    monkeypatch.setattr(certify_command, "BLOCK", 20)
    monkeypatch.setattr(certify_command, "_block", lambda *args: blocks.append(1) or block(*args))
    words = ["certify", str(run_folder.path), "--count", "60", "--attack", "0"]
    assert main([*words, "--seconds", "1e-9"]) == 2  # not even one
    assert "--seconds more" in capsys.readouterr().err

    def interrupted(*args):
        if len(blocks) == 2:
            raise KeyboardInterrupt
        blocks.append(1)
        return block(*args)

    monkeypatch.setattr(certify_command, "_block", interrupted)
    assert main(words) == 130
    assert len(blocks) == 2
    monkeypatch.setattr(certify_command, "_block", lambda *args: blocks.append(1) or block(*args))
    assert main(words) == 0
    assert len(blocks) == 3
    assert "attacked" not in capsys.readouterr().out
    record = read_result("certify_tiny-quick-seed3", "quick")
    assert record["metrics"]["curves"][0]["attacked"] is None
    with torch.no_grad():
        run_folder.model.distance.weight.add_(0.01)
    assert main(words) == 0  # other weights: nothing is taken over
    assert len(blocks) == 6


def test_networks_without_a_constant_have_intervals_only(run_folder, capsys):
    run_folder.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).eval()
    assert main(["certify", str(run_folder.path), "--count", "10", "--attack", "0", "--eps", "0.001"]) == 0
    out = capsys.readouterr().out
    assert "intervals" in out
    assert "margins" not in out
    assert main(["certify", str(run_folder.path), "--norm", "l2"]) == 2
    run_folder.model = L.LipschitzSequential(nn.Flatten(), L.OrthonormalLinear(64, 10)).eval()
    assert main(["certify", str(run_folder.path), "--count", "10", "--attack", "3", "--eps", "0.1"]) == 0
    assert "l2 radii" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eps", "many"], "is no number"),
        (["--eps", "-0.1"], "negative"),
        (["--eps", "1/0"], "is no number"),
        (["--count", "0"], "at least 1"),
        (["--attack", "-1"], "--attack"),
        (["--seconds", "0"], "--seconds"),
        (["--data", "letters"], "letters"),
        (["--device", "cuda"], "no CUDA device"),
    ],
)
def test_bad_input_is_one_sentence(run_folder, capsys, words, message):
    # "--eps=-0.1", since a number after a space would be taken for another option
    joined = [f"{words[0]}={words[1]}"]
    assert main(["certify", str(run_folder.path), *joined]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_run_is_one_sentence(tmp_path, capsys):
    assert main(["certify", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
