"""The order-statistic recipe at its smallest, and the training behind it."""

import numpy as np
import pytest

from lablib.experiments.batched_networks import Architecture
from lablib.experiments.order_statistics import Config, draw, run
from lablib.experiments.order_training import train_order_statistic
from lablib.theory.network import is_lipschitz, is_standard
from lablib.theory.order_statistics import error_bound, estimate_error, grid


def test_trained_standard_networks_come_close_to_the_bound_and_never_below():
    trained = train_order_statistic(Architecture("abs", (16,)), 3, 2, steps=150, seeds=2)
    bound = float(error_bound(3))
    assert (trained.errors >= bound - 1e-9).all()
    assert trained.errors.min() < bound + 0.03
    for layers in trained.networks:
        assert is_standard(layers)
        assert estimate_error(layers, 2, grid(3, 2).astype(float))[0] >= bound - 1e-9


def test_distance_networks_go_past_the_bound():
    trained = train_order_statistic(Architecture("linf_distance", (16,)), 3, 1, steps=150, seeds=2)
    assert trained.errors.min() < float(error_bound(3)) / 2
    assert is_lipschitz(trained.best)


def test_the_recipe_measures_and_draws(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    metrics, arrays = run(Config("quick", dims=(2, 5), steps=5, seeds=1, surface=5))
    rows = metrics["rows"]
    assert [row["constructed_fraction"]["standard"] for row in rows] == ["1/4", "2/5"]
    assert [row["constructed"][name] for row in rows for name in ("tournament", "distance")] == [0] * 4
    assert all(row["constructed_fraction"]["maxmin"] == row["bound_fraction"]["maxmin"] for row in rows)
    assert np.abs(arrays["standard/error"]).max() == pytest.approx(0.25)
    names = set(draw({"metrics": metrics, "arrays": arrays}))
    assert names == {f"order_statistics{end}" for end in ("", "_surfaces", "_turnable")}


def test_training_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="k-th largest"):
        train_order_statistic(Architecture("abs", (4,)), 3, 4, steps=1, seeds=1)
    with pytest.raises(ValueError, match="d <= 16"):
        train_order_statistic(Architecture("abs", (4,)), 17, 1, steps=1, seeds=1)
