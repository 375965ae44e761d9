"""Projections: true norms at most 1 for every constraint, size and shape; idempotent; near the polar factor."""

import pytest
import torch
from torch import nn

from lablib.ops.conv_norms import to_phases
from lablib.privacy import check_constraint, project
from lablib.privacy.polar import nearly_orthonormal_kernel, polar_factor, polish

MATRICES = [(1, 1), (5, 5), (1, 9), (9, 1), (6, 17), (17, 6), (32, 40)]
KERNELS = [  # O, I, kernel, stride, padding
    (4, 3, (3, 3), (1, 1), 1),
    (3, 5, (2, 4), (1, 3), 0),
    (8, 2, (2, 2), (2, 2), 0),
    (2, 2, (1, 2), (3, 2), 0),
    (5, 2, (3, 3), (2, 2), 1),
    (1, 1, (1, 1), (1, 1), 0),
]
SIZES = [0.0, 1e-30, 1e-3, 1.0, 30.0, 1e30]


def matrix_norm(weight: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach().double(), 2))


def conv_matrix(layer: nn.Conv2d, size: int = 7) -> torch.Tensor:
    """The convolution of size x size images as a matrix, in float64."""
    channels = layer.weight.shape[1]
    basis = torch.eye(channels * size * size, dtype=torch.float64).reshape(-1, channels, size, size)
    weight = layer.weight.detach().double()
    return nn.functional.conv2d(basis, weight, None, layer.stride, layer.padding).flatten(1).mT


@pytest.mark.parametrize("constraint", ["orthonormal", "spectral", "frobenius"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_true_norms_are_at_most_one(constraint, dtype):
    torch.manual_seed(0)
    for shape in MATRICES:
        for size in SIZES:
            layer = nn.Linear(shape[1], shape[0], dtype=dtype)
            layer.weight.data.mul_(size)
            assert project(layer, constraint) == {"weight": 1.0}
            for _ in range(2):  # as it is, and once more
                slack = 1e-14  # of the measurement
                assert matrix_norm(layer.weight) <= 1.0 + slack, (shape, size)
                project(layer, constraint)
            if constraint == "orthonormal":
                values = torch.linalg.svdvals(layer.weight.detach().double())
                assert float(values.min()) > 0.99, (shape, size)
    for outputs, inputs, kernel, stride, padding in KERNELS:
        for size in SIZES:
            layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, dtype=dtype)
            layer.weight.data.mul_(size)
            project(layer, constraint)
            assert matrix_norm(conv_matrix(layer)) <= 1.0 + 1e-14, (outputs, inputs, kernel, size)


@pytest.mark.parametrize("constraint", ["orthonormal", "spectral", "frobenius"])
def test_what_is_projected_stays(constraint):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 7), nn.Conv2d(2, 8, 2, stride=2), nn.Conv2d(2, 4, 3, padding=1))
    for _ in range(2 if constraint != "orthonormal" else 30):
        project(model, constraint)
    before = [layer.weight.detach().clone() for layer in model]
    project(model, constraint)
    for layer, old, tolerance in zip(model, before, (1e-5, 1e-5, 1e-2)):
        assert torch.allclose(layer.weight, old, atol=tolerance)
    small = nn.Linear(12, 7)
    nn.init.constant_(small.weight, 0.01)
    project(small, "spectral")
    assert torch.equal(small.weight, torch.full((7, 12), 0.01))


def test_orthonormal_is_the_polar_factor():
    for shape in ((6, 17), (17, 6), (8, 8)):
        torch.manual_seed(0)
        weight = torch.randn(shape)
        left, _, right = torch.linalg.svd(weight.double(), full_matrices=False)
        assert torch.allclose(polar_factor(weight).double(), left @ right, atol=1e-3)
        layer = nn.Linear(shape[1], shape[0])
        layer.weight.data.copy_(weight)
        for _ in range(3):
            project(layer, "orthonormal")
        assert torch.allclose(layer.weight.double(), left @ right, atol=1e-3)


@pytest.mark.parametrize("distance", [1e-6, 1e-3, 0.03, 0.0748, 0.12])
def test_one_round_is_proven_up_to_its_limit(distance):
    """Every singular value 1 + d or 1 - d: the norm at most 1, and all within 1 %."""
    for side, dtype in ((1, torch.float32), (1, torch.float64), (2, torch.float32), (40, torch.float32)):
        torch.manual_seed(0)
        start = nn.init.orthogonal_(torch.empty(side, side + 9, dtype=dtype))
        for sign in (1.0, -1.0):
            weight = start * (1.0 + sign * distance)
            for given in (weight, weight.mT):
                near = polish(given)
                if side == 40 and distance > 0.1:  # too far in the Frobenius norm
                    assert near is None
                    continue
                assert matrix_norm(near) <= 1.0
                assert torch.linalg.svdvals(near.double()).min() > 0.99
    assert polish(2.0 * start) is None


def test_convolutions_come_near_to_orthonormal():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 16, 3, padding=1)
    for _ in range(10):
        project(layer, "orthonormal")
    phases = to_phases(layer.weight.detach().double(), 1)
    values = torch.linalg.svdvals(torch.fft.fft2(phases, s=(16, 16)).permute(2, 3, 0, 1))
    assert values.min() > 0.9
    assert values.max() <= 1.0
    odd = nearly_orthonormal_kernel(torch.randn(6, 2, 3, 2), (2, 1))
    assert odd.shape == (6, 2, 3, 2)
    patches = nn.Conv2d(1, 8, 2, stride=2)
    project(patches, "orthonormal")
    rows = patches.weight.detach().flatten(1)
    assert torch.allclose(rows.mT @ rows, torch.eye(4), atol=1e-3)


def test_what_is_not_trained_or_not_asked_for_stays():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].requires_grad_(False)
    before = [p.detach().clone() for p in model.parameters()]
    assert project(model, None) == {}
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before))
    assert project(model, "orthonormal") == {"0.weight": 1.0}
    assert [torch.equal(*pair) for pair in zip(model.parameters(), before)] == [False, True, True, True]


def test_refusals():
    for unknown in ("l2", 3, ["spectral"]):
        with pytest.raises(ValueError, match="unknown constraint"):
            check_constraint(unknown)
    layer = nn.Linear(2, 2)
    layer.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        project(layer, "spectral")
    with pytest.raises(ValueError, match="float16"):
        project(nn.Linear(2, 2, dtype=torch.float16), "spectral")
    for options in ({"groups": 2}, {"dilation": 2}, {"padding_mode": "circular"}):
        with pytest.raises(ValueError, match="zero padding, without groups"):
            project(nn.Conv2d(2, 2, 3, padding=1, **options), "spectral")
