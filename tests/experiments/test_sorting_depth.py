"""The sorting-depth recipe: every construction exact, no depth below the bound."""

from lablib.experiments.sorting_depth import GROUPS, Config, draw, run


def test_the_recipe_counts_and_checks():
    metrics = run(Config(largest=10, every_vertex_up_to=5, samples=50))
    for row in metrics["rows"]:
        counts = [value for value in row.values() if isinstance(value, dict) and "exact" in value]
        assert len(counts) == 9
        assert all(value["exact"] for value in counts)
        assert row["every_vertex"] == (row["d"] <= 5)
        for group in GROUPS:
            bound = row["lower_bound"][str(group)]
            assert row[f"maximum_{group}"]["sorts"] == bound <= row[f"sort_{group}"]["sorts"]
    assert set(draw({"metrics": metrics})) == {"sorting_depth"}
