"""The command line: prints both bounds, writes a certificate that holds, checks one, and fails in one sentence."""

import json
import re

import numpy as np
import pytest

from lablib.__main__ import main
from lablib.theory.impossibility import Certificate, check


@pytest.fixture
def npz(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "own.npz"
    y = np.array(["cat"] * 20 + ["dog"] * 15 + ["cow"] * 10)
    np.savez(path, x=random.normal(size=(45, 3, 4)).astype(np.float32), y=y)
    return path


def run(capsys, *words):
    status = main(["impossible", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def test_two_classes_of_the_bundled_digits(capsys, tmp_path):
    out_file = tmp_path / "certificate.json"
    status, out, _ = run(capsys, "--data", "digits", "--classes", 4, 9, "--limit", 50, "--out", out_file)
    assert status == 0
    certificate = Certificate.load(out_file)
    high, low = map(float, re.search(r"at most R: +([\d.]+) .*prove: ([\d.]+)", out).groups())
    assert low <= certificate.lower <= certificate.upper <= high
    assert f"{float(certificate.half_separation):.6f}" in out
    assert (certificate.names, certificate.sizes, certificate.scale) == (("4", "9"), (50, 50), 16)
    assert "2,500 pairs looked at" in out
    status, out, _ = run(capsys, "--data", "digits", "--check", out_file)
    assert status == 0
    assert "proof accepted" in out


def test_depth_and_group(capsys, tmp_path):
    out_file = tmp_path / "certificate.json"
    words = [
        "--data",
        "digits",
        "--classes",
        4,
        9,
        "--limit",
        30,
        "--depth",
        2,
        "--group",
        2,
        "--out",
        out_file,
    ]
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert "2 affine layers with sorts of groups of 2 between them (budget 2)" in out
    assert Certificate.load(out_file).budget == 2


def test_own_data_with_three_classes_and_the_default_file_name(capsys, npz, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(capsys, "--npz", npz)
    assert status == 0
    assert "written: impossible_own_cat_cow_dog.json" in out
    certificate = Certificate.load("impossible_own_cat_cow_dog.json")
    with np.load(npz) as stored:
        x, y = stored["x"], stored["y"]
    check(certificate, [x[y == name] for name in ("cat", "cow", "dog")])
    assert run(capsys, "--npz", npz, "--check", "impossible_own_cat_cow_dog.json")[0] == 0
    assert run(capsys, "--npz", npz, "--classes", "dog", "cat", "--limit", 5)[0] == 0
    assert Certificate.load("impossible_own_dog_cat_first5.json").sizes == (5, 5)


def test_a_refused_certificate_is_status_one(capsys, npz, tmp_path):
    out_file = tmp_path / "certificate.json"
    run(capsys, "--npz", npz, "--classes", "cat", "dog", "--out", out_file)
    with np.load(npz) as stored:
        x, y = stored["x"], stored["y"]
    x[0, 0, 0] += 1
    np.savez(npz, x=x, y=y)
    status, out, _ = run(capsys, "--npz", npz, "--check", out_file)
    assert status == 1
    assert "certificate refused: digest" in out
    np.savez(npz, x=x, y=np.where(y == "dog", "cow", y))
    status, _, err = run(capsys, "--npz", npz, "--check", out_file)
    assert status == 2
    assert "'dog'" in err


def test_an_existing_file_is_replaced_whole(capsys, npz, tmp_path):
    out_file = tmp_path / "certificate.json"
    out_file.write_text("earlier")
    assert run(capsys, "--npz", npz, "--classes", "cat", "nothing", "--out", out_file)[0] == 2
    assert out_file.read_text() == "earlier"
    assert run(capsys, "--npz", npz, "--classes", "cat", "dog", "--out", out_file)[0] == 0
    assert json.loads(out_file.read_text())["names"] == ["cat", "dog"]
    assert not list(tmp_path.glob(".certificate*"))


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--data", "digits", "--classes", "4"], "at least two"),
        (["--data", "digits", "--classes", "4", "11"], "no class '11'"),
        (["--data", "digits", "--classes", "4", "4"], "twice"),
        (["--data", "digits", "--limit", "0"], "--limit"),
        (["--data", "digits", "--scale", "3"], "--scale"),
        (["--data", "digits", "--classes", "4", "9", "--depth", "0"], "depth"),
        (["--data", "imagenet"], "imagenet"),
        (["--npz", "absent.npz"], "absent.npz"),
        (["--data", "digits", "--check", "absent.json"], "absent.json"),
    ],
)
def test_mistakes_are_one_sentence_and_status_two(capsys, words, what):
    status, _, err = run(capsys, *words)
    assert status == 2
    assert what in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_missing_data_names_the_way_on(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LABLIB_DATA", str(tmp_path))
    monkeypatch.setenv("LABLIB_CACHE", str(tmp_path / "cache"))
    status, _, err = run(capsys, "--data", "mnist", "--classes", 4, 9)
    assert status == 2
    assert "digits" in err


def test_damaged_files_are_one_sentence(capsys, npz, tmp_path):
    whole = npz.read_bytes()
    for damaged in (b"", b"no zip", whole[: len(whole) // 2]):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        status, _, err = run(capsys, "--npz", tmp_path / "damaged.npz")
        assert status == 2
        assert "damaged.npz cannot be used" in err
    for arrays in (
        {"x": np.zeros((3, 2))},
        {"x": np.zeros((3, 2)), "y": np.zeros(3)},
        {"x": np.zeros(3), "y": np.arange(3)},
        {"x": np.zeros((3, 2)), "y": np.arange(2)},
        {"x": np.array([[{}]]), "y": np.arange(1)},
    ):
        np.savez(tmp_path / "wrong.npz", **arrays)
        status, _, err = run(capsys, "--npz", tmp_path / "wrong.npz")
        assert (status, "wrong.npz" in err, "Traceback" in err) == (2, True, False)
    (tmp_path / "cut.json").write_text('{"format": ')
    status, _, err = run(capsys, "--npz", npz, "--check", tmp_path / "cut.json")
    assert status == 2
    assert "cut.json is not a whole impossibility certificate" in err


def test_a_forged_scale_is_refused_on_the_command_line(capsys, tmp_path):
    random = np.random.default_rng(0)
    own, out_file = tmp_path / "own.npz", tmp_path / "forged.json"
    np.savez(own, x=random.integers(0, 256, (20, 5), dtype=np.uint8), y=np.arange(20) % 2)
    assert run(capsys, "--npz", own, "--scale", 255_000, "--out", out_file)[0] == 0
    status, out, _ = run(capsys, "--npz", own, "--check", out_file)
    assert status == 1
    assert "scale" in out
    assert "proof accepted" not in out
    assert run(capsys, "--npz", own, "--scale", 255_000, "--check", out_file)[0] == 0


def test_a_certificate_of_wrong_types_is_refused_not_a_crash(capsys, npz, tmp_path):
    out_file = tmp_path / "certificate.json"
    run(capsys, "--npz", npz, "--classes", "cat", "dog", "--out", out_file)
    out_file.write_text(re.sub(r'"sizes": \[\d+,', '"sizes": ["a",', out_file.read_text()))
    assert run(capsys, "--npz", npz, "--check", out_file)[0] == 1


def test_a_damaged_npz_is_one_sentence(capsys, npz):
    payload = bytearray(npz.read_bytes())
    payload[len(payload) // 3] ^= 0xFF
    npz.write_bytes(payload)
    status, _, err = run(capsys, "--npz", npz)
    assert status == 2
    assert err.startswith("error:")
