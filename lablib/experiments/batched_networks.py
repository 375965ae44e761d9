"""Train thousands of tiny scalar networks at once on the vertices of a cube, for the largest certified
radius.

A network f that is 1-Lipschitz from the l_inf norm and right on every vertex x (label y = ±1) certifies the
radius min_x y f(x). A *population* is P networks of one shape whose parameters carry a leading axis P, so
that a layer of all of them is one batched product. Training maximises a soft minimum that sharpens with time;
the reported radius is the true minimum over all vertices, in float64, of a network whose constraint holds
exactly.

Shapes: P networks, B points, d inputs, n_l neurons of layer l.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lablib.experiments.batched_layers import FAMILIES, Layer, build_layers, make_feasible
from lablib.experiments.threads import one_thread

ROUNDING = 1e-12  # float64 forward errors of these networks stay below 1e-14; the radius gives this much away


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape of every network of a population.

    Attributes:
        family: ``"abs"``, ``"relu"`` or ``"spline"`` (a standard network with that activation, the spline
            being
            learned), ``"maxmin"``, ``"linf_distance"`` or ``"sortnet"``.
        widths: neurons of each hidden layer.
        knots: pieces of a learned spline.
        top: how many of the largest distances a SortNet neuron weighs.
    """

    family: str
    widths: tuple[int, ...]
    knots: int = 16
    top: int = 4

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family {self.family!r} is unknown; choose one of {', '.join(FAMILIES)}")
        if any(width < 1 for width in self.widths):
            raise ValueError(f"widths {self.widths} must be positive")
        if self.family == "maxmin" and any(width % 2 for width in self.widths):
            raise ValueError(f"MaxMin sorts pairs: widths {self.widths} must be even")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long and how hard to train: Adam steps, its first learning rate, points in a step, sharpness range.

    ``batch`` = 0 uses every vertex in every step. ``sharpness`` multiplies 1/bound in the soft minimum and
    grows geometrically from the first value to the second.
    """

    steps: int = 1500
    rate: float = 0.02
    batch: int = 0
    sharpness: tuple[float, float] = (3.0, 1000.0)
    every: int = 50

    def progress(self, step: int) -> float:
        """Return the fraction of training done."""
        return step / max(1, self.steps - 1)

    def learning_rate(self, step: int) -> float:
        """Cosine from ``rate`` to a hundredth of it."""
        return self.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress(step))))

    def beta(self, step: int) -> float:
        """Sharpness of the soft minimum, in units of 1/bound."""
        low, high = self.sharpness
        return low * (high / low) ** self.progress(step)


@dataclasses.dataclass
class Population:
    """P trained networks: float64 layers whose constraints hold exactly, and what they certify.

    ``radii`` (P,): true minimum margin over all vertices, less :data:`ROUNDING`; negative where some vertex
    is wrong. ``curve`` (checks, P): the radius of the iterate at each check, ``checked`` (checks,) its step.
    """

    architecture: Architecture
    layers: list[Layer]
    radii: np.ndarray
    curve: np.ndarray
    checked: np.ndarray

    def export(self, index: int) -> list[dict[str, Any]]:
        """Return network ``index`` as the plain list of layers of :mod:`lablib.theory.network`."""
        return [record for layer in self.layers for record in layer.export(index)]


def cube(variables: int) -> torch.Tensor:
    """Return the vertices (2^d, d) of {0,1}^d in float64; bit j of the row number is coordinate j."""
    if not 1 <= variables <= 16:
        raise ValueError(f"a cube of {variables} variables is out of range; use 1 to 16")
    numbers = torch.arange(2**variables)
    return ((numbers[:, None] >> torch.arange(variables)) & 1).double()


@one_thread()
def train(
    architecture: Architecture,
    labels: np.ndarray,
    schedule: Schedule,
    *,
    scale: float,
    seed: int,
    report: Callable[[int], None] | None = None,
) -> Population:
    """Train one network per row of ``labels``, keep each one's best iterate, return the population.

    Args:
        labels: (P, 2^d) of ±1, the wanted signs on the vertices in the order of :func:`cube`.
        scale: the radius to expect (the bound); it sets the units of the soft minimum.
        seed: of the initial weights and of the batches.
        report: called with the number of steps done since the last call, for a progress bar.

    Raises:
        ValueError: if the labels are not ±1 or their number is not a power of two.
    """
    variables = _check_labels(labels, scale)
    generator = torch.Generator().manual_seed(seed)
    points = cube(variables)
    targets = torch.as_tensor(labels, dtype=torch.float32)
    layers = build_layers(architecture, variables, len(labels), generator)
    parameters = [tensor for layer in layers for tensor in layer.parameters()]
    best = _Best(parameters)
    optimiser = torch.optim.Adam(parameters, lr=schedule.rate, betas=(0.9, 0.99))
    sampler = _Sampler(variables, targets, schedule.batch, generator)
    inputs = points.float() - 0.5
    curve, checked = [], []
    for step in range(schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate(step)
        chosen = sampler.draw()
        beta = schedule.beta(step) / scale
        for layer in layers:
            layer.anneal(schedule.progress(step))
        values = _forward(layers, inputs[chosen])
        margins = targets[:, chosen] * values
        loss = torch.logsumexp(-beta * margins, dim=1).sum() / beta
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if (step + 1) % schedule.every == 0 or step + 1 == schedule.steps:
            low, high = _spans(layers, inputs, targets)
            radii = ((low - high).double() / 2).nan_to_num(
                nan=-1.0
            )  # a network that diverged is right nowhere
            best.offer(radii)
            curve.append(radii.numpy())
            checked.append(step + 1)
            if report is not None:
                report(checked[-1] - (checked[-2] if len(checked) > 1 else 0))
    best.restore()
    layers = make_feasible(layers)
    low, high = _spans(layers, points - 0.5, targets.double())
    layers[-1].bias -= ((low + high) / 2)[:, None]
    radii = (low - high) / 2 - ROUNDING
    return Population(architecture, layers, radii.numpy(), np.array(curve), np.array(checked))


def _forward(layers: list[Layer], inputs: torch.Tensor) -> torch.Tensor:
    """Return (P, B): the value of each network on each of the points (B, d), given less 1/2."""
    hidden = inputs
    for layer in layers:
        hidden = layer(hidden)
    return hidden.squeeze(-1)


@torch.no_grad()
def _spans(
    layers: list[Layer], inputs: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (P,) twice: the lowest value on the vertices labelled +1 and the highest on those labelled -1.

    Half their difference is the radius of the network whose last bias is moved to the middle. Distance layers
    are taken at p = infinity.
    """
    for layer in layers:
        layer.anneal(1.0)
    values = torch.cat(
        [_forward(layers, inputs[part]) for part in torch.arange(len(inputs)).split(512)], dim=1
    )
    low = values.masked_fill(targets < 0, math.inf).amin(dim=1)
    high = values.masked_fill(targets > 0, -math.inf).amax(dim=1)
    return low, high


class _Best:
    """Keeps a copy of the parameters of each network's best iterate."""

    def __init__(self, parameters: list[torch.Tensor]) -> None:
        self.parameters = parameters
        self.kept = [tensor.detach().clone() for tensor in parameters]
        self.radii = torch.full((len(parameters[0]),), -math.inf, dtype=torch.float64)

    @torch.no_grad()
    def offer(self, radii: torch.Tensor) -> None:
        """Copy the networks whose radius (P,) is the largest so far."""
        better = radii > self.radii
        self.radii = torch.where(better, radii, self.radii)
        for kept, tensor in zip(self.kept, self.parameters):
            kept.copy_(torch.where(better.view(-1, *[1] * (tensor.dim() - 1)), tensor, kept))

    @torch.no_grad()
    def restore(self) -> None:
        """Write the kept parameters back."""
        for kept, tensor in zip(self.kept, self.parameters):
            tensor.copy_(kept)


class _Sampler:
    """Draws the vertices of one step: all of them, or a batch spread evenly over the numbers of ones.

    A threshold function has few vertices of the rare label (AND: one of 2^d); drawing the number of ones
    first gives every level of the cube the same weight.
    """

    def __init__(self, variables: int, targets: torch.Tensor, batch: int, generator: torch.Generator) -> None:
        self.generator = generator
        self.batch = batch if 0 < batch < targets.shape[1] else 0
        ones = cube(variables).sum(dim=1).long()
        self.weights = 1.0 / torch.bincount(ones)[ones].double()
        self.every = torch.arange(targets.shape[1])

    def draw(self) -> torch.Tensor:
        if not self.batch:
            return self.every
        return torch.multinomial(self.weights, self.batch, generator=self.generator)


def _check_labels(labels: np.ndarray, scale: float) -> int:
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.size == 0 or not np.isin(labels, (-1, 1)).all():
        raise ValueError("labels must be a (networks, vertices) array of +1 and -1")
    if (np.abs(labels.sum(axis=1)) == labels.shape[1]).any():
        raise ValueError("a constant function has no radius to reach; every row of labels needs both signs")
    variables = int(math.log2(labels.shape[1]))
    if 2**variables != labels.shape[1]:
        raise ValueError(f"{labels.shape[1]} labels are not the vertices of a cube; give 2^d of them")
    if not scale > 0:
        raise ValueError(f"scale must be positive (the bound is a good choice), not {scale}")
    return variables
