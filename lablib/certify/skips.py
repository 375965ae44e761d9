"""Monotone networks as chains that bounds know: x -> inner(x) + R x, then the head."""

import torch
from torch import Tensor, nn

from lablib.layers.frozen import FrozenMonotone
from lablib.layers.intact import plain_class
from lablib.layers.monotone import HEADS, MonotoneNetwork
from lablib.layers.monotonic_wrapper import MonotonicWrapper

MONOTONE = {FrozenMonotone, MonotoneNetwork, MonotonicWrapper}


class StableSoftplus(nn.Module):
    """log(1 + exp x), elementwise, without torch's threshold."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.logaddexp(x, torch.zeros_like(x))


_HEADS = {None: (), "sigmoid": (nn.Sigmoid,), "softplus": (StableSoftplus,)}


class Skip(nn.Module):
    """x (..., I) -> inner(x) + R x (..., O), written as one linear layer of [inner(x), x] with weights [1, R].

    Its order of summation is one of those that the bounds for a linear layer cover; zeros and ones do not round.

    Args:
        inner: a chain of known layers, (..., I) -> (..., O).
        added: R (O, I).
    """

    def __init__(self, inner: nn.Sequential, added: Tensor):
        super().__init__()
        outputs, inputs = added.shape
        self.inner, self.in_features = inner, inputs
        self.join = nn.utils.skip_init(
            nn.Linear, outputs + inputs, outputs, bias=False, device=added.device, dtype=added.dtype
        )
        with torch.no_grad():
            self.join.weight.copy_(torch.cat([torch.eye(outputs).to(added), added], 1))
        self.join.eval()
        self.training = False

    @property
    def added(self) -> Tensor:
        """R (O, I)."""
        return self.join.weight[:, -self.in_features :]

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([self.inner(x), x], -1))


def as_chain(module: nn.Module, inner: list[nn.Module]) -> list[nn.Module]:
    """Return a monotone ``module`` as layers, with the residual it adds now.

    Args:
        module: of a class in :data:`MONOTONE`.
        inner: the known layers of its network.
    """
    with torch.no_grad():
        added, head = added_and_head(module)
        chain = nn.Sequential(*inner).eval()
        if plain_class(module) is MonotonicWrapper:  # one row may stand for all outputs
            outputs = chain(torch.zeros_like(added[:1])).shape[-1]
            added = added.expand(outputs, -1)
    return [Skip(chain, added), *(layer().eval() for layer in _HEADS[head])]


def added_and_head(module: nn.Module) -> tuple[Tensor, str | None]:
    """Return what a ``module`` of a class in :data:`MONOTONE` adds now, signs included, and the name of its head.

    Raises:
        ValueError: for a frozen network that was changed.
    """
    if plain_class(module) is not FrozenMonotone:
        return module.directions * module.residual(), module.head
    names = [name for name, head in HEADS.items() if head is module.head]
    if not names or plain_class(module.skip) is not nn.Linear or module.skip.bias is not None:
        raise ValueError(
            "the head of this frozen network, or its skip, is not one of ours; freeze a MonotoneNetwork"
        )
    return module.skip.weight, names[0]
