"""Tiny MNIST and CIFAR-10 files in the official formats, with checksums put in place of the official ones."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
import pytest

from lablib.data import cifar10, mnist


def _idx(values: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.tobytes()


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    """LABLIB_DATA and LABLIB_CACHE as empty folders; returns both."""
    folder, cache = tmp_path / "offline", tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("LABLIB_DATA", str(folder))
    monkeypatch.setenv("LABLIB_CACHE", str(cache))
    return folder, cache


@pytest.fixture
def tiny_mnist(monkeypatch):
    """File name -> uncompressed content of a made-up MNIST (5 + 3 images of 4 x 4), checksums installed."""
    rng = np.random.default_rng(1)
    contents = {}
    for stem in mnist.CHECKSUMS:
        count = 5 if stem.startswith("train") else 3
        shape, top = ((count, 4, 4), 256) if "images" in stem else ((count,), 10)
        contents[stem] = _idx(rng.integers(0, top, shape).astype(np.uint8))
    checksums = {stem: hashlib.sha256(content).hexdigest() for stem, content in contents.items()}
    monkeypatch.setattr(mnist, "CHECKSUMS", checksums)
    return contents


@pytest.fixture
def write_mnist(tiny_mnist):
    """Function that writes the made-up files into a folder, gzipped or not."""

    def write(folder, *, zipped=True):
        folder.mkdir(parents=True, exist_ok=True)
        for stem, content in tiny_mnist.items():
            name, data = (f"{stem}.gz", gzip.compress(content)) if zipped else (stem, content)
            (folder / name).write_bytes(data)
        return folder

    return write


@pytest.fixture
def tiny_cifar10(monkeypatch):
    """(rows, labels) of each split of a made-up CIFAR-10 (10 + 4 images), checksums installed."""
    rng = np.random.default_rng(2)
    made = {}
    checksums = {}
    for split, count in (("train", 10), ("test", 4)):
        rows = rng.integers(0, 256, (count, 3072)).astype(np.uint8)
        labels = rng.integers(0, 10, count)
        made[split] = rows, labels
        digests = [
            hashlib.sha256(bytes([label]) + row.tobytes()).digest() for row, label in zip(rows, labels)
        ]
        checksums[split] = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    monkeypatch.setattr(cifar10, "CHECKSUMS", checksums)
    return made


@pytest.fixture
def write_cifar10(tiny_cifar10):
    """Function that writes the made-up batches into a folder, in a given order of rows."""

    def write(folder, *, seed=None, protocol=2):
        batches = folder / cifar10.FOLDER
        batches.mkdir(parents=True, exist_ok=True)
        for split, names in cifar10.BATCHES.items():
            rows, labels = tiny_cifar10[split]
            order = (
                np.arange(len(rows)) if seed is None else np.random.default_rng(seed).permutation(len(rows))
            )
            for name, part in zip(names, np.array_split(order, len(names))):
                batch = {b"batch_label": name.encode(), b"labels": labels[part].tolist(), b"data": rows[part]}
                (batches / name).write_bytes(pickle.dumps(batch, protocol=protocol))
        return batches

    return write
