"""Loading data sets: the contract, the search order, and one clear sentence for each failure. No network."""

import functools
import gzip
import http.server
import os
import threading

import numpy as np
import pytest

from lablib.data import (
    NAMES,
    DamagedDataError,
    DataFolderError,
    Dataset,
    MissingDataError,
    available,
    load,
    load_pictures,
    load_table,
    mnist,
)
from lablib.data.command import main as command


def _one_sentence(error: BaseException, *names: str) -> bool:
    text = str(error)
    return "\n" not in text and "'digits'" in text and all(name in text for name in names)


def test_digits_is_the_documented_split():
    data = load("digits", download=False)
    assert data.x_train.shape == (1437, 1, 8, 8)
    assert data.x_test.shape == (360, 1, 8, 8)
    assert data.x_train.dtype == np.uint8
    assert data.scale == 16 == data.x_train.max()
    assert np.bincount(data.y_train).sum() == 1437
    assert np.bincount(data.y_test).min() >= 33, "every digit stands in the test split"
    again = load("digits")
    np.testing.assert_array_equal(data.x_test, again.x_test)


def test_unknown_name_lists_those_there_are():
    for ask in (load, available):
        with pytest.raises(ValueError, match="no data set 'minst'; there are: digits, mnist, cifar10"):
            ask("minst")


def test_contract_refuses_what_does_not_fit():
    x, y = np.zeros((2, 1, 3, 3), np.uint8), np.zeros(2, np.int64)
    fields = {"name": "toy", "class_names": ("a",), "scale": 1, "source": ""}
    Dataset(x_train=x, y_train=y, x_test=x[:0], y_test=y[:0], **fields)
    for bad_x, bad_y in ((x.astype(float), y), (x[0], y), (x, y[:1]), (x, y + 1), (x + 2, y)):
        with pytest.raises(ValueError, match="toy"):
            Dataset(x_train=bad_x, y_train=bad_y, x_test=x, y_test=y, **fields)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["mnist", "MNIST/raw"])
def test_offline_folder_is_used_and_left_as_it_was(empty_home, write_mnist, zipped, place):
    folder, cache = empty_home
    files = write_mnist(folder / place, zipped=zipped)
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    data = load("mnist")
    assert data.x_train.shape == (5, 1, 4, 4)
    assert data.y_test.shape == (3,)
    assert data.source == str(files)
    assert available("mnist").state == "folder"
    assert before == sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    assert not cache.exists()


def test_folder_comes_before_cache_and_cache_before_network(empty_home, write_mnist):
    folder, cache = empty_home
    cached = write_mnist(cache / "mnist")
    assert load("mnist").source == str(cached)
    assert available("mnist").state == "cache"
    offline = write_mnist(folder / "mnist")
    assert load("mnist").source == str(offline)


def test_absent_without_network(empty_home, capsys):
    _, cache = empty_home
    for download in (True, False):
        with pytest.raises(MissingDataError) as caught:
            load("mnist", download=download)
        assert _one_sentence(caught.value, "train-images-idx3-ubyte.gz", str(cache / "mnist"), "LABLIB_DATA")
    assert not available("mnist").ready
    assert "lablib data fetch mnist" in available("mnist").advice
    capsys.readouterr()


def test_offline_folder_that_is_none(empty_home, monkeypatch):
    monkeypatch.setenv("LABLIB_DATA", str(empty_home[0] / "misspelt"))
    with pytest.raises(DataFolderError) as caught:
        load("mnist")
    assert _one_sentence(caught.value, "misspelt", "LABLIB_DATA")
    assert not isinstance(caught.value, MissingDataError), "nothing stands in for a misspelt path"
    for function, name, instead in (
        (load_pictures, "bsds500", "pictures"),
        (load_table, "compas", "breast-cancer"),
        (load_table, "auto-mpg", "diabetes"),
        (available, "bsds500", "pictures"),
        (available, "heart", "breast-cancer"),
    ):
        with pytest.raises(DataFolderError, match=f"misspelt is not a folder; correct it, .*'{instead}'"):
            function(name)


def test_one_file_is_missing(empty_home, write_mnist):
    lost = write_mnist(empty_home[0] / "mnist") / "t10k-labels-idx1-ubyte.gz"
    lost.unlink()
    with pytest.raises(MissingDataError) as caught:
        load("mnist")
    assert _one_sentence(caught.value, lost.name, str(lost.parent))
    assert available("mnist").state == "incomplete"
    assert lost.name in available("mnist").advice


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def _wrong_magic(path):
    path.write_bytes(gzip.compress(b"\0\0\x09" + gzip.decompress(path.read_bytes())[3:]))


def _short(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def _one_pixel(path):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(gzip.compress(content))


def _not_gzip(path):
    path.write_bytes(b"<html>404</html>")


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_truncate, _wrong_magic, _short, _one_pixel, _not_gzip, _empty])
def test_damaged_file(empty_home, write_mnist, damage):
    path = write_mnist(empty_home[0] / "mnist") / "train-images-idx3-ubyte.gz"
    damage(path)
    with pytest.raises(DamagedDataError) as caught:
        load("mnist")
    assert _one_sentence(caught.value, path.name, str(path.parent))
    assert caught.value.path == path
    assert path.exists(), "nothing in LABLIB_DATA is removed"


def test_unreadable_file(empty_home, write_mnist):
    path = write_mnist(empty_home[0] / "mnist") / "train-images-idx3-ubyte.gz"
    path.unlink()
    path.mkdir()  # unreadable for everybody, the superuser included
    with pytest.raises(MissingDataError) as caught:
        load("mnist")
    assert _one_sentence(caught.value, path.name, str(path.parent), "cannot be read")
    assert str(caught.value) == f"{caught.value.what}, or use the bundled data set 'digits'"


@pytest.fixture
def host(tmp_path, write_mnist, monkeypatch):
    """An HTTP host on this machine with the made-up files, put in place of the official ones."""
    root = write_mnist(tmp_path / "www")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=root))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}/"
    downloads = {
        f"mnist/{path.name}": (base + "gone/" + path.name, base + path.name) for path in root.iterdir()
    }
    monkeypatch.setattr(mnist, "DOWNLOADS", downloads)
    yield root
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_from_the_second_host_fills_the_cache(empty_home, host, capsys):
    _, cache = empty_home
    data = load("mnist")
    assert data.source == str(cache / "mnist")
    assert sorted(os.listdir(cache / "mnist")) == sorted(os.listdir(host)), "no temporary file is left"
    assert "100%" in capsys.readouterr().err, "there is a progress bar"
    for path in host.iterdir():
        path.unlink()
    np.testing.assert_array_equal(load("mnist").x_train, data.x_train)
    np.testing.assert_array_equal(load("mnist", download=False).x_train, data.x_train)


def test_half_a_download_goes_on_and_a_damaged_one_is_fetched_again(empty_home, host, capsys):
    _, cache = empty_home
    load("mnist")
    (cache / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    _one_pixel(cache / "mnist" / "train-images-idx3-ubyte.gz")
    with pytest.raises(MissingDataError):
        load("mnist", download=False)
    assert load("mnist").x_train.shape == (5, 1, 4, 4)
    _one_pixel(host / "train-images-idx3-ubyte.gz")  # a host that serves something else
    (cache / "mnist" / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DamagedDataError, match="checksum"):
        load("mnist")
    capsys.readouterr()


def test_command(empty_home, host, capsys):
    import argparse

    from lablib.data.command import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert command(parser.parse_args([])) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in NAMES)
    assert "lablib data fetch mnist" in listed
    assert command(parser.parse_args(["fetch", "digits", "mnist"])) == 0
    assert "5 + 3 images of 1 x 4 x 4" in capsys.readouterr().out
    assert command(parser.parse_args(["list"])) == 0
    assert "cache" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [("mnist", (60000, 1, 28, 28), (5421, 6742)), ("cifar10", (50000, 3, 32, 32), (5000, 5000))],
)
def test_the_real_files_where_they_are(name, shape, counts):
    if not available(name).ready:
        pytest.skip(f"{name} is not at hand: {available(name).advice}")
    data = load(name, download=False)
    assert data.x_train.shape == shape
    assert data.x_test.shape == (10000, *shape[1:])
    per_class = np.bincount(data.y_train)
    assert (per_class.min(), per_class.max()) == counts
