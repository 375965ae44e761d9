"""A monotone network whose weights stand still: the same numbers in plain layers, for use and for export."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lablib.layers.base import check_channels
from lablib.layers.monotone_checks import check_dtype


class FrozenMonotone(nn.Module):
    """head(network(x) + skip(x)), weights as they were: no constraint is computed when it is called.

    What :meth:`lablib.layers.MonotoneNetwork.frozen` returns. Its slopes are those of the network it was made from,
    as long as nobody changes the weights; nothing keeps them in place.

    Attributes:
        network: torch's linear layers and :class:`~lablib.layers.GroupSort`.
        skip: ``nn.Linear`` without bias, the residual with its signs.
    """

    def __init__(self, network: nn.Sequential, residual: Tensor, head: Callable[[Tensor], Tensor]):
        super().__init__()
        self.network = nn.Sequential(*(_plain(part) for part in network))  # nothing shared with ``network``
        self.skip = _linear(residual, None)
        self.head = head
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (..., O)."""
        check_channels(x, self.skip.in_features, -1, self)
        check_dtype(x, self.skip.weight.dtype, self)
        return self.head(self.network(x) + self.skip(x))


def _plain(part: nn.Module) -> nn.Module:
    return _linear(part.weight, part.bias) if hasattr(part, "weight") else copy.copy(part)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(
        weight.shape[1], weight.shape[0], bias is not None, dtype=weight.dtype, device=weight.device
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
