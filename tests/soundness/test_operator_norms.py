"""Of every l2 layer: what power iteration finds is below the proven bound; the reshaped kernel is caught."""

import pytest
import torch
from torch import nn

from lablib.certify.norms import bound_operator_norm, estimate_operator_norm
from lablib.experiments.battery import Case, examine, refutes
from lablib.experiments.layer_cases import own_cases
from lablib.experiments.orthonormal_methods import bjorck, reshaped_convolution
from lablib.layers import OrthonormalConv2d

L2_CASES = [case for case in own_cases() if "l2" in case.build().norms]


@pytest.mark.parametrize("case", L2_CASES, ids=lambda case: case.name.replace(" ", "-"))
@pytest.mark.parametrize("shift", [0.0, 1.0], ids=["fresh", "moved"])
def test_power_iteration_stays_below_the_proven_bound(case, shift):
    torch.manual_seed(0)
    module = case.build().eval().double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(shift * torch.randn_like(parameter))
    bound = bound_operator_norm(module, "l2", grid=16)
    for shape in case.shapes:
        x = torch.randn(shape, dtype=torch.float64)
        estimate = estimate_operator_norm(module, x, "l2", steps=20)
        assert 0.0 < estimate <= bound * (1 + 1e-12)


def reshaped_by_bjorck(channels: int) -> nn.Conv2d:
    """A 4 x 4, stride 2 convolution whose kernel Bjorck's iteration made orthonormal as a matrix."""
    rows = torch.ones(1, 16) if channels == 1 else torch.randn(channels, 16)
    return reshaped_convolution(bjorck(rows / torch.linalg.matrix_norm(rows, 2), 40))


@pytest.mark.parametrize("channels", [1, 8])
def test_a_reshaped_orthonormal_kernel_is_no_contraction(channels):
    """4 x 4, stride 2, claimed 1: the battery reports up to 2, and so does the proven bound."""
    torch.manual_seed(0)
    matrix = reshaped_by_bjorck(channels).weight.detach().flatten(1)
    assert torch.allclose(matrix @ matrix.mT, torch.eye(channels), atol=1e-5)
    case = Case("", lambda: reshaped_by_bjorck(channels), ((1, 14, 14),), ("l2",), 1.0, states=("fresh",))
    found = [finding for finding in examine(case) if refutes(finding, 1.0)]
    worst = max(finding.value for finding in found)
    assert {finding.how for finding in found} >= {"jacobian"}
    assert worst > (1.9 if channels == 1 else 1.5)
    torch.manual_seed(0)
    assert worst <= bound_operator_norm(reshaped_by_bjorck(channels), "l2") < 2.002


def test_our_strided_convolution_at_the_same_size_holds():
    case = Case(
        "", lambda: OrthonormalConv2d(1, 8, 4, stride=2, padding=1), ((1, 14, 14),), states=("fresh",)
    )
    assert not any(refutes(finding, 1.0) for finding in examine(case))
