"""``lablib train`` from the outside: killed and resumed, in two processes, wrong settings, damaged files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lablib.__main__ import main
from lablib.experiments.results import read_result
from lablib.experiments.train_command import result_name
from lablib.experiments.training import Training, build_model, load_model, load_run
from lablib.experiments.training_config import Config, Model, from_plain, known_settings, override
from lablib.experiments.training_recipes import RECIPES, recipe_config
from lablib.layers import LipschitzSequential
from lablib.train.distributed import Ranks

ALONE = Ranks(0, 1, torch.device("cpu"))
ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "sortnet-digits", "--mode", "quick", "--no-bar", "model.width=16", "optim.epochs=5", "p.begin=1", "p.end=4",
    "evaluate=2", "attack_rows=40", "optim.batch=128", "data.held_out=128",
]  # fmt: skip
RESULT = result_name("sortnet-digits", 0, [word for word in SMALL if "=" in word])


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    """Results and runs of a test go to its own folder."""
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setenv("LABLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of subprocesses: sums depend on how threads cut them


def command(*words, launcher=("-m", "lablib")):
    return [sys.executable, "-W", "error::UserWarning", *launcher, "train", *words]


def torchrun(port):
    """Words that start two processes on this machine, meeting at a port of their own."""
    address = ("--master-addr", "127.0.0.1", "--master-port", str(port + os.getpid() % 90))
    return ("-m", "torch.distributed.run", "--nproc-per-node", "2", *address, "-m", "lablib")


def run(*words, **options):
    return subprocess.run(command(*words, **options), cwd=ROOT, capture_output=True, text=True, timeout=300)


def newest_step(folder):
    """The step of the newest checkpoint of a run that may be killed at any time, 0 without any."""
    for name in ("checkpoint.pt", "previous.pt"):  # a kill between two moves leaves only the second
        try:
            return torch.load(folder / name, weights_only=True)["step"]
        except FileNotFoundError:
            continue
    return 0


def equal_states(first, second):
    """Whether two checkpoints hold the same, but for times."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        keys = first.keys() - {"seconds", "sha256"}
        return first.keys() == second.keys() and all(equal_states(first[key], second[key]) for key in keys)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(equal_states, first, second))
    return first == second


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run left alone, in a process of its own with one thread: its folder and its result."""
    folder = tmp_path_factory.mktemp("whole")
    environment = os.environ | {"LABLIB_FIGURES": str(folder / "figures"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command(*SMALL, "--folder", str(folder)), cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "clean" in done.stdout
    assert "certified" in done.stdout
    return folder


def test_killed_at_any_step_and_resumed_is_bit_for_bit_the_run_left_alone(whole, tmp_path):
    folder = tmp_path / "killed"
    words = (*SMALL, "--folder", str(folder), "--save-steps", "1")
    kills = 0
    for wait in (0.0, 0.15):
        seen = newest_step(folder)
        victim = subprocess.Popen(
            command(*words, "--resume"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while victim.poll() is None and newest_step(folder) == seen:
            time.sleep(0.002)
        time.sleep(wait)
        kills += victim.poll() is None
        victim.kill()
        victim.wait()
    assert kills >= 1
    assert 0 < newest_step(folder) < 55
    done = run(*words, "--resume")
    assert done.returncode == 0, done.stderr
    assert "resumed at step" in done.stderr
    states = [torch.load(f / "checkpoint.pt", weights_only=True) for f in (whole, folder)]
    assert states[0]["step"] == 55
    assert equal_states(*states)
    models = [torch.load(f / "model.pt", weights_only=True) for f in (whole, folder)]
    assert equal_states(*models)


def test_two_processes_are_one_at_the_same_batch(whole, tmp_path):
    """1309 digits in batches of 128: the last one, of 29, leaves the first process without a row."""
    folder = tmp_path / "two"
    done = run(*SMALL, "--folder", str(folder), launcher=torchrun(29700))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("trained in") == 1  # one of them speaks
    one, two = (torch.load(f / "checkpoint.pt", weights_only=True) for f in (whole, folder))
    assert equal_states(one["parts"], two["parts"])  # the same masks, to the last bit
    assert equal_states(one["sampler"], two["sampler"])  # the same order and crops
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-4, atol=1e-4)
    for a, b in zip(one["history"], two["history"]):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["clean"] == pytest.approx(b["clean"], abs=2 / 1309)
    weights = [torch.load(f / "model.pt", weights_only=True)["model"] for f in (whole, folder)]
    for name, value in weights[0].items():  # means over the training set, each process its part
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_one_lost_process_ends_all(tmp_path):
    folder = tmp_path / "bad"
    words = (*SMALL, "optim.epochs=30000", "--save-steps", "5", "--folder", str(folder))
    group = subprocess.Popen(
        command(*words, launcher=torchrun(29900)),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoint.pt").exists() and time.monotonic() < deadline:
            assert group.poll() is None
            time.sleep(0.05)
        children = Path(f"/proc/{group.pid}/task/{group.pid}/children").read_text().split()
        environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in children}
        (second,) = [pid for pid, variables in environments.items() if b"RANK=1" in variables]
        os.kill(second, signal.SIGKILL)
        assert group.wait(timeout=60) != 0
        assert not [pid for pid in environments if Path(f"/proc/{pid}").exists()]
    finally:
        if group.poll() is None:
            group.terminate()
            group.wait()


def test_the_result_file_and_the_model_of_a_run(whole, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(whole / "figures"))
    record = read_result(RESULT, "quick")
    metrics, arrays = record["metrics"], record["arrays"]
    assert metrics["certified_by"] == "margins"
    assert 0.0 <= metrics["certified"] <= metrics["certified_plain"] <= metrics["clean"] <= 1.0
    assert metrics["certified_of_attacked_rows"] <= metrics["attacked"]
    assert len(metrics["history"]) == 5
    assert metrics["attack_steps"] == 20
    second = metrics["history"][1]
    assert 0.0 <= second["held_out_margin"] <= second["held_out_clean"] <= 1.0
    assert (second["held_out_clean"] * 128).is_integer()  # of the rows held out, none of them a test row
    assert not {"certified", "held_out_certified"} & second.keys()
    assert record["config"]["model"]["width"] == 16
    assert record["device"] == "cpu"
    assert arrays["radii"].dtype == np.float32
    assert arrays["radii"].shape == arrays["labels"].shape == (360,)
    assert ((arrays["radii"] > 0) <= arrays["correct"]).all()
    assert (arrays["radii"] > 0.1).mean() == pytest.approx(metrics["certified"])
    for path in (whole, whole / "model.pt", str(whole / "checkpoint.pt")):
        model, config, info = load_run(path)
        assert config.model.width == 16
        assert info == {"name": "sortnet-digits", "mode": "quick", "seed": 0, "device": "cpu"}
        assert not model.training
    network = load_model(whole).network()
    assert isinstance(network, LipschitzSequential)
    from lablib.data import load

    data = load("digits")
    logits = network(torch.from_numpy(data.x_test).float() / data.scale)
    assert torch.equal(logits.argmax(1) == torch.from_numpy(data.y_test), torch.from_numpy(arrays["correct"]))


def test_an_earlier_run_is_never_lost(whole, capsys):
    before = (whole / "checkpoint.pt").read_bytes()
    words = ["train", *SMALL, "--folder", str(whole)]
    assert main(words) == 2
    assert "holds a run already; go on with it by --resume, replace it by --fresh" in capsys.readouterr().err
    assert main([*words, "--resume", "optim.lr=0.5", "model.keep=0.9"]) == 2
    said = capsys.readouterr().err
    assert "config.model.keep: 0.8 there, 0.9 here" in said
    assert "config.optim.lr: 0.02 there, 0.5 here" in said
    assert main([*words, "--resume", "--seed", "3"]) == 2
    assert "run.seed: 0 there, 3 here" in capsys.readouterr().err
    assert (whole / "checkpoint.pt").read_bytes() == before


def test_seconds_pause_and_resume_goes_on(tmp_path, capsys):
    words = ["train", *SMALL, "optim.epochs=3000", "p.end=2000", "--folder", str(tmp_path / "run")]
    assert main([*words, "--seconds", "0.3"]) == 0
    said = capsys.readouterr().out
    assert "paused after 0.3 s at step" in said
    assert "--resume goes on" in said
    assert main([*words, "--resume", "--seconds", "0.3"]) == 0
    assert "resumed at step" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.pt").exists()
    assert main([*words, "--fresh", "--seconds", "0.01"]) == 0
    assert "resumed" not in capsys.readouterr().err


def test_a_damaged_checkpoint_is_one_sentence(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoint.pt").write_bytes(b"PK nonsense")
    assert main(["train", *SMALL, "--folder", str(folder), "--resume"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "checkpoint.pt is damaged" in said
    assert len(said.splitlines()) == 1
    with pytest.raises(ValueError, match="damaged"):
        load_model(folder)
    with pytest.raises(ValueError, match=r"holds runs; give one of them: run$"):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="train first"):
        load_model(tmp_path / "nowhere")
    torch.save({"step": 1}, folder / "checkpoint.pt")
    with pytest.raises(ValueError, match="no checkpoint of a run"):
        load_model(folder)


def test_rows_held_out_are_the_last_ones_and_not_trained_on(tmp_path):
    from lablib.data import load

    x = torch.from_numpy(load("digits").x_train)
    rows = ["data.train=300", "data.test=50"]
    for held in (0, 40):
        config = override(recipe_config("sortnet-digits", "quick"), [*rows, f"data.held_out={held}"])
        made = Training("sortnet-digits", "quick", config, 0, ALONE, tmp_path, progress=False)
        assert torch.equal(made.sampler.x, x[: 300 - held])
        assert torch.equal(made.x, x[: 300 - held])  # of the means too
        assert torch.equal(made.x_held, x[300 - held : 300])
        assert (made.run.evaluate is None) == (held == 0)
    for sizes in RECIPES.values():
        assert sizes["quick"].data.held_out == 200
        assert sizes["standard"].data.held_out in (200, 1000)
        assert sizes["full"].data.held_out == 0


def test_attacked_accuracy_comes_from_the_adaptive_attack(tmp_path, monkeypatch):
    """Plain gradient descent all but fails on distance networks, and would flatter them."""
    from lablib.experiments import training_result

    calls = []

    def attacked_at(network, x, labels, epsilons, **options):
        calls.append((len(x), epsilons, options))
        return torch.full((len(x),), torch.inf).index_fill(0, torch.arange(3), 0.0)

    monkeypatch.setattr(training_result, "attacked_at", attacked_at)
    config = override(recipe_config("sortnet-digits", "quick"), ["model.width=8", "attack_rows=12"])
    made = Training("sortnet-digits", "quick", config, 0, ALONE, tmp_path, progress=False)
    metrics, arrays = training_result.certify(made)
    ((rows, epsilons, options),) = calls
    assert (rows, epsilons, metrics["attacked"]) == (12, [0.1], 9 / 12)
    assert options["steps"] == metrics["attack_steps"]
    assert torch.equal(options["certified"], torch.from_numpy(arrays["radii"][:12]))


def test_fresh_and_resume_delete_what_is_the_runs_own(tmp_path):
    folder = tmp_path / "run"
    words = ["train", *SMALL, "--folder", str(folder), "--seconds", "0.01"]
    assert main(words) == 0
    for name in ("mine.pt", "events.out.tfevents.1.other", ".fresh.pt.abcd_123", ".model.pt.abcd_123"):
        (folder / name).write_bytes(b"x")
    assert main([*words, "--resume"]) == 0
    assert not list(folder.glob(".*.pt.*"))  # left by a process that was killed while it wrote
    (folder / ".fresh.pt.abcd_123").write_bytes(b"x")
    logs = {path.name for path in folder.glob("*.lablib")}
    (folder / "model.pt").write_bytes(b"x")
    assert main([*words, "--fresh"]) == 0
    names = {path.name for path in folder.iterdir()}
    assert {"mine.pt", "events.out.tfevents.1.other", "checkpoint.pt"} <= names
    assert not {"model.pt", ".fresh.pt.abcd_123", *logs} & names


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sortnet-mnist"], "no training recipe 'sortnet-mnist'; choose from: sortnet-digits"),
        (["sortnet-digits", "model.widht=3"], "no setting 'model.widht'; near it: model.width"),
        (["sortnet-digits", "lr=3"], "near it: "),
        (["sortnet-digits", "model.width=many"], "model.width is a whole number, got 'many'"),
        (["sortnet-digits", "model.width=3.5"], "model.width is a whole number"),
        (["sortnet-digits", "optim.lr=nan"], "optim.lr is a finite number"),
        (["sortnet-digits", "data.flip=1"], "data.flip is true or false"),
        (["sortnet-digits", "model.identity=x"], "a finite number or none"),
        (["sortnet-digits", "optim.lr=-1"], "optim.lr must be positive"),
        (["sortnet-digits", "p.end=500"], "choose 0 <= p.begin < p.end <= optim.epochs"),
        (["sortnet-digits", "data.held_out=-1"], "must not be negative"),
        (["sortnet-digits", "data.held_out=1437"], "data.held_out=1437 leaves no row to train on"),
        (["sortnet-digits", "data.train=200"], "data.held_out=200 leaves no row to train on"),
        (["sortnet-digits", "word"], "'word' is no setting"),
        (["sortnet-digits", "model.kind=cnn"], "model.kind is one of mlp, hybrid"),
        (["sortnet-digits", "model.kind=hybrid"], "does not go with model.kind=hybrid; use ce_hinge"),
        (["sortnet-digits", "loss.kind=ce_hinge"], "does not go with model.kind=mlp; use mixture"),
        (["sortnet-digits", "--seconds", "0"], "--seconds must be positive"),
        (["sortnet-digits", "--device", "tpu"], "device is cpu or cuda"),
    ],
)
def test_wrong_words_are_one_clear_sentence(words, says, capsys):
    assert main(["train", *words, "--mode", "quick"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert says in said
    assert len(said.splitlines()) == 1


def test_what_was_attacked_is_compared_with_proofs_of_the_same_rows():
    """The first rows may be harder than all: beside proofs of all rows their attack would look unsound."""
    from lablib.experiments.training_result import describe_metrics

    metrics = {"clean": 0.8778, "certified": 0.7528, "eps": 0.1, "certified_by": "margins"}
    line = "clean 87.78%, certified 75.28% at 0.1 (by margins)"
    assert describe_metrics(metrics) == line
    metrics |= {"attacked": 0.735, "attacked_rows": 200, "certified_of_attacked_rows": 0.72}
    assert (
        describe_metrics(metrics)
        == f"{line}; of the first 200: certified 72.00%, not broken by attack 73.50%"
    )


@pytest.mark.parametrize("words", [["model"], ["--mode", "quick", "model"]])
def test_a_word_that_is_no_setting_is_refused_as_such(words, capsys):
    assert main(["train", "sortnet-digits", *words]) == 2
    assert "'model' is no setting; settings are KEY=VALUE" in capsys.readouterr().err


def test_only_the_name_is_required(capsys):
    with pytest.raises(SystemExit):
        main(["train"])
    assert capsys.readouterr().err.rstrip().endswith("required: NAME")


def test_settings_are_shown(capsys):
    assert main(["train", "sortnet-mnist-0.3", "--mode", "full", "--show", "model.identity=none"]) == 0
    shown = dict(line.split("=") for line in capsys.readouterr().out.splitlines())
    assert shown.keys() == known_settings().keys()
    assert shown["model.width"] == "5120"
    assert shown["model.identity"] == "None"


def test_configs_survive_json():
    import dataclasses

    for sizes in RECIPES.values():
        for config in sizes.values():
            assert from_plain(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    with pytest.raises(ValueError, match="not those of this version"):
        from_plain({"model": {"depths": 3}})
    assert override(Config(), []) == Config()


def test_full_recipes_are_the_table_of_the_paper():
    mnist = recipe_config("sortnet-mnist-0.3", "full")
    assert (mnist.model.width, mnist.model.depth, mnist.model.keep, mnist.model.identity) == (
        5120,
        5,
        0.75,
        10.0,
    )
    assert (mnist.loss.lam, mnist.loss.lam_end, mnist.loss.eps) == (0.02, 0.0002, 0.45)
    assert (mnist.p.begin, mnist.p.end, mnist.optim.epochs) == (100, 1450, 1500)
    assert (mnist.optim.lr, mnist.optim.batch, mnist.optim.decay) == (0.02, 512, 0.02)
    hybrid = recipe_config("sortnet-cifar10-8-mlp", "full")
    assert (hybrid.model.kind, hybrid.model.depth, hybrid.model.keep) == ("hybrid", 7, 0.6)
    assert (hybrid.loss.kind, hybrid.loss.eps, hybrid.loss.eps_end) == ("ce_hinge", 0.03451, 500)
    assert (hybrid.data.pad, hybrid.data.flip) == (3, True)
    plain = recipe_config("sortnet-cifar10-8", "full")
    assert (plain.model.depth, plain.model.keep, plain.loss.eps) == (6, 0.85, 0.09411)
    assert plain.model.identity is None


@pytest.mark.parametrize("kind", ["mlp", "hybrid", "conv", "groupsort", "abs", "ibp"])
def test_every_kind_of_model_trains_and_certifies(kind, tmp_path, capsys):
    boxed = {"hybrid": "ce_hinge", "conv": "ce_hinge", "ibp": "worst_case"}.get(kind)
    words = [
        f"model.kind={kind}",
        "model.depth=4",
        "model.hidden=8",
        "optim.epochs=2",
        "p.begin=0",
        "p.end=1",
    ]
    words += [f"loss.kind={boxed}", "loss.eps_end=1", "loss.lam=1"] if boxed else []
    words += ["data.train=300", "data.test=60", "model.width=12", "attack_rows=10", "evaluate=1"]
    folder = tmp_path / "run"
    assert (
        main(["train", "sortnet-digits", "--mode", "quick", "--no-bar", "--folder", str(folder), *words]) == 0
    )
    assert f"by {'intervals' if boxed else 'margins'}" in capsys.readouterr().out
    model = load_model(folder)
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(model.network()(x), model(x))


def test_models_of_the_recipes_fit_their_data():
    for name, sizes in RECIPES.items():
        config = sizes["quick"]
        shape = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}[config.data.name]
        model = build_model(config.model, shape, 10, config.data.name).eval()
        assert model(torch.rand(2, *shape)).shape == (2, 10), name
    with pytest.raises(ValueError, match=r"model\.kind is one of"):
        build_model(Model(kind="x"), (1, 8, 8), 10, "digits")
