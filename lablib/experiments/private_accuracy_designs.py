"""What is compared: networks with public fixed layers in front, how each is trained, and by which methods.

Settings were chosen on 5,000 training rows that were held out, one seed each, mostly at epsilon 3 and 8: five to
fifteen values of learning rate, clipping norm, temperature and steps for each network, more of them for the two that
are trained without clipping. Filters, patch sizes, widths and the bounds that samples are clipped to were chosen in
the same way. Such a choice looks at the data and is not private: no epsilon here counts it.
"""

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import nn

from lablib.experiments.private_accuracy_training import CLIPLESS, GHOST, PER_SAMPLE, Settings
from lablib.experiments.private_filters import local_averages, oriented_filters
from lablib.layers import ClipNorm, LipschitzSequential, MaxMin

Shape = tuple[int, int, int]
Front = Callable[[Shape], LipschitzSequential]


@dataclasses.dataclass(frozen=True)
class Design:
    """One network.

    Attributes:
        label: what figures call it.
        front: shape of an image -> public fixed layers; None where there are none.
        head: shape of a sample behind them -> trained layers, with first weights by torch's generator.
        settings: method -> how it is trained; only these methods are run.
        certified: whether radii are proven for the clipless runs.
    """

    label: str
    front: Front | None
    head: Callable[[tuple[int, ...]], nn.Sequential]
    settings: dict[str, Settings]
    certified: bool


def linear(bound: float) -> Callable[[tuple[int, ...]], nn.Sequential]:
    """Return the maker of one linear layer on samples clipped to ``bound``; it starts from 0."""

    def made(shape: tuple[int, ...]) -> nn.Sequential:
        layer = nn.Linear(shape[0], 10, bias=False)
        nn.init.zeros_(layer.weight)
        return nn.Sequential(ClipNorm(bound), layer)

    return made


def lipschitz(bound: float, width: int) -> Callable[[tuple[int, ...]], nn.Sequential]:
    """Return the maker of two dense layers with sorted pairs between, projected in training."""

    def made(shape: tuple[int, ...]) -> nn.Sequential:
        layers = nn.Linear(shape[0], width, bias=False), nn.Linear(width, 10, bias=False)
        for layer in layers:
            nn.init.orthogonal_(layer.weight)
        return nn.Sequential(ClipNorm(bound), layers[0], MaxMin(), layers[1])

    return made


def tanh_cnn(widths: tuple[int, int]) -> Callable[[tuple[int, ...]], nn.Sequential]:
    """Return the maker of a small convolutional network with tanh, of the kind that per-sample clipping likes.

    Papernot et al., "Tempered sigmoid activations for deep learning with differential privacy" (AAAI 2021).
    """

    def made(shape: tuple[int, ...]) -> nn.Sequential:
        channels, side, _ = shape
        body = [
            nn.Conv2d(channels, widths[0], 8, stride=4, padding=2),
            nn.Tanh(),
            nn.Conv2d(widths[0], widths[1], 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Flatten(),
        ]
        with torch.no_grad():
            size = nn.Sequential(*body)(torch.zeros(1, channels, side, side)).shape[1]
        return nn.Sequential(*body, nn.Linear(size, 10))

    return made


def _filters(bound: float, rate: float, clip: float, epochs: int) -> Design:
    """``rate`` is for samples of norm 1, ``clip`` for the logits: both follow from ``bound`` for the weights."""
    own = Settings(rate / bound**2, clip, epochs, batches=10)
    theirs = dataclasses.replace(own, clip=clip * bound)
    settings = {CLIPLESS: own, GHOST: theirs, PER_SAMPLE: theirs}
    return Design("fixed filters, linear", oriented_filters, linear(bound), settings, certified=True)


def _trained(
    side: int, bound: float, width: int, rate: float, epochs: int, temperature: float = 4.0
) -> Design:
    own = Settings(rate / bound**2, 1.0, epochs, 10, temperature, noise="balanced", constraint="orthonormal")
    front = functools.partial(local_averages, side=side)
    return Design("Lipschitz network", front, lipschitz(bound, width), {CLIPLESS: own}, certified=True)


def _cnn(widths: tuple[int, int], rate: float, clip: float, epochs: int, batches: int = 20) -> Design:
    settings = {PER_SAMPLE: Settings(rate, clip, epochs, batches)}
    return Design("small tanh CNN", None, tanh_cnn(widths), settings, certified=False)


DESIGNS: dict[str, dict[str, Design]] = {
    "digits": {
        "filters": _filters(0.5, 8.0, 1.0, epochs=4),
        "lipschitz": _trained(1, 2.0, 32, 4.0, epochs=4),
        "cnn": _cnn((8, 8), 2.0, 1.0, epochs=4, batches=10),
    },
    "mnist": {
        "filters": _filters(1.9, 150.0, 0.6, epochs=15),
        "lipschitz": _trained(2, 5.0, 256, 15.0, epochs=30),
        "cnn": _cnn((16, 32), 2.0, 1.0, epochs=6),
    },
    "cifar10": {
        "filters": _filters(0.26, 100.0, 0.6, epochs=10),
        "lipschitz": _trained(4, 10.0, 256, 30.0, epochs=30, temperature=2.0),
        "cnn": _cnn((16, 32), 0.7, 1.0, epochs=6),
    },
}
