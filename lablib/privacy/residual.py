"""A residual block for private training: its branch may hold plain trained layers."""

import numbers

from torch import Tensor, nn

from lablib.layers.base import Fixed
from lablib.layers.sequential import mix_branch


class Residual(nn.Module):
    """(1 - share) x + share branch(x): 1-Lipschitz in l2 as soon as the branch is.

    Unlike :class:`~lablib.layers.ConvexResidual` it asks no guarantee of the branch, whose weights are projected
    after each step instead of being reparametrised; :func:`~lablib.privacy.sensitivity` knows both.

    Args:
        branch: keeps the shape of its input.
        share: fixed, in [0, 1].

    Raises:
        ValueError: for a share outside [0, 1], or a branch that changes the shape.
    """

    share = Fixed()

    def __init__(self, branch: nn.Module, share: float = 0.5):
        super().__init__()
        if isinstance(share, bool) or not isinstance(share, numbers.Real) or not 0.0 <= share <= 1.0:
            raise ValueError(f"the share of the branch must lie in [0, 1], got {share!r}")
        self.branch, self.share = branch, float(share)

    def forward(self, x: Tensor) -> Tensor:
        return mix_branch(x, self.branch, self.share)

    def extra_repr(self) -> str:
        return f"share={self.share:g}"
