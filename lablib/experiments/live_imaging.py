"""Small pictures and trained denoisers as plain functions of arrays, for the explorers and for live runs."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.experiments.denoiser import load_denoiser
from lablib.experiments.denoising_training import best_pictures
from lablib.experiments.picture_quality import psnr
from lablib.experiments.threads import one_thread

CANDIDATES = 12
Iterate = Callable[[np.ndarray, int], np.ndarray]


def load_crops(count: int, size: int) -> dict[str, np.ndarray]:
    """Return test crops of most contrast, one of a picture: name -> (size, size) float64 in [0, 1].

    Of each of a dozen evenly spaced test pictures the square of most contrast is cut, on a grid of half its side;
    the ``count`` of most contrast are returned, the first one has most. The middle of a picture may be flat sky.

    Raises:
        ValueError: for more crops than there are, or a size above that of the pictures.
    """
    source = best_pictures()
    candidates = min(CANDIDATES, len(source.test))
    if not 1 <= count <= candidates:
        raise ValueError(f"choose 1 to {candidates} pictures, not {count}")
    chosen = [source.test[place * len(source.test) // candidates] for place in range(candidates)]
    found = sorted((_most_contrast(picture, size) for picture in chosen), key=lambda crop: -crop.std())
    return {f"{source.name} {number}": crop for number, crop in enumerate(found[:count], 1)}


def _most_contrast(picture: np.ndarray, size: int) -> np.ndarray:
    """Return the square of a picture (H, W) uint8 with the largest standard deviation, among overlapping ones."""
    if not 1 <= size <= min(picture.shape):
        height, width = picture.shape
        raise ValueError(f"a picture of {height} x {width} has no {size} x {size} pixels; use another size")
    windows = np.lib.stride_tricks.sliding_window_view(picture, (size, size))
    tried = windows[:: max(1, size // 2), :: max(1, size // 2)]
    row, column = np.unravel_index(tried.std(axis=(2, 3)).argmax(), tried.shape[:2])
    return tried[row, column] / 255.0


def as_picture(values: np.ndarray) -> Tensor:
    """Return an array (H, W) as the float32 picture (1, 1, H, W) that denoisers take."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32))[None, None]


def iterates(denoiser: nn.Module) -> Iterate:
    """Return (picture (H, W), n) -> (n + 1, H, W): the picture, T of it, T of that, and so on."""

    @torch.no_grad()
    @one_thread()
    def run(values: np.ndarray, count: int) -> np.ndarray:
        path = [as_picture(values)]
        with parametrize.cached():  # the weights are made orthonormal once
            for _ in range(count):
                path.append(denoiser(path[-1]))
        return torch.cat(path)[:, 0].numpy()

    return run


def load_iterates(
    activations: Sequence[str], sigmas: Sequence[int], mode: str = "standard"
) -> dict[tuple[str, int], Iterate]:
    """Return :func:`iterates` of every denoiser of :func:`~lablib.experiments.denoiser.load_denoiser`."""
    return {
        (name, sigma): iterates(load_denoiser(name, sigma, mode)) for name in activations for sigma in sigmas
    }


def decibels(picture: np.ndarray, clean: np.ndarray) -> float:
    """Return the PSNR (dB) of a picture (H, W) clipped to [0, 1]."""
    return float(psnr(as_picture(picture), as_picture(clean)))
