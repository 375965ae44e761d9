"""Compile C++ files with g++ into shared libraries, kept in the user's cache and loaded with ctypes.

No kernel is built with -ffast-math: linking it would flush denormal numbers in the whole process. The OpenMP library
is the one that torch has loaded: two of them would keep two pools of threads spinning against each other.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch  # noqa: F401  (its OpenMP library must be in the process before a kernel asks for one)

FLAGS = (
    "-O3", "-march=native", "-std=c++17", "-fopenmp", "-fPIC",
    "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffinite-math-only",
)  # fmt: skip
BUILD_SECONDS = 300
SOURCES = Path(__file__).parent


class BuildError(OSError):
    """The C++ kernels cannot be built or loaded here."""


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """Return the compiled ``name``*.cpp of this folder, built first where the cache does not hold it.

    Raises:
        BuildError: without a compiler, or if it fails; the message says what to do.
    """
    sources = sorted(SOURCES.glob(f"{name}*.cpp"))
    if not sources:
        raise BuildError(f"no C++ source {name}*.cpp in the package: the installation is damaged")
    digest = hashlib.sha256("\0".join([*FLAGS, *_openmp(), _machine(), _compiler_version()]).encode())
    for source in [*sources, *sorted(SOURCES.glob("*.h"))]:
        digest.update(source.read_bytes())
    file = f"{name}-{digest.hexdigest()[:20]}.so"
    for folder in _folders():
        if _ours(folder):
            with contextlib.suppress(OSError):  # not there, or damaged: then it is built anew
                return ctypes.CDLL(str(folder / file))
    return _build(sources, file)


def _build(sources: list[Path], file: str) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        raise BuildError("no g++ on this machine: install it for the fastest CPU kernels")
    refusal = "no folder of our own to put it in"
    for folder in _folders():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _ours(folder):
                continue
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                made = Path(scratch) / file
                _compile(compiler, sources, made)
                loaded = ctypes.CDLL(str(made))
                os.replace(made, folder / file)  # whole or not at all, also beside another process
                return loaded
        except OSError as error:
            refusal = str(error)
    raise BuildError(f"the C++ kernels could not be built: {refusal}")


def _compile(compiler: str, sources: list[Path], made: Path) -> None:
    """Compile all files side by side, then link them.

    Raises:
        OSError: with the compiler's last words.
    """
    objects = [made.with_name(f"{source.stem}.o") for source in sources]
    commands = [[compiler, *FLAGS, "-c", str(a), "-o", str(b)] for a, b in zip(sources, objects)]
    link = [compiler, "-shared", "-o", str(made), *map(str, objects), *_openmp()]
    for step in (commands, [link]):
        runs = [
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            for command in step
        ]
        try:
            said = [run.communicate(timeout=BUILD_SECONDS)[1] for run in runs]
        except subprocess.TimeoutExpired as error:
            raise OSError(f"g++ took longer than {BUILD_SECONDS} seconds") from error
        finally:
            for run in runs:  # nothing to do unless interrupted
                if run.poll() is None:
                    run.kill()
                    run.communicate()
        for run, words in zip(runs, said):
            if run.returncode != 0:
                lines = words.decode(errors="replace").strip().splitlines()
                raise OSError(next((line for line in lines if "error" in line), "g++ failed"))


@functools.cache
def _openmp() -> tuple[str, ...]:
    """Return what to link: torch's OpenMP library by its path where its name is its own, else g++'s by name.

    A library of the usual name (libgomp.so.1) is found in the process by that name; wheels may have renamed theirs.
    """
    with contextlib.suppress(OSError):
        loaded = {
            line.split()[-1]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "libgomp-" in line
        }
        renamed = sorted(path for path in loaded if "/torch" in path and os.path.exists(path))
        if renamed:
            return (renamed[0],)
    return ("-fopenmp",)


def _folders() -> list[Path]:
    """Return where compiled kernels are looked for and put: the user's cache, else the temporary folder."""
    folders = []
    with contextlib.suppress(RuntimeError):  # no home
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folders.append(Path(cache) / "lablib" / "kernels")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return [*folders, Path(tempfile.gettempdir()) / f"lablib-kernels-{user}"]


def _ours(folder: Path) -> bool:
    """Return whether nobody else can have put code there."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)


def _compiler_version() -> str:
    compiler = shutil.which("g++")
    if compiler is None:
        return "none"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, timeout=30)
        return asked.stdout.strip()
    return "unknown"


def _machine() -> str:
    """Return what -march=native depends on."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(
            next((x for x in lines if x.startswith(key)), key) for key in ("model name", "flags")
        )
    return platform.processor() or platform.machine()
