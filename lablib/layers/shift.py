"""Centring and scaling."""

import torch
from torch import Tensor

from lablib.layers.base import ALL_NORMS, Constraint, Fixed, LipschitzLayer, check_channels
from lablib.ops.activations import per_channel
from lablib.ops.sorting import channel_dim


class MeanShift(LipschitzLayer):
    """Subtract the running mean per channel: no scale, no bias (SortNet paper, arXiv 2210.01787).

    In evaluation mode a translation: 1-Lipschitz in every norm. In training mode it subtracts the mean of the
    batch (the gradient flows through it), so samples of a batch depend on one another: the guarantee, per
    sample, is for evaluation mode. An empty batch leaves the running mean as it is.

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

    def forward(self, x: Tensor) -> Tensor:
        axis = channel_dim(x)
        check_channels(x, self.channels, axis, self)
        mean = self.running_mean
        if self.training and x.numel():
            others = [i for i in range(x.dim()) if i != axis]
            mean = x.mean(others) if others else x
            with torch.no_grad():
                self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), self.momentum)
        return x - per_channel(mean, x)

    def extra_repr(self) -> str:
        return f"{self.channels}, momentum={self.momentum:g}"


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
