"""Building and choosing the compiled kernels: caches, missing and failing compilers, folders that cannot be used."""

import shutil
import subprocess

import pytest
import torch

from lablib.ops import native
from lablib.ops.native import build

SMALL = 'extern "C" int answer() { return 42; }\n'

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A folder with one small source, an empty cache, and nothing remembered."""
    (tmp_path / "small.cpp").write_text(SMALL)
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build.tempfile, "gettempdir", lambda: str(tmp_path / "spare"))
    build.library.cache_clear()
    native._choose.cache_clear()
    yield tmp_path
    build.library.cache_clear()
    native._choose.cache_clear()


def built(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".cpp")


@needs_compiler
def test_built_once_then_found(workshop, monkeypatch):
    assert native.library("small").answer() == 42
    assert len(built(workshop / "cache")) == 1  # the library, and nothing left over
    build.library.cache_clear()
    monkeypatch.setattr(build, "_build", lambda *_: pytest.fail("built again"))
    assert native.library("small").answer() == 42


@needs_compiler
def test_a_changed_source_is_built_anew(workshop):
    native.library("small")
    (workshop / "small.cpp").write_text(SMALL.replace("42", "43"))
    build.library.cache_clear()
    assert native.library("small").answer() == 43


@needs_compiler
def test_a_damaged_library_is_built_anew(workshop):
    native.library("small")
    (path,) = (workshop / "cache").rglob("*.so")
    copy = path.with_name("copy")
    copy.write_bytes(b"not a library")
    copy.replace(path)
    build.library.cache_clear()
    assert native.library("small").answer() == 42


@needs_compiler
def test_the_spare_folder(workshop, monkeypatch):
    (workshop / "cache").write_text("a file where the folder should be")
    assert native.library("small").answer() == 42
    assert len(built(workshop / "spare")) == 1


@needs_compiler
def test_a_folder_that_others_may_write_is_not_trusted(workshop):
    folder = workshop / "cache" / "lablib" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert native.library("small").answer() == 42
    assert built(folder) == []


@needs_compiler
def test_no_folder_at_all(workshop):
    (workshop / "cache").write_text("")
    (workshop / "spare").write_text("")
    with pytest.raises(native.BuildError, match="could not be built"):
        native.library("small")


@needs_compiler
def test_a_source_that_does_not_compile(workshop):
    (workshop / "small.cpp").write_text("int answer( {")
    with pytest.raises(native.BuildError, match="error"):
        native.library("small")
    assert built(workshop / "cache") == []


def test_no_source(workshop):
    with pytest.raises(native.BuildError, match="damaged"):
        native.library("absent")


def test_without_a_compiler(workshop, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(native.BuildError, match=r"no g\+\+"):
        native.library("small")
    monkeypatch.setattr(native, "LIBRARIES", ("small",))
    monkeypatch.setenv("LABLIB_KERNELS", "auto")
    assert native.kernels() in ("numba", "reference")
    assert "g++" in native.choice()[1]
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: None)
    native._choose.cache_clear()
    assert native.kernels() == "reference"
    monkeypatch.setenv("LABLIB_KERNELS", "native")
    with pytest.raises(native.BuildError):
        native.kernels()
    monkeypatch.setenv("LABLIB_KERNELS", "numba")
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        native.kernels()


@needs_compiler
def test_interrupted_while_compiling(workshop, monkeypatch):
    """Ctrl-C passes through and leaves nothing behind."""

    def interrupt(self, *args, **kwargs):
        self.kill()
        self.wait()
        self.stderr.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        native.library("small")
    assert built(workshop / "cache") == []


def test_an_unknown_choice(monkeypatch):
    monkeypatch.setenv("LABLIB_KERNELS", "fast")
    with pytest.raises(ValueError, match="LABLIB_KERNELS"):
        native.kernels()


def test_subnormal_numbers_survive():
    """A library linked with -ffast-math would flush them in the whole process."""
    if native.kernels() == "native":
        assert (torch.full((64,), 2.0**-140) * 0.5 > 0).all()
        assert 5e-324 / 1 > 0
