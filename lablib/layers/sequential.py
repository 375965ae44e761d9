"""Chains that know their norm and constant: LipschitzSequential, ConvexResidual, torch's own layers."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lablib.layers.base import ALL_NORMS, LipschitzLayer, constrain, exact, layer_name
from lablib.layers.intact import check_intact, is_chain, plain_class
from lablib.layers.shift import ClampUnit, Unit
from lablib.ops.norms import check_norm

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


def _flatten(layer: nn.Flatten) -> Guarantee:
    if layer.start_dim < 1:
        raise ValueError(
            f"nn.Flatten from axis {layer.start_dim} can mix the samples of a batch; use start_dim=1 or more"
        )
    return ALL_NORMS, 1.0


def _unflatten(layer: nn.Unflatten) -> Guarantee:
    if not isinstance(layer.dim, int) or layer.dim < 1:
        raise ValueError(
            f"nn.Unflatten of axis {layer.dim!r} can split the batch; count the axis from the front, 1 or more"
        )
    return ALL_NORMS, 1.0


# No nn.Softplus: beyond its threshold it returns x itself, and the jump there has no Lipschitz constant.
# Layers of torch without free parameters, with their guarantee: (norms, constant).
KNOWN: dict[type[nn.Module], Callable[[nn.Module], Guarantee]] = {
    nn.Identity: lambda m: (ALL_NORMS, 1.0),
    nn.Flatten: _flatten,
    nn.Unflatten: _unflatten,
    nn.ReLU: lambda m: (ALL_NORMS, 1.0),
    nn.ReLU6: lambda m: (ALL_NORMS, 1.0),
    nn.LeakyReLU: lambda m: (ALL_NORMS, max(abs(m.negative_slope), 1.0)),
    nn.Tanh: lambda m: (ALL_NORMS, 1.0),
    nn.Sigmoid: lambda m: (ALL_NORMS, 0.25),
    nn.Hardtanh: lambda m: (ALL_NORMS, 1.0),
    nn.AvgPool2d: _avg_pool,
    nn.MaxPool2d: _max_pool,
}


def guarantee(layer: nn.Module) -> Guarantee:
    """Return the norms and the Lipschitz constant of ``layer``.

    A subclass inherits no guarantee, since its forward may be another: it states ``norms`` (and ``lipschitz``)
    itself. In-place layers count as the same function; as in torch, they overwrite what they are given.

    Raises:
        ValueError: if nothing is known about it, or hooks, a replaced forward or a removed constraint make
            the statement void; the message says what to do.
    """
    check_intact(layer)
    norms, constant = _statement(layer)
    for norm in norms:
        check_norm(norm)
    if not norms or not 0.0 <= constant < math.inf:
        raise ValueError(
            f"{layer_name(layer)} states norms {norms} and the constant {constant}; "
            "a guarantee needs at least one norm and a finite constant"
        )
    return norms, constant


def _statement(layer: nn.Module) -> Guarantee:
    kind = plain_class(layer)
    elsewhere = getattr(layer, "stated_elsewhere", "")
    if elsewhere:
        raise ValueError(f"{layer_name(layer)} {elsewhere}")
    if isinstance(layer, LipschitzSequential):
        return layer.norms, layer.lipschitz
    if isinstance(layer, LipschitzLayer):
        if "norms" not in vars(kind):
            raise ValueError(
                f"{kind.__name__} does not state its norms; say norms = (...) and lipschitz = ... in the class, "
                "if you can prove them"
            )
        return tuple(layer.norms), float(layer.lipschitz)
    if kind in KNOWN:
        return KNOWN[kind](layer)
    raise ValueError(
        f"{kind.__name__} has no known Lipschitz constant; use a layer of lablib.layers, "
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
        self._check_chain()
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
        self._check_chain()
        return math.prod(guarantee(layer)[1] for layer in self)

    def _check_chain(self) -> None:
        check_intact(self)
        if not is_chain(self):
            raise ValueError(
                f"{layer_name(self)} has a forward of its own, so it is no chain; "
                "make it a LipschitzLayer that states norms and lipschitz"
            )


class ConvexResidual(LipschitzLayer):
    """(1 - alpha) x + alpha branch(x), 0 <= alpha <= 1: constant max(1, L) in the norms of the branch.

    Args:
        branch: a layer or chain with a guarantee whose output has the shape of its input.
        alpha: the share of the branch.
        learnable: learn alpha, kept in [0, 1] by a sigmoid (needs 0 < alpha < 1). Otherwise it is a buffer,
            clamped to [0, 1] when read.
    """

    def __init__(self, branch: nn.Module, alpha: float = 0.5, learnable: bool = False):
        super().__init__()
        if not 0.0 <= alpha <= 1.0 or (learnable and alpha in (0.0, 1.0)):
            raise ValueError(f"alpha must lie in [0, 1] (strictly inside to learn it), got {alpha}")
        guarantee(branch)
        self.branch, self.learnable = branch, learnable
        share = torch.tensor(float(alpha))
        if learnable:
            self.alpha = nn.Parameter(share)
        else:
            self.register_buffer("alpha", share)
        constrain(self, "alpha", Unit() if learnable else ClampUnit())

    @property
    def norms(self) -> tuple[str, ...]:
        return guarantee(self.branch)[0]

    @property
    def lipschitz(self) -> float:
        return max(1.0, guarantee(self.branch)[1])

    @exact
    def forward(self, x: Tensor) -> Tensor:
        return mix_branch(x, self.branch, self.alpha)


def mix_branch(x: Tensor, branch: nn.Module, share: float | Tensor) -> Tensor:
    """Return (1 - share) x + share branch(x).

    Raises:
        ValueError: if the branch changes the shape.
    """
    kept = (1.0 - share) * x  # first: a branch that works in place overwrites x
    y = branch(x)
    if y.shape != x.shape:
        raise ValueError(
            f"the branch of a residual must keep the shape, got {tuple(x.shape)} -> {tuple(y.shape)}"
        )
    return kept + share * y


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
