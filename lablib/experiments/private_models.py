"""Private networks by name, shared by the command line, the recipes and the notebook.

Each is a function that returns a plain ``nn.Sequential``; it begins with ``ClipNorm(bound)``, so no bound of the
data is taken on trust. Samples are (channels, height, width) with pixels in [0, 1]. Weights are plain parameters
that the engine projects; there are no biases, as each costs noise and makes every layer behind it noisier too.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from lablib.layers import ClipNorm, MaxMin


def mlp_digits(bound: float = 1.0) -> nn.Sequential:
    """Two dense layers for the 8 x 8 digits that are bundled."""
    return _dense(bound, (64, 64, 10))


def mlp_mnist(bound: float = 1.0) -> nn.Sequential:
    """Two dense layers for MNIST."""
    return _dense(bound, (784, 256, 10))


def patches_mnist(bound: float = 1.0) -> nn.Sequential:
    """Convolutions that read each pixel once: a kernel is then no more sensitive than a matrix."""
    return nn.Sequential(
        ClipNorm(bound),
        *_convolution(1, 64, kernel=7, stride=7),
        *_convolution(64, 128, kernel=2, stride=2),
        nn.Flatten(),
        nn.Linear(512, 10, bias=False),
    )


def conv_mnist(bound: float = 1.0) -> nn.Sequential:
    """Convolutions that read each pixel four times, which doubles the sensitivity of a kernel."""
    return nn.Sequential(
        ClipNorm(bound),
        *_convolution(1, 16, kernel=4, stride=2, padding=1),
        *_convolution(16, 32, kernel=4, stride=2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(288, 10, bias=False),
    )


def conv_cifar10(bound: float = 1.0) -> nn.Sequential:
    """Two convolutions that read each pixel four times, and one that reads it once."""
    return nn.Sequential(
        ClipNorm(bound),
        *_convolution(3, 32, kernel=4, stride=2, padding=1),
        *_convolution(32, 64, kernel=4, stride=2, padding=1),
        *_convolution(64, 128, kernel=2, stride=2),
        nn.Flatten(),
        nn.Linear(2048, 10, bias=False),
    )


class Architecture(NamedTuple):
    """A function that makes the network from the bound of its inputs, and the shape of one sample."""

    make: Callable[..., nn.Sequential]
    input_shape: tuple[int, ...]


PRIVATE_MODELS = {
    "mlp-digits": Architecture(mlp_digits, (1, 8, 8)),
    "mlp-mnist": Architecture(mlp_mnist, (1, 28, 28)),
    "patches-mnist": Architecture(patches_mnist, (1, 28, 28)),
    "conv-mnist": Architecture(conv_mnist, (1, 28, 28)),
    "conv-cifar10": Architecture(conv_cifar10, (3, 32, 32)),
}


def find_architecture(name: str) -> Architecture:
    """Return the architecture of that name.

    Raises:
        ValueError: if there is none.
    """
    if name not in PRIVATE_MODELS:
        raise ValueError(f"there is no private network {name!r}; choose from {', '.join(PRIVATE_MODELS)}")
    return PRIVATE_MODELS[name]


def _dense(bound: float, widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = [ClipNorm(bound), nn.Flatten()]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=False), MaxMin()]
    return nn.Sequential(*layers[:-1])


def _convolution(inputs: int, outputs: int, **form: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, form["kernel"], form["stride"], form.get("padding", 0), bias=False),
        MaxMin(dim=1),
    ]
