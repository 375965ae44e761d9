"""A reader's first minutes in a real browser: the start page, then every control of the two explorers."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SMALL = """import ipywidgets as widgets, plotly.graph_objects as go
figure = go.FigureWidget(go.Scatter(x=[0, 1, 2], y=[0, 1, 4]))
figure.update_yaxes(range=[0, 30])
power = widgets.IntSlider(value=2, min=0, max=4, description="power")
def answer(change):
    figure.data[0].y = [x ** power.value for x in (0, 1, 2)]
power.observe(answer, names="value")
widgets.VBox([power, figure])"""


def test_driver_sees_what_moves_and_what_does_not(notebook, notebooks_folder):
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    small = new_notebook(cells=[new_code_cell(SMALL)], metadata={"kernelspec": kernel})
    nbformat.write(small, notebooks_folder / "small.ipynb")
    notebook.open("small.ipynb")
    notebook.run_all()
    notebook.changing(lambda: notebook.nudge("power", 2), "power")
    notebook.patience = 1.0
    with pytest.raises(AssertionError, match="stays at 4"):
        notebook.nudge("power", 1)  # it stands at its end
    with pytest.raises(AssertionError, match="the plot stay the same"):
        notebook.changing(lambda: None, "nothing")


def test_start_page_is_served_and_runs(notebook):
    notebook.open("00_start_here.ipynb")
    assert notebook.page.locator(".jp-RenderedMarkdown h1").first.inner_text()
    notebook.page.wait_for_selector(".jp-OutputArea img, .jp-OutputArea svg")  # the stored picture
    notebook.run_all()
    notebook.screenshot("00_start_here")


def test_activation_explorer(notebook):
    notebook.open("04_activation_explorer.ipynb")
    notebook.run_all()
    notebook.show("depth")
    notebook.screenshot("04_first")
    notebook.changing(lambda: notebook.nudge("slope", 10), "slope of leaky ReLU")
    before, after = notebook.changing(lambda: notebook.nudge("depth", 2, key="ArrowLeft"), "depth")
    assert int(after) == int(before) - 2
    notebook.wait_for_text(f"after {after} layers")
    notebook.changing(lambda: notebook.nudge("seed", 1), "seed")
    budgets, _, shares = notebook.bar_positions()
    assert budgets == list(range(1, 9))
    assert max(shares) < 1
    notebook.screenshot("04_moved")
    notebook.changing(lambda: notebook.choose("activation", "GroupSort"), "activation")
    notebook.wait_for_text("GroupSort, group size")
    notebook.changing(lambda: notebook.nudge("group size", 1), "group size")
    notebook.changing(lambda: notebook.choose("norm", "l2"), "norm")
    notebook.show("depth")
    notebook.screenshot("04_group_sort")


def test_decision_boundaries(notebook):
    notebook.open("05_decision_boundaries.ipynb")
    notebook.run_all()
    notebook.show("radius")
    notebook.choose("data", "moons")
    notebook.choose("architecture", "linf distance")
    notebook.nudge("steps", 4, key="ArrowLeft")
    notebook.changing(lambda: notebook.press("Train"), "training")
    notebook.wait_for_text(r"trained: 100 steps")
    many = _certified(notebook, "0.10")
    notebook.screenshot("05_trained")
    before, after = notebook.changing(lambda: notebook.nudge("radius", 10), "radius")
    assert (before, after) == ("0.10", "0.20")
    assert _certified(notebook, after) <= many
    notebook.screenshot("05_radius")
    notebook.changing(lambda: notebook.choose("architecture", "MaxMin"), "architecture")
    notebook.wait_for_text("not trained yet")
    notebook.nudge("depth", 1, key="ArrowLeft")
    notebook.nudge("width", 2, key="ArrowLeft")
    notebook.changing(lambda: notebook.press("Train"), "training")
    notebook.wait_for_text(r"trained: 100 steps")
    notebook.show("radius")
    notebook.screenshot("05_maxmin")


def _certified(notebook, radius: str) -> int:
    """The number of points that the readout gives as certified at this radius."""
    says = rf"(\d+) of \d+ points certified at radius {re.escape(radius)}"
    notebook.wait_for_text(says)
    outputs = "\n".join(notebook.page.locator(".jp-OutputArea").all_inner_texts())
    return int(re.search(says, outputs)[1])


def test_sortnet_layer(notebook):
    notebook.open("07_sortnet_layer.ipynb")
    notebook.run_all()
    notebook.changing(lambda: notebook.nudge("inputs d", 4, key="ArrowLeft"), "inputs d")
    notebook.nudge("ranks K", 4, key="ArrowLeft")
    notebook.wait_for_text("first 6 ranks, rescaled")
    notebook.screenshot("07_dropout")
    before, after = notebook.changing(lambda: notebook.nudge("power p", 3), "power p")
    assert (before, after) == ("8", "32")
    notebook.screenshot("07_power")
    notebook.changing(lambda: notebook.nudge("share q", 5, key="ArrowLeft"), "share q")
    notebook.wait_for_text("hidden layer \\d+% \\(on average 25%\\)")
