"""Train one denoiser on noisy patches, and measure one on held-out pictures."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.data import Pictures, available, load_pictures
from lablib.experiments.activation_zoo import ACTIVATIONS
from lablib.experiments.denoiser import SIGMAS, Architecture, build_denoiser
from lablib.experiments.picture_quality import psnr, ssim
from lablib.experiments.results import refuse_worse_data
from lablib.experiments.total_variation import denoise_total_variation
from lablib.layers.splines import spline_parameter_groups, total_variation
from lablib.train.optimiser import set_rate
from lablib.train.schedules import cosine

TV_WEIGHTS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4)  # times sigma; the best on training pictures is used
TEST_NOISE_SEED = 12345
BEST = "bsds500"


@dataclasses.dataclass(frozen=True)
class Config:
    """One size of the study.

    Attributes:
        mode: for the names of files.
        channels, hidden: of every network.
        steps, batch, patch: Adam steps, patches in each, pixels a side.
        rate: first learning rate of the weights; it falls to zero on a cosine.
        penalty: weight of the second variation of the splines, beside the squared error summed over a patch.
        network_seeds, averaged_seeds: runs of each activation and sigma that train N, and that train (I + N) / 2.
        pictures: held-out pictures of the test split that are measured.
        activations, sigmas: what is compared.
        device: ``"cuda"`` falls back to the CPU where there is none.
    """

    mode: str
    channels: int
    hidden: int
    steps: int
    batch: int
    patch: int
    rate: float
    network_seeds: int
    averaged_seeds: int
    pictures: int
    penalty: float = 1e-6
    activations: tuple[str, ...] = tuple(ACTIVATIONS)
    sigmas: tuple[int, ...] = SIGMAS
    device: str = "cpu"


def best_pictures() -> Pictures:
    """Return BSDS500 where it is at hand, else scikit-learn's two photographs in tiles; nothing is downloaded."""
    return load_pictures(BEST if available(BEST).ready else "pictures", download=False)


def study_pictures(name: str, mode: str) -> Pictures:
    """Return :func:`best_pictures` for a recipe; a line on stderr says where others stand in for BSDS500.

    Raises:
        ValueError: if the stored result is of BSDS500, and not they but others are at hand.
    """
    pictures = best_pictures()
    if pictures.name != BEST:
        advice = available(BEST).advice
        print(f"{BEST} is not at hand ({advice}); the bundled {pictures.name!r} stand in", file=sys.stderr)
    refuse_worse_data(name, mode, pictures.name, BEST)
    return pictures


def stack(pictures: Sequence[np.ndarray], count: int | None = None) -> Tensor:
    """Return the first ``count`` pictures, upright ones turned by a quarter, as one tensor (N, H, W) uint8."""
    turned = [p if p.shape[0] <= p.shape[1] else np.rot90(p) for p in pictures[:count]]
    return torch.from_numpy(np.stack(turned))


def load_training_pictures(config: Config) -> Tensor:
    """Return the training pictures (N, H, W) uint8 on the device of the study."""
    return stack(best_pictures().train).to(device_of(config))


def device_of(config: Config) -> torch.device:
    """Return the device of the study: the CPU where there is no GPU."""
    return torch.device(config.device if torch.cuda.is_available() else "cpu")


def sample_patches(pictures: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` random patches (count, 1, size, size) in [0, 1] of ``pictures`` (N, H, W) uint8."""

    def draw(stop: int) -> Tensor:
        return torch.randint(stop, (count, 1, 1), generator=generator).to(pictures.device)

    along = torch.arange(size, device=pictures.device)
    rows = draw(pictures.shape[1] - size + 1) + along[:, None]
    columns = draw(pictures.shape[2] - size + 1) + along
    return pictures[draw(len(pictures)), rows, columns][:, None].float() / 255.0


def train(
    config: Config,
    pictures: Tensor,
    activation: str,
    sigma: int,
    target: str,
    seed: int,
    report: Callable[[int], None] = lambda steps: None,
) -> nn.Module:
    """Return a denoiser trained on patches of ``pictures`` (N, H, W) uint8 with noise of ``sigma`` / 255.

    The loss is the squared error summed over a patch, averaged over the batch, plus ``penalty`` times the second
    variation of the splines. Weights, spline scalings and spline coefficients learn at rates 1 : 1/4 : 1/40.

    Args:
        report: called with the number of steps done since the last call.
    """
    device = pictures.device
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_denoiser(Architecture(activation, config.channels, config.hidden), target).to(device)
    optimiser = torch.optim.Adam(spline_parameter_groups(model, config.rate))
    rate = cosine(config.rate, config.steps)
    for step in range(config.steps):
        set_rate(optimiser, rate(step))
        clean = sample_patches(pictures, config.batch, config.patch, generator)
        noisy = add_noise(clean, sigma, generator)
        optimiser.zero_grad(set_to_none=True)
        with parametrize.cached():
            loss = (model(noisy) - clean).square().sum() / config.batch
            if activation == "spline":
                loss = loss + config.penalty * total_variation(model)
            loss.backward()
        optimiser.step()
        report(1)
    return model


def add_noise(clean: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Return ``clean`` with Gaussian noise of standard deviation ``sigma`` / 255, drawn on the CPU."""
    return clean + (sigma / 255.0) * torch.randn(clean.shape, generator=generator).to(clean)


def noisy_pictures(pictures: Tensor, sigma: int) -> tuple[Tensor, Tensor]:
    """Return held-out pictures (N, 1, H, W) in [0, 1], clean and with noise: the same for every denoiser."""
    clean = pictures[:, None].float() / 255.0
    return clean, add_noise(clean, sigma, torch.Generator().manual_seed(TEST_NOISE_SEED + sigma))


@torch.no_grad()
def apply(denoise: Callable[[Tensor], Tensor], noisy: Tensor) -> Tensor:
    """Return the denoised pictures, made one by one: whole pictures take much memory."""
    cached = parametrize.cached() if isinstance(denoise, nn.Module) else contextlib.nullcontext()
    with cached:
        return torch.cat([denoise(picture[None]) for picture in noisy])


def quality(picture: Tensor, clean: Tensor) -> dict[str, float]:
    """Return the mean PSNR (dB) and SSIM over pictures (N, 1, H, W)."""
    return {"psnr": float(psnr(picture, clean).mean()), "ssim": float(ssim(picture, clean).mean())}


def tune_total_variation(pictures: Tensor, sigma: int) -> float:
    """Return the weight of :data:`TV_WEIGHTS` (times sigma / 255) with the best PSNR on these pictures (N, H, W)."""
    clean, noisy = noisy_pictures(pictures, sigma)
    weights = [sigma / 255.0 * factor for factor in TV_WEIGHTS]
    return max(weights, key=lambda w: float(psnr(denoise_total_variation(noisy, w), clean).mean()))


@torch.no_grad()
def firmness(model: nn.Module, clean: Tensor, noisy: Tensor) -> float:
    """Return the largest ||Tx - Ty||^2 / <Tx - Ty, x - y> over the pictures x = clean, y = noisy; at most 1."""
    with parametrize.cached():
        change = (model(clean) - model(noisy)).double().flatten(1)
    given = (clean - noisy).double().flatten(1)
    return float((change.square().sum(1) / (change * given).sum(1)).max())
