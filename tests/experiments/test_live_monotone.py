"""The live fit: what it says of slopes, ranges and radii holds for what it predicts."""

import numpy as np
import pytest

from lablib.certify import certify_slopes
from lablib.experiments.live_monotone import fit
from lablib.experiments.live_tables import Rows, events, offline_tables, table, toy


@pytest.fixture(scope="module")
def made():
    return fit(toy(), (1, -1), lipschitz=2.0, steps=40)


def test_directions_are_kept_against_the_data():
    falls = fit(toy(), (-1, 0), steps=60)  # the toy rises
    x = falls.rows.x.copy()
    before = falls.predict(x)
    x[:, 0] += np.random.default_rng(0).uniform(0, 2, len(x))
    assert (falls.predict(x) <= before + 1e-9).all()
    assert falls.slopes()[1, 0] <= 0
    assert list(falls.directions) == [-1, 0]


def test_fits_better_than_the_mean_and_the_same_again():
    first, second = (fit(toy(), lipschitz=3.0, steps=60, seed=3) for _ in range(2))
    assert first.quality() < 0.7 * first.unit
    assert np.array_equal(first.predict(first.rows.x), second.predict(second.rows.x))
    assert first.train.sum() == 180
    signal = fit(events(400), steps=60)
    assert signal.quality() > 0.75
    assert signal.threshold == 0


def test_slopes_of_many_boxes_are_those_of_each(made):
    rng = np.random.default_rng(0)
    lower = rng.uniform(-2, 1, (3, 4, 2))
    upper = lower + rng.uniform(0, 1, (3, 4, 2))
    together = made.slopes(lower, upper)
    assert together.shape == (2, 3, 4, 2)
    for place in np.ndindex(3, 4):
        ends = ((end[place] - made.centre) / made.scale for end in (lower, upper))
        alone = certify_slopes(made.model, *ends)
        assert np.allclose(together[(0, *place)], made.unit * alone.low[0], atol=1e-9)
        assert np.allclose(together[(1, *place)], made.unit * alone.high[0], atol=1e-9)


def test_partial_dependence_stays_in_its_band(made):
    for feature in (0, 1):
        seen = made.partial(feature)
        assert (seen.slope >= seen.low - 1e-9).all()
        assert (seen.slope <= seen.high + 1e-9).all()
        assert np.allclose(seen.mean, seen.scores.mean(0))
        drawn = made.dependence(feature)
        assert (drawn["low"] <= seen.low / seen.spread).all()
        assert (drawn["high"] >= seen.high / seen.spread).all()
    assert made.partial(0).low.min() >= 0
    assert made.partial(1).high.max() <= 0


def test_what_if_holds_for_sampled_changes(made):
    rng = np.random.default_rng(1)
    x, reach = made.rows.x[5], 0.3
    view = made.what_if(x, 1, reach)
    assert view.score == pytest.approx(float(made.predict(x)))
    assert (view.floor <= view.curve + 1e-9).all()
    assert (view.curve <= view.roof + 1e-9).all()
    assert (view.cone[0] <= view.floor + 1e-9).all()  # slopes of all inputs allow more
    assert (view.cone[1] >= view.roof - 1e-9).all()
    assert (view.measured >= view.raised[0] - 1e-9).all()
    assert (view.measured <= view.raised[1] + 1e-9).all()
    assert view.floor[np.searchsorted(view.edges, view.here)] == pytest.approx(view.score)
    moved = x + reach * made.scale * rng.uniform(-1, 1, (500, 2))
    assert (np.abs(made.predict(moved) - view.score) <= view.change + 1e-9).all()
    for feature in (0, 1):
        raised = moved.copy()
        raised[:, feature] = x[feature] + reach * made.scale[feature]
        moved[:, feature] = x[feature]
        change = made.predict(raised) - made.predict(moved)
        assert (change >= view.raised[0, feature] - 1e-9).all()
        assert (change <= view.raised[1, feature] + 1e-9).all()


def test_decisions_hold_within_the_radius(made):
    rng = np.random.default_rng(2)
    x = made.rows.x[:20]
    kept = made.predict(x) > made.threshold
    step = rng.uniform(-1, 1, (200, 20, 2))
    for norm, size in (("l1", np.abs(step).sum(-1)), ("linf", np.abs(step).max(-1))):
        radius = made.radius(x, norm)
        assert (radius >= made.radius(x, norm, local=False)).all()
        moved = x + made.scale * step * (radius / size)[..., None]
        assert ((made.predict(moved) > made.threshold) == kept).all()
    view = made.what_if(x[0], 0, 0.1)
    assert view.radius["linf"] <= view.radius["l1"]


def test_tables_that_need_no_network():
    found = offline_tables()
    assert list(found)[:4] == ["toy", "trigger", "diabetes", "breast-cancer"]
    assert found["breast-cancer"].features[0] == "mean radius"
    assert found["breast-cancer"].x.shape == (569, 10)
    diabetes = table("diabetes")
    few = diabetes.keep([2, 0])
    assert (few.features, few.directions) == (("bmi", "age"), (1, 0))
    assert np.array_equal(few.x[:, 0], diabetes.x[:, 2])
    assert all(each.notes for each in found.values())


def test_refusals():
    rows = toy(7)
    with pytest.raises(ValueError, match="eight are needed"):
        fit(rows)
    with pytest.raises(ValueError, match="names and directions"):
        Rows("bad", rows.x, rows.y[1:], rows.features, "y", rows.directions, classes=False)
    with pytest.raises(ValueError, match="not finite"):
        Rows("bad", rows.x * np.nan, rows.y, rows.features, "y", rows.directions, classes=False)


def test_an_interrupt_keeps_what_was_learned():
    seen = []

    def stop(state):
        seen.append(state.slopes())  # certifiable on the way
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(toy(), steps=100_000, on_progress=stop)
    made = fit(toy(), steps=100_000, on_progress=stop, keep_on_interrupt=True)
    assert 0 < made.step < 100_000
    assert seen[0][0, 0] >= 0
    made.slopes()
