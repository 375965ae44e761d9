"""Bounds above, estimates below, the true norm between."""

import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.certify.norms import bound_operator_norm, estimate_operator_norm
from lablib.experiments.battery import jacobian, operator_norm

torch.manual_seed(0)  # the modules below are drawn when this file is read
MODULES = {
    "linear": (nn.Linear(6, 5), (6,)),
    "convolution": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 7, 7)),
    "chain": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), (6,)),
    "residual": (nn.Sequential(L.ConvexResidual(L.LipschitzSequential(L.LInfLinear(6, 6)), 0.4)), (6,)),
    "sorted": (nn.Sequential(nn.Linear(6, 8), L.GroupSort(4), nn.Linear(8, 3)), (6,)),
}


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("name", MODULES)
def test_estimate_below_truth_below_bound(name, norm):
    module, shape = MODULES[name]
    module = module.double()
    x = torch.randn(shape, dtype=torch.float64)
    true, _ = operator_norm(jacobian(module, x), norm)
    bound = bound_operator_norm(module, norm)
    estimate = estimate_operator_norm(module, x, norm, steps=200)
    assert 0.25 * true < estimate <= true * (1 + 1e-9)  # Hager's ascent may stop at a local maximum
    assert true <= bound
    if name == "linear":
        assert bound <= true * (1 + 1e-9)
        assert norm != "l2" or estimate >= true * (1 - 1e-3)


class _Skip(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class _FiveTimes(nn.Linear):
    def forward(self, x):
        return 5 * super().forward(x)


class _Tripled(L.LInfLinear):
    def forward(self, x):
        return 3 * super().forward(x)


class _Jagged(nn.Conv2d):
    def _conv_forward(self, *args):
        return 5 * super()._conv_forward(*args)


@pytest.mark.parametrize(
    "module",
    [_Skip(nn.Linear(2, 2)), _FiveTimes(2, 2), _Tripled(2, 2), _Jagged(1, 1, 3)],
    ids=lambda module: type(module).__name__,
)
def test_a_subclass_with_another_forward_has_no_bound(module):
    with pytest.raises(ValueError, match=type(module).__name__.removeprefix("Parametrized")):
        bound_operator_norm(nn.Sequential(module), "linf")


def test_hooks_have_no_bound():
    net = nn.Sequential(nn.Linear(2, 2))
    net[0].register_forward_pre_hook(lambda module, args: (5 * args[0],))
    with pytest.raises(ValueError, match="hook"):
        bound_operator_norm(net, "linf")


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308])
def test_weights_that_are_not_numbers_are_named(norm, value):
    for module in (nn.Linear(3, 3), nn.Conv2d(2, 2, 3)):
        module.double()
        nn.init.constant_(module.weight, value)
        with pytest.raises(ValueError, match="not finite or too large"):
            bound_operator_norm(module, norm)


def test_a_share_out_of_range_does_not_lower_the_bound():
    block = L.ConvexResidual(L.Scale(4.0), 0.5)
    block.parametrizations.alpha.original.fill_(-3.0)
    assert bound_operator_norm(block, "l2") == pytest.approx(1.0)


def test_refusals():
    with pytest.raises(ValueError, match="Lipschitz in l2, not in linf"):
        bound_operator_norm(L.Householder(4), "linf")
    with pytest.raises(ValueError, match="BatchNorm1d"):
        bound_operator_norm(nn.BatchNorm1d(3), "l2")
    with pytest.raises(ValueError, match="groups"):
        bound_operator_norm(nn.Conv2d(2, 2, 3, groups=2), "l2")
    with pytest.raises(ValueError, match="groups"):
        bound_operator_norm(nn.Conv2d(2, 2, 3, padding=1, padding_mode="replicate"), "l2")
    with pytest.raises(ValueError, match="step"):
        estimate_operator_norm(nn.Identity(), torch.ones(2), "l2", steps=0)
