"""The last linear layer of a chain: differences of two logits as one function, f_y - f_j = (w_y - w_j) z + ..."""

import dataclasses

import torch
from torch import Tensor, nn

from lablib.certify.arithmetic import Arithmetic, arithmetic, check_size
from lablib.certify.rules import LINEAR, RULES, Box
from lablib.layers.intact import plain_class
from lablib.layers.shift import Scale
from lablib.ops.rounding import EPS64


@dataclasses.dataclass(frozen=True)
class Final:
    """A linear layer and the fixed scale behind it: z (B, F) -> factor (W z + b) (B, C).

    Attributes:
        layer: the linear layer.
        factor: of the :class:`~lablib.layers.Scale` behind it, 1 without one.
        form: the arithmetic in which both are computed.
    """

    layer: nn.Module
    factor: float
    form: Arithmetic

    def bound_margins(self, box: Box, labels: Tensor) -> Tensor:
        """Return lower bounds of f_y - f_j (B, C), exact and computed, over the box (B, F); infinity at j = y."""
        low, high = (v.double() for v in box)
        centre, radius = (low + high) / 2, (high - low) / 2
        weight, bias = self._weight()
        rounding = self._rounding(torch.maximum(low.abs(), high.abs()))
        margins = torch.empty(len(low), len(weight), dtype=torch.float64, device=low.device)
        for label in labels.unique().tolist():
            rows = labels == label
            gaps = weight[label] - weight
            middle = centre[rows] @ gaps.T + (bias[label] - bias)
            allowance = rounding[rows, label, None] + rounding[rows]
            margins[rows] = middle - radius[rows] @ gaps.abs().T - allowance
        return margins.scatter_(1, labels[:, None], torch.inf)

    def pair_norms(self, norm: str) -> Tensor:
        """Return proven bounds (C, C) of the dual norm of factor (w_y - w_j): constants of f_y - f_j in z."""
        weight, _ = self._weight()
        gaps = (weight[:, None] - weight).abs()
        sizes = {"linf": gaps.sum(-1), "l2": gaps.square().sum(-1).sqrt(), "l1": gaps.amax(-1)}[norm]
        # a difference of doubled entries errs by 2^-53 of both; then come F sums, a root, the factor
        scale = weight.abs().amax() * weight.shape[1]
        return sizes * (1.0 + (weight.shape[1] + 8) * EPS64) + 4 * EPS64 * scale + 1e-150

    def _weight(self) -> tuple[Tensor, Tensor]:
        weight, bias = self.layer.weight.double(), self.layer.bias
        shift = torch.zeros_like(weight[:, 0]) if bias is None else bias.double()
        return self.factor * weight, self.factor * shift

    def _rounding(self, size: Tensor) -> Tensor:
        """How far a computed logit may be from the exact one, and what is lost in :meth:`bound_margins`."""
        rule = RULES[plain_class(self.layer)]
        weight, bias = self._weight()
        logits = size @ weight.abs().T + bias.abs()
        local = rule.local(self.layer, size, logits, self.form)  # of W z + b, which must not overflow either
        check_size(logits, local, self.layer.weight.dtype)
        theirs = abs(self.factor) * local
        own = arithmetic(torch.float64)
        scaling = 0.0 if self.factor == 1.0 else self.form.relative(2)
        lost = (scaling + 2 * own.relative(weight.shape[1] + 8)) * logits
        return (theirs + lost) * (1.0 + 2.0**-16) + 4 * max(1.0, abs(self.factor)) * self.form.tiny


def split_final(layers: list[nn.Module]) -> tuple[list[nn.Module], Final | None]:
    """Return the layers before the last linear one, and that one; all of them and None where there is none."""
    scaled = bool(layers) and plain_class(layers[-1]) is Scale
    factor = layers[-1].constant if scaled else 1.0
    body = layers[:-1] if scaled else layers
    if not body or plain_class(body[-1]) not in LINEAR:
        return layers, None
    return body[:-1], Final(body[-1], factor, arithmetic(body[-1].weight.dtype))
