"""The rules of layers that look at a sample as a whole: centring, and clipping to a ball."""

import math

import torch
from torch import Tensor

from lablib.certify.arithmetic import arithmetic
from lablib.certify.rule import Rule
from lablib.layers.per_sample import LARGEST


class Centre(Rule):
    """x_i - mean: (1 - 1/n) x_i - sum of the others / n. The mean errs by n roundings in float64 of mean |x|."""

    def box(self, layer, lower, upper):
        low, high = lower.double(), upper.double()
        return self.apply(layer, low, high), self.apply(layer, high, low)

    def spread(self, layer, error):
        return self.apply(layer, error, -error)

    def local(self, layer, inputs, outputs, form):
        terms = self.terms(layer, inputs)
        reach = self.apply(layer, inputs, -inputs) + inputs
        share = form.relative(4) + arithmetic(torch.float64).relative(terms + 4)
        return share * reach + 2 * terms * form.tiny

    def apply(self, layer, own: Tensor, others: Tensor) -> Tensor:
        """(1 - 1/n) own_i - sum over j != i of others_j / n."""
        total = others.sum(layer.axes(own.dim()), keepdim=True)
        return own - (total - others + own) / self.terms(layer, own)

    def terms(self, layer, x: Tensor) -> int:
        return math.prod(x.shape[axis] for axis in layer.axes(x.dim()))


class Clip(Rule):
    """c x with c = min(1, bound / ||x||), between its values at the largest and the least norm in a box.

    Rounding. c is made smaller by 2 u, rounded once, and multiplies with one rounding; the norm of n features is
    computed in float64.
    """

    def box(self, layer, lower, upper):
        low, high = lower.double(), upper.double()
        inside = (low < 0) & (high > 0)
        nearest = torch.where(inside, 0.0, torch.minimum(low.abs(), high.abs()))
        least = self.scale(layer, torch.maximum(low.abs(), high.abs()))
        most = self.scale(layer, nearest)
        return torch.minimum(low * least, low * most), torch.maximum(high * least, high * most)

    def spread(self, layer, error):
        size = (1.0 + 1e-12) * _norms(error)  # 1-Lipschitz in l2
        return size.expand_as(error)

    def local(self, layer, inputs, outputs, form):
        share = form.relative(10) + (inputs[0].numel() + 16) * 2.0**-52
        local = share * outputs + 8 * form.tiny * (1.0 + inputs)
        return torch.where(_norms(inputs) < 1e-3 * LARGEST * layer.bound, local, math.inf)

    def scale(self, layer, x: Tensor) -> Tensor:
        return layer.bound / _norms(x).clamp(min=layer.bound)


def _norms(x: Tensor) -> Tensor:
    """The l2 norm of each sample (B, 1, ...), for an ``x`` (B, ...)."""
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.dim() - 1))
