"""Proven bounds against exact arithmetic and dense operators."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from lablib.ops.conv_norms import (
    bound_conv_near_orthonormal,
    bound_conv_norm,
    bound_conv_spectral,
    from_phases,
    to_phases,
)
from lablib.ops.norms import bound_matrix_norm, bound_near_orthonormal, bound_spectral_norm
from lablib.ops.orthonormal import cayley, orthonormal_kernel, shrink_matrix


def dense(kernel, size, stride, padding):
    """The matrix of the convolution on images (I, size, size)."""
    inputs = kernel.shape[1]
    basis = torch.eye(inputs * size * size, dtype=torch.float64).reshape(-1, inputs, size, size)
    return torch.nn.functional.conv2d(basis, kernel.double(), stride=stride, padding=padding).flatten(1).T


def random_kernel(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_matrix_norms_bound_exact_sums(norm):
    weight = torch.randn(5, 301) * torch.logspace(-20, 20, 301)
    rows = weight if norm == "linf" else weight.T
    exact = max(sum(abs(Fraction(v)) for v in row) for row in rows.tolist())
    bound = Fraction(bound_matrix_norm(weight, norm).item())
    assert exact <= bound <= exact * (1 + Fraction(1, 10**12))


def test_spectral_norm_of_known_matrices():
    hadamard = torch.tensor([[1.0]])
    for _ in range(6):
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])
    for matrix, true in [(hadamard, 8.0), (torch.ones(30, 70), 2100**0.5), (torch.zeros(3, 4), 0.0)]:
        assert true <= bound_spectral_norm(matrix).item() <= true * (1 + 1e-9) + 1e-150
        assert bound_spectral_norm(1e-170 * matrix.double()).item() >= 1e-170 * true * (1 - 1e-15)


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (40, 3), (17, 17)])
def test_spectral_norm_against_svd(shape):
    weight = torch.randn(2, *shape)
    true = torch.linalg.svdvals(weight.double())[:, 0]
    assert ((bound_spectral_norm(weight) >= true) & (bound_spectral_norm(weight) <= true * (1 + 1e-9))).all()


def test_near_orthonormal_bound_is_tight_there():
    q = torch.linalg.qr(torch.randn(60, 40)).Q
    assert torch.linalg.svdvals(q.double())[0] <= bound_near_orthonormal(q) <= 1 + 1e-5
    assert torch.linalg.svdvals(3 * q.double())[0] <= bound_near_orthonormal(3 * q)


def test_shrunk_matrix_is_a_contraction():
    for shape in [(40, 60), (60, 40), (30, 30)]:
        q = torch.linalg.qr(torch.randn(max(shape), min(shape))).Q
        q = shrink_matrix((q if shape[0] >= shape[1] else q.T) * (1 + 1e-6))
        values = torch.linalg.svdvals(q.double())
        assert 1 - 1e-4 < values[-1] <= values[0] <= 1.0


CONVOLUTIONS = [
    # (O, I, k, stride, padding, image)
    (3, 2, 3, 1, 1, 7),
    (2, 3, 5, 1, 0, 9),
    (3, 2, 4, 2, 1, 8),
    (3, 2, 3, 2, 2, 9),
    (4, 1, 2, 2, 0, 6),
    (2, 2, 5, 3, 4, 10),
    (2, 1, 2, 4, 0, 9),
    (3, 3, 1, 1, 0, 4),
]


@pytest.mark.parametrize(("o", "i", "k", "stride", "padding", "size"), CONVOLUTIONS)
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_convolution_bounds_hold_and_are_close(o, i, k, stride, padding, size, norm):
    kernel = random_kernel(o, i, k, k)
    matrix = dense(kernel, size, stride, padding)
    order = {"l1": 1, "l2": 2, "linf": np.inf}[norm]
    true = torch.linalg.matrix_norm(matrix, order).item()
    bound = bound_conv_norm(kernel, norm, stride, grid=32).item()
    assert true <= bound
    # A larger image comes closer to the lattice: on 24 x 24 the bound is within 3 %.
    large = torch.linalg.matrix_norm(dense(kernel, 24, stride, padding), order).item() if i < 3 else bound
    assert bound <= 1.03 * large


def test_rectangular_kernels_and_strides():
    kernel = random_kernel(2, 2, 3, 5)
    matrix = dense(kernel, 12, (2, 1), (1, 2))
    true = torch.linalg.svdvals(matrix)[0]
    assert true <= bound_conv_spectral(kernel, (2, 1), 32) <= 1.1 * true


def test_the_grid_alone_is_no_bound_and_the_factor_repairs_it():
    """A one-channel kernel whose maximum lies between grid points: the grid maximum is below the norm."""
    kernel = torch.tensor([0.5, -0.1, -0.7])[None, None, None, :]
    fine = torch.fft.rfft(kernel.flatten().double(), n=4096).abs().max()
    coarse = torch.fft.rfft(kernel.flatten().double(), n=3).abs().max()
    assert coarse < fine
    for grid in range(3, 12):
        assert bound_conv_spectral(kernel, 1, grid) >= fine


def test_published_break_is_caught():
    """4 x 4, stride 2, orthonormal as a matrix (O, I k k): norm 2 (largest images), never 1."""
    kernel = torch.full((1, 1, 4, 4), 0.25)
    assert torch.linalg.svdvals(kernel.reshape(1, 16))[0] == 1.0
    assert 1.98 < torch.linalg.svdvals(dense(kernel, 32, 2, 1))[0] <= 2.0
    assert 2.0 <= bound_conv_spectral(kernel, 2, 64) < 2.01
    random = torch.linalg.qr(random_kernel(48, 16)).Q.T.reshape(16, 3, 4, 4)
    assert torch.linalg.svdvals(dense(random, 16, 2, 1))[0] > 1.5


def test_phases_are_the_same_operator():
    kernel = random_kernel(3, 2, 4, 4)
    assert torch.equal(from_phases(to_phases(kernel, 2), 2), kernel)
    image = torch.randn(1, 2, 12, 12)
    phases = torch.nn.functional.pixel_unshuffle(image, 2)
    made = torch.nn.functional.conv2d(phases, to_phases(kernel, 2))
    assert torch.allclose(made, torch.nn.functional.conv2d(image, kernel, stride=2), atol=1e-5)


@pytest.mark.parametrize(
    ("o", "i", "stride", "taps"), [(4, 4, 1, 3), (6, 4, 1, 2), (3, 5, 1, 3), (8, 2, 2, 1), (5, 2, 2, 2)]
)
def test_orthonormal_kernels(o, i, stride, taps):
    size = max(o, i * stride**2)
    kernel = orthonormal_kernel(torch.randn(2 * taps - 1, size, size), o, i, stride)
    k = taps * stride
    assert kernel.shape == (o, i, k, k)
    basis = torch.eye(i * 144, dtype=torch.float64).reshape(-1, i, 12, 12)
    wrapped = torch.nn.functional.pad(basis, (0, k - stride, 0, k - stride), mode="circular")
    matrix = torch.nn.functional.conv2d(wrapped, kernel.double(), stride=stride).flatten(1).T
    values = torch.linalg.svdvals(matrix)
    assert values[0] <= 1.0 + 1e-13
    if o >= i * stride**2 or o == size:
        assert values[min(matrix.shape) - 1] > 1 - 1e-4
    assert torch.linalg.svdvals(dense(kernel, 9, stride, k - 1))[0] <= 1.0 + 1e-13


def test_near_orthonormal_convolution_bound():
    kernel = orthonormal_kernel(torch.randn(5, 4, 4), 4, 4, 1)
    assert bound_conv_near_orthonormal(kernel) <= 1 + 1e-4
    loose = random_kernel(4, 4, 3, 3)
    assert bound_conv_near_orthonormal(loose) >= torch.linalg.svdvals(dense(loose, 10, 1, 1))[0]


def test_cayley_is_orthogonal_for_any_input():
    for scale in (0.0, 1e-3, 1.0, 100.0):
        q = cayley(scale * torch.randn(2, 6, 6, dtype=torch.float64))
        assert torch.allclose(q @ q.mT, torch.eye(6, dtype=torch.float64), atol=1e-10)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bound_matrix_norm(torch.ones(2, 2), "l3"),
        lambda: bound_matrix_norm(torch.ones(2), "l1"),
        lambda: bound_conv_spectral(torch.ones(3, 3)),
        lambda: bound_conv_spectral(torch.ones(0, 1, 3, 3)),
        lambda: bound_conv_spectral(torch.ones(1, 1, 3, 3), grid=2),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        call()
