"""Who may import whom: every import of lablib is read (also inside functions) and held against the rules.

The walker itself is tested on planted violations; another test loads the library with everything optional
blocked.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"theory", "ops", "layers", "certify", "data", "train", "privacy", "plots", "explore", "experiments"}
SIBLINGS = {  # part -> parts it may import
    "theory": set(),
    "ops": set(),
    "layers": {"ops"},
    "certify": {"ops", "layers"},
    "train": {"ops"},
    "data": set(),
    "plots": set(),
    "privacy.accounting": set(),
    "privacy": PARTS - {"explore", "experiments"},
    "explore": {"plots", "layers", "theory"},
    "experiments": PARTS - {"explore"},
}
ONLY_IN = {  # package -> parts that may import it
    "matplotlib": {"plots", "explore"},
    "plotly": {"plots", "explore"},
    "ipywidgets": {"explore"},
    "anywidget": {"explore"},
}
NO_TORCH = {"theory", "privacy.accounting"}
THEORY_USES = {"numpy", "scipy", "numba", "tqdm", "lablib"} | set(sys.stdlib_module_names)
LAZY = {
    "triton",
    "numba",
    "opacus",
    "dp_accounting",
    "deepinv",
    "ot",
    "pooch",
    "sklearn",
    "tqdm",
    "ray",
    "tensorboard",
}


def _imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[str, int, bool]]:
    """Yield (dotted name, line, whether it runs when the module is loaded) of every import."""
    package = module.split(".") if is_package else module.split(".")[:-1]

    def visit(node: ast.AST, top: bool) -> Iterator[tuple[str, int, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            # "from lablib import ops" imports lablib.ops
            yield from ((f"{name}.{alias.name}", node.lineno, top) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if called in ("import_module", "__import__") and isinstance(getattr(name, "value", None), str):
                yield name.value.rstrip("."), node.lineno, top
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, top and not inside)

    yield from visit(tree, True)


def _part(module: str) -> str:
    """lablib.ops.sortnet.cpu -> ops; the files at the top (doctor, __main__) are the command line: ""."""
    names = module.split(".")[1:]
    if names[:2] == ["privacy", "accounting"]:
        return "privacy.accounting"
    return names[0] if names and names[0] in PARTS else ""


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Return one line for each import of ``source`` that breaks a rule."""
    part, found = _part(module), []
    for name, line, top in _imports(ast.parse(source), module, is_package):
        where, package, target = f"{module}:{line}", name.split(".")[0], _part(name)
        own = target.split(".")[0] == part.split(".")[0] and part != "privacy.accounting"
        if package == "lablib" and part and target and not own and target.split(".")[0] not in SIBLINGS[part]:
            found.append(f"{where}: {part} must not import lablib.{target}")
        if part in NO_TORCH and package in ("torch", "torchvision"):
            found.append(f"{where}: {part} knows no torch")
        if part == "theory" and package not in THEORY_USES:
            found.append(f"{where}: theory is NumPy and SciPy only, not {package}")
        if package in ONLY_IN and part not in ONLY_IN[package]:
            found.append(f"{where}: {package} belongs in {', '.join(sorted(ONLY_IN[package]))}")
        if package in LAZY and top:
            found.append(f"{where}: import {package} inside the function that needs it")
    return found


def test_the_rules_hold():
    found = []
    files = sorted((ROOT / "lablib").rglob("*.py"))
    assert len(files) > 10
    for path in files:
        is_package = path.name == "__init__.py"
        names = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(names[:-1] if is_package else names)
        found += violations(path.read_text(), module, is_package)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lablib.theory.boolean", "import torch"),
        ("lablib.theory.boolean", "def f():\n    from torch import nn"),
        ("lablib.theory.budget", "from lablib.ops import norms"),
        ("lablib.theory.budget", "import networkx"),
        ("lablib.theory.budget", "import numba"),
        ("lablib.ops.norms", "import lablib.layers.linear"),
        ("lablib.ops.norms", "from ..layers import linear"),
        ("lablib.ops.norms", "from .. import layers"),
        ("lablib.ops.norms", "from lablib import theory"),
        ("lablib.layers.linear", "def f():\n    import lablib.theory.network"),
        ("lablib.layers.linear", "import importlib\nx = importlib.import_module('lablib.certify.radii')"),
        ("lablib.layers.linear", "from importlib import import_module\nimport_module(f'lablib.data.{1}')"),
        ("lablib.layers.linear", "__import__('lablib.data')"),
        ("lablib.certify.radii", "from lablib.train.loop import fit"),
        ("lablib.train.loop", "from lablib.layers import linear"),
        ("lablib.train.loop", "from tqdm import tqdm"),
        ("lablib.train.loop", "try:\n    import triton\nexcept ImportError:\n    triton = None"),
        ("lablib.train.loop", "class A:\n    import ray"),
        ("lablib.data.registry", "import pooch"),
        ("lablib.data.registry", "from lablib.plots.theme import theme"),
        ("lablib.plots.theme", "from lablib.data import load"),
        ("lablib.plots.theme", "import ipywidgets"),
        ("lablib.experiments.bench", "import matplotlib.pyplot as plt"),
        ("lablib.experiments.bench", "def f():\n    import plotly.graph_objects as go"),
        ("lablib.experiments.bench", "from lablib.explore import boundary"),
        ("lablib.explore.boundary", "from lablib.experiments import recipe"),
        ("lablib.explore.boundary", "from lablib.data import load"),
        ("lablib.privacy.accounting", "import torch"),
        ("lablib.privacy.accounting", "from lablib.privacy import engine"),
        ("lablib.privacy.engine", "import opacus"),
        ("lablib.privacy.engine", "from lablib.explore import boundary"),
        ("lablib.doctor", "import sklearn"),
        ("lablib.doctor", "import matplotlib"),
    ],
)
def test_planted_violations_are_found(module, source):
    assert violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lablib.theory.boolean", "import numpy as np\nfrom fractions import Fraction\nfrom . import budget"),
        ("lablib.theory.impossibility.solve", "def f():\n    import numba\n    from tqdm import tqdm"),
        ("lablib.layers.linear", "import torch\nfrom lablib.ops.norms import project"),
        ("lablib.certify.radii", "from lablib import layers, ops"),
        ("lablib.explore.boundary", "import ipywidgets\nimport matplotlib\nfrom lablib.plots import theme"),
        ("lablib.experiments.bench", "from lablib.plots import theme\nimport lablib.theory.boolean"),
        ("lablib.privacy.engine", "from lablib.privacy.accounting import spend\nimport torch"),
        ("lablib.experiments.bench", "from lablib.privacy.accounting import spend"),
        ("lablib.__main__", "import importlib\nimportlib.import_module('lablib.experiments.recipe')"),
    ],
)
def test_what_is_allowed_passes(module, source):
    assert violations(source, module) == []


def test_the_library_loads_with_everything_optional_blocked():
    code = """
import importlib, pkgutil, sys
BLOCKED = set('''anywidget deel deepinv dp_accounting hypothesis ipywidgets IPython jupyterlab matplotlib
monotonicnetworks monotonenorm nbclient nbformat numba opacus orthogonium ot PIL pandas playwright plotly
pooch pytest ray sklearn tensorboard tqdm triton'''.split())
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in BLOCKED:
            raise ImportError(f'{name} is optional')
sys.meta_path.insert(0, Refuse())
loaded = 0
for part in 'layers train certify ops theory data doctor experiments.results __main__'.split():
    module = importlib.import_module(f'lablib.{part}')
    for found in pkgutil.walk_packages(getattr(module, '__path__', []), f'lablib.{part}.'):
        importlib.import_module(found.name)
        loaded += 1
print(loaded)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 6
