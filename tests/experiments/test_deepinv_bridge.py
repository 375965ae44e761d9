"""deepinv: imported without torchvision's operators, a clear sentence without it; the denoiser and its refusals."""

import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lablib.experiments import deepinv_bridge
from lablib.experiments.deepinv_bridge import LipschitzDenoiser, bound_constant, import_deepinv
from lablib.layers import ConvexResidual, LipschitzSequential, MaxMin, OrthonormalConv2d


def _network(channels=4):
    return LipschitzSequential(
        OrthonormalConv2d(1, channels, 3, padding=1), MaxMin(), OrthonormalConv2d(channels, 1, 3, padding=1)
    )


def test_import():
    assert import_deepinv() is import_deepinv()
    assert import_deepinv().__name__ == "deepinv"


@pytest.mark.parametrize("package", ["deepinv", "torchvision"])
def test_missing_package_says_how_to_install(monkeypatch, package):
    def refuse(name, *args):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(deepinv_bridge.importlib, "import_module", refuse)
    with pytest.raises(
        ModuleNotFoundError, match=rf"{package} is not installed.*pip install -e '\.\[imaging\]'"
    ):
        import_deepinv.__wrapped__()


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'Denoiser'"):
        deepinv_bridge.Denoiser


@pytest.mark.parametrize("share", [0.5, 0.2, 0.9])
def test_denoiser_is_averaged(share):
    """||Tx - Ty||^2 <= ||x - y||^2 - (1 - a)/a ||(x - Tx) - (y - Ty)||^2; for a = 1/2 firmly nonexpansive."""
    denoiser = LipschitzDenoiser(_network().double(), share)
    assert isinstance(denoiser, import_deepinv().models.Denoiser)
    assert (denoiser.lipschitz, denoiser.norms, denoiser.share) == (1.0, ("l2",), share)
    x = torch.randn(12, 1, 9, 7, dtype=torch.float64)
    y = torch.cat([x[:6] + 1e-3 * torch.randn_like(x[:6]), torch.randn_like(x[6:])])
    with torch.no_grad():
        tx, ty = denoiser(x, 0.1), denoiser(y, sigma=None)
    given, got, moved = ((v).flatten(1).square().sum(1) for v in (x - y, tx - ty, (x - tx) - (y - ty)))
    assert bool((got <= given - (1 - share) / share * moved + 1e-12 * given).all())
    if share == 0.5:
        product = ((tx - ty) * (x - y)).flatten(1).sum(1)
        assert bool((got <= product + 1e-12 * given).all())


def test_denoiser_formula_also_for_a_network_that_works_in_place():
    x = torch.randn(2, 1, 5, 5)
    with torch.no_grad():
        made = LipschitzDenoiser(nn.ReLU(inplace=True), 0.25)(x.clone())
    torch.testing.assert_close(made, 0.75 * x + 0.25 * x.relu())


def test_denoiser_survives_pickle():
    denoiser = LipschitzDenoiser(_network(), 0.3)
    copy = pickle.loads(pickle.dumps(denoiser))
    x = torch.randn(1, 1, 6, 6)
    torch.testing.assert_close(copy(x), denoiser(x))
    assert copy.share == 0.3


def test_plain_networks_are_measured():
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight)
    plain = nn.Sequential(conv, nn.ReLU())
    with torch.no_grad():
        conv.weight.mul_(0.9)
        assert LipschitzDenoiser(plain).lipschitz == 1.0
        assert 0.9 <= bound_constant(plain) < 0.91
        conv.weight.mul_(2.0)
    with pytest.raises(ValueError, match=r"only known to be 1\.8.*-Lipschitz"):
        LipschitzDenoiser(plain)


def test_refusals():
    with pytest.raises(ValueError, match="no proven Lipschitz constant in l2"):
        LipschitzDenoiser(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Softplus()))
    with pytest.raises(ValueError, match="averaged already; give its branch"):
        LipschitzDenoiser(ConvexResidual(_network(), 0.5))
    for share in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(ValueError, match="strictly between 0 and 1"):
            LipschitzDenoiser(_network(), share)
    with pytest.raises(ValueError, match="must keep the shape"):
        LipschitzDenoiser(OrthonormalConv2d(1, 2, 3, padding=1))(torch.randn(1, 1, 6, 6))


def test_a_change_of_the_network_is_seen():
    denoiser = LipschitzDenoiser(_network())
    layer = denoiser.network[0]
    parametrize.remove_parametrizations(layer, "weight")
    with pytest.raises(ValueError, match="no proven Lipschitz constant"):
        denoiser.lipschitz
