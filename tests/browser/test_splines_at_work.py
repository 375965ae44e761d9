"""The explorers of notebook 11 in a real browser: a potential, a noisy picture, finished reconstructions."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = """from lablib.explore.wasserstein import WassersteinExplorer
from lablib.experiments.wasserstein_history import record_toy
names = {"abs": "absolute value", "spline": "learned spline"}
potentials = WassersteinExplorer(record_toy, ["eight Gaussians and one", "translated blob"], names)
potentials.box
---
from lablib.explore.denoise import DenoiseExplorer
from lablib.experiments.denoiser import Architecture, build_denoiser
from lablib.experiments.live_imaging import decibels, iterates, load_crops
models = {(name, 15): iterates(build_denoiser(Architecture(name, 4, 1), noise=1.0).eval()) for name in names}
denoise = DenoiseExplorer(models, load_crops(2, 96), names, decibels)
denoise.box
---
import numpy as np
from lablib.explore.plug_and_play import PlugAndPlayExplorer
from lablib.experiments.plug_and_play_solver import guaranteed_steps
picture = np.uint8(255 * next(iter(load_crops(1, 48).values())))
numbers = {"psnr": 30.0, "ssim": 0.9, "reached": True, "iterations": 40, "psnr_best": 31.0, "rate_use": 0.3}
numbers |= {"distance": 2.0, "norm": 20.0}
---
rows, arrays, start = [], {"clean/0": picture}, {"start": [{"psnr": 20.0, "ssim": 0.5}]}
for problem in ("tomography", "mri"):
    arrays[f"{problem}/start/0"] = picture[::-1]
    for rate, method in ((2, "abs"), (4, "spline")):
        found = {"setting": {"share": 0.5}, "alpha": 2 / 3, "runs": [numbers]}
        row = {"problem": problem, "method": method, "label": names[method], "chosen": found}
        rows.append(row)
        arrays[f"{problem}/{method}/chosen/residuals/0"] = np.exp(-np.arange(40) / rate)
        arrays[f"{problem}/{method}/chosen/picture/0"] = picture // rate
metrics = {"rows": rows, "problems": {"tomography": start, "mri": start}}
record = {"metrics": metrics, "arrays": arrays, "config": {"tolerance": 1e-5}}
---
lab = PlugAndPlayExplorer(record, guaranteed_steps)
lab.box"""


def test_explorers_of_splines_at_work(page):
    page.show("clouds")
    page.screenshot("11_potential_last")
    page.changing(lambda: page.nudge("state", 12, "ArrowLeft"), "state")
    page.screenshot("11_potential_early")
    page.changing(lambda: page.choose("clouds", "translated blob"), "clouds")
    page.wait_for_text(r"of the exact distance 0\.5408")

    page.show("noise")
    before, after = page.changing(lambda: page.nudge("noise", 10), "noise")
    assert (before, after) == ("15", "25")
    page.changing(lambda: page.nudge("times", 4), "times")
    page.wait_for_text("after 5 × T")
    page.screenshot("11_denoise")

    page.show("problem")
    page.changing(lambda: page.choose("method", "absolute value"), "method")
    page.wait_for_text("stopping rule reached after 40 steps")
    page.screenshot("11_plug_and_play")
