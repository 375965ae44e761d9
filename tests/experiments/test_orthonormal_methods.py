"""The comparison of orthonormal methods: what each ends at, and what the numbers of the figure mean."""

import pytest
import torch

from lablib.experiments import orthonormal_methods as study


@pytest.fixture(scope="module")
def metrics():
    return study.run(study.Config(shapes=((48, 32),), timed=((16, 16),), seeds=2, repeat=1))


def row(metrics, method, kind):
    return next(row for row in metrics["rows"] if (row["method"], row["input"]) == (method, kind))


def test_bjorck_moves_each_singular_value_by_itself():
    left, right = (torch.linalg.qr(torch.randn(n, 3, dtype=torch.float64)).Q for n in (7, 5))
    values = torch.tensor([0.9, 0.3, 1e-3], dtype=torch.float64)
    made = torch.linalg.svdvals(study.bjorck(left @ values.diag() @ right.mT, 4))[:3]
    for _ in range(4):
        values = (3 * values - values**3) / 2
    assert torch.allclose(made, values)


def test_only_ours_stays_at_most_one(metrics):
    for kind in study.KINDS:
        assert max(row(metrics, study.OURS, kind)["largest"]) <= 1.0
        for method in ("torch, Cayley", "torch, Householder", "torch, matrix exponential"):
            assert study.deviation(row(metrics, method, kind)) < 1e-3


def test_bjorck_stops_early_or_diverges(metrics):
    assert study.deviation(row(metrics, "Björck, 15 iterations", "badly scaled")) is None
    early = row(metrics, "Björck, 15, input / √(O I)", "well scaled")
    assert min(early["smallest"]) < 0.9


def test_the_published_size():
    """15 iterations after division by sqrt(O I), 1024 x 784: the largest singular value is below a half."""
    free = study.free_parameters(1024, 784, "well scaled", 0)
    direction = torch.ones(784)
    for _ in range(30):
        direction = free.mT @ (free @ direction)
        direction /= direction.norm()
    largest = (free @ direction).norm().double() / (1024 * 784) ** 0.5
    for _ in range(15):
        largest = (3 * largest - largest**3) / 2
    assert 0.37 < largest < 0.5


def test_times_are_ratios_to_ours(metrics):
    (entry,) = metrics["times"]
    assert entry["over_ours"].keys() == study.METHODS.keys()
    assert entry["over_ours"][study.OURS] == 1.0
    assert min(entry["over_ours"].values()) > 0


def test_strided_convolutions(metrics):
    equal, reshaped, orthonormal, spectral = metrics["convolutions"]
    assert 1.99 < equal["estimate"] <= 2.0 <= equal["bound"] < 2.01
    assert reshaped["estimate"] > 1.5
    for ours in (orthonormal, spectral):
        assert ours["estimate"] <= 1.0
        assert ours["bound"] < 1.001  # of the grid; the layer itself is scaled by a finer one
    assert all(each["estimate"] <= each["bound"] for each in metrics["convolutions"])


def test_it_is_drawn(metrics):
    (figure,) = study.draw({"metrics": metrics}).values()
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Error at 48 × 32", "What a step costs"]
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts.count("diverges") == 2
    with pytest.raises(ValueError, match="run the recipe"):
        study.draw({"metrics": {"rows": [], "times": []}})
