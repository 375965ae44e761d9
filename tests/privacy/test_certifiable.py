"""Certificates of trained private networks: the chain is the network, and no attack succeeds within a radius."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lablib import layers as L
from lablib.certify import bound_radius, estimate_operator_norm
from lablib.layers.per_sample import ClipNorm
from lablib.privacy import ClipCotangent, CliplessEngine, CrossEntropy, Residual, certifiable


def trained(net, x, y):
    parts = CliplessEngine(seed=0).make_private(
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=1.0),
        criterion=CrossEntropy(8.0),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=len(x) // 2),
        noise_multiplier=0.1,
    )
    model, optimizer, criterion, loader = parts
    for _ in range(10):
        for part, labels in loader:
            criterion(model(part), labels).backward()
            optimizer.step()
    return model


def dense():
    return nn.Sequential(
        ClipNorm(4.0),
        nn.Flatten(),
        nn.Linear(16, 12),
        L.MaxMin(),
        ClipCotangent(1.0),
        Residual(nn.Sequential(nn.Linear(12, 12, bias=False), L.MaxMin()), 0.3),
        nn.Linear(12, 3),
    )


def convolutional():
    return nn.Sequential(
        ClipNorm(4.0),
        nn.Conv2d(1, 4, 3, padding="same"),
        L.MaxMin(),
        nn.Conv2d(4, 8, 2, stride=2, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 3),
    )


def samples(count=60):
    x = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    return x, x.flatten(1)[:, :3].argmax(1)


def attacked(chain, x, labels, radii):
    """Return the inputs to which gradient steps within ``radii`` lead."""
    reach = torch.tensor(radii).reshape(-1, 1, 1, 1) * (1 - 1e-6)
    moved = x
    for _ in range(20):
        moved = moved.detach().requires_grad_()
        logits = chain(moved)
        own = logits.gather(1, labels[:, None])[:, 0]
        other = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        (slope,) = torch.autograd.grad((other - own).sum(), moved)
        size = slope.flatten(1).norm(dim=1).clamp(min=1e-30).reshape(-1, 1, 1, 1)
        away = moved.detach() + 0.3 * reach * slope / size - x
        length = away.flatten(1).norm(dim=1).clamp(min=1e-30).reshape(-1, 1, 1, 1)
        moved = x + away * (reach / length).clamp(max=1.0)
    return moved.detach()


@pytest.mark.parametrize("make", [dense, convolutional])
def test_a_trained_network_is_certified(make):
    torch.manual_seed(0)
    x, y = samples()
    net = make()
    model = trained(net, x, y)
    chain = certifiable(model)
    torch.testing.assert_close(chain(x), net.eval()(x), rtol=1e-5, atol=1e-6)
    labels = net(x).argmax(1)
    radii = bound_radius(chain, x, labels, norm="l2")
    assert (radii > 0).mean() > 0.9
    assert (chain(attacked(chain, x, labels, radii)).argmax(1) == labels).all()
    assert estimate_operator_norm(chain.double(), x[0].double(), "l2", steps=10) <= chain.lipschitz


def test_weights_of_norm_one_stay_bit_for_bit_and_copies_are_apart():
    torch.manual_seed(0)
    x, y = samples()
    net = nn.Sequential(ClipNorm(4.0), nn.Flatten(), nn.Linear(16, 8), L.MaxMin(), nn.Linear(8, 3))
    trained(net, x, y)
    net.eval()
    chain = certifiable(net)
    outputs = net(x)
    assert torch.equal(chain(x), outputs)
    assert all(p.requires_grad for p in net.parameters())
    with torch.no_grad():
        net[2].weight.zero_()
    assert torch.equal(chain(x), outputs)


def test_the_constant_is_that_of_the_weights():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), L.MaxMin(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.diag(torch.tensor([0.3, 0.1])))
        net[2].weight.copy_(torch.diag(torch.tensor([20.0, 1.0])))
    assert 0.3 * 20 <= certifiable(net).lipschitz <= 0.3001 * 32
    assert certifiable(net.double()).lipschitz >= 6.0
    with torch.no_grad():
        net[0].weight.zero_()
    assert certifiable(net)(torch.ones(1, 2, dtype=torch.float64)).shape == (1, 2)


@pytest.mark.parametrize(
    ("net", "sentence"),
    [
        (nn.Linear(2, 2), "an nn.Sequential of known layers"),
        (nn.Sequential(nn.Linear(2, 2), nn.GELU()), "GELU"),
        (nn.Sequential(nn.Conv2d(1, 1, (1, 3))), "square kernels"),
        (nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), "without groups"),
        (nn.Sequential(nn.Conv2d(1, 1, 2, padding="same")), "alike on all sides"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "BatchNorm1d"),
    ],
    ids=["linear", "gelu", "oblong", "groups", "same", "batchnorm"],
)
def test_what_is_not_covered_is_refused(net, sentence):
    with pytest.raises(ValueError, match=sentence):
        certifiable(net)


def test_weights_that_are_not_finite_are_refused():
    net = nn.Sequential(nn.Linear(2, 2))
    nn.init.constant_(net[0].weight, torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        certifiable(net)


def test_a_radius_of_a_plain_network_names_the_way():
    net = nn.Sequential(nn.Flatten(), L.SpectralLinear(4, 2)).eval()
    with pytest.raises(ValueError, match=r"lablib\.privacy\.certifiable"):
        bound_radius(net, torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), "l2")
