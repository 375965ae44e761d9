"""The denoiser of the comparison that has no Lipschitz constraint: the same chain of plain convolutions and ReLU."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lablib.experiments.denoising_training import add_noise, best_pictures, sample_patches, stack
from lablib.experiments.training import runs_dir
from lablib.train import checkpoint
from lablib.train.schedules import cosine


@dataclasses.dataclass(frozen=True)
class Training:
    """Sizes (those of the constrained networks) and training of the plain network."""

    channels: int
    hidden: int
    steps: int
    sigma: int
    batch: int = 16
    patch: int = 40
    rate: float = 2e-3


def build_plain(channels: int, hidden: int) -> nn.Sequential:
    """Return N, (B, 1, H, W) -> (B, 1, H, W): ``hidden`` + 1 convolutions of 3 x 3 with zero padding, and ReLU."""
    widths = [1] + [channels] * hidden + [1]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train_plain(training: Training, report: Callable[[int], None] = lambda steps: None) -> nn.Sequential:
    """Return N, trained so that (x + N(x)) / 2 removes noise of ``sigma`` / 255, as the constrained ones are.

    Args:
        report: called with the number of steps done since the last call.
    """
    pictures = stack(best_pictures().train)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_plain(training.channels, training.hidden)
    optimiser = torch.optim.Adam(network.parameters(), training.rate)
    rate = cosine(training.rate, training.steps)
    for step in range(training.steps):
        optimiser.param_groups[0]["lr"] = rate(step)
        clean = sample_patches(pictures, training.batch, training.patch, generator)
        noisy = add_noise(clean, training.sigma, generator)
        optimiser.zero_grad(set_to_none=True)
        loss = ((noisy + network(noisy)) / 2 - clean).square().sum() / training.batch
        loss.backward()
        optimiser.step()
        report(1)
    return network.eval()


def load_plain(
    training: Training, mode: str, report: Callable[[int], None] = lambda steps: None
) -> nn.Sequential:
    """Return the stored network of this training, or train it now and store it in the folder of runs."""
    path = _file(mode, training.sigma)
    settings = dataclasses.asdict(training)
    if path.is_file():
        stored = checkpoint.read(path)
        if stored.get("settings") == settings:
            network = build_plain(training.channels, training.hidden)
            network.load_state_dict(stored["model"])
            report(training.steps)
            return network.eval()
    network = train_plain(training, report)
    checkpoint.write(path, {"settings": settings, "model": dict(network.state_dict())})
    return network


def _file(mode: str, sigma: int) -> Path:
    return runs_dir() / "plug_and_play" / mode / f"unconstrained_{sigma}.pt"
