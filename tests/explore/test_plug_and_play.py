import time

import numpy as np
import pytest

from lablib.explore.plug_and_play import PlugAndPlayExplorer

SIZE, PICTURES = 12, 2


def guaranteed(alpha, distance, count):
    return distance * np.sqrt(alpha / ((1 - alpha) * np.arange(1, count + 1)))


def a_run(psnr, reached=True, **extra):
    facts = {"psnr": psnr, "ssim": None if psnr is None else 0.5, "reached": reached, "iterations": 30}
    return facts | {"psnr_best": 31.0, "rate_use": 0.25, "distance": 2.0, "norm": 4.0} | extra


@pytest.fixture
def record():
    """Two problems, a proven method, one without constraint that overflows, and a classical one."""
    rng = np.random.default_rng(0)
    methods = {"spline": "learned spline", "unconstrained": "no constraint", "tv": "TV"}
    rows, arrays = (
        [],
        {f"clean/{n}": rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8) for n in range(PICTURES)},
    )
    for problem in ("tomography", "mri"):
        for n in range(PICTURES):
            arrays[f"{problem}/start/{n}"] = rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
        for method, label in methods.items():
            row = {"problem": problem, "method": method, "label": label}
            for kind in ("chosen",) if method == "tv" else ("chosen", "common"):
                alpha = 2 / 3 if method == "spline" else None
                lost = method == "unconstrained"
                run = a_run(
                    None if lost else 30.0, not lost, **({"norm": None, "rate_use": None} if lost else {})
                )
                row[kind] = {"setting": {"sigma": 15, "share": 0.5}, "alpha": alpha, "runs": [run] * PICTURES}
                for n in range(PICTURES):
                    steps = np.geomspace(1, 1e-5, 30).astype(np.float32)
                    arrays[f"{problem}/{method}/{kind}/residuals/{n}"] = np.where(lost, np.nan, steps)
                    arrays[f"{problem}/{method}/{kind}/picture/{n}"] = rng.integers(
                        0, 256, (SIZE, SIZE), dtype=np.uint8
                    )
            rows.append(row)
    start = [{"psnr": 20.0, "ssim": 0.3}] * PICTURES
    problems = {name: {"start": start} for name in ("tomography", "mri")}
    return {
        "metrics": {"rows": rows, "problems": problems},
        "arrays": arrays,
        "config": {"tolerance": 1e-5},
    }


def test_it_starts_with_the_spline_and_draws_its_guarantee(record):
    lab = PlugAndPlayExplorer(record, guaranteed)
    assert (lab.problem.value, lab.method.value) == ("tomography", "spline")
    line, bound, rule = lab.figure.data[4:]
    assert np.allclose(bound.y, guaranteed(2 / 3, 0.5, 30))
    assert np.allclose(line.y, np.geomspace(1, 1e-5, 30))
    assert list(rule.y) == [1e-5, 1e-5]
    assert "stopping rule reached after <b>30</b> steps" in lab.readout.value
    assert "at most 25% of what is guaranteed" in lab.readout.value


def test_choices_show_their_pictures(record):
    lab = PlugAndPlayExplorer(record, guaranteed)
    lab.problem.value, lab.setting.value, lab.number.value = "mri", "common", 1
    clean, start, picture, error = (np.asarray(trace.z) for trace in lab.figure.data[:4])
    arrays = record["arrays"]
    assert np.array_equal(clean, arrays["clean/1"])
    assert np.array_equal(start, arrays["mri/start/1"])
    assert np.array_equal(picture, arrays["mri/spline/common/picture/1"])
    assert np.array_equal(error, np.abs(picture.astype(int) - clean))


def test_a_run_that_overflowed_has_neither_curve_nor_promise(record):
    lab = PlugAndPlayExplorer(record, guaranteed)
    lab.method.value = "unconstrained"
    assert "overflow" in lab.readout.value
    assert "not converged" in lab.readout.value
    assert "no guarantee" in lab.readout.value
    assert np.isnan(lab.figure.data[4].y).all()
    assert np.isnan(lab.figure.data[5].y).all()


def test_a_method_without_the_common_setting_shows_its_own(record):
    lab = PlugAndPlayExplorer(record, guaranteed)
    lab.setting.value, lab.method.value = "common", "tv"
    assert np.array_equal(lab.figure.data[2].z, record["arrays"]["tomography/tv/chosen/picture/0"])


def test_a_choice_answers_within_a_tenth_of_a_second(record):
    lab = PlugAndPlayExplorer(record, guaranteed)
    times = []
    for method in ("tv", "spline", "unconstrained") * 2:
        start = time.perf_counter()
        lab.method.value = method
        times.append(time.perf_counter() - start)
    assert np.median(times) < 0.1


def test_an_empty_record_is_refused(record):
    record["metrics"]["rows"] = []
    with pytest.raises(ValueError, match="no reconstructions"):
        PlugAndPlayExplorer(record, guaranteed)
