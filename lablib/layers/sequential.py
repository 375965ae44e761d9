"""Chains that know their norm and constant: LipschitzSequential, ConvexResidual, torch's own layers."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lablib.layers.base import ALL_NORMS, LipschitzLayer, constrain, exact, layer_name
from lablib.layers.shift import Unit

Guarantee = tuple[tuple[str, ...], float]


def _avg_pool(pool: nn.AvgPool2d) -> Guarantee:
    # An input lies in at most prod ceil(k / s) windows, each with weight 1 / k^2: column sums <= 1, row sums
    # <= 1. The options below change the weights at the border, where columns may then exceed 1.
    plain = pool.count_include_pad and not pool.ceil_mode and pool.divisor_override is None
    if pool.divisor_override is not None:
        raise ValueError("AvgPool2d with divisor_override has no guarantee here; leave it None")
    return (ALL_NORMS if plain else ("linf",)), 1.0


def _max_pool(pool: nn.MaxPool2d) -> Guarantee:
    kernel, stride = _pair(pool.kernel_size), _pair(pool.stride)
    apart = all(k <= s for k, s in zip(kernel, stride)) and _pair(pool.dilation) == (1, 1)
    return (ALL_NORMS if apart else ("linf",)), 1.0


# Layers of torch without free parameters, with their guarantee: (norms, constant).
KNOWN: dict[type[nn.Module], Callable[[nn.Module], Guarantee]] = {
    nn.Identity: lambda m: (ALL_NORMS, 1.0),
    nn.Flatten: lambda m: (ALL_NORMS, 1.0),
    nn.Unflatten: lambda m: (ALL_NORMS, 1.0),
    nn.ReLU: lambda m: (ALL_NORMS, 1.0),
    nn.LeakyReLU: lambda m: (ALL_NORMS, max(1.0, abs(m.negative_slope))),
    nn.Tanh: lambda m: (ALL_NORMS, 1.0),
    nn.Sigmoid: lambda m: (ALL_NORMS, 0.25),
    nn.Softplus: lambda m: (ALL_NORMS, 1.0),
    nn.Hardtanh: lambda m: (ALL_NORMS, 1.0),
    nn.AvgPool2d: _avg_pool,
    nn.MaxPool2d: _max_pool,
}


def guarantee(layer: nn.Module) -> Guarantee:
    """Return the norms and the Lipschitz constant of ``layer``.

    Raises:
        ValueError: if nothing is known about it; the message says what to use.
    """
    if isinstance(layer, LipschitzLayer | LipschitzSequential):
        return tuple(layer.norms), float(layer.lipschitz)
    if type(layer) in KNOWN:
        return KNOWN[type(layer)](layer)
    raise ValueError(
        f"{type(layer).__name__} has no known Lipschitz constant; use a layer of lablib.layers, "
        f"or one of torch's {', '.join(sorted(kind.__name__ for kind in KNOWN))}"
    )


class LipschitzSequential(nn.Sequential):
    """Layers one after the other, with a norm in common and the product of their constants.

    ``norms`` and ``lipschitz`` are read from the layers each time, so replacing one is seen.

    Raises:
        ValueError: at construction (and when read after a change), if a layer is unknown or two layers have
        no norm
            in common; the message names both.
    """

    def __init__(self, *layers: nn.Module):
        super().__init__(*layers)
        self._common_norms()  # refuses a bad chain now, not at the first certificate

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms that all layers share."""
        return self._common_norms()

    def _common_norms(self) -> tuple[str, ...]:
        common, narrowed_by = ALL_NORMS, None
        for name, layer in self.named_children():
            norms = guarantee(layer)[0]
            kept = tuple(norm for norm in common if norm in norms)
            label = f"layer {name} ({layer_name(layer)}: {', '.join(norms)})"
            if not kept:
                raise ValueError(
                    f"{narrowed_by} and {label} have no norm in common; use layers of one norm throughout"
                )
            if kept != common:
                common, narrowed_by = kept, label
        return common

    @property
    def lipschitz(self) -> float:
        """The product of the layers' constants."""
        return math.prod(guarantee(layer)[1] for layer in self)


class ConvexResidual(LipschitzLayer):
    """(1 - alpha) x + alpha branch(x), 0 <= alpha <= 1: constant max(1, L) in the norms of the branch.

    Args:
        branch: a layer or chain with a guarantee whose output has the shape of its input.
        alpha: the share of the branch.
        learnable: learn alpha, kept in [0, 1] by a sigmoid (needs 0 < alpha < 1).
    """

    def __init__(self, branch: nn.Module, alpha: float = 0.5, learnable: bool = False):
        super().__init__()
        if not 0.0 <= alpha <= 1.0 or (learnable and alpha in (0.0, 1.0)):
            raise ValueError(f"alpha must lie in [0, 1] (strictly inside to learn it), got {alpha}")
        guarantee(branch)
        self.branch, self.learnable = branch, learnable
        self.register_parameter("alpha", nn.Parameter(torch.tensor(float(alpha)), requires_grad=learnable))
        if learnable:
            constrain(self, "alpha", Unit())

    @property
    def norms(self) -> tuple[str, ...]:
        return guarantee(self.branch)[0]

    @property
    def lipschitz(self) -> float:
        return max(1.0, guarantee(self.branch)[1])

    @exact
    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if y.shape != x.shape:
            raise ValueError(
                f"the branch of a residual must keep the shape, got {tuple(x.shape)} -> {tuple(y.shape)}"
            )
        return (1.0 - self.alpha) * x + self.alpha * y


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
