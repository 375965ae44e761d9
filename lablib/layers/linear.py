"""Norm-bounded linear layers. x (..., I) -> (..., O); the norm is the one in the name."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lablib.layers.base import Constraint, Fixed, LipschitzLayer, check_channels, constrain, exact
from lablib.ops.orthonormal import (
    complete_basis,
    orthonormal_matrix,
    random_orthonormal,
    scale_matrix_spectral,
)
from lablib.ops.projections import project_rows_l1, scale_groups


class ScaleGroups(Constraint):
    """Parametrization W / max(1, sum |W|) over ``dim``: see :func:`lablib.ops.projections.scale_groups`."""

    def __init__(self, dim: int | tuple[int, ...]):
        super().__init__()
        self.dim = dim

    def forward(self, weight: Tensor) -> Tensor:
        return scale_groups(weight, self.dim)


class ProjectRows(Constraint):
    """Parametrization: Euclidean projection of each row onto the l1 ball (sparse rows)."""

    def forward(self, weight: Tensor) -> Tensor:
        return project_rows_l1(weight)


class ScaleSpectral(Constraint):
    """Parametrization W / max(1, ||W||_2), the norm computed anew each time: no stale power iteration."""

    def forward(self, weight: Tensor) -> Tensor:
        return scale_matrix_spectral(weight)


class OrthonormalMatrix(Constraint):
    """Parametrization base Q, Q from free parameters: see :func:`lablib.ops.orthonormal.orthonormal_matrix`.

    Starts at any orthonormal matrix, kept in the buffer ``base``; free parameters are offsets from it.
    """

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("base", torch.eye(max(weight.shape)).to(weight))

    def forward(self, free: Tensor) -> Tensor:
        return orthonormal_matrix(free, self.base)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Start anew at ``weight``, made orthonormal by Gram-Schmidt where it is not."""
        self.check_shape(weight)
        self.base = complete_basis(weight)
        return torch.zeros_like(weight)


class _Linear(LipschitzLayer):
    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, device=None, dtype=None):
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ValueError(
                f"a linear layer needs at least one input and output, got {in_features}, {out_features}"
            )
        self.in_features, self.out_features = in_features, out_features
        start = nn.Linear(in_features, out_features, bias, device=device, dtype=dtype)
        self.weight, self.bias = start.weight, start.bias

    @exact
    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> x W^T + b (..., O)."""
        check_channels(x, self.in_features, -1, self)
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class LInfLinear(_Linear):
    """Rows of l1 norm at most 1: 1-Lipschitz in linf, exactly for the stored weights.

    Args:
        constraint: ``"scale"``, w / max(1, ||w||_1), or ``"project"``, onto the l1 ball (sparse rows).
    """

    norms = ("linf",)
    constraint = Fixed()

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, constraint: str = "scale", **kwargs
    ):
        super().__init__(in_features, out_features, bias, **kwargs)
        if constraint not in ("scale", "project"):
            raise ValueError(f"constraint is 'scale' or 'project', got {constraint!r}")
        self.constraint = constraint
        constrain(self, "weight", ScaleGroups(1) if constraint == "scale" else ProjectRows())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, constraint={self.constraint!r}"


class L1Linear(_Linear):
    """Columns of l1 norm at most 1: 1-Lipschitz in l1, exactly for the stored weights."""

    norms = ("l1",)

    def __init__(self, in_features: int, out_features: int, bias: bool = True, **kwargs):
        super().__init__(in_features, out_features, bias, **kwargs)
        constrain(self, "weight", ScaleGroups(0))


class SpectralLinear(_Linear):
    """Largest singular value at most 1: 1-Lipschitz in l2. W / max(1, proven ||W||_2).

    Costs an eigenvalue problem of the shorter side per forward; wrap steps that read the weight more than
    once in ``torch.nn.utils.parametrize.cached()``.
    """

    norms = ("l2",)

    def __init__(self, in_features: int, out_features: int, bias: bool = True, **kwargs):
        super().__init__(in_features, out_features, bias, **kwargs)
        self.weight = nn.Parameter(random_orthonormal(self.weight))
        constrain(self, "weight", ScaleSpectral())


class OrthonormalLinear(_Linear):
    """Orthonormal rows (O <= I) or columns (O >= I): 1-Lipschitz in l2, and norm-preserving on that side.

    By the Cayley map, then scaled by 1 - O(1e-6) so that rounding does not lift the norm above 1. Singular
    values in float32: 1 - 1e-3 .. 1, also after large steps. In half precision they end lower, by about
    eps sqrt(O I), since that much is lost when weights are rounded.
    """

    norms = ("l2",)

    def __init__(self, in_features: int, out_features: int, bias: bool = True, **kwargs):
        super().__init__(in_features, out_features, bias, **kwargs)
        self.weight = nn.Parameter(random_orthonormal(self.weight))
        # Not torch's own for O != I (Householder): that one keeps signs as integers of a diagonal that weight
        # decay moves off +-1, and then columns vanish or double.
        constrain(self, "weight", OrthonormalMatrix(self.weight.detach()))
