"""PSNR, SSIM against plain loops; total variation against its optimality conditions and two pixels by hand."""

import math

import numpy as np
import pytest
import torch

from lablib.experiments.picture_quality import psnr, ssim
from lablib.experiments.total_variation import _adjoint, _gradient, denoise_total_variation


def _pair(*shape):
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(shape, generator=generator, dtype=torch.float64)
    return clean, (clean + 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64))


def test_psnr_is_of_the_clipped_picture():
    clean = torch.zeros(2, 1, 4, 4)
    noisy = torch.full_like(clean, -3.0)
    noisy[1] = 0.1
    assert psnr(noisy, clean)[0, 0] == torch.inf
    assert math.isclose(psnr(noisy, clean)[1, 0], 20.0, rel_tol=1e-5)


def test_ssim_against_a_loop_over_windows():
    clean, noisy = _pair(1, 13, 15)
    places = np.arange(11) - 5
    window = np.exp(-(places[:, None] ** 2 + places**2) / (2 * 1.5**2))
    window /= window.sum()
    a, b = noisy.clamp(0, 1)[0].numpy(), clean[0].numpy()
    found = []
    for i in range(3):
        for j in range(5):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            light = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
            found.append(light * (2 * cov + 9e-4) / (vx + vy + 9e-4))
    assert math.isclose(ssim(noisy, clean)[0], np.mean(found), rel_tol=1e-10)
    assert torch.allclose(ssim(clean, clean), torch.ones(1, dtype=torch.float64))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="of one shape"):
        psnr(torch.zeros(3, 3), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="at least 11"):
        ssim(torch.zeros(1, 10, 20), torch.zeros(1, 10, 20))
    with pytest.raises(ValueError, match="weight must be positive"):
        denoise_total_variation(torch.zeros(1, 4, 4), 0.0)


def test_gradient_and_adjoint_are_adjoint():
    x, _ = _pair(2, 5, 6)
    field = torch.randn(2, 2, 5, 6, dtype=torch.float64)
    field[0][..., -1, :] = 0.0
    field[1][..., -1] = 0.0
    assert math.isclose((_gradient(x) * field).sum(), (x * _adjoint(field)).sum(), rel_tol=1e-12)


def test_total_variation_of_two_pixels_moves_them_together():
    noisy = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)
    made = denoise_total_variation(noisy, 0.2, 400)
    torch.testing.assert_close(made, torch.tensor([[[0.2, 0.8]]], dtype=torch.float64), atol=1e-6, rtol=0)
    made = denoise_total_variation(noisy, 3.0, 400)
    torch.testing.assert_close(made, torch.full_like(noisy, 0.5), atol=1e-6, rtol=0)


def test_no_small_change_lowers_the_objective():
    _, noisy = _pair(1, 8, 9)
    made = denoise_total_variation(noisy, 0.1, 3000)

    def objective(x):
        return (x - noisy).square().sum() / 2 + 0.1 * _gradient(x).square().sum(0).sqrt().sum()

    best = objective(made)
    for seed in range(20):
        step = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert objective(made + 1e-3 * step) > best - 1e-9
