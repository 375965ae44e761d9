"""Small private runs: makers that the tests of the engine share, each a fixture that returns a function."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lablib.layers import MaxMin
from lablib.layers.per_sample import ClipNorm
from lablib.privacy import CliplessEngine, CrossEntropy


def make_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(ClipNorm(1.0), nn.Linear(6, 8), MaxMin(), nn.Linear(8, 3))


def make_data(count=40, batch_size=10):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 6, generator=generator)
    return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=batch_size)


def make_private(engine=None, net=None, make=torch.optim.SGD, **options):
    """Return (engine, net, inner optimizer, and the four of make_private)."""
    engine, net = engine or CliplessEngine(seed=5), net or make_network()
    inner = make(net.parameters(), lr=0.1)
    settings = {"criterion": CrossEntropy(4.0), "data_loader": make_data(), "noise_multiplier": 1.0} | options
    return engine, net, inner, engine.make_private(module=net, optimizer=inner, **settings)


def train_all(parts, epochs=1):
    model, optimizer, criterion, loader = parts
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()


def weights_all(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.fixture
def network():
    return make_network


@pytest.fixture
def data():
    return make_data


@pytest.fixture
def private():
    return make_private


@pytest.fixture
def train():
    return train_all


@pytest.fixture
def weights():
    return weights_all
