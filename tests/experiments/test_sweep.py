"""The sweep: its plan and one trial always; two trials by Ray where Ray is installed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lablib.experiments.sweep import main, sweep, train_trial, trials

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "model.width=16", "optim.epochs=2", "p.begin=0", "p.end=1", "data.train=300", "data.test=50", "attack_rows=0",
    "evaluate=0",
]  # fmt: skip


def test_trials_are_all_combinations():
    planned = trials(["optim.lr=0.01,0.03", "model.keep=0.7"], seeds=2)
    assert len(planned) == 4
    assert planned[0] == {"settings": ["optim.lr=0.01", "model.keep=0.7"], "seed": 0}
    assert planned[-1] == {"settings": ["optim.lr=0.03", "model.keep=0.7"], "seed": 1}


def test_a_trial_is_a_resumable_run(tmp_path):
    trial = {"settings": SMALL, "seed": 1}
    first = train_trial(trial, "sortnet-digits", "quick", "cpu", str(tmp_path))
    checkpoint = tmp_path / first["run"] / "checkpoint.pt"
    before = checkpoint.read_bytes()
    # finished: only certified anew
    again = train_trial(trial, "sortnet-digits", "quick", "cpu", str(tmp_path))
    assert checkpoint.read_bytes() == before
    assert 0.0 <= first["certified"] == again["certified"] <= first["clean"] <= 1.0
    assert (tmp_path / first["run"] / "model.pt").exists()


def test_wrong_settings_are_refused_before_anything_starts(tmp_path, capsys):
    assert (
        main(["sortnet-digits", "--mode", "quick", "--try", "optim.rate=1", "--folder", str(tmp_path)]) == 2
    )
    assert "no setting 'optim.rate'" in capsys.readouterr().err


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs Ray: pip install .*sweep"):
        sweep("sortnet-digits", "quick", ["optim.lr=0.01,0.03"], folder=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is the optional extra sweep")
def test_two_trials_by_ray(tmp_path):
    tried = [word for setting in SMALL for word in ("--try", setting)]
    words = [
        "sortnet-digits",
        "--mode",
        "quick",
        "--folder",
        str(tmp_path),
        "--try",
        "optim.lr=0.01,0.03",
        *tried,
    ]
    command = [sys.executable, "-m", "lablib.experiments.sweep", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "sweep.json").read_text())
    assert len(table) == 2
    assert table[0]["certified"] >= table[1]["certified"]
    assert done.stdout.count("certified") == 2
