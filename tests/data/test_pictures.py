"""Grey pictures: BSDS500 from a folder or the archive, damage named, and the bundled two without any file."""

import hashlib
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from lablib.data import (
    LABELLED,
    PICTURES,
    DamagedDataError,
    MissingDataError,
    Pictures,
    available,
    bsds500,
    load,
    load_pictures,
)


@pytest.fixture
def tiny_bsds500(monkeypatch):
    """Split -> number -> JPEG bytes of a made-up set of 3 + 2 + 2 colour pictures, checksums installed."""
    rng = np.random.default_rng(5)
    files, checksums = {}, {}
    for split, numbers in (("train", (9, 100, 12)), ("val", (3, 4)), ("test", (8, 7))):
        files[split] = {}
        for number in numbers:
            content = io.BytesIO()
            shape = (6, 9, 3) if number % 2 else (9, 6, 3)
            Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(content, "jpeg")
            files[split][number] = content.getvalue()
        digests = b"".join(hashlib.sha256(files[split][number]).digest() for number in sorted(numbers))
        checksums[split] = hashlib.sha256(digests).hexdigest()
    monkeypatch.setattr(bsds500, "CHECKSUMS", checksums)
    monkeypatch.setattr(bsds500, "SPLITS", {split: len(numbers) for split, numbers in files.items()})
    return files


def _write_folder(root, files):
    for split, pictures in files.items():
        (root / split).mkdir(parents=True)
        (root / split / "Thumbs.db").write_bytes(b"not a picture")
        for number, content in pictures.items():
            (root / split / f"{number}.jpg").write_bytes(content)
    return root


def _write_archive(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        members = {f"BSR/BSDS500/data/groundTruth/{split}/8.mat": b"drawn" for split in files}
        for split, pictures in files.items():
            members |= {f"{bsds500.INSIDE}/{split}/{number}.jpg": data for number, data in pictures.items()}
            members[f"{bsds500.INSIDE}/{split}/Thumbs.db"] = b"not a picture"
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("inside", ["bsds500", f"bsds500/{bsds500.INSIDE}", bsds500.INSIDE])
def test_folder_is_read_in_the_order_of_the_numbers(empty_home, tiny_bsds500, inside):
    place = _write_folder(empty_home[0] / inside, tiny_bsds500)
    data = load_pictures("bsds500", download=False)
    assert data.source == str(place)
    assert [len(split) for split in (data.train, data.val, data.test)] == [3, 2, 2]
    assert [p.shape for p in data.train] == [(6, 9), (9, 6), (9, 6)], "9, 12, 100"
    with Image.open(io.BytesIO(tiny_bsds500["train"][12])) as picture:
        rgb = np.array(picture).astype(float)
    luma = rgb @ [0.299, 0.587, 0.114]
    assert np.abs(data.train[1] - luma).max() <= 0.51
    assert len(data.train[1:]) == 2
    assert available("bsds500").state == "folder"


def test_archive_holds_the_same_pictures(empty_home, tiny_bsds500):
    folder, cache = empty_home
    _write_folder(folder / "bsds500", tiny_bsds500)
    archive = _write_archive(cache / "bsds500" / bsds500.ARCHIVE, tiny_bsds500)
    first = load_pictures("bsds500")
    for split in tiny_bsds500:
        for path in (folder / "bsds500" / split).iterdir():
            path.unlink()
    second = load_pictures("bsds500")
    assert second.source == str(archive)
    for a, b in zip(first.test, second.test, strict=True):
        np.testing.assert_array_equal(a, b)


def test_damage_and_absence_say_what_to_do(empty_home, tiny_bsds500):
    folder, cache = empty_home
    with pytest.raises(MissingDataError, match=r"BSR_bsds500\.tgz is not in .*'pictures'"):
        load_pictures("bsds500", download=False)
    archive = _write_archive(cache / "bsds500" / bsds500.ARCHIVE, tiny_bsds500)
    archive.write_bytes(archive.read_bytes()[:-50])
    with pytest.raises(DamagedDataError, match=r"not a whole tar\.gz.*'pictures'"):
        load_pictures("bsds500", download=False)
    place = _write_folder(folder / "bsds500", tiny_bsds500)
    (place / "val" / "4.jpg").write_bytes(tiny_bsds500["val"][3])
    with pytest.raises(DamagedDataError, match="official val pictures"):
        load_pictures("bsds500")
    (place / "val" / "4.jpg").unlink()
    assert available("bsds500").state == "incomplete"
    with pytest.raises(MissingDataError, match=r"val/\*\.jpg .*'pictures'"):
        load_pictures("bsds500")


def test_bundled_tiles_need_no_file_and_no_pixel_is_in_two_splits(empty_home):
    data = load_pictures("pictures", download=False)
    assert [len(split) for split in (data.train, data.val, data.test)] == [12, 6, 6]
    tiles = [*data.train, *data.val, *data.test]
    assert {tile.shape for tile in tiles} == {(142, 160)}
    assert len({tile.tobytes() for tile in tiles}) == 24
    assert available("pictures").ready


def test_labelled_and_unlabelled_do_not_mix():
    with pytest.raises(ValueError, match="load_pictures, or with load one of: digits"):
        load("bsds500")
    with pytest.raises(ValueError, match="use load, or with load_pictures one of: bsds500"):
        load_pictures("digits")
    with pytest.raises(ValueError, match="no data set 'bsd68'; there are: digits"):
        load_pictures("bsd68")
    assert not set(LABELLED) & set(PICTURES)
    with pytest.raises(ValueError, match="pictures as uint8"):
        Pictures("toy", [np.zeros((2, 2))], [], [], 255, "")


def test_the_real_files_where_they_are():
    if not available("bsds500").ready:
        pytest.skip(f"bsds500 is not at hand: {available('bsds500').advice}")
    data = load_pictures("bsds500", download=False)
    assert [len(split) for split in (data.train, data.val, data.test)] == [200, 100, 200]
    assert sorted({p.shape for p in data.val[:20]}) == [(321, 481), (481, 321)]
