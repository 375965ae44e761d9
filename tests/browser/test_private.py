"""The explorers of notebook 13 in a real browser: budgets, epsilon, and a run that ends when its budget is spent."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = """from lablib.experiments.live_epsilon import epsilon_curves
from lablib.experiments import live_private
from lablib.explore.private import EpsilonExplorer, FlowExplorer
flow = FlowExplorer(live_private.budgets, live_private.ARCHITECTURES, live_private.CONSTRAINTS, 2**0.5)
flow.box
---
epsilon = EpsilonExplorer(epsilon_curves)
epsilon.box
---
from lablib.explore.private_training import PrivateRunExplorer
run = PrivateRunExplorer(live_private.train_private, ("global", "balanced"), "δ = 10⁻⁵")
run.box"""


DRAWN = """() => ['largest of 64 digits', 'The whole run', 'All runs so far'].every(text =>
    [...document.querySelectorAll('.js-plotly-plot text')].some(drawn => drawn.textContent.includes(text)))"""


def test_private_explorers(page):
    page.page.wait_for_function(DRAWN, timeout=60_000)
    page.show("depth")
    page.changing(lambda: page.nudge("depth", 2), "depth")
    page.changing(lambda: page.nudge("X₀", 2), "input bound")
    page.wait_for_text("all parameters together")
    page.screenshot("13_flow_dense")
    page.changing(lambda: page.choose("layers", "convolution"), "layers")
    page.changing(lambda: page.choose("bias", "with"), "bias")
    page.wait_for_text("largest: 1.bias")
    page.screenshot("13_flow_convolution")

    page.show("epochs")
    before, after = page.changing(lambda: page.nudge("epochs", 5), "epochs")
    assert before != after
    page.changing(lambda: page.nudge("releases", 2), "releases")
    page.wait_for_text("together they act as")
    page.screenshot("13_epsilon")

    page.show("target ε")
    page.nudge("target ε", 8, "ArrowLeft")
    page.page.wait_for_timeout(1000)  # the kernel hears of the last step a little later
    page.changing(lambda: page.press("Train"), "training")
    page.wait_for_text("the budget is spent: [0-9]+ steps")
    page.screenshot("13_run")
