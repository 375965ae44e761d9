"""Models on tables: who learns from which rows, what is counted, the published slips, and the recipe as a whole."""

import dataclasses

import numpy as np
import pytest

from lablib.data import MissingDataError, load_table
from lablib.experiments import (
    monotone_tabular,
    tabular_honest,
    tabular_networks,
    tabular_published,
    tabular_trees,
)
from lablib.experiments.tabular_networks import MLP, OURS, PEER, PEER_DEFAULT
from lablib.experiments.tabular_rows import OFFICIAL, REPEATED, folds, make_job, split
from lablib.experiments.tabular_scores import (
    accuracy,
    calibration_error,
    count_falls,
    log_loss,
    probability,
    score_numbers,
    squared_error,
)

EFFORT = tabular_honest.Effort(seeds=2, folds=2, steps=20, rounds=6, checks=2, narrow=True)
SETTING = {"widths": (4,), "lipschitz": 1.0, "rate": 1e-2, "batch": None}


@pytest.fixture
def diabetes():
    return load_table("diabetes")


@pytest.fixture
def jobs(diabetes):
    pairs = [split(diabetes, REPEATED, seed) for seed in range(2)]
    return [make_job(diabetes, train[:80], test[:30], seed) for seed, (train, test) in enumerate(pairs)]


def test_no_row_is_learned_from_and_judged_by(diabetes):
    train, test = split(diabetes, REPEATED, 3)
    assert sorted([*train, *test]) == list(range(442))
    assert len(test) == 88
    parts = folds(train, 5, seed=3)
    for learn, choose in parts:
        assert not set(learn) & set(choose)
        assert not set(test) & {*learn, *choose}
        assert len(learn) + len(choose) == len(train)
    assert len({row for _, choose in parts for row in choose}) == 5 * (354 // 5)
    cancer = load_table("breast-cancer")
    _, test = split(cancer, REPEATED, 0)
    assert abs(cancer.target[test].mean() - cancer.target.mean()) < 0.005


def test_statistics_are_of_the_rows_that_are_learned_from(diabetes):
    train, test = split(diabetes, REPEATED, 0)
    job = make_job(diabetes, train, test, 0)
    np.testing.assert_allclose(job.x.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(job.x.std(0, ddof=1), 1)
    np.testing.assert_allclose(job.scaling.outputs(job.held_y), diabetes.target[test])
    changed = diabetes.features.copy()
    changed[test] *= 10
    again = make_job(dataclasses.replace(diabetes, features=changed), train, test, 0)
    np.testing.assert_array_equal(again.x, job.x)
    with pytest.raises(ValueError, match="no official split"):
        split(diabetes, OFFICIAL, 0)
    with pytest.raises(ValueError, match="cannot be cut into 1"):
        folds(train, 1, 0)


def test_scores_against_their_definitions():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(3, 50)) * 3, rng.integers(0, 2, 50).astype(float)
    p = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(probability(logits), p)
    np.testing.assert_allclose(log_loss(logits, y), -np.log(np.where(y == 1, p, 1 - p)).mean(1))
    np.testing.assert_allclose(accuracy(logits, y), ((p > 0.5) == y).mean(1))
    assert np.isfinite(log_loss(np.array([1e4, -1e4]), np.array([0.0, 1]))).all()
    error = 0.0
    for low in np.arange(10) / 10:
        chosen = (p[0] >= low) & (p[0] < low + 0.1)
        error += abs(y[chosen].sum() - p[0][chosen].sum()) / 50
    assert calibration_error(p[0], y) == pytest.approx(error)
    target = rng.normal(size=20_000) * 2
    found = score_numbers(np.zeros_like(target), target, 2.0)
    assert found["nll"] == pytest.approx(np.log(2 * np.sqrt(2 * np.pi * np.e)), abs=0.02)
    assert found["calibration"] < 0.01
    assert found["score"] == squared_error(np.zeros_like(target), target)


def test_falls_are_counted_where_they_are():
    rows, grids = np.zeros((2, 3)), np.linspace(-1, 1, 5)[:, None].repeat(3, 1) + 0.1
    found = count_falls(lambda x: x[:, 0] - x[:, 1], rows, grids, (1, 1, 0))
    assert (found.pairs, found.falls, found.beyond_rounding) == (20, 10, 10), (
        "the second feature falls everywhere"
    )
    assert found.worst == pytest.approx(0.5)
    rounded = count_falls(lambda x: 1 + 1e-9 * np.sin(99 * x[:, 0]), rows, grids, (-1, 0, 0))
    assert rounded.falls
    assert not rounded.beyond_rounding


def test_the_simplest_setting_within_one_standard_error_is_taken():
    losses = np.full((3, 2, 4, 5), 9.0)  # settings, seeds, folds, checks
    losses[0, :, :, 1] = 1.05
    losses[1, :, :, 3] = 2.0
    losses[2, 0, :, 2] = [0.8, 1.2, 0.9, 1.1]  # error 0.09
    losses[2, 1, :, 2] = [1.0, 1.01, 0.99, 1.0]
    chosen, stops, least = tabular_honest.simplest(losses)
    assert chosen.tolist() == [0, 2]
    assert stops.tolist() == [1, 2]
    np.testing.assert_allclose(least, [1.05, 1.0])


@pytest.mark.parametrize("method", [OURS, PEER, PEER_DEFAULT, MLP])
def test_members_do_not_influence_each_other(jobs, method):
    together = tabular_networks.fit(method, SETTING, jobs, [5, 15], [1, 0])
    for index, (job, stop) in enumerate(zip(jobs, (1, 0))):
        alone = tabular_networks.fit(method, SETTING, [job], [5, 15], [stop])[0]
        np.testing.assert_allclose(together[index].score(job.held_x), alone.score(job.held_x), atol=2e-5)
        course = tabular_networks.courses(method, SETTING, [job], [5, 15])[0]
        np.testing.assert_allclose(course[stop], alone.score(job.held_x), atol=2e-5)
        assert alone.parameters == 10 * 4 + 4 + 4 + 1


def test_ours_stay_monotone_where_the_data_fall_and_others_do_not(diabetes):
    falling = dataclasses.replace(diabetes, directions=(0, 0, -1, -1, 0, 0, 0, 0, -1, 0))  # against the data
    train, test = split(falling, REPEATED, 0)
    job = make_job(falling, train, test, 0)
    grids = np.linspace(-3, 3, 15)[:, None].repeat(10, 1)
    beyond = {}
    methods = {OURS: tabular_networks, PEER_DEFAULT: tabular_networks, MLP: tabular_networks}
    for method, module in (methods | dict.fromkeys(tabular_trees.PACKAGES, tabular_trees)).items():
        setting = SETTING | {"widths": (8, 8), "leaves": 4, "least": 10, "rate": 0.05}
        model = module.fit(method, setting, [job], [80], [0])[0]
        beyond[method] = count_falls(model.score, job.held_x[:20], grids, falling.directions).beyond_rounding
    assert beyond.pop(MLP) > 0
    assert beyond.pop(PEER_DEFAULT) > 0
    assert set(beyond.values()) == {0}


def test_stages_of_trees_are_models_of_fewer_rounds(jobs):
    for method in tabular_trees.PACKAGES:
        setting = {"rate": 0.1, "leaves": 4, "least": 10}
        course = tabular_trees.courses(method, setting, jobs, [2, 7])
        model = tabular_trees.fit(method, setting, jobs, [2, 7], [0, 1])
        for index, job in enumerate(jobs):
            np.testing.assert_allclose(course[index, index], model[index].score(job.held_x), atol=1e-5)
            assert model[index].parameters == (2, 7)[index] * 7, "4 leaves and 3 cuts a tree"


def test_published_slips_are_those_of_the_scripts():
    script = tabular_published.SCRIPTS["compas"]
    job = make_job(load_table("diabetes"), np.arange(50), np.arange(50, 60), 0)
    member = tabular_networks.build(PEER, tabular_published._setting(script, PEER), [job]).members([0])[0]
    assert float(member.lipschitz_const) == pytest.approx(1.3**4), "added per input; the layers have 1.3^3"
    caps = [float(layer.lipschitz_const) for layer in member.nn if hasattr(layer, "lipschitz_const")]
    assert caps == pytest.approx([1.3] * 3)
    assert "residual" not in tabular_published._setting(script, OURS)
    rows = {"x": np.array([[-3.0, 0, 3]]), "truth": np.array([0.0, 0, 1])}
    assert max(accuracy(rows["x"], rows["truth"], t)[0] for t in script.thresholds) == 1


def test_heart_as_published_reads_the_row_number_and_test_statistics(diabetes):
    rng = np.random.default_rng(0)
    table = dataclasses.replace(
        diabetes,
        name="heart",
        task="classification",
        target=(diabetes.target > 150).astype(float),
        test=np.arange(442) > 400,
        left_out={"row number": rng.permutation(442).astype(float)},
    )
    job = tabular_published._jobs(table, 1)[0]
    assert job.x.shape == (401, 11)
    np.testing.assert_allclose(job.held_x.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(job.x.mean(0), 0, atol=1e-12)
    assert job.directions == (0, *table.directions)


def test_recipe_goes_on_where_it_stopped_and_draws(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    parts = (("breast-cancer", REPEATED), ("diabetes", REPEATED))
    config = monotone_tabular.Config("quick", parts, EFFORT, epochs=5)
    judge, seen = monotone_tabular._judge, []

    def stop_at_fifth(table, kind, method, config):
        seen.append((table.name, kind, method))
        if len(seen) == 5:
            raise KeyboardInterrupt
        return judge(table, kind, method, config)

    monkeypatch.setattr(monotone_tabular, "_judge", stop_at_fifth)
    with pytest.raises(KeyboardInterrupt):
        monotone_tabular.run(config)
    sizes = monotone_tabular.SIZES | {"quick": config}
    record = dataclasses.replace(monotone_tabular.RECIPE, sizes=sizes).make("quick")
    assert seen[4] == seen[5]
    assert len(seen) == len(set(seen)) + 1 == 27
    for row in record["metrics"]["rows"]:
        assert row["mean_score"] == pytest.approx(np.mean(row["score"]))
        if row["method"] in (OURS, *tabular_trees.PACKAGES) and "falls" in row:
            assert row["falls"]["beyond_rounding"] == 0
            assert row["falls"]["pairs"] > 1000
        if row["protocol"] == "published" and row["table"] == "diabetes":
            assert (np.array(row["score"]) <= np.array(row["last"]) + 1e-9).all(), (
                "the best is chosen on test rows"
            )
        if "outputs" in row:
            raise AssertionError("predictions belong to the arrays")
    assert "not fit for medical advice" in record["metrics"]["tables"]["diabetes"]["notes"]
    figures = monotone_tabular.draw(record)
    assert [len(figure.axes) for figure in figures.values()] == [2, 1]


def test_absent_tables_point_to_the_size_that_needs_none(tmp_path, monkeypatch):
    def absent(name):
        raise MissingDataError(f"{name} is not there; put it there", "digits")

    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))
    monkeypatch.setattr(monotone_tabular, "load_table", absent)
    with pytest.raises(
        MissingDataError, match=r"^compas is not there; put it there, or run with --mode quick"
    ):
        monotone_tabular.run(monotone_tabular.SIZES["standard"])


def test_real_tables_reach_what_they_should_roughly():
    """Auto-MPG with one setting and two seeds: better than a straight line (about 11.5)."""
    try:
        table = load_table("auto-mpg", download=False)
    except OSError:
        pytest.skip("auto-mpg is not at hand")
    effort = dataclasses.replace(EFFORT, steps=200, checks=4)
    found = tabular_honest.judge(table, REPEATED, OURS, effort)
    assert np.mean(found["score"]) < 10
    assert found["falls"]["beyond_rounding"] == 0
    assert found["parameters"] == [145, 145]


def test_unknown_methods_are_refused(jobs):
    with pytest.raises(ValueError, match="no network 'forest'"):
        tabular_networks.build("forest", SETTING, jobs)
    with pytest.raises(ValueError, match="no method 'forest'"):
        tabular_honest.settings_of("forest", 100)
