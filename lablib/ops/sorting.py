"""Sorting activations: permutations of each input, so 1-Lipschitz from l_p to l_p for every p."""

import torch
from torch import Tensor


def channel_dim(x: Tensor, dim: int | None = None) -> int:
    """Return the channel axis as a number >= 0: ``dim`` if given, else 1 as in batch norm (0 for a vector).

    Raises:
        ValueError: for a scalar, a ``dim`` that ``x`` does not have, or one that is the batch axis.
    """
    if x.dim() == 0:
        raise ValueError("a scalar has no channel axis; give a tensor (C,), (B, C) or (B, C, ...)")
    if dim is None:
        return min(1, x.dim() - 1)
    if not -x.dim() <= dim < x.dim():
        raise ValueError(f"dim={dim} is not an axis of a tensor of shape {tuple(x.shape)}")
    if dim % x.dim() == 0 and x.dim() > 1:
        raise ValueError(
            f"dim={dim} is the batch axis of shape {tuple(x.shape)}; channels are on another axis"
        )
    return dim % x.dim()


def group_sort(x: Tensor, size: int, dim: int | None = None) -> Tensor:
    """Sort ``x`` ascending within consecutive groups of ``size`` channels; same shape.

    Source: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation" (ICML 2019), section 4. The
    gradient is the permutation; tied entries keep their order.

    Raises:
        ValueError: if ``size`` is not a positive divisor of the number of channels.
    """
    axis = channel_dim(x, dim)
    channels = x.shape[axis]
    if size < 1 or channels % size:
        raise ValueError(
            f"group size {size} does not divide the {channels} channels of shape {tuple(x.shape)} "
            f"(axis {axis}); choose a size that does"
        )
    if size == 1:
        return x
    groups = x.unflatten(axis, (channels // size, size))
    if size == 2:
        # A gather from the two places is over twice as fast as a sort, or as min and max with their gradients.
        first, second = groups.detach().unbind(axis + 1)
        swap = (first > second).long()
        return groups.gather(axis + 1, torch.stack([swap, 1 - swap], axis + 1)).flatten(axis, axis + 1)
    return groups.sort(dim=axis + 1, stable=True).values.flatten(axis, axis + 1)


def max_min(x: Tensor, dim: int | None = None) -> Tensor:
    """Sort consecutive pairs of channels ascending: :func:`group_sort` with size 2."""
    return group_sort(x, 2, dim)


def full_sort(x: Tensor, dim: int | None = None) -> Tensor:
    """Sort all channels ascending: one group."""
    return x.sort(dim=channel_dim(x, dim), stable=True).values
