"""Activations that are neither elementwise in torch already nor a sort."""

import torch
from torch import Tensor

from lablib.ops.sorting import channel_dim


def householder(x: Tensor, angle: Tensor, dim: int | None = None) -> Tensor:
    r"""Reflect each consecutive pair of channels (a, b) on the negative side of a line, keep the others.

        (a, b)                                      if a sin(t/2) - b cos(t/2) > 0
        (a cos t + b sin t, a sin t - b cos t)      else

    On the line both are equal, so the map is continuous, and each piece is orthogonal: 1-Lipschitz in l2.
    *Only* there: in l1 and linf a reflection has norm |cos t| + |sin t|, up to sqrt(2). t = pi/2 is (max,
    min).
    Source: Singla, Singla, Feizi, "Improved deterministic l2 robustness on CIFAR-10 and CIFAR-100" (arXiv
    2108.04062), section 4.

    Args:
        x: channels on axis ``dim``, an even number.
        angle: (C / 2,), radians, one t per pair.

    Raises:
        ValueError: for an odd number of channels or another number of angles.
    """
    axis = channel_dim(x, dim)
    channels = x.shape[axis]
    if channels % 2 or angle.shape != (channels // 2,):
        raise ValueError(
            f"{channels} channels (axis {axis} of shape {tuple(x.shape)}) need {channels / 2:g} angles, "
            f"one per pair, got shape {tuple(angle.shape)}"
        )
    pairs = x.unflatten(axis, (channels // 2, 2))
    a, b = pairs.unbind(axis + 1)
    t = angle.reshape(-1, *[1] * (x.dim() - 1 - axis))
    keep = a * (t / 2).sin() - b * (t / 2).cos() > 0
    cos, sin = t.cos(), t.sin()
    reflected = torch.stack([a * cos + b * sin, a * sin - b * cos], axis + 1)
    return torch.where(keep.unsqueeze(axis + 1), pairs, reflected).flatten(axis, axis + 1)


def per_channel(values: Tensor, x: Tensor, dim: int | None = None) -> Tensor:
    """Reshape ``values`` (C,) or (1,) so that it broadcasts against the channel axis of ``x``.

    Raises:
        ValueError: if ``x`` does not have C channels there: never a silent broadcast.
    """
    axis = channel_dim(x, dim)
    if values.numel() != 1 and values.shape[0] != x.shape[axis]:
        raise ValueError(
            f"expected {values.shape[0]} channels on axis {axis}, got a tensor of shape {tuple(x.shape)}"
        )
    return values.reshape(-1, *[1] * (x.dim() - 1 - axis))


def leaky(x: Tensor, slope: Tensor, dim: int | None = None) -> Tensor:
    """Return x where x >= 0 and slope x elsewhere; ``slope`` (1,) or (C,), one per channel, of any size."""
    return torch.where(x < 0, x * per_channel(slope, x, dim), x)
