"""Sums over the processes of a distributed run, with their gradient."""

import torch
from torch import Tensor


def several_ranks() -> bool:
    """Return whether this process trains together with others (``torch.distributed`` is set up)."""
    group = torch.distributed
    return group.is_available() and group.is_initialized() and group.get_world_size() > 1


def sum_over_ranks(x: Tensor) -> Tensor:
    """Return the sum of ``x`` over all processes; ``x`` itself where there is only one.

    The gradient is summed likewise: it is that of the sum of the losses of all processes.
    """
    return _Sum.apply(x) if several_ranks() else x


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        total = grad.clone()
        torch.distributed.all_reduce(total)
        return total
