"""Layers that treat each sample by itself: clipping to a ball, and centring. Both are orthogonal projections.

A projection onto a convex set is 1-Lipschitz in l2 (only there, as a rule). Neither layer has weights, and neither
looks at the other samples of the batch, so both may be used in private training.
"""

import numbers

import torch
from torch import Tensor

from lablib.layers.base import Fixed, LipschitzLayer, check_dim, exact
from lablib.ops.rounding import target_below

LARGEST = 1e30


class ClipNorm(LipschitzLayer):
    """x min(1, bound / ||x||_2), the nearest point of the ball: 1-Lipschitz in l2, per sample.

    The norm is over all axes but the first (over the only one of a vector), taken in float64; the result is scaled to
    a little less, so that the stored numbers have a true norm of at most ``bound`` in their own dtype.

    In training mode a sample with NaN, or a norm beyond 1e30 times the bound, becomes zero: whatever it holds, no
    sample leaves the ball. In evaluation mode NaN stays NaN, so that no prediction hides it.

    Args:
        bound: the radius, between 1e-30 and 1e30.

    Shapes: (B, ...) to the same.

    Raises:
        ValueError: for a bound out of range.
    """

    norms = ("l2",)
    bound = Fixed()

    def __init__(self, bound: float):
        super().__init__()
        self.bound = check_bound(bound)

    @exact
    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 1:
            return clip_norm(x[None], self.bound, self.training)[0]
        return clip_norm(x, self.bound, self.training)

    def extra_repr(self) -> str:
        return f"{self.bound:g}"


class CentreSample(LipschitzLayer):
    """x - mean(x), the mean of the sample itself: an orthogonal projection, so 1-Lipschitz in l2.

    Unlike batch normalisation it does not make the samples of a batch depend on one another.

    Args:
        dim: the mean is over this axis alone, never 0; default all axes but the first.

    Shapes: (B, ...) to the same.

    Raises:
        ValueError: for ``dim=0`` (samples must not mix), or an axis the input does not have.
    """

    norms = ("l2",)
    dim = Fixed()

    def __init__(self, dim: int | None = None):
        super().__init__()
        self.dim = check_dim(dim)

    @exact
    def forward(self, x: Tensor) -> Tensor:
        # in float64: thousands of float32 roundings would be as large as small certified radii
        return x - x.mean(self.axes(x.dim()), keepdim=True, dtype=torch.float64).to(x.dtype)

    def axes(self, rank: int) -> tuple[int, ...]:
        """Return the axes of an input of ``rank`` axes that the mean is over: the only one of a vector.

        Raises:
            ValueError: where there are none, or ``dim`` is the batch axis or not an axis at all.
        """
        if rank == 1 and self.dim in (None, 1, -1):
            return (0,)
        if rank and self.dim is None:
            return tuple(range(1, rank))
        if self.dim is None or not -rank < self.dim < rank:
            raise ValueError(f"dim={self.dim} is the batch, or no axis, of an input with {rank} axes")
        return (self.dim % rank,)

    def extra_repr(self) -> str:
        return "" if self.dim is None else f"dim={self.dim}"


def check_bound(bound: float) -> float:
    """Return ``bound`` as a float.

    Raises:
        ValueError: unless it is a number between 1e-30 and 1e30.
    """
    if isinstance(bound, bool) or not isinstance(bound, numbers.Real) or not 1 / LARGEST <= bound <= LARGEST:
        raise ValueError(f"a bound is a number between 1e-30 and 1e30, got {bound!r}")
    return float(bound)


def clip_norm(x: Tensor, bound: float, total: bool = True) -> Tensor:
    """Return each sample of ``x`` (B, ...) scaled to an l2 norm of at most ``bound``.

    Args:
        total: samples with NaN, or a norm beyond 1e30 times the bound, become zeros, so that the true norm of the
            result is at most ``bound`` whatever ``x`` holds. Otherwise NaN and infinity come out as NaN.
    """
    flat = x.flatten(1)
    size = torch.linalg.vector_norm(flat, dim=1, keepdim=True, dtype=torch.float64)
    limit = target_below(bound, flat.shape[1], x.dtype)
    if total:
        kept = size <= LARGEST * bound  # not of NaN
        size = torch.where(kept, size, torch.inf)
        flat = flat.nan_to_num(0.0, 0.0, 0.0)
    # two roundings, of the scale (1 within the ball) and of the product: `limit` has room for them
    scale = limit / size.clamp(min=max(limit, 1e-300))  # limit is 0 where the format has nothing in the ball
    return (flat * scale.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype).reshape(x.shape)
