"""How a stored notebook looks to a reader: run in order, small, prose first, with checks, from no machine."""

import json
import re
import statistics
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "figures" / "results"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIMIT_BYTES, LONGEST, MEDIAN = 1_000_000, 20, 6
PATHS = re.compile(r"(?<![\w.:/])(/(root|work|home|tmp|Users|opt|mnt)/\w|[A-Z]:\\\\)")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    """Each notebook of the tree."""
    return request.param


@pytest.fixture
def notebook(path):
    """Its content, valid by nbformat's schema."""
    read = nbformat.read(path, as_version=4)
    nbformat.validate(read)
    return read


def _lines(cell) -> int:
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def _code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks_in_reading_order():
    assert NOTEBOOKS, "no notebooks"
    assert NOTEBOOKS[0].name == "00_start_here.ipynb"
    numbers = [path.name[:3] for path in NOTEBOOKS]
    assert numbers == [f"{number:02d}_" for number in range(len(numbers))]


def test_stored_clean_and_small(path, notebook):
    assert path.stat().st_size < LIMIT_BYTES, f"{path.stat().st_size / 1e6:.1f} MB"
    assert "widgets" not in notebook.metadata, "widget state is stored: run make notebooks"
    text = path.read_text()
    assert not PATHS.search(text), PATHS.search(text)
    assert "application/vnd.jupyter.widget-view+json" not in text, "a widget shows nothing without a kernel"


def test_ran_from_top_to_bottom_without_an_error(notebook):
    code = _code(notebook)
    counts = [cell.execution_count for cell in code]
    assert counts == list(range(1, len(code) + 1)), "not run in order: run make notebooks"
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"], "a warning or a progress bar"


def test_opens_with_question_aim_and_time(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert "?" in first.source, "the question"
    assert re.search(r"\baim", first.source, re.I), "the aim"
    assert re.search(r"\b(minutes?|seconds?)\b", first.source), "the running time"


def test_prose_leads_and_cells_are_short(notebook):
    lengths = [_lines(cell) for cell in _code(notebook)]
    assert max(lengths) <= LONGEST
    assert statistics.median(lengths) <= MEDIAN
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    assert words >= 4 * sum(lengths), f"{words} words for {sum(lengths)} lines of code"


def test_every_claim_has_a_check(notebook):
    assert any(re.search(r"^\s*assert ", cell.source, re.M) for cell in _code(notebook)), "asserts nothing"


def test_shows_something_without_a_kernel(path, notebook):
    kinds = {kind for cell in _code(notebook) for output in cell.outputs for kind in output.get("data", {})}
    assert kinds & {"image/png", "image/svg+xml", "text/html", "text/plain", "text/markdown"}, path.name


def _shown_quick(notebook) -> list[str]:
    """Return the recipes of which an output says that it is quick: a line begins with "quick" or "size: quick"."""
    recipe_of, found = {}, []
    for cell in _code(notebook):
        recipe_of |= dict(re.findall(r"(\w+) = record_of\((\w+)\.RECIPE\)", cell.source))
        recipe_of |= dict(re.findall(r"(\w+) = read_result\([\"'](\w+)[\"']", cell.source))
        text = "\n".join(output.get("text", "") for output in cell.outputs)
        if re.search(r"^(size: )?quick\b", text, re.M):
            named = re.findall(r"(\w+)\[[\"']mode[\"']\]", cell.source)
            assert named, f"nothing says which recipe is quick here:\n{cell.source}"
            found += [recipe_of.get(name, name) for name in named]
    return sorted(set(found))


def test_no_quick_output_is_stored_where_there_is_a_result(notebook):
    stale = [name for name in _shown_quick(notebook) if (RESULTS / f"{name}.json").exists()]
    assert not stale, (
        f"{', '.join(stale)}: stored from a quick run, and there is a result: run make notebooks"
    )


def test_quick_outputs_are_noticed():
    cells = [
        nbformat.v4.new_code_cell("story = record_of(trigger.RECIPE)\nprint('size:', story['mode'])"),
        nbformat.v4.new_code_cell("print(f\"{story['mode']}, 5 seeds\")"),
    ]
    cells[0].outputs = [nbformat.v4.new_output("stream", text="size: standard\n")]
    cells[1].outputs = [nbformat.v4.new_output("stream", text="quick, 5 seeds\n")]
    assert _shown_quick(nbformat.v4.new_notebook(cells=cells)) == ["trigger"]
    assert _shown_quick(nbformat.v4.new_notebook(cells=cells[:1])) == []


def test_pointers_between_notebooks_lead_somewhere(path, notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?:|#|attachment:)([^)#]+)", cell.source):
                assert (path.parent / target).exists(), f"{target} does not exist"


def test_sanitizer_reads_as_nbval_reads_it():
    lines = (Path(__file__).parent / "nbval_sanitize.cfg").read_text().splitlines()
    rules = {}
    for number, line in enumerate(lines):
        if line.startswith("regex: "):
            rules[line.removeprefix("regex: ")] = lines[number + 1].removeprefix("replace: ")
    text = json.dumps("took 1.25 s at 0x7f3a2b4c5d6e")
    for regex, replacement in rules.items():
        text = re.sub(regex, replacement, text)
    assert text == '"took TIME at ADDRESS"'
    assert len(rules) == sum(line.startswith("[") for line in lines)
