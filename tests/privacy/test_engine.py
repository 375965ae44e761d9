"""The engine as a user meets it: what a run costs, loops within the bound, state, target, schedulers."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lablib import layers as L
from lablib.layers.per_sample import ClipNorm
from lablib.privacy import (
    BudgetSpent,
    ClipCotangent,
    CliplessEngine,
    CrossEntropy,
    Hinge,
    Residual,
    sensitivity,
)
from lablib.privacy.accounting import epsilon
from lablib.train import checkpoint

DELTA = 1e-5


def test_a_run_and_what_it_costs(private, train, weights):
    engine, net, _, parts = private()
    assert engine.get_epsilon(DELTA) == 0.0
    before = weights(net).clone()
    train(parts, 2)
    assert engine.ledger.to_list() == [[1.0, 0.25, 8]]
    for accountant in ("pld", "google-rdp"):
        assert engine.get_epsilon(DELTA, accountant) == epsilon((1.0, 0.25, 8), DELTA, accountant)
    assert engine.get_epsilon(DELTA) == engine.get_epsilon(DELTA, "pld")
    assert not torch.equal(before, weights(net))
    assert all(torch.linalg.matrix_norm(net[i].weight.detach().double(), 2) <= 1.0 for i in (1, 3))
    assert all(p.grad is None for p in net.parameters())
    found = engine.sensitivity()
    assert (
        found.parameters
        == sensitivity(net, (6,), 2**0.5, norms={"1.weight": 1.0, "3.weight": 1.0}).parameters
    )


def fixed(layer):
    return layer.requires_grad_(False)


def test_every_kind_of_layer_trains(train):
    torch.manual_seed(0)
    net = nn.Sequential(
        ClipNorm(1.0),
        nn.Unflatten(1, (1, 6, 6)),
        L.CentreSample(),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        L.ConvexResidual(L.LipschitzSequential(L.Abs(), L.GroupSort(4)), 0.5),
        Residual(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh())),
        nn.MaxPool2d(2),
        nn.AvgPool2d(3),
        nn.Flatten(),
        fixed(L.Householder(4)),
        fixed(L.LearnableSpline(4)),
        fixed(L.PReLU(4)),
        L.Scale(2.0),
        ClipCotangent(1.0),
        nn.Linear(4, 8),
        fixed(nn.Linear(8, 8)),
        L.FullSort(),
        nn.Linear(8, 3),
        nn.LeakyReLU(0.1, inplace=True),
    )
    x = torch.randn(12, 36)
    engine = CliplessEngine(seed=0)
    parts = engine.make_private(
        module=net,
        optimizer=torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1),
        criterion=CrossEntropy(),
        data_loader=DataLoader(TensorDataset(x, torch.arange(12) % 3), batch_size=3),
        noise_multiplier=0.5,
        noise="balanced",
        max_physical_batch=2,
    )
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    train(parts, 2)
    assert engine.ledger.steps == 8
    for name, parameter in net.named_parameters():
        assert torch.equal(before[name], parameter) != parameter.requires_grad, name
        assert parameter.isfinite().all()


def test_the_ledger_cannot_be_changed_from_outside(private, train):
    engine, _, _, parts = private()
    train(parts)
    engine.ledger.add(1.0, 0.25, 100)
    assert engine.ledger.steps == 4


def test_a_seed_repeats_a_run_and_none_does_not(private, train, weights):
    runs = []
    for seed in (5, 5, 6, None, None):
        _, net, _, parts = private(CliplessEngine(seed=seed))
        train(parts)
        runs.append(weights(net))
    assert torch.equal(runs[0], runs[1])
    assert len({tuple(run.tolist()) for run in runs}) == 4


def test_evaluation_does_not_count(data, private):
    engine, net, _, (model, optimizer, criterion, _) = private()
    x, y = data().dataset.tensors
    model.eval()
    assert torch.equal(model(x), net(x))
    assert criterion(model(x), y).item() == pytest.approx(CrossEntropy(4.0)(net(x), y).sum().item() / 10)
    model.train()
    with torch.no_grad():
        assert torch.equal(model(x), net(x))
    assert engine.ledger.steps == 0
    # a gradient in evaluation mode reaches .grad, and the step refuses to take it for a private one
    model.eval()
    criterion(model(x), y).backward()
    model.train()
    with pytest.raises(ValueError, match="without a batch"):
        optimizer.step()


def test_loops_that_stay_within_the_bound(private, train, weights):
    def run(loop):
        engine, net, _, parts = private()
        loop(*parts)
        assert engine.ledger.to_list() == [[1.0, 0.25, 4]]
        return weights(net)

    def usual(model, optimizer, criterion, loader):
        train((model, optimizer, criterion, loader))

    def without_zero_grad(model, optimizer, criterion, loader):
        for x, y in loader:
            criterion(model(x), y).backward()
            optimizer.step()

    def zero_grad_after_backward(model, optimizer, criterion, loader):
        for x, y in loader:
            criterion(model(x), y).backward()
            optimizer.zero_grad(set_to_none=False)
            optimizer.step()

    def leftovers(model, optimizer, criterion, loader):
        for x, y in loader:
            model.module(x).sum().backward()  # a gradient of the plain module, cleared
            optimizer.zero_grad()
            model(x)  # a forward pass that is not used
            with torch.no_grad():
                criterion(model(x), y)
            criterion(model(x), y).backward()
            optimizer.step()
            assert all(p.grad is None for p in model.parameters())

    def closures(model, optimizer, criterion, loader):
        for x, y in loader:

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                return loss

            assert optimizer.step(closure).dim() == 0

    expected = run(usual)
    for loop in (without_zero_grad, zero_grad_after_backward, leftovers, closures):
        assert torch.equal(run(loop), expected), loop.__name__


@pytest.mark.filterwarnings("ignore:step.. on a batch without a backward pass")
def test_steps_without_backward_cost_the_same_and_give_noise(private, weights):
    engine, net, _, (_, optimizer, _, loader) = private()
    before = weights(net).clone()
    for _ in loader:
        optimizer.step()
    assert engine.ledger.steps == 4
    assert not torch.equal(weights(net), before)


def test_gradients_of_the_input_are_free(private):
    _, _, _, (model, optimizer, criterion, loader) = private()
    x, y = next(iter(loader))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(criterion(model(x), y), x)
    assert gradient.shape == x.shape
    criterion(model((x + gradient).detach()), y).backward()  # and a batch moved by them is still the batch
    optimizer.step()


def test_grad_from_before_is_cleared(network, private):
    net = network()
    net(torch.randn(5, 6)).sum().backward()
    private(net=net)
    assert all(p.grad is None for p in net.parameters())


def test_weights_may_be_loaded_between_steps(network, private, train):
    engine, net, _, parts = private(noise_multiplier=0.5)
    train(parts)
    other = {name: 3 * value for name, value in network(1).state_dict().items()}
    for name, value in net.state_dict().items():
        value.copy_(other[name])
    assert engine.sensitivity().parameters == sensitivity(net, (6,), 2**0.5).parameters
    assert engine.sensitivity().total > sensitivity(network(1), (6,), 2**0.5).total
    train(parts)
    assert engine.ledger.steps == 8


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_schedulers_and_groups(network, data, train, make):
    net = network()
    inner = make([{"params": net[1].parameters(), "lr": 0.2}, {"params": net[3].parameters()}], lr=0.1)
    _, optimizer, _, loader = parts = CliplessEngine(seed=5).make_private(
        module=net, optimizer=inner, criterion=Hinge(), data_loader=data(), noise_multiplier=1.0
    )
    assert isinstance(optimizer, torch.optim.Optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    train(parts)
    scheduler.step()
    assert [group["lr"] for group in inner.param_groups] == [0.1, 0.05]
    cosine.step()
    assert optimizer.state is inner.state
    assert optimizer.defaults is inner.defaults
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(saved)
    assert repr(optimizer).startswith(f"Private{make.__name__}")
    called = []
    optimizer.register_step_pre_hook(lambda *_: called.append(1))
    train(parts)
    assert len(called) == len(loader)


def test_a_target_epsilon(network, data, train, weights):
    engine, net = CliplessEngine(), network()
    parts = engine.make_private_with_epsilon(
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        criterion=CrossEntropy(),
        data_loader=data(),
        target_epsilon=2.0,
        target_delta=DELTA,
        epochs=3,
        noise="balanced",
    )
    train(parts, 2)
    half = engine.get_epsilon(DELTA)
    train(parts, 5)
    assert 0 < half < engine.get_epsilon(DELTA) <= 2.0
    assert engine.get_epsilon(DELTA) > 1.99
    assert engine.ledger.to_list() == [[engine.noise_multiplier, 0.25, 12]]
    before = weights(net)
    with pytest.raises(BudgetSpent, match="epsilon 2 at delta 1e-05 is spent after 12 steps"):
        parts[1].step()
    assert isinstance(BudgetSpent(), ValueError)
    assert torch.equal(before, weights(net))
    assert engine.ledger.steps == 12


def test_resuming(network, data, train, weights, tmp_path):
    def fresh(**options):
        engine, net = CliplessEngine(seed=9, accountant="google-rdp"), network()
        inner = torch.optim.Adam(net.parameters(), lr=0.05)
        settings = {"target_epsilon": 3.0, "epochs": 4, "expected_batch_size": 8} | options
        parts = engine.make_private_with_epsilon(
            module=net,
            optimizer=inner,
            criterion=CrossEntropy(),
            data_loader=data(),
            target_delta=DELTA,
            max_physical_batch=4,
            **settings,
        )
        return engine, net, parts

    engine, net, parts = fresh()
    train(parts, 2)
    state = {"engine": engine.state_dict(), "net": net.state_dict(), "optimizer": parts[1].state_dict()}
    checkpoint.save(tmp_path, state)
    train(parts, 9)
    assert engine.ledger.steps == 20

    again, other, more = fresh()
    read = checkpoint.read_newest(tmp_path)
    again.load_state_dict(read["engine"])
    other.load_state_dict(read["net"])
    more[1].load_state_dict(read["optimizer"])
    assert again.ledger.steps == 10
    assert again.get_epsilon(DELTA) > 0
    train(more, 9)
    assert again.ledger == engine.ledger
    assert torch.equal(weights(net), weights(other))
    assert again.get_epsilon(DELTA) <= 3.0
    with pytest.raises(BudgetSpent):
        more[1].step()

    with pytest.raises(ValueError, match="has taken 20 steps"):
        again.load_state_dict(read["engine"])
    with pytest.raises(ValueError, match=r"run with target_epsilon 3\.0, this one has 4\.0"):
        fresh(target_epsilon=4.0)[0].load_state_dict(read["engine"])
    with pytest.raises(ValueError, match="run with sample_rate"):
        fresh(expected_batch_size=9)[0].load_state_dict(read["engine"])
    with pytest.raises(ValueError, match="run with noise 'global', this one has 'balanced'"):
        fresh(noise="balanced")[0].load_state_dict(read["engine"])
    # sigma comes from a search, and a state keeps its own as long as the target holds
    settings = read["engine"]["settings"]
    more_noise = settings | {"noise_multiplier": settings["noise_multiplier"] * 1.001}
    once, _, _ = fresh()
    once.load_state_dict(read["engine"] | {"settings": more_noise})
    assert once.noise_multiplier == more_noise["noise_multiplier"]
    less_noise = settings | {"noise_multiplier": settings["noise_multiplier"] * 0.99}
    with pytest.raises(ValueError, match="would pass the target"):
        fresh()[0].load_state_dict(read["engine"] | {"settings": less_noise})
    with pytest.raises(ValueError, match="no state of an engine"):
        fresh()[0].load_state_dict({"net": {}})
    with pytest.raises(ValueError, match="make_private first"):
        CliplessEngine().load_state_dict(read["engine"])
