"""The explorers of notebook 12 in a real browser: wishes, a fit, and one row that is moved."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = """from lablib.experiments.live_monotone import fit
from lablib.experiments.live_tables import events, table
from lablib.explore.monotone import MonotoneExplorer
tables = {"diabetes": table("diabetes"), "trigger": events(300)}
explorer = MonotoneExplorer(fit, tables, steps=50)
explorer.box
---
from lablib.explore.what_if import WhatIfExplorer
what_if = WhatIfExplorer({name: fit(rows, steps=50) for name, rows in tables.items()})
what_if.box"""


def test_monotone_explorers(page):
    page.show("λ")
    page.changing(lambda: page.press("Fit"), "fitting")
    page.wait_for_text("fitted: 50 steps")
    page.wait_for_text("rises with bmi, bp, s5")
    page.screenshot("12_fit")
    page.choose("bmi", "↓ falls")
    page.choose("age", "left out")
    page.nudge("λ", 4)
    page.changing(lambda: page.press("Fit"), "fitting")
    page.wait_for_text("falls with bmi")
    page.screenshot("12_fit_falls")

    page.show("reach")
    before, after = page.changing(lambda: page.nudge("bmi ↑", 5), "bmi")
    assert before != after
    page.changing(lambda: page.nudge("reach", 5), "reach")
    page.wait_for_text("off by up to 0.50 spreads")
    page.page.locator(".js-plotly-plot").nth(1).scroll_into_view_if_needed()
    page.screenshot("12_what_if")
    page.changing(lambda: page.nudge("row", 3), "row")
    page.page.locator(".jp-CodeCell").nth(1).locator("select").first.select_option(label="trigger")
    page.wait_for_text("probability of beauty")
    page.changing(lambda: page.nudge("sum of p_T [GeV] ↑", 5), "p_T")
    page.page.locator(".js-plotly-plot").nth(1).scroll_into_view_if_needed()
    page.screenshot("12_event")
