"""Fixed first layers that are public: made without looking at any data, so they cost no privacy and get no noise.

Oriented filters of two sizes, absolute values and smooth local sums: one layer of a scattering transform (Bruna and
Mallat, "Invariant scattering convolution networks", IEEE TPAMI 2013) with real filters. Linear classifiers of such
features are strong under differential privacy (Tramer and Boneh, "Differentially private learning needs better
features (or much more data)", ICLR 2021, arXiv 2011.11660). All layers here are 1-Lipschitz in l2, by their proven
norms, so a certificate of what is trained on top holds for the pixels.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.layers import Abs, CentreSample, LipschitzSequential, SpectralConv2d
from lablib.ops.orthonormal import scale_conv_spectral

# Side, frequency in radians per pixel and width in pixels of the filters.
FINE, MEDIUM = (7, 2.12, 1.0), (11, 1.178, 1.8)
OPPONENT = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))  # grey, red - blue, green - magenta
SUM, STRIDE = 6, 4  # side and step of the local sums
ROWS = 250  # samples taken through the layers at once


def oriented_filters(
    shape: tuple[int, int, int], orientations: int = 4, colour: float = 3.0
) -> LipschitzSequential:
    """Return fixed layers from images (C, H, W), C = 1 or 3, H = W a multiple of 4, to a vector.

    1. The mean of each channel is taken away.
    2. Each opponent colour meets Gabor filters (even and odd) in ``orientations`` directions: grey those of
       :data:`FINE` and :data:`MEDIUM`, the others :data:`MEDIUM` alone. The pixels themselves are kept too, lifted by
       1 so that the next step leaves them as they are.
    3. Absolute values.
    4. Sums over 6 x 6 windows (a sine window) every 4 pixels; in each colour the mean over its filters is taken away,
       and the pixels become opponent colours.

    Args:
        shape: of an image.
        orientations: directions in half a turn.
        colour: how much more the two colours count than grey; they vary less.

    Raises:
        ValueError: for images that are not square, or of a size or a number of channels that does not fit.
    """
    channels, height, width = shape
    if channels not in (1, 3) or height != width or height % STRIDE:
        raise ValueError(
            f"the filters take square images of 1 or 3 channels, side a multiple of {STRIDE}, not {shape}"
        )
    colours = _colours(channels, colour)
    own = [
        np.stack([colours[c][:, None, None] * g for size in sizes for g in _gabors(size, orientations)])
        for c, sizes in enumerate([(FINE, MEDIUM)] + [(MEDIUM,)] * (channels - 1))
    ]
    side = MEDIUM[0]
    pixels = np.zeros((channels, channels, side, side))
    pixels[range(channels), range(channels), side // 2, side // 2] = 1.0
    bank = np.concatenate([*own, pixels])
    mixing = np.zeros((len(bank), len(bank)))
    start = 0
    for group in own:
        stop = start + len(group)
        mixing[start:stop, start:stop] = np.eye(len(group)) - 1.0 / len(group)
        start = stop
    mixing[start:, start:] = colours
    first = _convolution(bank, padding=side // 2)
    second = _convolution(mixing[:, :, None, None] * _window(SUM), stride=STRIDE, padding=(SUM - STRIDE) // 2)
    with torch.no_grad(), parametrize.cached():
        # Lifted by the largest value that a centred pixel can have, in the units of the scaled kernel. Windows at the
        # border reach a pixel beyond the image, where no lift is: a constant stays there, the same for every image.
        lift = first.weight[-1].abs().amax()
        first.bias[start:] = lift
        second.bias.copy_(-(second.weight.sum((2, 3)) @ first.bias))
    return _frozen(
        nn.Flatten(2), CentreSample(2), nn.Unflatten(2, (height, width)), first, Abs(), second, nn.Flatten()
    )


def local_averages(shape: tuple[int, int, int], side: int) -> LipschitzSequential:
    """Return fixed layers from images (C, H, W) to the sums over patches of ``side`` x ``side``, over ``side``.

    Then the mean of these sums is taken away. Orthonormal rows: what is left of the image keeps its norm. side = 1
    keeps all pixels.
    """
    channels = shape[0]
    kernel = np.eye(channels)[:, :, None, None] * np.full((side, side), 1.0 / side)
    return _frozen(_convolution(kernel, stride=side), nn.Flatten(), CentreSample())


def features(layers: nn.Module, images: Tensor) -> Tensor:
    """Return ``layers(images)``, a few rows at a time, without gradients."""
    with torch.no_grad(), parametrize.cached():
        return torch.cat([layers(part) for part in images.split(ROWS)])


def _colours(channels: int, colour: float) -> np.ndarray:
    if channels == 1:
        return np.ones((1, 1))
    rows = np.array(OPPONENT)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows * np.array([1.0, colour, colour])[:, None]


def _gabors(size: tuple[int, float, float], orientations: int) -> list[np.ndarray]:
    """Return even and odd filters of each direction, without mean, padded to the side of :data:`MEDIUM`."""
    side, frequency, width = size
    half = (side - 1) / 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    filters = []
    for step in range(orientations):
        angle = math.pi * step / orientations
        along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        bell = np.exp(-(along**2 + 0.25 * across**2) / (2 * width**2))
        wave = bell * np.exp(1j * frequency * along)
        wave -= bell * (wave.sum() / bell.sum())
        wave /= np.linalg.norm(wave)
        filters += [np.pad(part, (MEDIUM[0] - side) // 2) for part in (wave.real, wave.imag)]
    return filters


def _window(side: int) -> np.ndarray:
    wave = np.sin(np.pi * (np.arange(side) + 0.5) / side)
    wave /= np.linalg.norm(wave)
    return np.outer(wave, wave)


def _convolution(kernel: np.ndarray, stride: int = 1, padding: int = 0) -> SpectralConv2d:
    """Return the convolution with ``kernel`` (O, I, k, k), scaled to a proven norm of at most, and nearly, 1."""
    weight = torch.tensor(kernel, dtype=torch.float32)
    outputs, inputs, side, _ = weight.shape
    layer = SpectralConv2d(inputs, outputs, side, stride, padding)
    with torch.no_grad():
        # a large multiple, so that the kernel is divided by its bound whatever its size
        layer.parametrizations.weight.original.copy_(scale_conv_spectral(1e3 * weight, stride))
        layer.bias.zero_()
    return layer


def _frozen(*layers: nn.Module) -> LipschitzSequential:
    return LipschitzSequential(*layers).eval().requires_grad_(False)
