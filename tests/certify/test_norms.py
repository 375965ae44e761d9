"""Bounds above, estimates below, the true norm between."""

import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.certify.norms import bound_operator_norm, estimate_operator_norm
from lablib.experiments.battery import jacobian, operator_norm

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
    assert 0.5 * true < estimate <= true * (1 + 1e-9)
    assert true <= bound
    if name == "linear":
        assert bound <= true * (1 + 1e-9)
        assert norm != "l2" or estimate >= true * (1 - 1e-3)


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
