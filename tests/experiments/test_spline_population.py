"""Networks trained as one batch are the lab's own networks: same function, same gradients, constant at most 1."""

import numpy as np
import pytest
import torch

from lablib.experiments.spline_population import Population, count_knots, evaluate, train
from lablib.layers import LearnableSpline, guarantee, total_variation
from lablib.ops.norms import bound_matrix_norm
from lablib.train.schedules import constant

OPTIONS = {"group_size": 5, "knots": 21, "range": 0.5, "init": "relu"}
PAIRS = [(name, "l2") for name in ("relu", "abs", "prelu", "groupsort", "householder", "spline")]
PAIRS += [(name, "linf") for name in ("relu", "abs", "prelu", "groupsort", "spline")]
RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (3, 40))
Y = 0.5 * np.abs(X) + 0.1 * RNG.standard_normal(X.shape)


def trained(activation: str, norm: str, steps: int = 25, seeds=(0, 1, 2)) -> Population:
    population = Population(activation, norm, seeds, **OPTIONS)
    rows = [seed % 3 for seed in seeds]
    train(population, X[rows], Y[rows], steps=steps, batch=20, rate=constant(0.02), weight=1e-4)
    return population


@pytest.mark.parametrize(("activation", "norm"), PAIRS)
def test_a_member_is_a_chain_of_the_labs_layers_with_constant_one(activation, norm):
    population = trained(activation, norm)
    with torch.no_grad():
        together = population(torch.as_tensor(X, dtype=torch.float32)).numpy()
    for index, network in enumerate(population.members(range(3))):
        norms, lipschitz = guarantee(network)
        assert norm in norms
        assert lipschitz == 1.0
        for layer in network:
            if hasattr(layer, "weight"):
                assert bound_matrix_norm(layer.weight, norm) <= 1 + 1e-9
        np.testing.assert_allclose(evaluate(network, X[index]), together[index], atol=2e-5)
        line = evaluate(network.double(), np.linspace(-2, 2, 4001))
        assert np.abs(np.diff(line)).max() <= 1e-3 * (1 + 1e-9)
        assert total_variation(network).item() == pytest.approx(
            population.variation()[index].item(), rel=1e-3
        )


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_gradients_are_those_of_the_labs_layers(norm):
    population = Population("spline", norm, [4, 5], **OPTIONS)
    x = torch.as_tensor(X[:2], dtype=torch.float32)
    population(x).square().sum().backward()
    for index, network in enumerate(population.members([0, 1])):
        network(x[index, :, None]).square().sum().backward()
        layers = list(network)
        for number, layer in enumerate(layers[::2]):
            own = population.bias.grad[number, index, : len(layer.bias)]
            torch.testing.assert_close(layer.bias.grad, own, atol=1e-4, rtol=1e-3)
        for batched, layer in zip(population.activations, layers[1::2]):
            shared = batched.parametrizations["coefficients"].original.grad.unflatten(0, (2, -1))[index]
            own = layer.parametrizations["coefficients"].original.grad
            torch.testing.assert_close(own, shared, atol=1e-4, rtol=1e-3)


def test_members_do_not_influence_each_other():
    alone, together = trained("spline", "l2", seeds=(2,)), trained("spline", "l2")
    a, b = (evaluate(p.members([p.size - 1])[0], np.linspace(-1, 1, 50)) for p in (alone, together))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_training_fits_and_a_penalty_removes_bends():
    free = Population("spline", "linf", [0, 1, 2], **OPTIONS)
    before = [
        ((evaluate(network, X[i]) - Y[i]) ** 2).mean() for i, network in enumerate(free.members(range(3)))
    ]
    held = Population("spline", "linf", [0, 1, 2], **OPTIONS)
    seen = []
    sizes = {"steps": 150, "batch": 20, "rate": constant(0.01)}
    train(free, X, Y, weight=np.zeros(3), on_step=seen.append, **sizes)
    train(held, X, Y, weight=np.array([0.0, 0.0, 0.1]), **sizes)
    after = [
        ((evaluate(network, X[i]) - Y[i]) ** 2).mean() for i, network in enumerate(free.members(range(3)))
    ]
    assert seen == [*range(150)]
    assert all(end < 0.6 * start for start, end in zip(before, after))
    assert held.variation()[2] < 0.7 * free.variation()[2]
    torch.testing.assert_close(held.variation()[:2], free.variation()[:2])
    network = held.members([0])[0]
    kept = [part for part in network if isinstance(part, LearnableSpline)]
    assert count_knots(network, 0.01) == sum(int(part.active_knots(0.01).sum()) for part in kept) > 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: Population("relu", "l1", [0]),
        lambda: Population("relu", "l2", []),
        lambda: Population("householder", "linf", [0]),
        lambda: Population("groupsort", "l2", [0], width=7, group_size=5),
        lambda: train(Population("abs", "l2", [0]), X, Y, steps=1, batch=1, rate=constant(0.1)),
        lambda: train(
            Population("abs", "l2", [0]), X[:1], Y[:1] * np.nan, steps=1, batch=1, rate=constant(0.1)
        ),
        lambda: train(Population("abs", "l2", [0]), X[:1], Y[:1], steps=1, batch=41, rate=constant(0.1)),
        lambda: train(Population("abs", "l2", [0]), X[:1], Y[:1], steps=0, batch=1, rate=constant(0.1)),
        lambda: train(
            Population("abs", "l2", [0]), X[:1], Y[:1], steps=1, batch=1, rate=constant(0.1), weight=X
        ),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError, match=r"[a-z]"):
        call()
