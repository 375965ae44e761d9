"""Latency is measured fairly, returned as plain numbers, and refuses models that do not do the work."""

import json
import time

import numpy as np
import pytest
import torch
from torch import nn

from lablib.experiments.latency import measure_latency, onnx_call, torch_call, tree_call
from lablib.experiments.monotone_export import export_onnx
from lablib.layers import MaxMin

ROWS = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
QUICK = {"turns": 3, "seconds": 1e-4}


def test_numbers_are_plain_and_in_microseconds_per_event():
    asleep = {
        "short": lambda rows: time.sleep(1e-3) or rows[:, 0],
        "long": lambda rows: time.sleep(4e-3) or rows[:, :1],
    }
    found = measure_latency(asleep, ROWS, (1, 16), turns=5, seconds=1e-3)
    assert found == json.loads(json.dumps(found))
    assert (found["threads"], found["turns"]) == (1, 5)
    times = found["microseconds_per_event"]
    assert list(times) == list(asleep)
    for name, shortest in (("short", 1000.0), ("long", 4000.0)):
        for size in (1, 16):
            ends = times[name][str(size)]
            assert shortest / size <= ends["lower"] <= ends["median"] <= ends["upper"]
    assert times["short"]["1"]["median"] < times["long"]["1"]["median"]
    assert times["short"]["16"]["median"] < times["short"]["1"]["median"]


def test_rows_batches_and_threads_that_models_see():
    seen, threads = [], torch.get_num_threads()

    def model(rows):
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        seen.append((len(rows), torch.get_num_threads(), rows[0, 0]))
        return rows[:, 0]

    measure_latency({"model": model}, ROWS.astype(np.float64), (1, 20), **QUICK)
    assert {size for size, _, _ in seen} == {1, 20}
    assert {count for _, count, _ in seen} == {1}
    assert len({first for size, _, first in seen if size == 1}) > 3  # not the same row each time
    assert torch.get_num_threads() == threads


def test_networks_and_trees_give_what_they_predict(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), MaxMin(), nn.Linear(4, 1))
    wanted = network(torch.from_numpy(ROWS)).detach().numpy()
    np.testing.assert_array_equal(torch_call(network)(ROWS), wanted)
    onnx = onnx_call(export_onnx(network, tmp_path / "net.onnx"))
    np.testing.assert_allclose(onnx(ROWS), wanted, atol=1e-5)
    models = {"torch": torch_call(network), "onnx": onnx}
    labels = ROWS[:, 0] + ROWS[:, 1] ** 2 > 0.3
    for name, model, margin in trees():
        model.fit(ROWS, labels)
        models[name] = tree_call(model)
        np.testing.assert_allclose(models[name](ROWS), margin(model), atol=1e-5)
    found = measure_latency(models, ROWS, (1, 64), **QUICK)["microseconds_per_event"]
    assert all(times["1"]["median"] > 0 for times in found.values())


def trees():
    from sklearn.ensemble import HistGradientBoostingClassifier

    lightgbm, xgboost = pytest.importorskip("lightgbm"), pytest.importorskip("xgboost")
    yield "scikit-learn", HistGradientBoostingClassifier(max_iter=3), lambda m: m.decision_function(ROWS)
    light = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1)
    yield "lightgbm", light, lambda m: m.booster_.predict(ROWS, raw_score=True)
    yield (
        "xgboost",
        xgboost.XGBClassifier(n_estimators=3, n_jobs=1),
        lambda m: m.predict(ROWS, output_margin=True),
    )


def test_regression_trees():
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(max_iter=2).fit(ROWS, ROWS[:, 0])
    np.testing.assert_array_equal(tree_call(model)(ROWS), model.predict(ROWS))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": {}}, "nothing to measure"),
        ({"batch_sizes": ()}, "nothing to measure"),
        ({"batch_sizes": (65,)}, "a batch of 65"),
        ({"batch_sizes": (0,)}, "at least 1"),
        ({"rows": ROWS[0]}, "rows"),
        ({"rows": np.full((64, 3), np.nan)}, "finite"),
        ({"models": {"lazy": lambda rows: rows[:0]}}, "'lazy' returned shape"),
        ({"models": {"scalar": lambda rows: 1.0}}, "'scalar' returned shape"),
        ({"turns": 0}, "turns >= 1"),
        ({"seconds": np.nan}, "positive seconds"),
    ],
)
def test_refuses(change, words):
    given = {"models": {"first": lambda rows: rows[:, 0]}, "rows": ROWS, "batch_sizes": (1,), **QUICK}
    with pytest.raises(ValueError, match=words):
        measure_latency(**{**given, **change})


def test_refuses_unknown_trees():
    with pytest.raises(ValueError, match="int is not known"):
        tree_call(3)
