r"""A 1-Lipschitz convolutional denoiser, and the firmly nonexpansive operator made of it.

The network N is a chain of 3 x 3 orthonormal convolutions with zero padding and 1-Lipschitz activations,
1 - C - ... - C - 1 channels (Ducotterd et al., "Improving Lipschitz-constrained neural networks by learning
activation functions", JMLR 25, 2024, the denoising experiment; there spectral normalisation, 64 channels and 8
convolutions). Zero padding makes each convolution a piece of an orthonormal one: 1-Lipschitz in l2 on images of any
size, and so is N.

The averaged operator T = (I + N) / 2 is *firmly nonexpansive*, which plug-and-play iterations need. With
d = x - y, e = N(x) - N(y) and ||e|| <= ||d||:

    ||Tx - Ty||^2 = (||d||^2 + 2 <d, e> + ||e||^2) / 4  <=  (||d||^2 + <d, e>) / 2  =  <Tx - Ty, x - y>.

Which of the two is trained to denoise is a choice: "network" trains N (the published training code at its newest
state, and the larger class of functions), "averaged" trains T itself (an earlier state of that code). Half of the
noise passes through T where N was trained, so plug-and-play here uses the T that was trained.
"""

import dataclasses
import functools
import itertools
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lablib.experiments.activation_zoo import ACTIVATIONS, make_activation
from lablib.experiments.results import MODES, current_mode, results_dir
from lablib.experiments.training import runs_dir
from lablib.layers import ConvexResidual, LipschitzSequential, OrthonormalConv2d
from lablib.train import checkpoint

SIGMAS = (5, 15)  # standard deviation of the noise, of 255
TARGETS = ("network", "averaged")
CENTRED = ("groupsort", "householder", "spline")  # those that leave equal channels alone whatever their sign
SPLINE = {"knots": 51, "range": 0.1, "init": "identity"}
STORED = "denoisers"  # figures/results/denoisers_<mode>.npz: one averaged denoiser per activation and sigma


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Activation, channels C of every hidden layer, and number of hidden layers (one convolution more)."""

    activation: str
    channels: int = 64
    hidden: int = 7

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")
        if self.channels < 2 or self.channels % 2 or self.hidden < 1:
            raise ValueError(
                f"give an even number of channels and a hidden layer or more, not {self.channels} and {self.hidden}"
            )


def build_denoiser(architecture: Architecture, target: str = "averaged", *, noise: float = 0.1) -> nn.Module:
    """Return an untrained denoiser (B, 1, H, W) -> (B, 1, H, W) for pictures in [0, 1], 1-Lipschitz in l2.

    It starts near the identity on such pictures with every activation: all channels carry the same multiple of
    the picture, which is not negative where the activation bends at 0, and of the picture less 1/2 elsewhere (so
    that it lies where a spline has its knots).

    Args:
        architecture: sizes.
        target: ``"averaged"`` for T = (I + N) / 2 (its ``branch`` is N), ``"network"`` for N alone.
        noise: size of the random part of the weights.
    """
    if target not in TARGETS:
        raise ValueError(f"target is one of {', '.join(TARGETS)}, not {target!r}")
    options = SPLINE if architecture.activation == "spline" else {}
    widths = [1] + [architecture.channels] * architecture.hidden + [1]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers.append(OrthonormalConv2d(inputs, outputs, 3, padding=1))
        start_at_identity(layers[-1], noise)
        layers.append(make_activation(architecture.activation, architecture.channels, **options))
    network = LipschitzSequential(*layers[:-1])
    if architecture.activation in CENTRED:
        nn.init.constant_(network[0].bias, -0.5 / math.sqrt(architecture.channels))
        nn.init.constant_(network[-1].bias, 0.5)
    return averaged(network) if target == "averaged" else network


def averaged(network: nn.Module) -> ConvexResidual:
    """Return T = (I + N) / 2, firmly nonexpansive for a 1-Lipschitz N (see the module's proof)."""
    return ConvexResidual(network, 0.5)


@torch.no_grad()
def start_at_identity(layer: OrthonormalConv2d, noise: float) -> None:
    """Set a 3 x 3 orthonormal convolution to a delta in space that spreads or gathers one channel evenly.

    In the factors of :func:`lablib.ops.orthonormal.orthonormal_kernel`, the free matrix 0 gives the rotation 1 and
    the projector P on the first half of the channels; J = [[0, 1], [-1, 0]] turns it to 1 - P. Of the two steps
    along an axis, [P, 1 - P] and [1 - P, P], only the middle tap is left, and it is 1. The first matrix rotates
    the first unit vector to (1, ..., 1) / sqrt(c) where the layer has one input, and back where it has one output.
    """
    free = layer.parametrizations.weight.original
    size = free.shape[-1]
    free.mul_(noise)
    half = torch.eye(size, device=free.device, dtype=free.dtype).roll(size // 2, 1).triu(1)
    free[3:] += half - half.mT  # the second step along each axis
    if layer.in_channels != layer.out_channels:
        cosine = size**-0.5
        spread = torch.full(
            (size,), cosine / math.sqrt(1.0 - cosine**2), dtype=free.dtype, device=free.device
        )
        spread[0] = 0.0
        turn = math.tan(math.acos(cosine) / 2.0) * (1.0 if layer.in_channels == 1 else -1.0)
        free[0, 0] += turn * spread
        free[0, :, 0] -= turn * spread
    layer.bias.zero_()


def load_denoiser(activation: str, sigma: int, mode: str | None = None) -> ConvexResidual:
    """Return a trained firmly nonexpansive denoiser T = (I + N) / 2, in evaluation mode on the CPU.

    The runs folder is looked in first, then the models stored with the results, first of this mode and then of the
    standard one; where there is none, a small network is trained now, in seconds. A line on stderr says where it is
    not one of this mode.

    Args:
        activation: one of :data:`ACTIVATIONS`.
        sigma: 5 or 15, standard deviation of the noise it was trained for (of 255).
        mode: size of the run that trained it; default ``LABLIB_MODE``.

    Raises:
        ValueError: for another activation, sigma or mode, or a damaged file.
    """
    mode = current_mode() if mode is None else mode
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
    if sigma not in SIGMAS:
        raise ValueError(f"sigma is one of {', '.join(map(str, SIGMAS))} (of 255), not {sigma!r}")
    architecture = Architecture(activation)  # refuses an unknown activation
    for size in dict.fromkeys((mode, "standard")):
        path = model_file(size, architecture.activation, sigma, "averaged", 0)
        packed = results_dir(size) / f"{STORED}_{size}.npz"
        if size != mode and (path.is_file() or packed.is_file()):
            _say_once(f"no {mode} denoiser ({activation}, sigma {sigma}) is stored: taking the {size} one")
        if path.is_file():
            return read_model(path)
        if packed.is_file():
            return _unpack(packed, activation, sigma)
    return _train_quick(activation, sigma)


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


@functools.lru_cache
def _train_quick(activation: str, sigma: int) -> ConvexResidual:
    from lablib.experiments.denoising import RECIPE
    from lablib.experiments.denoising_training import load_training_pictures, train

    print(f"no stored denoiser ({activation}, sigma {sigma}): training a small one", file=sys.stderr)
    config = RECIPE.sizes["quick"]
    return train(config, load_training_pictures(config), activation, sigma, "averaged", 0).eval()


def model_file(mode: str, activation: str, sigma: int, target: str, seed: int) -> Path:
    """Return where a run keeps a trained model."""
    return runs_dir() / "denoising" / mode / f"{activation}_{sigma}_{target}_seed{seed}.pt"


def write_model(path: Path, model: nn.Module, architecture: Architecture, target: str) -> None:
    """Store a model, whole or not at all, as plain tensors and numbers."""
    plain = {"architecture": dataclasses.asdict(architecture), "target": target}
    checkpoint.write(path, plain | {"model": canonical_state(model)})


def read_model(path: Path) -> nn.Module:
    """Return a model that :func:`write_model` stored, in evaluation mode on the CPU.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is damaged or does not fit this version.
    """
    state = checkpoint.read(path)
    try:
        return _rebuild(state["architecture"], state["target"], state["model"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} is no denoiser of this version ({error}); delete it and train again"
        ) from error


def pack(
    models: Mapping[tuple[str, int], nn.Module], architecture: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Return the arrays of averaged denoisers by (activation, sigma), for one small npz file."""
    arrays = {name: np.array(value) for name, value in architecture.items()}
    for (activation, sigma), model in models.items():
        for name, value in canonical_state(model).items():
            arrays[f"{activation}/{sigma}/{name}"] = value.cpu().numpy()
    return arrays


def _unpack(path: Path, activation: str, sigma: int) -> ConvexResidual:
    prefix = f"{activation}/{sigma}/"
    try:
        with np.load(path, allow_pickle=False) as stored:
            sizes = {
                "activation": activation,
                "channels": int(stored["channels"]),
                "hidden": int(stored["hidden"]),
            }
            names = [name for name in stored.files if name.startswith(prefix)]
            state = {name.removeprefix(prefix): torch.from_numpy(stored[name]) for name in names}
        return _rebuild(sizes, "averaged", state)
    except Exception as error:  # a damaged zip file makes its reader fail in many ways
        raise ValueError(
            f"{path} is damaged or of another version ({error}); restore it, or make it again: "
            "python -m lablib figures denoising"
        ) from error


def _rebuild(sizes: Mapping[str, Any], target: str, state: Mapping[str, Tensor]) -> nn.Module:
    model = build_denoiser(Architecture(**sizes), target)
    model.load_state_dict(dict(state))
    return model.eval()


def canonical_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of a model with half of the entries of its free matrices zero, the function unchanged.

    A Cayley map reads only F - F^T, so F may be replaced by the lower triangle of F - F^T: smaller when packed.
    """
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name, layer in model.named_modules():
        if isinstance(layer, OrthonormalConv2d):
            key = f"{name}.parametrizations.weight.original".removeprefix(".")
            state[key] = (state[key] - state[key].mT).tril(-1)
    return state
