"""CIFAR-10: one content whatever the order and packing, and pickles that cannot run code."""

import hashlib
import pickle
import tarfile

import numpy as np
import pytest

from lablib.data import DamagedDataError, MissingDataError, available, cifar10, load


def test_row_order_and_packing_change_nothing(empty_home, write_cifar10, tiny_cifar10, tmp_path):
    folder, cache = empty_home
    write_cifar10(folder / "cifar10")
    first = load("cifar10")
    assert first.x_train.shape == (10, 3, 32, 32)
    assert first.x_test.shape == (4, 3, 32, 32)
    shuffled = write_cifar10(cache / "cifar10", seed=7)
    for path in (folder / "cifar10").rglob("*"):
        if path.is_file():
            path.unlink()
    (folder / "cifar10" / cifar10.FOLDER).rmdir()
    second = load("cifar10")
    assert second.source == str(shuffled)
    with tarfile.open(folder / cifar10.ARCHIVE, "w:gz") as tar:
        tar.add(shuffled, cifar10.FOLDER)
    third = load("cifar10")
    assert third.source.endswith(".tar.gz")
    for other in (second, third):
        np.testing.assert_array_equal(first.x_train, other.x_train)
        np.testing.assert_array_equal(first.y_train, other.y_train)
        np.testing.assert_array_equal(first.x_test, other.x_test)
    pairs = {(row.tobytes(), label) for row, label in zip(*tiny_cifar10["train"])}
    assert {(x.tobytes(), y) for x, y in zip(first.x_train, first.y_train)} == pairs, (
        "labels stay with their images"
    )
    digests = [
        hashlib.sha256(bytes([y]) + x.tobytes()).digest() for x, y in zip(first.x_train, first.y_train)
    ]
    assert digests == sorted(digests)


def test_batch_written_by_numpy_1_loads(empty_home, write_cifar10):
    batches = write_cifar10(empty_home[0])
    for path in batches.iterdir():
        content = path.read_bytes()
        assert b"numpy._core.multiarray" in content
        path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert len(load("cifar10").y_train) == 10


class _Runs:
    """Unpickles to a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("where", ["data", "labels", "whole"])
def test_a_pickle_cannot_run_code(empty_home, write_cifar10, tmp_path, where):
    batches = write_cifar10(empty_home[0])
    mark = tmp_path / "ran"
    trap = _Runs(open, str(mark), "w")
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}
    batch = trap if where == "whole" else batch | {where.encode(): trap}
    (batches / "data_batch_3").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DamagedDataError, match=r"data_batch_3 .*it refers to .*open.*'digits'"):
        load("cifar10")
    assert not mark.exists()


def _text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def _number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def test_a_pickle_cannot_make_bytes_count_as_pointers(empty_home, write_cifar10):
    """A dtype with an object field and cleared flags: NumPy would follow the address in the data."""
    address = (0x4141414141414141).to_bytes(8, "little")
    dtype = b"cnumpy\ndtype\n"
    fields = b"}" + _text("a") + dtype + _text("O8") + b"\x89\x88\x87R" + _number(0) + b"\x86s"
    state = b"(" + _number(3) + _text("|") + b"N" + _text("a") + b"\x85" + fields
    record = dtype + _text("V8") + b"\x89\x88\x87R" + state + _number(8) + _number(1) + _number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + _number(0) + b"\x85C\x01b\x87R"
    content = b"C\x08" + address
    array += b"(" + _number(1) + _number(1) + b"\x85" + record + b"\x89" + content + b"tb"
    path = write_cifar10(empty_home[0]) / "test_batch"
    path.write_bytes(b"\x80\x03}C\x04dataK\x00sC\x06labels]" + array + b"as.")
    with pytest.raises(DamagedDataError, match="numbers of type 'V8', not uint8"):
        load("cifar10")


def test_batch_written_by_python_2_loads(tmp_path):
    """The official files: bytes as opcode U, the dtype and the array built in protocol 2."""
    rows = np.arange(2 * 3072).astype(np.uint8).reshape(2, 3072)

    def old(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    dtype = b"cnumpy\ndtype\n" + old(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + old(b"|") + b"NNN" + _number(-1) + _number(-1) + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + old(b"b") + b"\x87R"
    content = b"T" + rows.nbytes.to_bytes(4, "little") + rows.tobytes()
    array += b"(K\x01K\x02M\x00\x0c\x86" + dtype + b"\x89" + content + b"tb"
    batch = b"\x80\x02}(" + old(b"data") + array + old(b"labels") + b"](K\x07K\x03eu."
    read, labels = cifar10._read_batch(tmp_path, batch)
    np.testing.assert_array_equal(read, rows)
    assert labels.tolist() == [7, 3]
    assert labels.dtype == np.int64


def test_rows_stored_column_by_column_load(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (3, 3072)).astype(np.uint8)
    batch = pickle.dumps({b"data": np.asfortranarray(rows), b"labels": [0, 1, 2]}, protocol=2)
    np.testing.assert_array_equal(cifar10._read_batch(tmp_path, batch)[0], rows)


@pytest.mark.parametrize(
    "batch",
    [
        [],
        {b"data": np.zeros((2, 3072), np.uint8)},
        {b"data": np.zeros((2, 3072), np.float32), b"labels": [1, 2]},
        {b"data": np.zeros((2, 3071), np.uint8), b"labels": [1, 2]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": ["1", "2"]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]},  # well formed, other content
        {b"data": 3, b"labels": [1, 2]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, -1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, True]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": (1, 2)},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": np.array([1, 2])},
        {b"data": np.zeros((2, 3, 1024), np.uint8), b"labels": [1, 2]},
        {b"data": np.zeros((2, 3072), object), b"labels": [1, 2]},
    ],
)
def test_wrong_batches_are_refused(empty_home, write_cifar10, batch):
    path = write_cifar10(empty_home[0]) / "test_batch"
    path.write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DamagedDataError, match="'digits'"):
        load("cifar10")


@pytest.mark.parametrize("keep", [0, 1, 40, 5000])
def test_truncated_batch_and_archive(empty_home, write_cifar10, keep):
    folder, cache = empty_home
    batches = write_cifar10(folder)
    archive = cache / cifar10.ARCHIVE
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(batches, cifar10.FOLDER)
    path = batches / "data_batch_2"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedDataError, match=rf"data_batch_2 in {batches}"):
        load("cifar10")
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DamagedDataError, match=r"cifar-10-python\.tar\.gz in"):
        cifar10.read(archive)


def test_missing_batch_and_incomplete_archive(empty_home, write_cifar10):
    folder, cache = empty_home
    batches = write_cifar10(folder)
    (batches / "data_batch_4").unlink()
    assert available("cifar10").state == "incomplete"
    with pytest.raises(MissingDataError, match=r"data_batch_4 is not in .*'digits'"):
        load("cifar10")
    cache.mkdir()
    with tarfile.open(cache / cifar10.ARCHIVE, "w:gz") as tar:
        tar.add(batches, cifar10.FOLDER)
    with pytest.raises(DamagedDataError, match="data_batch_4"):
        cifar10.read(cache / cifar10.ARCHIVE)
