"""The private explorers: what they draw is what the library proves, measures and accounts for."""

import numpy as np
import pytest

from lablib.experiments import live_private as live
from lablib.experiments.live_epsilon import epsilon_curves
from lablib.explore.private import EpsilonExplorer, FlowExplorer
from lablib.explore.private_training import PrivateRunExplorer


@pytest.fixture
def flow():
    return FlowExplorer(live.budgets, live.ARCHITECTURES, live.CONSTRAINTS, 2**0.5)


def test_bars_are_bounds_and_no_diamond_passes_its_bar(flow):
    for architecture in live.ARCHITECTURES:
        flow.architecture.value, flow.bias.value = architecture, True
        ahead, ahead_seen, back, back_seen, weights, biases, seen = flow.figure.data
        rows = flow.found.bounds.rows
        assert list(ahead.y) == [row.output_norm for row in rows]
        assert list(back.y) == [row.cotangent_out for row in rows]
        assert (np.array(ahead_seen.y) <= np.array(ahead.y)).all()
        assert (np.array(back_seen.y) <= np.array(back.y)).all()
        bars = dict(zip((*weights.x, *biases.x), (*weights.y, *biases.y)))
        assert len(bars) == len(flow.found.bounds.parameters) == len(seen.x)
        assert all(y <= bars[x] for x, y in zip(seen.x, seen.y))
        assert len(flow.figure.layout.xaxis3.ticktext) == len(rows)
        assert f"{flow.found.bounds.total:.3f}" in flow.readout.value


def test_knobs_scale_the_bounds(flow):
    before = flow.found.bounds.total
    flow.loss_clip.value = 0.5
    assert flow.found.bounds.total == pytest.approx(before * 0.5 / 2**0.5, rel=1e-4)
    flow.input_bound.value = 2.0
    assert flow.found.bounds.total == pytest.approx(before * 2 * 0.5 / 2**0.5, rel=1e-4)
    total = flow.found.bounds.total
    flow.temperature.value = 30.0
    assert flow.found.bounds.total == pytest.approx(total)
    flow.depth.value = 4
    assert flow.found.bounds.total > total


def test_epsilon_follows_the_sliders():
    made = EpsilonExplorer(epsilon_curves)
    assert made.rate == 1024 / 60_000
    assert made.steps == round(10 * 60_000 / 1024)
    rdp, pld, prv, *_ = made.figure.data
    assert rdp.y[-1] == made.found.final["RDP"]
    assert pld.y[-1] == made.found.final["PLD"]
    assert list(prv.y) == [made.found.final["PRV"]]
    before = made.found.final["PLD"]
    made.noise.value = 3.0
    assert made.found.final["PLD"] < before
    made.releases.value = 4  # as one of half the noise
    assert made.found.final["PLD"] == pytest.approx(before, rel=1e-6)
    assert "together they act as σ = 1.500" in made.readout.value
    made.samples.value, made.batch.value = 1437, 13
    assert made.rate == 1.0
    assert made.steps == 10
    made.noise.value = 0.5
    assert list(made.figure.data[2].y) == []  # PRV is not asked there
    assert "PRV" not in made.readout.value


def test_a_run_is_drawn_and_its_end_kept():
    made = PrivateRunExplorer(live.train_private, ("global", "balanced"), "δ = 10⁻⁵")
    made.steps.value, made.target.value = 20, 16.0
    made.train()
    learned, cost, limit, ends = made.figure.data
    assert list(cost.y) == [row["epsilon"] for row in made.made.history]
    assert learned.x[-1] == made.made.step == 20
    assert set(limit.y) == {16.0}
    assert "trained: 20 steps" in made.status.value
    made.noise.value, made.target.value = "balanced", 1.5
    made.train()
    assert "the budget is spent" in made.status.value
    assert len(ends.x) == len(made.ends) == 2
    assert ends.x[1] <= 1.5
    assert "balanced noise" in ends.text[1]


def test_what_goes_wrong_is_told():
    def stopped(**_options):
        raise KeyboardInterrupt

    made = PrivateRunExplorer(stopped, ("global",), "δ")
    made.train()
    assert made.status.value == "stopped"
    assert not made.button.disabled
    made = PrivateRunExplorer(live.train_private, ("global",), "δ")
    made.noise_multiplier.value, made.target.value = 0.5, 0.5
    made.train()
    assert "not one step" in made.status.value
    assert made.ends == []
