"""Small pictures and trained denoisers as plain functions of arrays, for the explorers and for live runs."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.experiments.denoiser import load_denoiser
from lablib.experiments.denoising_training import best_pictures
from lablib.experiments.picture_quality import psnr
from lablib.experiments.plug_and_play_study import crops
from lablib.experiments.threads import one_thread

CANDIDATES = 12
Iterate = Callable[[np.ndarray, int], np.ndarray]


def load_crops(count: int, size: int) -> dict[str, np.ndarray]:
    """Return the ``count`` test crops of most contrast, among a dozen: name -> (size, size) float64 in [0, 1].

    Raises:
        ValueError: for more crops than there are, or a size above that of the pictures.
    """
    source = best_pictures()
    found = crops(source.test, min(CANDIDATES, len(source.test)), size)
    if not 1 <= count <= len(found):
        raise ValueError(f"choose 1 to {len(found)} pictures, not {count}")
    found.sort(key=lambda picture: -float(picture.std()))
    return {
        f"{source.name} {number}": crop[0, 0].double().numpy() for number, crop in enumerate(found[:count], 1)
    }


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
