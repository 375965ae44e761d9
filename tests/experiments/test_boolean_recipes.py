import dataclasses

import pytest

from lablib.experiments import boolean_curves, boolean_gap
from lablib.experiments.batched_networks import Architecture, Schedule
from lablib.experiments.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_FIGURES", str(tmp_path))


TINY_GAP = boolean_gap.Config(
    "quick", 2, 3, 1, (boolean_gap.Round(Architecture("abs", (8, 4)), 2, Schedule(steps=150)),)
)
TINY_CURVES = boolean_curves.Config("quick", (1, 2), seeds=2, steps=60, batch=0, curve_at=2)


def test_gap_rows_stay_below_the_bound_and_are_closed_by_exact_networks():
    metrics = boolean_gap.run(TINY_GAP)
    assert [line["functions"] for line in metrics["summary"]] == [1, 2, 5]
    for row in metrics["functions"]:
        assert row["explicit"] is not None
        assert 0.5 < row["ratio"] <= 1
        lower, upper = row["program"]
        assert lower <= 1 / (2 * row["variables"]) * (1 + 1e-9) <= upper * (1 + 1e-9)
    figures = boolean_gap.draw({"metrics": metrics})
    assert len(figures["boolean_gap"].axes) == 2


def test_groups_hold_every_function_once():
    groups = boolean_gap.groups(boolean_gap.SIZES["standard"])
    assert {name: len(members) for name, members in groups.items()} == {
        "all 1": 1,
        "all 2": 2,
        "all 3": 10,
        "all 4": 208,
        "symmetric 5": 19,
        "symmetric 6": 35,
        "symmetric 7": 71,
        "symmetric 8": 135,
    }


def test_a_stopped_run_goes_on_where_it_was(monkeypatch):
    search, seen = boolean_gap._search, []

    def stop_at_third(group, *rest):
        seen.append(group)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return search(group, *rest)

    monkeypatch.setattr(boolean_gap, "_search", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        boolean_gap.run(TINY_GAP)
    monkeypatch.setattr(
        boolean_gap, "_search", lambda group, *rest: (seen.append(group), search(group, *rest))[1]
    )
    recipe = dataclasses.replace(boolean_gap.RECIPE, sizes=boolean_gap.SIZES | {"quick": TINY_GAP})
    recipe.make("quick")
    assert seen == ["all 1", "all 2", "symmetric 3", "symmetric 3"]
    assert not Checkpoint(boolean_gap.NAME, "quick", dataclasses.asdict(TINY_GAP)).path.exists()


def test_curves_never_pass_the_bound_with_a_standard_network():
    metrics = boolean_curves.run(TINY_CURVES)
    assert len(metrics["rows"]) == 2 * len(boolean_curves.FAMILIES) * len(boolean_curves.FUNCTIONS)
    for row in metrics["rows"]:
        assert row["worst"] <= row["median"] <= row["best"] <= (row["bound"] if row["standard"] else 0.5)
    figures = boolean_curves.draw({"metrics": metrics})
    assert set(figures) == {"boolean_curves", "boolean_climb"}
    assert len(figures["boolean_curves"].axes) == len(boolean_curves.FUNCTIONS)


def test_every_recipe_states_three_sizes():
    for recipe in (boolean_gap.RECIPE, boolean_curves.RECIPE):
        assert all(config.mode == mode for mode, config in recipe.sizes.items())
