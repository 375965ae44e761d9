"""The command prints the library's bounds, noise and epsilon, writes the figure, and fails in one sentence."""

import math
import re
import sys

import pytest
import torch

from lablib.__main__ import main
from lablib.experiments.private_models import PRIVATE_MODELS, find_architecture
from lablib.layers import ClipNorm
from lablib.privacy import CrossEntropy, project, sensitivity

SAMPLING = ["--noise-multiplier", 2, "--batch", 100, "--size", 5000, "--epochs", 3]


def run(capsys, *words):
    status = main(["sensitivity", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module file in the working folder, as a user has it."""
    (tmp_path / "own_private_nets.py").write_text(
        "from torch import nn\n"
        "from lablib.layers import ClipNorm, MaxMin\n"
        "def net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), MaxMin(), nn.Linear(8, 1))\n"
        "def coupled():\n"
        "    return nn.Sequential(ClipNorm(1.0), nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8))\n"
        "def image():\n"
        "    return nn.Sequential(ClipNorm(1.0), nn.Conv2d(3, 4, 2))\n"
        "def broken():\n"
        "    return 1 / 0\n"
        "def number():\n"
        "    return 3\n"
        "constant = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    yield "own_private_nets"
    sys.modules.pop("own_private_nets", None)


@pytest.mark.parametrize("name", PRIVATE_MODELS)
def test_every_named_network_is_a_plain_chain_that_the_rules_know(name):
    make, shape = find_architecture(name)
    net = make(2.0)
    assert type(net) is torch.nn.Sequential
    assert type(net[0]) is ClipNorm
    assert net[0].bound == 2.0
    bounds = sensitivity(net, shape, 1.0, norms=project(net, "orthonormal"))
    assert set(bounds.parameters) == {key for key, _ in net.named_parameters()}
    torch.manual_seed(0)
    loss = CrossEntropy()(net(torch.rand(1, *shape)), torch.tensor([3]))
    loss.backward()
    for key, parameter in net.named_parameters():
        assert 0 < parameter.grad.norm().item() <= bounds.parameters[key] * math.sqrt(2)


def test_list_names_them_all(capsys):
    status, out, _ = run(capsys, "--list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(PRIVATE_MODELS)


def test_the_table_holds_the_bounds_of_the_library(capsys):
    words = ["conv-mnist", "--temperature", 8, "--input-bound", 3]
    status, out, _ = run(capsys, *words)
    assert status == 0
    make, shape = PRIVATE_MODELS["conv-mnist"]
    torch.manual_seed(0)  # as the command does
    net = make(3.0)
    bounds = sensitivity(net, shape, CrossEntropy().lipschitz, norms=project(net, "orthonormal"))
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line[:1].isdigit()}
    shares = []
    for row in bounds.rows:
        line = rows[row.name]
        assert line[1:5] == [
            row.kind,
            *(f"{value:.4g}" for value in (row.input_norm, row.output_norm, row.cotangent_out)),
        ]
        for value in row.parameters.values():
            assert line[5] == "weight"
            assert line[7] == f"{value:.4g}"
            shares.append(float(line[8]))
            frozen = math.sqrt(bounds.total**2 - value**2) / bounds.total
            assert float(line[10]) == pytest.approx(100 * (frozen - 1), abs=0.06)
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert f"{bounds.total:.4g}" in next(line for line in out.splitlines() if line.startswith("all"))
    assert "noise on the mean" not in out
    assert "epsilon" not in out


def test_clipping_the_gradient_of_the_loss_lowers_everything_by_its_factor(capsys):
    def total(*words):
        out = run(capsys, "mlp-digits", *words)[1]
        return float(next(line for line in out.splitlines() if line.startswith("all")).split()[2])

    whole = total()
    assert total("--loss-clip", 0.1) == pytest.approx(whole * 0.1 / math.sqrt(2), rel=2e-3)
    assert total("--loss-clip", 5) == whole
    assert total("--loss", "hinge") == pytest.approx(whole / math.sqrt(2), rel=2e-3)
    assert total("--loss", "mae") == pytest.approx(whole / math.sqrt(20), rel=2e-3)  # ten outputs
    assert total("--loss", "cosine", "--min-norm", 4) == pytest.approx(whole / math.sqrt(32), rel=2e-3)
    assert total("--loss", "hkr", "--alpha", 2) < 3 * total("--loss", "kr")


def test_noise_and_epsilon(capsys):
    pytest.importorskip("dp_accounting")
    pytest.importorskip("opacus")
    from lablib.privacy.accounting import ACCOUNTANTS, epsilon

    status, out, _ = run(capsys, "mlp-digits", *SAMPLING)
    assert status == 0
    lengths = {
        name: float(re.search(rf"^{name} .* ([\d.e-]+)$", out, re.M).group(1))
        for name in ("global", "per-layer", "balanced")
    }
    # two layers of sensitivity sqrt(2) each, of 4096 and 640 numbers
    assert lengths["global"] == pytest.approx(2 * 2 * math.sqrt(4736) / 100, rel=2e-3)
    assert lengths["balanced"] == pytest.approx(2 * math.sqrt(2) * (64 + 640**0.5) / 100, rel=2e-3)
    assert "after 150 steps, each sample drawn with probability 0.02" in out
    for name in ACCOUNTANTS:
        expected = epsilon((2.0, 0.02, 150), 1e-5, name)
        assert re.search(rf"^{name} +{expected:.4f}$", out, re.M)
    out = run(capsys, "mlp-digits", *SAMPLING, "--delta", 1e-2)[1]
    assert "take a smaller one" in out


def test_without_the_accountants_the_tables_are_printed_first(capsys, monkeypatch):
    from lablib.privacy import accounting

    def missing(*_):
        raise ImportError("privacy accountants need the extra 'private'")

    monkeypatch.setattr(accounting, "epsilon", missing)
    status, out, err = run(capsys, "mlp-digits", *SAMPLING)
    assert status == 2
    assert "balanced" in out
    assert err == "error: privacy accountants need the extra 'private'\n"


def test_a_module_of_your_own(capsys, own):
    words = [f"{own}:net", "--shape", "3x2x2", "--loss", "binary-cross-entropy", "--input-bound", 0.5]
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    assert "samples of shape (3, 2, 2), 113 trained numbers" in out
    assert out.count(" bias ") == out.count(" weight ") == 2
    assert sys.path[0] != str(own)


@pytest.mark.parametrize("file", ["flow.png", "flow"])
def test_the_figure_is_written(capsys, tmp_path, file):
    status, out, _ = run(capsys, "mlp-digits", "--plot", tmp_path / file)
    assert status == 0
    assert (tmp_path / "flow.png").read_bytes()[:4] == b"\x89PNG"
    assert (
        "mlp-digits: one sample moves the summed gradient by at most" in (tmp_path / "flow.svg").read_text()
    )
    assert out.count("written: ") == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "--list names"),
        (["vgg"], "choose from mlp-digits"),
        (["mlp-digits", "--shape", "1x8x8"], "leave out --shape"),
        (["mlp-digits", "--input-bound", "-1"], "bound"),
        (["mlp-digits", "--temperature", "0"], "temperature"),
        (["mlp-digits", "--loss", "kr", "--temperature", "2"], "leave it out"),
        (["mlp-digits", "--loss", "binary-cross-entropy", "--min-norm", "2"], "--min-norm says nothing"),
        (["mlp-digits", "--loss-clip", "0"], "loss_clip"),
        (["mlp-digits", "--batch", "10"], "--noise-multiplier is missing"),
        (["mlp-digits", "--noise-multiplier", "1", "--batch", "10", "--epochs", "2"], "--size is missing"),
        (["mlp-digits", "--noise-multiplier", "nan", "--batch", "10"], "positive"),
        (["mlp-digits", *map(str, SAMPLING), "--size", "99"], "more than the --size"),
        (["mlp-digits", *map(str, SAMPLING), "--delta", "1"], "--delta"),
        (["mlp-digits", "--plot", "flow.pdf"], ".png or .svg"),
        (["mlp-digits", "--plot", "absent/flow"], "no folder absent"),
        (["absent_package:net", "--shape", "3x2x2"], "cannot be loaded"),
        (["own_private_nets:absent", "--shape", "3x2x2"], "cannot be loaded"),
        (["own_private_nets:net"], "--shape is missing"),
        (["own_private_nets:net", "--shape", "3,a"], "write 1x28x28"),
        (["own_private_nets:net", "--shape", "3x2x2"], "begin the module with ClipNorm"),
        (["own_private_nets:net", "--shape", "5", "--input-bound", "1"], "12"),
        (["own_private_nets:net", "--shape", "12", "--input-bound", "1"], "C >= 2"),
        (["own_private_nets:coupled", "--shape", "3x2x2"], "BatchNorm1d"),
        (["own_private_nets:image", "--shape", "3x2x2"], "end it with nn.Flatten"),
        (["own_private_nets:broken", "--shape", "3x2x2"], "ZeroDivisionError"),
        (["own_private_nets:number", "--shape", "3x2x2"], "must return a torch module"),
        (["own_private_nets:constant", "--shape", "3x2x2"], "is no function"),
    ],
)
def test_mistakes_are_one_sentence_and_status_two(capsys, own, words, sentence):
    status, _, err = run(capsys, *words)
    assert status == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
