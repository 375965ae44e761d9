"""Checkpoints: whole or not at all, checked, plain data, and one to fall back on."""

import errno
import io
import pickle

import pytest
import torch

from lablib.train import checkpoint as c

STATE = {"step": 3, "model": {"w": torch.arange(1000.0)}, "list": [1.5, None, "text"], "pair": (0.9, 0.99)}


def test_a_checkpoint_comes_back_and_loads_with_weights_only(tmp_path):
    path = c.save(tmp_path, STATE)
    plain = torch.load(path, weights_only=True)
    back = c.read(path)
    for state in (plain, back):
        assert torch.equal(state.pop("model")["w"], STATE["model"]["w"])
        assert state == {name: value for name, value in STATE.items() if name != "model"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt"]


def test_the_previous_one_is_kept(tmp_path):
    for step in (1, 2, 3):
        c.save(tmp_path, {"step": step})
    assert c.read(tmp_path / c.NEWEST)["step"] == 3
    assert c.read(tmp_path / c.PREVIOUS)["step"] == 2
    (tmp_path / c.NEWEST).unlink()  # killed between the two moves of save
    assert c.read_newest(tmp_path)["step"] == 2
    assert c.read_newest(tmp_path / "nothing") is None


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "noise"])
def test_damage_is_seen_and_the_previous_one_used(tmp_path, damage, capsys):
    c.save(tmp_path, STATE | {"step": 1})
    newest = c.save(tmp_path, STATE | {"step": 2})
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[content.index(torch.tensor([500.0]).numpy().tobytes())] ^= 1
    newest.write_bytes(
        {"cut": content[: len(content) // 2], "empty": b"", "noise": b"x" * 100}.get(damage, content)
    )
    with pytest.raises(ValueError, match=r"checkpoint.pt is damaged \(.+\); delete it, or restore"):
        c.read(newest)
    assert c.read_newest(tmp_path)["step"] == 1
    said = capsys.readouterr().err
    assert "is damaged" in said
    assert "going on from previous.pt" in said
    assert not newest.exists()  # so that the next save does not put it in the place of the good one
    assert (tmp_path / c.DAMAGED).exists()
    (tmp_path / c.PREVIOUS).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"previous\.pt is damaged"):
        c.read_newest(tmp_path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run!",)

    torch.save({"step": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="damaged"):
        c.read(tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"step": 1}))
    with pytest.raises(ValueError, match="damaged"):
        c.read(tmp_path / "plain.pt")
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="no checkpoint of a run"):
        c.read(tmp_path / "tensor.pt")
    with pytest.raises(FileNotFoundError, match="train first"):
        c.read(tmp_path / "absent.pt")


def test_a_full_disk_leaves_the_earlier_ones(tmp_path, monkeypatch):
    for step in (1, 2):
        c.save(tmp_path, {"step": step})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    class Full(io.BufferedWriter):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fdopen", lambda handle, mode: Full(io.FileIO(handle, "w")))
    with pytest.raises(
        OSError, match=r"could not be written .*No space left on device.*make room there and resume"
    ):
        c.save(tmp_path, {"step": 3})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
