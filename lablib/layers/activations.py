"""Activations with a proven constant. Channels are axis 1 as in batch norm (the only axis of a vector).

So an image needs its batch axis: of (C, H, W), axis 1 would be the height.
"""

import math

import torch
from torch import Tensor, nn

from lablib.layers.base import (
    ALL_NORMS,
    Constraint,
    Fixed,
    LipschitzLayer,
    check_channels,
    check_dim,
    constrain,
    exact,
)
from lablib.ops.activations import householder, leaky
from lablib.ops.sorting import channel_dim, full_sort, group_sort


class Abs(LipschitzLayer):
    """|x|, elementwise: 1-Lipschitz in every norm."""

    norms = ALL_NORMS

    @exact
    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class LeakyReLU(LipschitzLayer):
    """x where x >= 0 and slope x elsewhere, with a fixed slope in [-1, 1] (-1: absolute value, 0: ReLU)."""

    norms = ALL_NORMS
    slope = Fixed()

    def __init__(self, slope: float = 0.1):
        super().__init__()
        if not -1.0 <= slope <= 1.0:
            raise ValueError(f"a 1-Lipschitz leaky ReLU needs a slope in [-1, 1], got {slope}")
        self.slope = float(slope)

    @exact
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x < 0, self.slope * x, x)

    def extra_repr(self) -> str:
        return f"slope={self.slope:g}"


class SineSlope(Constraint):
    """Parametrization slope = sin(free): reaches both ends of [-1, 1], and never gets stuck outside."""

    def forward(self, free: Tensor) -> Tensor:
        return free.sin().clamp(-1.0, 1.0)  # the clamp only for a last-bit error of sin

    def right_inverse(self, slope: Tensor) -> Tensor:
        """Slopes outside [-1, 1] are moved to the nearest end."""
        self.check_shape(slope)
        return slope.clamp(-1.0, 1.0).asin()


class PReLU(LipschitzLayer):
    """Leaky ReLU with learned slopes in [-1, 1], one per channel or one for all: 1-Lipschitz in every norm.

    Args:
        channels: how many, or 1 for a shared slope.
        init: starting slope.
        dim: channel axis; default 1 (0 for a vector).
    """

    norms = ALL_NORMS

    def __init__(self, channels: int = 1, init: float = 0.25, dim: int | None = None):
        super().__init__()
        if channels < 1 or not -1.0 <= init <= 1.0:
            raise ValueError(f"PReLU needs channels >= 1 and a start in [-1, 1], got {channels} and {init}")
        self.channels, self.dim = channels, check_dim(dim)
        self.slope = nn.Parameter(torch.full((channels,), float(init)))
        constrain(self, "slope", SineSlope())

    @exact
    def forward(self, x: Tensor) -> Tensor:
        return leaky(x, self.slope, self.dim)

    def extra_repr(self) -> str:
        return f"{self.channels}"


class GroupSort(LipschitzLayer):
    """Sort ascending within consecutive groups of ``size`` channels (a *size*, not a number of groups)."""

    norms = ALL_NORMS

    def __init__(self, size: int, dim: int | None = None):
        super().__init__()
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"group size must be a positive integer, got {size!r}")
        self.size, self.dim = size, check_dim(dim)

    @exact
    def forward(self, x: Tensor) -> Tensor:
        return group_sort(x, self.size, self.dim)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class MaxMin(GroupSort):
    """Sort consecutive pairs of channels ascending: (min, max) of each. GroupSort of size 2."""

    norms = ALL_NORMS

    def __init__(self, dim: int | None = None):
        super().__init__(2, dim)


class FullSort(LipschitzLayer):
    """Sort all channels ascending."""

    norms = ALL_NORMS

    def __init__(self, dim: int | None = None):
        super().__init__()
        self.dim = check_dim(dim)

    @exact
    def forward(self, x: Tensor) -> Tensor:
        return full_sort(x, self.dim)


class Householder(LipschitzLayer):
    """Reflection of channel pairs across a learned line: 1-Lipschitz in l2 (elsewhere up to sqrt(2)).

    Starts as (max, min). Args: ``channels``, even; ``dim``: channel axis, default 1 (0 for a vector).
    """

    norms = ("l2",)

    def __init__(self, channels: int, dim: int | None = None):
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"Householder works on pairs of channels; got {channels}, choose an even number")
        self.channels, self.dim = channels, check_dim(dim)
        self.angle = nn.Parameter(torch.full((channels // 2,), math.pi / 2))

    @exact
    def forward(self, x: Tensor) -> Tensor:
        check_channels(x, self.channels, channel_dim(x, self.dim), self)
        return householder(x, self.angle, self.dim)

    def extra_repr(self) -> str:
        return f"{self.channels}"
