"""Clipping cotangents on their way back: the generalisation of clipping the gradient of the loss."""

import torch
from torch import Tensor, nn

from lablib.layers.base import Fixed
from lablib.layers.per_sample import check_bound, clip_norm


class ClipCotangent(nn.Module):
    """The identity; on the way back each sample's cotangent is scaled to an l2 norm of at most ``bound``.

        g -> g min(1, bound / ||g||_2)

    All sensitivities of the layers below it are then at most ``bound`` times what these layers add, whatever comes
    from above: clipping the gradient of the loss by the logits is the same at the output. Per sample, so it needs
    no per-sample gradients; but gradients are no longer those of the loss where it clips. A cotangent with NaN or
    infinity becomes zero.

    Args:
        bound: in the units of one sample's loss. A loss that is divided by a constant before it is differentiated
            divides the cotangents too: multiply them back above this layer, as the engine does, or the bound is
            never reached and no sensitivity below it is right.

    Raises:
        ValueError: for a bound that is not between 1e-30 and 1e30.
    """

    bound = Fixed()

    def __init__(self, bound: float):
        super().__init__()
        self.bound = check_bound(bound)

    def forward(self, x: Tensor) -> Tensor:
        return _Clip.apply(x, self.bound)

    def extra_repr(self) -> str:
        return f"{self.bound:g}"


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, bound: float) -> Tensor:
        ctx.bound = bound
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return clip_norm(gradient, ctx.bound), None
