"""Slopes of all units together: the intervals of :mod:`lablib.ops.slopes`, cut by norms of slope vectors.

Of the slopes v_i = (dz_u / dx_i)_u in one input, an interval per unit forgets that the units share a budget:
behind a matrix with columns of l1 norm 1 each unit may have slope 1, but not all at once. So ||v_i||_1 and
||v_i||_2 are followed as well (of increments: ||z(x + t e_i) - z(x)|| <= norm t):

- linear: ||W v|| <= ||W|| ||v||; and unit o alone has |w_o . v| <= max_u |w_ou| ||v||_1 and <= ||w_o||_2 ||v||_2;
- a sort of groups moves no two vectors apart, in any norm; elementwise the largest |slope| multiplies.

Both are proven and the tighter is taken after each layer, so the result is never worse than the product of the
layers' norms, l1 -> l1 or l2 -> l2 (linf -> linf and l1 -> linf are in the intervals).
"""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from lablib.ops.norms import bound_matrix_norm
from lablib.ops.rounding import sum_allowance
from lablib.ops.slopes import (
    add_slopes,
    intersect_slopes,
    through_elementwise,
    through_group_sort,
    through_linear,
)

_ROUND = 1.0 + 2.0**-50  # one product or sum of numbers >= 0
_UNDERFLOW = 1e-150  # squares below its square underflow


@dataclasses.dataclass(frozen=True)
class SlopeState:
    """Slopes of U units in I inputs, proven, float64, differentiable.

    Attributes:
        low, high: (..., U, I), of each unit in each input.
        norms: of "l1" and "l2" those that are followed: (..., I), bounds of the norms over the units.
    """

    low: Tensor
    high: Tensor
    norms: dict[str, Tensor]

    @classmethod
    def of_inputs(
        cls, inputs: int, norms: Iterable[str] = ("l1", "l2"), device: torch.device | None = None
    ) -> "SlopeState":
        """Return the slopes of the inputs in themselves: the identity. Without ``norms``: intervals only."""
        eye = torch.eye(inputs, dtype=torch.float64, device=device)
        return cls(eye, eye, {norm: torch.ones_like(eye[0]) for norm in norms})

    def linear(self, weight: Tensor) -> "SlopeState":
        """Behind z -> W z + b, ``weight`` (O, U). Entries may be off by a relative 4 * 2^-52."""
        low, high = through_linear(self.low, self.high, weight)
        norms = {}
        for norm, size in self.norms.items():
            alone = _dual_of_rows(weight, norm)[:, None] * size[..., None, :]
            low, high = intersect_slopes(low, high, alone * _ROUND)
            norms[norm] = bound_matrix_norm(weight, norm) * size * _ROUND
        return tightened(low, high, norms)

    def group_sort(self, size: int) -> "SlopeState":
        """Behind a sort of consecutive groups of ``size`` units."""
        low, high = through_group_sort(self.low, self.high, size)
        return tightened(low, high, self.norms)

    def elementwise(self, slope_low: Tensor | float, slope_high: Tensor | float) -> "SlopeState":
        """Behind activations with slopes in [slope_low, slope_high], numbers or (..., U)."""
        low, high = through_elementwise(self.low, self.high, slope_low, slope_high)
        first, second = (torch.as_tensor(v, dtype=torch.float64).abs() for v in (slope_low, slope_high))
        largest = torch.maximum(first, second).to(low.device)
        largest = largest.amax(-1, keepdim=True) if largest.dim() else largest
        return tightened(low, high, {n: largest * size * _ROUND for n, size in self.norms.items()})

    def plus(self, other: "SlopeState") -> "SlopeState":
        """Of the sum of two functions of the same inputs."""
        low, high = add_slopes(self.low, self.high, other.low, other.high)
        both = self.norms.keys() & other.norms.keys()
        return tightened(low, high, {n: (self.norms[n] + other.norms[n]) * _ROUND for n in sorted(both)})

    def beside(self, other: "SlopeState") -> "SlopeState":
        """Of the units of both, one after the other."""
        low, high = (
            torch.cat(_same_samples(*ends), -2) for ends in ((self.low, other.low), (self.high, other.high))
        )
        both = self.norms.keys() & other.norms.keys()
        return tightened(low, high, {n: (self.norms[n] + other.norms[n]) * _ROUND for n in sorted(both)})

    def of_samples(self, rows: Tensor) -> "SlopeState":
        """Of the samples ``rows`` (B,) of a batch; slopes that all samples share stay as they are."""
        if self.low.dim() == 2 or len(self.low) == 1:
            return self
        norms = {
            n: size if size.dim() == 1 or len(size) == 1 else size[rows] for n, size in self.norms.items()
        }
        return SlopeState(self.low[rows], self.high[rows], norms)


def tightened(low: Tensor, high: Tensor, norms: dict[str, Tensor]) -> SlopeState:
    """Return the state in which no slope exceeds a norm of all, and no norm that of the largest slopes.

    Shapes as in :class:`SlopeState`; a norm may be infinite where nothing is known of it.
    """
    for size in norms.values():
        low, high = intersect_slopes(low, high, size[..., None, :])
    largest = torch.maximum(-low, high)
    return SlopeState(
        low, high, {norm: torch.minimum(size, _over_units(largest, norm)) for norm, size in norms.items()}
    )


def _same_samples(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])


def _over_units(sizes: Tensor, norm: str) -> Tensor:
    allowance = sum_allowance(sizes.shape[-2])
    if norm == "l1":
        return sizes.sum(-2) * allowance
    return (sizes.square().sum(-2) + _UNDERFLOW**2).sqrt() * allowance + sizes.shape[-2] * _UNDERFLOW


def _dual_of_rows(weight: Tensor, norm: str) -> Tensor:
    """Return bounds (O,) of the norm dual to ``norm`` of each row."""
    rows = weight.double().abs()
    if norm == "l1":
        return rows.amax(1) * (1.0 + 2.0**-49)  # for entries that are slightly off
    return _over_units(rows.mT, "l2") * (1.0 + 2.0**-49)
