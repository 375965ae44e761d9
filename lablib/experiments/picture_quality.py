"""How close a picture is to the clean one: PSNR and SSIM. Pictures (..., H, W) in [0, 1], larger is closer."""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, WIDTH = 11, 1.5  # pixels: side and standard deviation of the Gaussian window
K1, K2 = 0.01, 0.03


def psnr(picture: Tensor, clean: Tensor) -> Tensor:
    """Return -10 log10 of the mean squared difference (dB) of each picture clipped to [0, 1]: shape (...).

    Raises:
        ValueError: if the shapes differ, or are not of pictures.
    """
    _check(picture, clean)
    return -10.0 * torch.log10((picture.clamp(0, 1) - clean).square().mean((-2, -1)))


def ssim(picture: Tensor, clean: Tensor) -> Tensor:
    """Return the mean structural similarity of each picture clipped to [0, 1]: shape (...).

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment", IEEE Trans. Image Process. 13, 2004, section
    III: Gaussian window of 11 x 11 pixels, only where it lies inside the picture.

    Raises:
        ValueError: if the shapes differ, or the pictures are smaller than the window.
    """
    _check(picture, clean)
    if min(clean.shape[-2:]) < WINDOW:
        raise ValueError(
            f"SSIM needs pictures of at least {WINDOW} x {WINDOW}, got {tuple(clean.shape[-2:])}"
        )
    a, b = picture.clamp(0, 1), clean
    mean_a, mean_b = _smooth(a), _smooth(b)
    variance_a, variance_b = _smooth(a * a) - mean_a**2, _smooth(b * b) - mean_b**2
    covariance = _smooth(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + K1**2) / (mean_a**2 + mean_b**2 + K1**2)
    structure = (2 * covariance + K2**2) / (variance_a + variance_b + K2**2)
    return (light * structure).mean((-2, -1))


def _smooth(x: Tensor) -> Tensor:
    places = torch.arange(WINDOW, device=x.device, dtype=x.dtype) - WINDOW // 2
    window = torch.exp(-places.square() / (2 * WIDTH**2))
    window = window / window.sum()
    rows = x.reshape(-1, 1, *x.shape[-2:])
    smooth = F.conv2d(F.conv2d(rows, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return smooth.reshape(*x.shape[:-2], *smooth.shape[-2:])


def _check(picture: Tensor, clean: Tensor) -> None:
    if picture.shape != clean.shape or clean.dim() < 2:
        raise ValueError(
            f"give two pictures (..., H, W) of one shape, got {tuple(picture.shape)} and {tuple(clean.shape)}"
        )
