"""The networks of the SortNet paper: SortMLP, the "+MLP" hybrid, and the convolutional "2x" form.

Trained with l_p neurons on random subsets (dropout), evaluated in the sorted form, whose expectation that is.
Source: SortNet paper (arXiv 2210.01787), sections 4 and 5 and appendix, and its public code. Letters: B batch,
S sub-batches of 32 samples, C classes, H hidden units, W width.
"""

import copy
import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from lablib.layers.boxes import linear_worst, propagate_box
from lablib.layers.distance import LInfDistance, LInfDistanceConv2d, SortNetConv2d, SortNetLayer
from lablib.layers.ranks import sum_over_ranks
from lablib.layers.sequential import LipschitzSequential
from lablib.layers.shift import MeanShift, Normalise, Scale
from lablib.layers.subsets import SUB_BATCH, SubsetSource
from lablib.ops import linf_dist

Distance = LInfDistance | SortNetLayer


class _SortModel(nn.Module):
    """What the three share: the stack of sort layers, its training form, and the exponent p.

    Attributes:
        p: the exponent of the neurons in training mode, 8 at first; ``math.inf`` for the maximum.
        subsets: draws the dropout of training mode; assign a :class:`SubsetSource` of your own seed and device.
        scale: learned factor of the logits inside the cross entropy. No output and no certificate contains it.
    """

    positions = 1  # patches per image

    def __init__(self, normalise: Normalise, distances: Sequence[Distance], shifts: int):
        super().__init__()
        self.normalise = normalise
        self.distances = nn.ModuleList(distances)
        self.shifts = nn.ModuleList(MeanShift(layer.out_features) for layer in distances[:shifts])
        self.scale = nn.Parameter(torch.ones(1))
        self.p = 8.0
        self.subsets = SubsetSource(0)

    def set_p(self, p: float) -> None:
        """Use the exponent ``p`` (at least 1, ``math.inf`` allowed) in training mode."""
        if not p >= 1.0:
            raise ValueError(f"the exponent of an l_p neuron is at least 1, got {p}")
        self.p = float(p)

    def network(self) -> nn.Sequential:
        """Return the sorted form as a plain chain in evaluation mode, which shares weights and buffers."""
        raise NotImplementedError

    def groups(self) -> list[dict]:
        """Return the parameters by how the recipe treats them: see :func:`lablib.train.optimiser.adamw`."""
        return [
            {"params": list(self.distances.parameters()), "decay": False},
            {"params": [self.scale], "decay": True},
        ]

    def bounds(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return (lower, upper) logits over the box, each (B, C), with float rounding not accounted for.

        Raises:
            ValueError: for ends of different shapes, or lower > upper anywhere (NaN included).
        """
        if lower.shape == upper.shape and not bool((lower <= upper).all()):
            raise ValueError("a box needs lower <= upper everywhere; look for a negative radius, or NaN")
        return propagate_box(self.network(), lower, upper)

    def _features(self, x: Tensor) -> Tensor:
        """The sort layers in training mode: x -> (B, features), or (B, features x positions)."""
        if not torch.is_floating_point(x):
            raise ValueError(f"images as floats in [0, 1] expected, got {x.dtype}; divide by their scale")
        samples, rows = len(x), SUB_BATCH * self.positions
        x = self._rows(self.normalise(x))
        kept = None
        for index, layer in enumerate(self.distances):
            following = self.distances[index + 1] if index + 1 < len(self.distances) else None
            keep = getattr(following, "keep", 1.0)
            # the inputs that the next layer drops are outputs that this one need not compute
            outputs = self.subsets.draw(layer.out_features, keep, samples) if keep < 1.0 else None
            x = linf_dist.lp_distance(x, layer.weight, self.p, inputs=kept, outputs=outputs, rows=rows)
            if index < len(self.shifts):
                x = self.shifts[index](x, outputs, rows)
            else:
                x = x + layer.bias
            kept = outputs
        return x

    def _rows(self, x: Tensor) -> Tensor:
        """Normalised inputs as the rows of the first layer."""
        return x.flatten(1)

    def _stack(self) -> list[nn.Module]:
        """The sort layers of the sorted form, in evaluation mode."""
        layers: list[nn.Module] = [_shared(self.normalise)]
        if self.positions == 1:
            layers.append(nn.Flatten())
        for index, distance in enumerate(self.distances):
            layers.append(_shared(distance))
            layers += [_shared(shift) for shift in self.shifts[index : index + 1]]
        return layers


class SortMLP(_SortModel):
    """``depth`` sort layers: logits f = -(the last one), each 1 / std-Lipschitz in linf.

    Args:
        in_features: pixels x channels.
        width, depth: neurons per layer, sort layers with the last one (at least 2).
        classes: C.
        keep: q, the probability to keep a neuron. The first layer keeps all inputs.
        top: K, largest distances that the sorted form adds up.
        identity: v, to start with w[k, k mod in] = -v where a layer has at least as many outputs as inputs
            (10 for MNIST); None for N(0, 1) alone.
        mean, std: of :class:`Normalise`, which makes radii count in raw pixels.
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        depth: int,
        classes: int = 10,
        keep: float = 0.75,
        top: int = 10,
        identity: float | None = None,
        mean: float | Sequence[float] = 0.0,
        std: float = 1.0,
    ):
        _check_depth(depth, 2)
        sizes = [in_features, *[width] * (depth - 1), classes]
        layers = _dense(sizes, keep, top, identity, bias_last=True)
        super().__init__(Normalise(mean, std), layers, depth - 1)

    def network(self) -> LipschitzSequential:
        return LipschitzSequential(*self._stack(), Scale(-1.0)).eval()

    @property
    def lipschitz(self) -> float:
        """The constant of each logit in linf: 1 / std. In evaluation mode only.

        The training form has none: its l_p neurons are not 1-Lipschitz in linf, and each call draws another subset.
        """
        return self.normalise.lipschitz

    def forward(self, x: Tensor) -> Tensor:
        """x (B, ...) -> logits (B, C)."""
        return -self._features(x) if self.training else self.network()(x)


class SortHybrid(_SortModel):
    """depth - 2 sort layers, then linear to ``hidden``, tanh, linear to ``classes`` ("+MLP").

    ``forward(x, labels, eps)`` -> (f, worst), worst_j an upper bound of f_j - f_y within eps, by interval bounds
    from the sort layers' features +- eps / std on; 0 at j = y. In training mode, where the features have no constant,
    ``worst`` proves nothing. Arguments as of :class:`SortMLP`; ``hidden``: H.
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        depth: int,
        classes: int = 10,
        keep: float = 0.75,
        top: int = 10,
        identity: float | None = None,
        hidden: int = 512,
        mean: float | Sequence[float] = 0.0,
        std: float = 1.0,
    ):
        _check_depth(depth, 3)
        layers = _dense([in_features, *[width] * (depth - 2)], keep, top, identity)
        super().__init__(Normalise(mean, std), layers, depth - 2)
        self.hidden, self.head = _linear(width, hidden), _linear(hidden, classes)

    def network(self) -> nn.Sequential:
        parts = (*self._stack(), *self._flatten(), _shared(self.hidden), nn.Tanh(), _shared(self.head))
        return nn.Sequential(*parts).eval()

    def groups(self) -> list[dict]:
        linear = [
            {"params": [layer.weight], "decay": True, "fan_in": layer.in_features}
            for layer in (self.hidden, self.head)
        ]
        biases = {"params": [self.hidden.bias, self.head.bias], "decay": True}
        return [*super().groups(), *linear, biases]

    def forward(self, x: Tensor, labels: Tensor | None = None, eps: float = 0.0):
        """x (B, ...) -> logits (B, C); with labels (B,), (logits, worst), eps in units of x."""
        if self.training:
            features = self._features(x)
        else:
            features = nn.Sequential(*self._stack(), *self._flatten()).eval()(x)
        logits = self.head(torch.tanh(self.hidden(features)))
        if labels is None:
            return logits
        radius = eps * self.normalise.lipschitz
        lower, upper = propagate_box(
            nn.Sequential(self.hidden, nn.Tanh()), features - radius, features + radius
        )
        return logits, linear_worst(self.head, lower, upper, labels)

    def _flatten(self) -> list[nn.Module]:
        return []


class SortConv(SortHybrid):
    """The "2x" form: the first layer sees patches, the sort layers behind it work on each position alone.

    Kernel ``size`` - ``stride`` with that stride gives 2 x 2 positions (kernel 60 for 64 x 64 images and stride
    4). ``depth`` - 2 sort layers, then linear from all positions to ``hidden``, tanh, linear to ``classes``.

    Args:
        channels, size: of the images, (B, channels, size, size).
        stride: offset of the two positions along each axis, below ``size`` / 2.
    """

    positions = 4

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        depth: int,
        classes: int = 10,
        keep: float = 0.75,
        top: int = 10,
        stride: int = 4,
        hidden: int = 512,
        mean: float | Sequence[float] = 0.0,
        std: float = 1.0,
    ):
        _check_depth(depth, 3)
        if not 1 <= stride < size / 2:
            raise ValueError(f"stride must lie between 1 and half the image size, got {stride} for {size}")
        layers: list[Distance] = [LInfDistanceConv2d(channels, width, size - stride, stride)]
        layers += [_pointwise(width, keep, top) for _ in range(depth - 3)]
        _SortModel.__init__(self, Normalise(mean, std), layers, depth - 2)
        self.hidden, self.head = _linear(width * self.positions, hidden), _linear(hidden, classes)

    def _rows(self, x: Tensor) -> Tensor:
        return self.distances[0].patches(x).flatten(0, 1)

    def _features(self, x: Tensor) -> Tensor:
        # (B x positions, W) -> (B, W x positions), as Flatten orders (B, W, 2, 2)
        return super()._features(x).view(len(x), self.positions, -1).transpose(1, 2).flatten(1)

    def _flatten(self) -> list[nn.Module]:
        return [nn.Flatten()]


@torch.no_grad()
def recompute_means(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running mean of every :class:`MeanShift` to the mean over all ``batches``, sorted form throughout.

    To be called before certification: the running means of training belong to earlier weights, to l_p neurons
    and to random subsets. One pass; as in the public code each batch is shifted by its own means on its way, so
    give large batches in random order. In a distributed run each process gives its part of every batch.

    Args:
        model: with a ``network()`` that shares its buffers.
        batches: inputs (B, ...), at least one with a sample in it; empty ones count for nothing.

    Raises:
        ValueError: for no batches, or only empty ones.
    """
    network = model.network()
    shifts = [layer for layer in network if isinstance(layer, MeanShift)]
    seen = 0.0
    for x in batches:
        size = float(sum_over_ranks(torch.tensor(float(len(x)), device=x.device)))
        if not size:
            continue
        seen += size
        for shift in shifts:
            shift.train()
            shift.momentum = size / seen  # of this chain's own copies: a running average over all samples
        network(x)
    if not seen:
        raise ValueError("means need at least one batch of training inputs that is not empty")


def _shared(layer: nn.Module) -> nn.Module:
    """Return ``layer`` with a mode of its own, but the same parameters and buffers, also later."""
    return copy.copy(layer)


def _dense(
    sizes: Sequence[int], keep: float, top: int, identity: float | None, bias_last: bool = False
) -> list[Distance]:
    layers: list[Distance] = []
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        bias = bias_last and index == len(sizes) - 2
        if index == 0 or keep == 1.0:
            layer = LInfDistance(inputs, outputs, bias)
        else:
            layer = SortNetLayer(inputs, outputs, keep, top, bias)
        if identity is not None and inputs <= outputs:
            own = torch.arange(outputs)
            layer.weight.data[own, own % inputs] = -identity
        layers.append(layer)
    return layers


def _pointwise(width: int, keep: float, top: int) -> Distance:
    """A sort layer on each position alone."""
    if keep == 1.0:
        return LInfDistanceConv2d(width, width, 1)
    return SortNetConv2d(width, width, 1, keep=keep, top=top)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Linear, started at N(0, 1 / in) with bias 0, as in the public code."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=1.0 / math.sqrt(inputs))
    nn.init.zeros_(layer.bias)
    return layer


def _check_depth(depth: int, least: int) -> None:
    if depth < least:
        raise ValueError(f"depth counts all layers of this model and is at least {least}, got {depth}")
