"""What is installed, which device, which data sets are at hand, and what to do about each gap. No network."""

import argparse
import dataclasses
import json
import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

HELP = "say what is installed, which device, which data sets, and what to do about each gap"
OLDEST_PYTHON = (3, 11)
CORE = "core"
PURPOSE = {  # why one would want each extra; what is not named here is needed by the notebooks or the tests
    "private": "private training",
    "imaging": "image restoration",
    "gpu": "kernels on an NVIDIA GPU",
    "sweep": "sweeps over many runs",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report; state is "ok", "gap" (something works less well) or "broken" (nothing)."""

    topic: str
    state: str
    detail: str
    advice: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lablib doctor``."""
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def main(args: argparse.Namespace) -> int:
    """Print the report; return 1 if a core need is missing, else 0."""
    findings = list(examine())
    if args.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{finding.topic:<9} {finding.state:<7} {finding.detail}")
            if finding.advice:
                print(f"{'':<17} -> {finding.advice}")
    return int(any(finding.state == "broken" for finding in findings))


def examine() -> Iterator[Finding]:
    """Look at one thing after the other."""
    version = platform.python_version()
    if sys.version_info >= OLDEST_PYTHON:
        yield Finding("python", "ok", f"{version} ({platform.system()} {platform.machine()})")
    else:
        yield Finding("python", "broken", version, "install Python 3.11 or newer: make lab PYTHON=python3.12")
    for extra, requirements in needs().items():
        yield _packages(extra, requirements)
    yield _device()
    yield _kernels()
    yield _numba()
    yield from _data()
    yield _browser()
    yield _figures()
    yield _mode()


def needs() -> dict[str, list[str]]:
    """Return extra -> requirements ("core" first), by the checkout's pyproject.toml, else by the package."""
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if pyproject.exists():
        project = tomllib.loads(pyproject.read_text())["project"]
        return {CORE: project["dependencies"]} | project["optional-dependencies"]
    found: dict[str, list[str]] = {CORE: []}
    for requirement in metadata.requires("lablib") or ():
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        found.setdefault(extra[1] if extra else CORE, []).append(requirement)
    return found


def lacking(requirement: str) -> str:
    """Say what is wrong with one requirement ("numpy 1.26, needs >=2.0"); "" if it is met or not for here.

    Raises:
        ValueError: if it is not of the form ``name>=1.2`` or ``name==1.2`` (all that this project uses).
    """
    text, _, marker = requirement.partition(";")
    if "Linux" in marker and platform.system() != "Linux":
        return ""
    parts = re.fullmatch(r"\s*([\w.-]+)(?:\[[\w,]+\])?\s*(?:\(?(>=|==)\s*([\w.]+)\)?)?\s*", text)
    if parts is None:
        raise ValueError(f"cannot read the requirement {requirement!r}; write name>=version or name==version")
    name, operator, wanted = parts.groups()
    if name == "lablib":
        return ""  # an extra that includes another one
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return name
    if wanted is None:
        return ""
    have, want = _release(installed), _release(wanted)
    met = have >= want if operator == ">=" else have[: len(want)] == want
    return "" if met else f"{name} {installed}, needs {operator}{wanted}"


def find_browser() -> str | None:
    """Return the path of a Chromium or Chrome (LABLIB_CHROMIUM, else on the PATH), or None."""
    named = os.environ.get("LABLIB_CHROMIUM")
    return next(filter(None, map(shutil.which, (named,) if named else BROWSERS)), None)


def _release(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: 2.13.0+cpu -> (2, 13, 0)."""
    return tuple(int(number) for number in re.match(r"[\d.]*", version)[0].strip(".").split(".") if number)


def _packages(extra: str, requirements: list[str]) -> Finding:
    gaps = [gap for gap in map(lacking, requirements) if gap]
    topic = extra if extra == CORE else f"[{extra}]"
    if not gaps:
        return Finding(topic, "ok", f"{len(requirements)} packages installed")
    what = f"not installed or too old: {'; '.join(gaps)}"
    if extra == CORE:
        return Finding(topic, "broken", what, "make lab, or: python -m pip install -c constraints.txt -e .")
    reason = f" (only for {PURPOSE[extra]})" if extra in PURPOSE else ""
    return Finding(topic, "gap", what, f"python -m pip install -c constraints.txt -e '.[{extra}]'{reason}")


def _kernels() -> Finding:
    try:
        from lablib.ops import native

        kind, why = native.choice()
    except (ImportError, OSError, ValueError) as error:
        return Finding("kernels", "broken", str(error), "unset LABLIB_KERNELS")
    if kind == "native":
        return Finding("kernels", "ok", f"CPU kernels of distance and sort layers: {why}")
    return Finding(
        "kernels", "gap", f"{kind} instead of compiled C++: {why}", "install g++ for the fastest training"
    )


def _device() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("device", "broken", f"torch does not load: {error}", "make lab")
    cpu = f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads"
    if not torch.cuda.is_available():
        return Finding("device", "ok", f"{cpu}; no CUDA device (everything runs on the CPU)")
    cuda = f"{cpu}; {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    if lacking("triton"):
        return Finding(
            "device", "gap", f"{cuda}, no triton", "python -m pip install -c constraints.txt -e '.[gpu]'"
        )
    return Finding("device", "ok", f"{cuda}, triton {metadata.version('triton')}")


def _numba() -> Finding:
    try:
        import numba
    except ImportError as error:  # not installed, or made for another NumPy
        return Finding(
            "numba", "gap", f"does not load: {error}", "python -m pip install -c constraints.txt -e '.[lab]'"
        )
    return Finding("numba", "ok", f"{numba.__version__}: the search for violated pairs is compiled")


def _kernels() -> Finding:
    try:
        from lablib.ops import native

        kind, why = native.choice()
    except (ImportError, OSError, ValueError) as error:  # no torch; a compiler or LABLIB_KERNELS that fails
        return Finding("kernels", "gap", str(error), "export LABLIB_KERNELS=auto")
    said = f"{kind}: {why} (CPU distance and SortNet layers)"
    if kind == "native" or os.environ.get("LABLIB_KERNELS", "auto") == kind:
        return Finding("kernels", "ok", said)
    return Finding("kernels", "gap", said, "apt-get install g++")


def _data() -> Iterator[Finding]:
    from lablib.data import NAMES, available

    for name in NAMES:
        try:
            status = available(name)
        except OSError as error:  # LABLIB_DATA is not a folder
            yield Finding("data", "gap", name, str(error))
            continue
        state = "ok" if status.ready else "gap"
        yield Finding("data", state, f"{name}: {status.state}, {status.place}", status.advice)


def _browser() -> Finding:
    path = find_browser()
    if path:
        return Finding("browser", "ok", f"{path} (drives the lab in make test)")
    advice = "apt-get install chromium, or set LABLIB_CHROMIUM=PATH (only for make test)"
    return Finding("browser", "gap", "no Chromium or Chrome: the browser test is skipped", advice)


def _figures() -> Finding:
    from lablib.experiments.results import figures_dir

    folder = figures_dir()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if os.access(nearest, os.W_OK):
        return Finding("figures", "ok", f"{folder} is writable")
    return Finding("figures", "gap", f"{folder} is not writable", "set LABLIB_FIGURES=DIR for make figures")


def _mode() -> Finding:
    from lablib.experiments.results import current_mode

    try:
        return Finding("mode", "ok", f"{current_mode()} (LABLIB_MODE: quick, standard or full)")
    except ValueError as error:
        return Finding("mode", "gap", str(error), "export LABLIB_MODE=standard")
