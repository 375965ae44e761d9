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
    assert plain.pop("sha256") == c.digest(STATE)
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
    assert "checkpoint.pt is damaged (" in said
    assert "going on from previous.pt" in said
    assert "delete" not in said  # nothing is left to do
    assert len(said.splitlines()) == 1
    assert not newest.exists()  # so that the next save does not put it in the place of the good one
    assert (tmp_path / c.DAMAGED).exists()
    (tmp_path / c.PREVIOUS).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"previous\.pt is damaged"):
        c.read_newest(tmp_path)
    newest.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged .* so is previous\.pt .*restore one"):
        c.read_newest(tmp_path)


def test_no_flipped_bit_is_read_as_something_else(tmp_path):
    """Also in the directory at the end of the zip file, where names and attributes have no checksum."""
    state = {"step": 3, "w": torch.arange(3.0)}
    path = c.save(tmp_path, state)
    whole = path.read_bytes()
    tail = whole.rindex(b"PK\x01\x02") - 400
    bits = [(place, 1 << (place % 8)) for place in range(0, tail, 7)]
    bits += [(place, bit) for place in range(tail, len(whole)) for bit in (1, 16, 128)]
    refused = 0
    for place, bit in bits:
        content = bytearray(whole)
        content[place] ^= bit
        path.write_bytes(content)
        try:
            back = c.read(path)
        except ValueError:
            refused += 1
        else:
            assert back.keys() == state.keys()
            assert back["step"] == 3
            assert torch.equal(back["w"], state["w"])
    assert refused > 100


def test_other_values_have_another_digest():
    states = [
        {}, {"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": None}, {"a": [1]}, {"a": (1,)}, {"b": 1}, {1: "a"},
        {"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": {"b": 2}}, {"a": torch.tensor(1)}, {"a": torch.tensor([1])},
        {"a": torch.tensor(1.0)}, {"a": torch.zeros(0)}, {"a": torch.zeros(0, 2)}, {"a": torch.ones(2).bfloat16()},
        {"a": torch.tensor(0.0)}, {"a": torch.tensor(-0.0)}, {"a": "1;"}, {"a": ["x", "y"]}, {"a": ["xy"]},
    ]  # fmt: skip
    assert len({c.digest(state) for state in states}) == len(states)
    assert c.digest({"a": torch.eye(2).t()}) == c.digest({"a": torch.eye(2)})
    with pytest.raises(ValueError, match="not set"):
        c.digest({"a": {1, 2}})


def test_only_the_files_of_the_run_are_deleted(tmp_path):
    others = {"other.pt", ".other.pt.abcdefgh", "fresh.txt"}
    left = {".fresh.pt.abcd_123", ".model.pt.abcd_123"}  # of a process that was killed
    for name in others | left | {"model.pt"}:
        (tmp_path / name).write_bytes(b"x")
    for step in (1, 2):
        c.save(tmp_path, {"step": step})
    c.clean(tmp_path, ("model.pt",))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == others | {"model.pt", "checkpoint.pt", "previous.pt"}
    (tmp_path / ".fresh.pt.abcd_123").write_bytes(b"x")
    c.remove(tmp_path, ("model.pt",))
    assert {path.name for path in tmp_path.iterdir()} == others


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run!",)

    torch.save({"step": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"step": 1}))
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_bytes(b"e\nhello")
    for name in ("evil.pt", "plain.pt", "empty.pt", "text.pt"):
        with pytest.raises(
            ValueError, match=r"is damaged \(it is cut, or holds other things than a run wri"
        ) as got:
            c.read(tmp_path / name)
        assert "weights_only" not in str(got.value)
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
