"""Execute notebooks in place and store them clean: no widget state, no machine's paths, no run times.

Usage: python tools/store_notebooks.py [NOTEBOOK ...]     default: all of notebooks/, in order.

A notebook is replaced only when it ran from top to bottom without an error and stayed under 1 MB.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
LIMIT_BYTES = 1_000_000
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs between runs and what only a live kernel can show."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                continue  # progress bars
            data = output.get("data", {})
            if WIDGET_VIEW in data:
                del data[WIDGET_VIEW]
                if set(data) <= {"text/plain"}:
                    continue
            kept.append(output)
        cell.outputs = kept
    return notebook


def store(path: Path) -> None:
    """Execute one notebook from the repository root and write it back; raise if it fails or is too large."""
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    text = nbformat.writes(clean(notebook)) + "\n"
    for private in (str(ROOT), str(Path.home())):
        text = text.replace(private + "/", "")
    if len(text.encode()) > LIMIT_BYTES:
        raise ValueError(
            f"{path.name} would be {len(text.encode()) / 1e6:.1f} MB; the limit is 1 MB: draw less"
        )
    path.write_text(text)
    print(f"{path.name}: {time.perf_counter() - start:.1f} s, {len(text) / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("LABLIB_MODE", "quick")
    chosen = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    for chosen_path in chosen:
        store(chosen_path)
