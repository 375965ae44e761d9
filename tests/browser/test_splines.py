"""The spline explorers in a real browser: bend a spline, raise the price of knots, train a network."""

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = """from lablib.explore.splines import SplineEditor
editor = SplineEditor()
editor.box
---
from lablib.explore.splines import KnotExplorer
knots = KnotExplorer()
knots.box
---
from lablib.explore.live_fit import LiveFitExplorer
from lablib.experiments.live_fitting import fit
from lablib.theory.spline_targets import make_target
targets = {name: make_target(name) for name in ("f1", "f2")}
names = {"relu": ("ReLU", ("l2", "linf")), "abs": ("absolute value", ("l2", "linf"))}
live = LiveFitExplorer(fit, targets, names, steps=100)
live.box"""


def test_spline_explorers(page):
    page.show("start from")
    page.screenshot("10_editor_first")
    before, after = page.changing(lambda: page.nudge("4", 5), "slope of piece 4")
    assert (before, after) == ("−0.4", "0.1")
    page.changing(lambda: page.nudge("mean", 3), "mean")
    page.changing(lambda: page.nudge("α", 5), "α")
    page.wait_for_text("knots between ±0.67")
    page.changing(lambda: page.choose("start from", "zig-zag"), "preset")
    page.wait_for_text("8 of 8 pieces clipped")
    page.changing(lambda: page.click_plot(0, 0.5, 0.2), "a click above the middle knot")
    page.screenshot("10_editor_moved")

    _, shown = page.changing(lambda: page.nudge("log₁₀ λ", 12), "lambda")
    assert shown == "−2.00"
    page.wait_for_text(r"λ = 10\^-2.00")
    page.changing(lambda: page.nudge("noise", 3), "noise")
    page.screenshot("10_knots")

    page.changing(lambda: page.press("Train"), "training")
    page.wait_for_text("absolute value: mean squared error")
    page.choose("activation", "ReLU")
    page.changing(lambda: page.press("Train"), "training")
    page.wait_for_text("ReLU: mean squared error")
    page.show("steps")
    page.screenshot("10_live")
    outputs = "\n".join(page.page.locator(".jp-OutputArea").all_inner_texts())
    assert re.search(r"steepest slope (0|1)\.\d+", outputs)
