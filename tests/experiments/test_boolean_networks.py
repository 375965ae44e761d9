import numpy as np
import pytest
import torch

from lablib.experiments.batched_layers import FAMILIES, LInfDistance, Spline
from lablib.experiments.batched_networks import ROUNDING, Architecture, Schedule, cube, train
from lablib.theory.boolean import BooleanFunction
from lablib.theory.budget import budget
from lablib.theory.constructions.two_layer import smallest_margin
from lablib.theory.network import is_lipschitz, is_standard

STANDARD = ("abs", "relu", "spline")


def labels_of(*functions: BooleanFunction) -> np.ndarray:
    return np.array([2 * function.table.astype(int) - 1 for function in functions])


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request):
    functions = [BooleanFunction.threshold(3, 3), BooleanFunction.from_expression("(x3 & x1) | (~x3 & x2)")]
    architecture = Architecture(request.param, (6, 4), knots=8, top=2)
    population = train(architecture, labels_of(*functions), Schedule(steps=120), scale=1 / 6, seed=3)
    return request.param, functions, population


def test_the_reported_radius_is_proven_by_the_exported_network(trained):
    family, functions, population = trained
    for index, function in enumerate(functions):
        layers = population.export(index)
        assert is_lipschitz(layers)  # exactly: floats are dyadic fractions
        exact = smallest_margin(function, layers)
        assert population.radii[index] <= exact <= population.radii[index] + 2 * ROUNDING
        if family in STANDARD:
            assert is_standard(layers)
            assert exact <= function.bound
            assert sum(budget(layers, 3, exact=True)[0]) <= 1


def test_the_kept_iterate_is_the_best_of_the_curve(trained):
    _, functions, population = trained
    assert population.curve.shape == (len(population.checked), len(functions))
    assert population.radii == pytest.approx(population.curve.max(axis=0), abs=1e-5)


def test_standard_networks_reach_the_bound_and_others_pass_it():
    function = BooleanFunction.threshold(3, 3)
    schedule = Schedule(steps=400)
    reach = {
        family: train(
            Architecture(family, (8,)), labels_of(function).repeat(3, 0), schedule, scale=scale, seed=0
        ).radii.max()
        for family, scale in (("abs", 1 / 6), ("spline", 1 / 6), ("maxmin", 1 / 4), ("linf_distance", 1 / 4))
    }
    assert 0.16 < reach["abs"] <= 1 / 6
    assert 0.16 < reach["spline"] <= 1 / 6
    assert reach["maxmin"] > 0.25
    assert reach["linf_distance"] > 0.4


def test_seeds_decide_and_batches_measure_every_vertex():
    function = BooleanFunction.threshold(5, 3)
    options = {"scale": 0.1, "seed": 1}
    schedule = Schedule(steps=60, batch=8)
    first, again = (
        train(Architecture("abs", (4,)), labels_of(function), schedule, **options) for _ in range(2)
    )
    assert np.array_equal(first.radii, again.radii)
    assert first.radii[0] <= smallest_margin(function, first.export(0))


def test_cube_order_is_that_of_the_theory():
    assert np.array_equal(cube(4).numpy(), BooleanFunction.parity(4).vertices())
    with pytest.raises(ValueError, match="out of range"):
        cube(0)


def test_a_spline_is_the_function_of_its_slopes():
    spline = Spline(1, 1, 4, torch.Generator().manual_seed(0))
    spline.free = torch.asin(torch.tensor([[[1.0, -1.0, 0.5, 0.0]]], dtype=torch.float64))
    points = torch.tensor(
        [[[-2.0], [-1.0], [-0.75], [-0.5], [0.0], [0.25], [0.5], [1.0], [3.0]]], dtype=torch.float64
    )
    assert spline(points).ravel().numpy() == pytest.approx(
        [0, 0, 0.25, 0.5, 0, 0.125, 0.25, 0.25, 0.25], abs=1e-9
    )


def test_a_point_on_the_centre_of_a_distance_neuron_has_a_gradient():
    layer = LInfDistance(1, 3, 1, torch.Generator().manual_seed(0), first=True)
    layer.centre = torch.zeros(1, 1, 3, requires_grad=True)
    layer.anneal(0.9)
    layer(torch.zeros(1, 3)).sum().backward()
    assert torch.isfinite(layer.centre.grad).all()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("tanh", (4,)), "unknown"),
        (("abs", (0,)), "positive"),
        (("maxmin", (3,)), "even"),
    ],
)
def test_bad_architectures_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        Architecture(*arguments)


@pytest.mark.parametrize(
    ("labels", "scale", "match"),
    [
        (np.zeros((1, 4)), 0.25, "1 and -1"),
        (np.ones((1, 4)), 0.25, "constant"),
        (np.array([[1, -1, 1]]), 0.25, "2\\^d"),
        (np.array([[1, -1]]), 0.0, "positive"),
        (np.array([1, -1]), 0.5, "networks, vertices"),
    ],
)
def test_bad_labels_are_refused(labels, scale, match):
    with pytest.raises(ValueError, match=match):
        train(Architecture("abs", (2,)), labels, Schedule(steps=2), scale=scale, seed=0)
