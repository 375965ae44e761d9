"""Centring and scaling."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lablib.layers.base import ALL_NORMS, Constraint, Fixed, LipschitzLayer, check_channels
from lablib.layers.ranks import several_ranks, sum_over_ranks
from lablib.ops.activations import per_channel
from lablib.ops.sorting import channel_dim


class MeanShift(LipschitzLayer):
    """Subtract the running mean per channel: no scale, no bias (SortNet paper, arXiv 2210.01787).

    In evaluation mode a translation: 1-Lipschitz in every norm. In training mode it subtracts the mean of the
    batch (the gradient flows through it), so samples of a batch depend on one another: the guarantee, per
    sample, is for evaluation mode. An empty batch leaves the running mean as it is. In a distributed run the
    batch is that of all processes together.

    Args:
        channels: size of axis 1 (of the only axis, for a vector, which is then its own mean: use batches to
        train).
        momentum: share of the batch mean in the running mean.
    """

    norms = ALL_NORMS

    def __init__(self, channels: int, momentum: float = 0.1):
        super().__init__()
        if channels < 1 or not 0.0 < momentum <= 1.0:
            raise ValueError(
                f"MeanShift needs channels >= 1 and momentum in (0, 1], got {channels} and {momentum}"
            )
        self.channels, self.momentum = channels, momentum
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, x: Tensor, kept: Tensor | None = None, rows: int = 32) -> Tensor:
        """x (B, C, ...), or compact x (B, C') with ``kept``: the same shape.

        Args:
            x: features; with ``kept``, row b holds only the channels ``kept[b // rows]``.
            kept: (S, C') int64, S = ceil(B / rows), the channels that dropout left to each sub-batch. Means are
                then over the rows that have the channel; a channel that none has keeps its running mean.
            rows: samples of a sub-batch, at least 1.

        Raises:
            ValueError: for other shapes, or ``rows`` below 1.
        """
        if kept is not None:
            return self._compact(x, kept, rows)
        axis = channel_dim(x)
        check_channels(x, self.channels, axis, self)
        mean = self.running_mean
        if self.training and (x.numel() or several_ranks()):
            others = [i for i in range(x.dim()) if i != axis]
            sums = x.to(_wide(x)).sum(others) if others else x.to(_wide(x))
            mean = self._batch_mean(sums, torch.full_like(sums, x.numel() // self.channels)).to(x.dtype)
        return x - per_channel(mean, x)

    def _compact(self, x: Tensor, kept: Tensor, rows: int) -> Tensor:
        if rows < 1 or kept.dim() != 2:
            raise ValueError(
                f"compact features need kept (S, C') and rows >= 1, got {tuple(kept.shape)} and rows = {rows}"
            )
        batches, width = kept.shape
        if x.dim() != 2 or x.shape[1] != width or batches != -(-len(x) // rows):
            raise ValueError(
                f"compact features (B, C') with kept (ceil(B / {rows}), C') expected, "
                f"got {tuple(x.shape)} and {tuple(kept.shape)}"
            )
        mean, channel = self.running_mean.to(x.dtype), kept.flatten()
        missing = batches * rows - len(x)  # rows that the last sub-batch is short of
        if self.training:
            sums = F.pad(x.to(_wide(x)), (0, 0, 0, missing)).view(batches, rows, width).sum(1).flatten()
            sizes = torch.full_like(sums, rows)
            sizes[sizes.numel() - width :] -= missing
            zero = sums.new_zeros(self.channels)
            mean = self._batch_mean(
                zero.scatter_add(0, channel, sums), zero.scatter_add(0, channel, sizes)
            ).to(x.dtype)
        # gather, not mean[channel]: the gradient of indexing adds up in the order of the threads
        shift = mean.gather(0, channel).view(batches, 1, width).expand(-1, rows, -1)
        return x - shift.reshape(-1, width)[: len(x)]

    def _batch_mean(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Return the mean per channel from sums and counts (C,) of this process, and move the running mean."""
        sums, counts = sum_over_ranks(torch.cat([sums, counts])).split(self.channels)
        mean = sums / counts.clamp(min=1.0)
        with torch.no_grad():
            running = self.running_mean
            share = torch.where(counts > 0, self.momentum, 0.0).to(running.dtype)
            running.lerp_(mean.detach().to(running.dtype), share)
        return mean

    def extra_repr(self) -> str:
        return f"{self.channels}, momentum={self.momentum:g}"


class Normalise(LipschitzLayer):
    """(x - mean) / std with a mean per channel and one std for all: constant 1 / std, in every norm.

    The first layer of an image network, so that radii are in units of raw pixels. Mean and std are rounded to
    float32, so that they are the same numbers in every dtype from there up.

    Args:
        mean: one number, or one for each channel (axis 1; the only axis of a vector).
        std: one positive number: several would give each channel a constant of its own.
    """

    norms = ALL_NORMS
    std = Fixed()

    def __init__(self, mean: float | Sequence[float] = 0.0, std: float = 1.0):
        super().__init__()
        values = torch.as_tensor(mean, dtype=torch.float32).reshape(-1)
        scale = float(torch.tensor(float(std)))
        if not values.numel() or not values.isfinite().all() or not 0.0 < scale < math.inf:
            raise ValueError(f"a finite mean and a positive, finite std are needed, got {mean} and {std}")
        self.std = scale
        self.register_buffer("mean", values, persistent=False)  # the constructor's numbers, not learned

    @property
    def lipschitz(self) -> float:
        return 1.0 if self.std == 1.0 else math.nextafter(1.0 / self.std, math.inf)

    def forward(self, x: Tensor) -> Tensor:
        return (x - per_channel(self.mean, x)) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean.tolist()}, std={self.std:g}"


class Scale(LipschitzLayer):
    """Multiply by a fixed constant: ``lipschitz`` is its absolute value, in every norm.

    As the last layer of a 1-Lipschitz network it gives the whole network the constant L.
    """

    norms = ALL_NORMS
    constant = Fixed()

    def __init__(self, constant: float):
        super().__init__()
        if not abs(constant) < float("inf"):
            raise ValueError(f"the constant must be a finite number, got {constant}")
        self.constant = float(constant)

    @property
    def lipschitz(self) -> float:
        return abs(self.constant)

    def forward(self, x: Tensor) -> Tensor:
        return self.constant * x

    def extra_repr(self) -> str:
        return f"{self.constant:g}"


def _wide(x: Tensor) -> torch.dtype:
    """The dtype to add up in: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


class ClampUnit(Constraint):
    """Parametrization of a fixed share: clamped to [0, 1]."""

    def forward(self, share: Tensor) -> Tensor:
        return share.clamp(0.0, 1.0)


class Unit(Constraint):
    """Parametrization alpha = sigmoid(free), in [0, 1]."""

    def forward(self, free: Tensor) -> Tensor:
        return free.sigmoid()

    def right_inverse(self, alpha: Tensor) -> Tensor:
        """The free number behind ``alpha``."""
        self.check_shape(alpha)
        return alpha.logit()
