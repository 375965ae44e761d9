"""The loop: stopping, going on, refusing another config, broken losses, one process of one."""

import math
import os
import signal

import pytest
import torch
from torch import nn

from lablib.train.distributed import Ranks, ranks
from lablib.train.optimiser import adamw
from lablib.train.run import Outcome, Plan, Run, check_same, flatten
from lablib.train.sampler import Sampler
from lablib.train.schedules import constant, cosine

ALONE = Ranks(0, 1, torch.device("cpu"))


def make(folder, *, steps=20, config=None, spoil=-1, on_step=lambda step: None, **options):
    """A run on random data that classifies noise; ``spoil``: the step with a loss that is not a number."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x, y = torch.randint(0, 255, (50, 1, 2, 2), dtype=torch.uint8), torch.randint(0, 3, (50,))
    sampler = Sampler(x, y, scale=255, batch=16, seed=1, pad=1)
    noise = torch.Generator().manual_seed(4)

    class Noise:
        def state_dict(self):
            return {"state": noise.get_state()}

        def load_state_dict(self, state):
            noise.set_state(state["state"])

    def loss(net, batch, moment):
        on_step(run.step)
        logits = net(batch.x + 0.1 * torch.rand(batch.x.shape, generator=noise))
        value = nn.functional.cross_entropy(logits, batch.y)
        right = logits.argmax(1) == batch.y
        return Outcome(value * (math.nan if run.step == spoil else 1.0), right, right)

    plan = Plan(steps, cosine(0.05, steps), constant(8.0), constant(0.1), constant(1.0))
    optimiser = adamw([{"params": list(model.parameters()), "decay": True}])
    options = {"save_seconds": 1e9, "progress": False, "ranks": ALONE, "folder": folder} | options
    run = Run(
        model,
        loss,
        sampler,
        plan,
        optimiser,
        config=config or {"a": {"b": 1}},
        parts={"noise": Noise()},
        **options,
    )
    return run


def weights(run):
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


def test_a_run_stopped_anywhere_goes_on_as_if_it_were_not(tmp_path):
    whole = make(tmp_path / "whole")
    assert whole.go() == 0
    assert whole.finished

    def stop_at(steps):
        def on_step(step):
            if step == steps:
                os.kill(os.getpid(), signal.SIGTERM)

        return on_step

    for stop in (2, 3, 9):  # in an epoch, at its end, in a later one
        first = make(tmp_path / str(stop), on_step=stop_at(stop))
        assert first.go() == signal.SIGTERM
        assert first.step == stop + 1
        second = make(tmp_path / str(stop))
        assert second.resume()
        assert second.step == stop + 1
        assert second.go() == 0
        assert torch.equal(weights(second), weights(whole))
        assert [{**e, "seconds": 0} for e in second.history] == [{**e, "seconds": 0} for e in whole.history]
        assert second.seconds > 0


def test_history_is_the_mean_over_the_epoch(tmp_path):
    run = make(tmp_path, steps=8)
    run.go()
    assert [(e["epoch"], e["step"]) for e in run.history] == [(1, 4), (2, 8)]
    assert {"loss", "clean", "train_margin", "p", "lr", "eps", "lam", "seconds"} <= run.history[0].keys()
    assert 0.0 <= run.history[0]["clean"] <= 1.0
    assert run.history[0]["clean"] * 50 == pytest.approx(round(run.history[0]["clean"] * 50))
    assert run.resume()
    assert run.finished
    assert run.go() == 0  # nothing left to do


def test_ctrl_c_stops_after_the_step_and_a_second_one_at_once(tmp_path):
    run = make(tmp_path, on_step=lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 5 else None)
    assert run.go() == signal.SIGINT
    assert run.step == 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def twice(step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    run = make(tmp_path, on_step=twice)
    with pytest.raises(KeyboardInterrupt):
        run.go()


def test_seconds_stop_cleanly(tmp_path):
    run = make(tmp_path, steps=10**6)
    assert run.go(seconds=0.05) == 0
    assert 0 < run.step < 10**6
    again = make(tmp_path, steps=10**6)
    again.resume()
    assert again.step == run.step
    assert again.seconds == pytest.approx(run.seconds, abs=0.05)


def test_checkpoints_come_every_so_many_steps(tmp_path):
    seen = []
    run = make(
        tmp_path,
        steps=10,
        save_steps=3,
        on_step=lambda step: seen.append((tmp_path / "checkpoint.pt").exists()),
    )
    run.go()
    assert seen == [False] * 3 + [True] * 7
    assert torch.load(tmp_path / "previous.pt", weights_only=True)["step"] == 9
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 10


def test_another_config_is_refused_and_the_differences_named(tmp_path):
    make(tmp_path, steps=3).go()
    other = make(tmp_path, steps=3, config={"a": {"b": 2, "c": (1, 2)}})
    with pytest.raises(
        ValueError, match=r"other settings \(a.b: 1 there, 2 here; a.c: 'not set' there, \[1, 2\] here\)"
    ):
        other.resume()
    assert not make(tmp_path / "new").resume()
    check_same({"a": (1, 2)}, {"a": [1, 2]}, tmp_path)
    assert flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}


def test_a_broken_loss_is_named_and_the_checkpoint_before_kept(tmp_path):
    run = make(tmp_path, save_steps=2, spoil=3)
    with pytest.raises(ValueError, match=r"the loss became nan by step 4; lower optim.lr"):
        run.go()
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2


def test_evaluation_comes_every_so_many_epochs_in_evaluation_mode(tmp_path):
    modes = []

    def evaluate():
        modes.append(run.model.training)
        return {"held_out_clean": 0.5}

    run = make(tmp_path, steps=24, evaluate=evaluate, evaluate_epochs=3)
    run.go()
    assert modes == [False, False]
    assert [e["epoch"] for e in run.history if "held_out_clean" in e] == [3, 6]
    assert run.model.training


def test_curves_are_logged_where_tensorboard_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    make(tmp_path, steps=8).go()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [4, 8]


def test_the_bar_tells_numbers(tmp_path, capsys):
    make(tmp_path, steps=4, progress=True).go()
    assert "4/4" in capsys.readouterr().err


def test_the_bar_calls_the_margin_a_margin(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lablib.train.progress.REDRAW_SECONDS_IN_A_LOG", 0.0)
    monkeypatch.setattr("lablib.train.progress.REDRAW_SECONDS", 0.0)
    make(tmp_path, steps=4, progress=True).go()
    said = capsys.readouterr().err
    assert ", margin 0." in said or ", margin 1" in said
    assert "certified" not in said


def test_other_kernels_are_told_and_not_refused(tmp_path, capsys):
    make(tmp_path, steps=3, machine={"kernels": "native"}).go()
    assert make(tmp_path, steps=3, machine={"kernels": "native"}).resume()
    assert capsys.readouterr().err == ""
    assert make(tmp_path, steps=3, machine={"kernels": "numba"}).resume()
    said = capsys.readouterr().err
    assert "kernels native there, numba here" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("device", "says"), [("tpu", "cpu or cuda"), ("cuda", "no CUDA device")])
def test_devices_that_are_not_there(device, says):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match=says), ranks(device):
        pass
