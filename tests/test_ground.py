"""The ground: package data, pins, conda file, README, Makefile and the tracked files fit together."""

import ast
import importlib
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LIMIT_BYTES = 5_000_000
TEXT = {".py", ".md", ".ipynb", ".yml", ".yaml", ".toml", ".cfg", ".cff", ".txt", ".json", ".svg", ".html"}
# assembled, so that this file does not contain what it looks for
MACHINE = re.compile("(?<![\\w.:-])/(" + "|".join(("root", "work", "home/\\w+", "opt/(pypi|wheels)")) + ")/")
HOSTS = re.compile("|".join(("files\\.pythonhosted", "pypi\\.org/" + "simple", "extra-" + "index-url")))


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def _tracked() -> list[Path]:
    """Files that git tracks or would track; outside a checkout, what lies in the project's own folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for path in (ROOT / name for name in out.split("\0") if name) if path.is_file()]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins), "every line is name==version"
    return {_name(name): version for name, version in pins}


def test_extras():
    assert set(EXTRAS) == {"lab", "test", "private", "imaging", "gpu", "sweep"}
    assert (
        "lablib[lab,gpu,imaging,private]" in EXTRAS["test"]
    )  # Triton is checked in its interpreter, deepinv in use
    assert {_name(requirement) for requirement in PROJECT["dependencies"]} == {"torch", "numpy", "scipy"}


def test_every_direct_dependency_is_pinned_to_a_version_it_allows():
    from packaging.requirements import Requirement

    pins = _pins()
    assert not [version for version in pins.values() if "+" in version], "no local version labels"
    for requirement in map(Requirement, itertools.chain(PROJECT["dependencies"], *EXTRAS.values())):
        if requirement.name != "lablib":
            assert _name(requirement.name) in pins, requirement
            assert requirement.specifier.contains(pins[_name(requirement.name)]), requirement


def test_pins_are_sorted_and_single():
    for block in (ROOT / "constraints.txt").read_text().split("\n\n"):
        names = [line.split("==")[0].lower() for line in block.splitlines() if line and line[0] != "#"]
        assert names == sorted(set(names))


def test_conda_environment_is_the_lab_extra():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert conda["name"] == PROJECT["name"]
    assert conda["channels"] == ["conda-forge"]
    pip = {"pip": ["-c constraints.txt", "-e .[lab,imaging,private]"]}
    assert conda["dependencies"] == [f"python{PROJECT['requires-python']}", "pip", pip]


def test_citation_names_the_project_and_its_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert str(citation["version"]) == PROJECT["version"] == importlib.import_module("lablib").__version__
    papers = {item["value"] for paper in citation["references"] for item in paper["identifiers"]}
    assert papers >= {
        f"arXiv:{number}" for number in ("2210.01787", "2210.16222", "2305.16202", "2112.00038")
    }
    assert all(paper["authors"] and paper["title"] and paper["type"] for paper in citation["references"])


def test_makefile_has_every_command_and_explains_it():
    makefile = (ROOT / "Makefile").read_text()
    explained = set(re.findall(r"^([a-z]+):[^\n]*## \S", makefile, re.M))
    assert explained >= {"lab", "figures", "test", "bench", "gpu", "notebooks", "clean", "help"}
    assert set(re.search(r"^\.PHONY: (.*)", makefile, re.M)[1].split()) == explained | {"lint"}


def test_readme_commands_and_links_exist():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`|\$ )make ([a-z]+)", readme, re.M))
    assert {"lab", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), f"README names make {target}"
    commands = set(re.findall(r"python -m lablib ([a-z]+)", readme))
    from lablib.__main__ import COMMANDS

    assert commands <= set(COMMANDS)
    for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", readme):
        assert (ROOT / link).exists(), f"README links to {link}"
    for name in re.findall(r"[\w/]*\d\d_\w+\.ipynb", readme):
        assert (ROOT / "notebooks" / Path(name).name).exists(), f"README names {name}"


def test_readme_python_runs_as_one_program():
    readme = (ROOT / "README.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", readme, re.S))
    assert "LearnableSpline" in code
    assert "MonotoneNetwork" in code
    found = {}
    exec(compile(code, "README.md", "exec"), found)
    assert found["radius"].shape == (256,)
    assert found["slopes"].increasing[0, 0]


def test_readme_lists_every_notebook_and_every_part_of_the_library():
    readme = (ROOT / "README.md").read_text()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert path.name in readme, path.name
    for path in sorted((ROOT / "lablib").glob("[a-z]*/__init__.py")):
        if len(list(path.parent.iterdir())) > 2:  # parts that are still empty are not promised
            assert f"lablib.{path.parent.name}" in readme, path.parent.name


def test_ci_runs_the_readme_s_test_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert any(".ci/run" in step.get("run", "") or "make test" in step.get("run", "") for step in steps)


def test_no_large_files():
    large = [f"{p.relative_to(ROOT)}: {p.stat().st_size / 1e6:.1f} MB" for p in _tracked() if _too_large(p)]
    assert not large, large


def _too_large(path: Path) -> bool:
    return path.stat().st_size > LIMIT_BYTES


def test_no_machine_s_paths_and_no_registry_hosts():
    found = []
    for path in _tracked():
        if path.suffix in TEXT or path.name in ("Makefile", "run"):
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                if MACHINE.search(line) or HOSTS.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found, "\n" + "\n".join(found[:20])


def test_the_search_for_paths_finds_them():
    for line in (
        "see /" + "root/x",
        "'/" + "work/main/y'",
        "(/" + "home/someone/z)",
        "/" + "opt/pypi/simple",
    ):
        assert MACHINE.search(line), line
    for line in ("https://a.org/" + "work/x", "frame" + "work/main", "lablib/work/x", "../work/x"):
        assert not MACHINE.search(line), line


def test_public_names_are_documented_and_files_stay_short():
    for path in sorted((ROOT / "lablib").rglob("*.py")):
        text = path.read_text()
        where = path.relative_to(ROOT)
        assert len(text.splitlines()) <= 400, f"{where}: {len(text.splitlines())} lines"
        tree = ast.parse(text)
        assert ast.get_docstring(tree), f"{where}: no docstring"
        kinds = (ast.FunctionDef, ast.ClassDef)
        public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
        bare = [node.name for node in public if not ast.get_docstring(node)]
        assert not bare, f"{where}: without a docstring: {', '.join(bare)}"


def test_extras_are_known_to_the_doctor():
    from lablib.doctor import PURPOSE, needs

    assert set(needs()) == {"core", *EXTRAS}
    assert set(PURPOSE) == set(EXTRAS) - {"lab", "test"}


def test_gpu_command_without_a_gpu_says_so_and_succeeds():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "gpu.py"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert "no CUDA device" in done.stdout
