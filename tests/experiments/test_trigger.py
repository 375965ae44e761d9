"""The trigger recipe: cuts and areas against slow counts, guarantees of classifiers, a tiny run that resumes."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lablib.experiments import trigger, trigger_latency, trigger_study
from lablib.experiments.trigger_events import DIRECTIONS, FEATURES
from lablib.experiments.trigger_models import MODELS, Trained, Training, fit, missing

SIZES = Training(widths=(8,), steps=40, batch=256, trees=10)
TINY = trigger.Config(
    "quick", seeds=1, candidates=2000, signal=2000, background=2000, certified=2, training=SIZES, turns=1
)
TINY = dataclasses.replace(TINY, constants=(8.0,), strange=(0.0,))
FEW = st.lists(st.integers(-3, 3), min_size=1, max_size=30).map(lambda values: np.array(values, float))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))


@pytest.fixture(scope="module")
def training():
    return trigger_study.draw_training(2000, 0)


def by_hand(raw):
    return Trained("unconstrained", raw, None, np.zeros(4), np.ones(4), 0)


@given(FEW, st.floats(0.01, 0.99))
def test_the_cut_is_the_least_that_keeps_the_rate(scores, rate):
    cut = trigger_study.place_cut(scores, rate)
    allowed = rate * len(scores)
    assert (scores > cut).sum() <= allowed
    lower = scores[scores < cut]
    assert not len(lower) or (scores > lower.max()).sum() > allowed


@given(FEW, FEW)
def test_the_area_counts_pairs(signal, background):
    above = (signal[:, None] > background).mean() + (signal[:, None] == background).mean() / 2
    assert trigger_study.area(signal, background) == pytest.approx(above)


def test_bins_of_the_lifetime_are_shares():
    lifetime = np.array([0.06, 0.06, 190.0])
    shares = trigger_study.by_lifetime(np.array([True, False, True]), lifetime)
    assert (shares[0], shares[-1]) == (0.5, 1.0)
    assert set(shares[1:-1]) == {None}


def test_what_falls_on_the_way_out_is_found(training):
    samples = trigger_study.draw_samples(300, 300, 7)
    rising = by_hand(lambda features: features[:, 0] + features[:, 3])
    found = trigger_study.measure_beyond(rising, 5.0, training, samples)
    assert set(found["pushed"]) == {1.0}
    assert found["falls"] == 0.0
    assert found["displaced_count"] > 0
    falling = by_hand(lambda features: 30.0 - features[:, 0])
    found = trigger_study.measure_beyond(falling, 22.0, training, samples)
    assert found["pushed"][0] == 1.0 > found["pushed"][-1] == 0.0
    assert found["falls"] == 1.0
    assert found["displaced"] < 0.1


def test_samples_share_no_candidates():
    samples = trigger_study.draw_samples(400, 400, 3)
    parts = [samples.signal, samples.background, samples.cut, samples.flat]
    parts += [part for pair in samples.changed.values() for part in pair]
    values = np.concatenate([part.features[:, 0] for part in parts])
    assert len(np.unique(values)) == len(values)


@pytest.mark.parametrize("name", MODELS)
def test_classifiers_tell_signal_from_background_and_keep_their_directions(name, training):
    trained = fit(name, training, 0, SIZES)
    scores = trained.score(training.features)
    assert trigger_study.area(scores[training.signal], scores[~training.signal]) > 0.9
    np.testing.assert_array_equal(scores, fit(name, training, 0, SIZES).score(training.features))
    if name == "unconstrained":
        return
    rng = np.random.default_rng(1)
    points = rng.uniform([-5, 1, 0, -8], [20, 40, 20, 18], (4000, 4))
    start = trained.score(points)
    for feature in np.flatnonzero(DIRECTIONS):
        moved = points.copy()
        moved[:, feature] += rng.exponential(3.0, len(points))
        assert (trained.score(moved) >= start - 1e-9).all()


def test_bad_input_is_refused(training):
    trained = fit("unconstrained", training, 0, SIZES)
    assert trained.score(np.empty((0, 4))).shape == (0,)
    with pytest.raises(ValueError, match="NaN"):
        trained.score(np.full((2, 4), np.nan))
    with pytest.raises(ValueError, match="must be"):
        trained.score(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="no model"):
        fit("forest", training, 0)
    with pytest.raises(ValueError, match="both kinds"):
        fit("monotone", training[training.signal], 0)
    with pytest.raises(ValueError, match="a cut needs"):
        trigger_study.place_cut(np.empty(0), 0.1)


def test_an_export_that_computes_something_else_is_found(training):
    fitted = {name: fit(name, training, 0, SIZES) for name in ("unconstrained", "monotone")}
    fitted["lightgbm"] = dataclasses.replace(fitted["monotone"], raw=lambda rows: np.full(len(rows), np.nan))
    with pytest.raises(ValueError, match="something else"):
        trigger_latency.time_classifiers(fitted, training.features, 1)


def test_a_run_goes_on_where_it_stopped_and_proves_what_it_says(monkeypatch):
    asked, fitted = [], trigger.fit

    def stop_at_third(name, candidates, seed, sizes, *constant):
        asked.append((name, seed, constant))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return fitted(name, candidates, seed, sizes, *constant)

    monkeypatch.setattr(trigger, "fit", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        trigger.run(TINY)
    record = dataclasses.replace(trigger.RECIPE, sizes=trigger.SIZES | {"quick": TINY}).make("quick")
    assert asked[2] == asked[3]
    here = [name for name in MODELS if name not in missing()]
    assert (
        len([entry for entry in asked if entry[2]])
        == TINY.seeds * (len(here) + 1 + len(trigger.COMPARED)) + 1
    )
    rows = record["metrics"]["models"]
    assert set(rows) == {*here, "monotone λ=8"}
    for name, row in rows.items():
        assert len(row["area"]) == TINY.seeds
        if name == "unconstrained":
            continue
        assert row["falls"] == [0.0] * TINY.seeds
        assert (record["arrays"][f"pushed {name}"] == 1.0).all()
        if "slopes" in row:
            low, high = np.array(row["slopes"]["low"]), np.array(row["slopes"]["high"])
            assert low.shape == high.shape == (TINY.seeds, len(FEATURES))
            assert (low[:, np.array(DIRECTIONS) > 0] >= 0.0).all()
    for slopes in record["metrics"]["latency"]["exported_slopes"].values():
        assert min(np.array(slopes["low"])[np.array(DIRECTIONS) > 0]) >= 0.0
    assert set(record["metrics"]["strange"]["0"]) == set(trigger.COMPARED)
    figures = trigger.draw(record)
    assert {"trigger", "trigger_maps", "trigger_rate", "trigger_latency"} <= set(figures)
