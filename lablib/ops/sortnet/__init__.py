"""The SortNet neuron y_k = w_k . sort_desc(|x + b_k|): the one place that chooses how it is computed.

Source: SortNet paper (arXiv 2210.01787), section 4. GroupSort, l_inf-distance (w = (1, 0, ..., 0)) and
norm-bounded affine layers are special cases.
"""

import torch
from torch import Tensor

from lablib.ops.projections import scale_groups
from lablib.ops.sortnet import reference

__all__ = ["geometric_weights", "sortnet"]


def sortnet(x: Tensor, center: Tensor, weight: Tensor) -> Tensor:
    """Return w_k . (the K largest of |x + b_k|, descending), (..., O): ||w_k||_1-Lipschitz in linf.

    Ties keep ``torch.topk``'s choice; any choice is a valid generalised gradient. NaN in a row of ``x`` makes
    its outputs NaN (where w is not zero).

    Args:
        x: (..., I).
        center: (O, I), b.
        weight: (K,) shared by all outputs or (O, K), 1 <= K <= I.

    Raises:
        ValueError: for shapes that do not match.
    """
    shapes = f"got x {tuple(x.shape)}, center {tuple(center.shape)}, weight {tuple(weight.shape)}"
    if center.dim() != 2 or x.dim() < 1 or x.shape[-1] != center.shape[1]:
        raise ValueError(f"x (..., I) and center (O, I) expected, {shapes}")
    if weight.dim() not in (1, 2) or not 1 <= weight.shape[-1] <= center.shape[1]:
        raise ValueError(f"weight (K,) or (O, K) with 1 <= K <= I expected, {shapes}")
    if weight.dim() == 2 and weight.shape[0] != center.shape[0]:
        raise ValueError(f"weight (O, K) needs one row per output, {shapes}")
    rows = reference.sortnet(x.reshape(-1, x.shape[-1]), center, weight.expand(center.shape[0], -1))
    return rows.reshape(*x.shape[:-1], center.shape[0])


def geometric_weights(keep: float, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return q (1 - q)^(i-1) / (1 - (1 - q)^K) for i = 1..K, shape (K,), with a true sum of at most 1.

    ``keep`` is q in (0, 1], ``count`` is K. Source: SortNet paper, section 4.2 (the dropout identity).

    Raises:
        ValueError: for q or K outside their range.
    """
    if not 0.0 < keep <= 1.0:
        raise ValueError(f"keep probability must lie in (0, 1], got {keep}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    series = keep * (1.0 - keep) ** torch.arange(count, dtype=torch.float64)
    if keep == 1.0:
        return series.to(dtype)  # exactly (1, 0, ..., 0): the l_inf distance
    return scale_groups((series / series.sum()).to(dtype), 0)
