"""What certification knows of each layer: its image of a box, how it passes errors on, and how it rounds.

For a layer g, with features of any shape behind the batch axis:

- ``box(layer, lower, upper)``: bounds of g over the box. Computed in floating point as g itself would be, so
  within ``local`` of true bounds.
- ``spread(layer, error)``: |g(z + d) - g(z)| <= spread for all z and all |d| <= error (float64, elementwise).
- ``local(layer, inputs, outputs, form)``: |computed g(z) - g(z)| for every z of the format with |z| <=
  ``inputs`` and |g(z)| (or the computed value) <= ``outputs``; None where values are only moved. ``form`` is the
  :class:`~lablib.certify.arithmetic.Arithmetic` in which g is computed; the same bound holds for the ends
  that ``box`` computes, since it takes the same steps.

Exactly the classes of :data:`RULES` are known; subclasses may compute something else.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lablib.certify.arithmetic import ULPS
from lablib.certify.rule import Box, Rule, run
from lablib.certify.sample_rules import Centre, Clip
from lablib.certify.skips import StableSoftplus
from lablib.layers.activations import Abs, FullSort, GroupSort, Householder, LeakyReLU, MaxMin, PReLU
from lablib.layers.conv import L1Conv2d, LInfConv2d, OrthonormalConv2d, SpectralConv2d
from lablib.layers.distance import LInfDistance, LInfDistanceConv2d, SortNetConv2d, SortNetLayer
from lablib.layers.linear import L1Linear, LInfLinear, OrthonormalLinear, SpectralLinear
from lablib.layers.lipschitz_linear import LipschitzLinear
from lablib.layers.per_sample import CentreSample, ClipNorm
from lablib.layers.sequential import guarantee
from lablib.layers.shift import MeanShift, Normalise, Scale
from lablib.layers.splines import LearnableSpline
from lablib.ops import linf_dist, sortnet
from lablib.ops.activations import per_channel
from lablib.ops.sorting import channel_dim


class _Reshape(Rule):
    """Flatten, Unflatten: errors go the way of the values."""

    def spread(self, layer, error):
        return layer(error)


class _Compare(Rule):
    """Comparisons do not round, but a processor told to flush takes subnormal operands for 0."""

    def local(self, layer, inputs, outputs, form):
        return torch.full_like(outputs, 2 * form.tiny)


class _MaxPool(_Compare):
    def spread(self, layer, error):
        return layer(error)


class _Relative(Rule):
    """Monotone and elementwise, each output by at most ``roundings`` roundings (also of its constants)."""

    def __init__(self, roundings: int):
        self.roundings = roundings

    def spread(self, layer, error):
        return guarantee(layer)[1] * error

    def local(self, layer, inputs, outputs, form):
        # the second term: what underflows before a multiplication is multiplied, a value or a constant
        reach = 2 * self.roundings * max(1.0, guarantee(layer)[1])
        return form.relative(self.roundings) * outputs + reach * form.tiny * (1.0 + inputs)


class _Softplus(Rule):
    """max(x, 0) + log1p(exp(-|x|)): exp and log1p of 2 ULPS roundings each, and a sum of positive numbers."""

    def local(self, layer, inputs, outputs, form):
        return form.relative(4 * ULPS + 1) * outputs + 4 * form.tiny


class _Scale(_Relative):
    def box(self, layer, lower, upper):
        ends = run(layer, lower), run(layer, upper)
        return ends if layer.constant >= 0 else ends[::-1]

    def local(self, layer, inputs, outputs, form):
        size = abs(layer.constant)
        if math.frexp(size)[0] == 0.5 and size >= 1.0:  # a power of two changes only exponents
            return torch.full_like(outputs, 2 * size * form.tiny)
        return super().local(layer, inputs, outputs, form)


class _Kinked(_Relative):
    """Linear on each side of 0, where it is 0: the image is the hull of the ends, and of 0 if inside."""

    def box(self, layer, lower, upper):
        first, second = run(layer, lower), run(layer, upper)
        low, high = torch.minimum(first, second), torch.maximum(first, second)
        inside = (lower < 0) & (upper > 0)
        return torch.where(inside, low.clamp(max=0), low), torch.where(inside, high.clamp(min=0), high)


class _Abs(_Compare, _Kinked):
    """Clears a bit."""


class _Sort(_Compare):
    """Each k-th smallest of a group moves at most as far as the largest error of the group."""

    def spread(self, layer, error):
        axis = channel_dim(error, layer.dim)
        size = layer.size if isinstance(layer, GroupSort) else error.shape[axis]
        groups = error.unflatten(axis, (-1, size))
        return groups.amax(axis + 1, keepdim=True).expand_as(groups).flatten(axis, axis + 1)


class _AvgPool(Rule):
    def spread(self, layer, error):
        return layer(error)

    def local(self, layer, inputs, outputs, form):
        terms = math.prod(_pair(layer.kernel_size))
        return form.relative(terms + 1) * layer(inputs) + 2 * terms * form.tiny


class _Householder(Rule):
    """Keeps a pair or reflects it, by the sign of s = a sin(t/2) - b cos(t/2).

    Rounding. sin and cos err by 2 ULPS u absolutely, so s and the reflected values by at most (2 ULPS + 3) u
    (|a| + |b|). Where rounding takes the wrong side, |s| is below that; the two pieces differ by 2 |s| along a
    unit vector, hence three times the bound in all.
    """

    def box(self, layer, lower, upper):
        axis = channel_dim(lower, layer.dim)
        low, high = (v.double().unflatten(axis, (-1, 2)).unbind(axis + 1) for v in (lower, upper))
        t = layer.angle.double().reshape(-1, *[1] * (lower.dim() - 1 - axis))
        side = _combine(low, high, (t / 2).sin(), -(t / 2).cos())
        first = _combine(low, high, t.cos(), t.sin())
        second = _combine(low, high, t.sin(), -t.cos())
        reflected = (torch.stack(ends, axis + 1) for ends in zip(first, second))
        kept = torch.stack(low, axis + 1), torch.stack(high, axis + 1)
        size = sum(torch.maximum(a.abs(), b.abs()) for a, b in zip(low, high))
        doubt = 64 * 2.0**-53 * size
        keeps, reflects = ((v).unsqueeze(axis + 1) for v in (side[1] > -doubt, side[0] <= doubt))
        ends = []
        for own, other, worst, pick in zip(
            kept, reflected, (math.inf, -math.inf), (torch.minimum, torch.maximum)
        ):
            hull = pick(torch.where(keeps, own, worst), torch.where(reflects, other, worst))
            ends.append(hull.flatten(axis, axis + 1))
        return ends[0], ends[1]

    def spread(self, layer, error):
        axis = channel_dim(error, layer.dim)
        pairs = error.unflatten(axis, (-1, 2))
        size = (1.0 + 1e-12) * pairs.square().sum(axis + 1, keepdim=True).sqrt()  # 1-Lipschitz in l2
        return size.expand_as(pairs).flatten(axis, axis + 1)

    def local(self, layer, inputs, outputs, form):
        axis = channel_dim(inputs, layer.dim)
        pairs = inputs.unflatten(axis, (-1, 2))
        sums = pairs.sum(axis + 1, keepdim=True).expand_as(pairs).flatten(axis, axis + 1)
        return 3 * form.relative(2 * ULPS + 3) * sums + 12 * form.tiny


class _Spline(Rule):
    """s(x) = S(a x) / a: extremes over a box are at its ends or at knots t_k / a inside.

    Rounding. lablib/ops/splines derives 19 u L (|x| + R / a) + 3 u |s| for every implementation, with the largest
    slope L of the coefficients, which is at most the constant; the bound below has room for the terms of higher
    order. What underflows (a slope, or a difference of coefficients) is multiplied by a x - t_k, or that over T.
    Nothing holds where a x may overflow, which a flat s does not show.
    """

    def box(self, layer, lower, upper):
        axis = channel_dim(lower, layer.dim)
        ends = run(layer, lower), run(layer, upper)
        low, high = (v.double().movedim(axis, 0) for v in (lower, upper))
        least, most = (
            v.reshape(low.shape).movedim(0, axis).to(lower) for v in self.at_knots(layer, low, high)
        )
        return torch.minimum(torch.minimum(*ends), least), torch.maximum(torch.maximum(*ends), most)

    def spread(self, layer, error):
        return guarantee(layer)[1] * error

    def local(self, layer, inputs, outputs, form):
        constant, spacing = guarantee(layer)[1], 2 * layer.range / (layer.knots - 1)
        alpha = per_channel(self.scale(layer), inputs, layer.dim)
        size = inputs + 2 * layer.range / alpha
        flushed = 8 * form.tiny * (1 + constant) * (1 + 1 / alpha + size * (1 + 1 / spacing))
        local = form.relative(24) * (constant * size + outputs) + flushed
        return torch.where(alpha * size < 2.0**-6 / form.tiny, local, math.inf)

    def scale(self, layer) -> Tensor:
        """a (C,), or (1,) for all channels."""
        one = torch.ones(1, dtype=torch.float64, device=layer.coefficients.device)
        return one if layer.scale is None else layer.scale.double()

    def at_knots(self, layer, lower: Tensor, upper: Tensor) -> Box:
        """Least and largest value at the knots within boxes (C, ...), as (C, N); infinity and -infinity if none."""
        channels, last = len(lower), layer.knots - 1
        scale = self.scale(layer)[:, None]
        low, high = ((v.reshape(channels, -1) * scale / layer.range + 1) * (last / 2) for v in (lower, upper))
        slack = (
            layer.knots * 2.0**-40
        )  # a knot that is just outside makes the box no wider than rounding does
        first = (low - slack).ceil().clamp(0, last + 1).long()
        final = (high + slack).floor().clamp(-1, last).long()
        values = (layer.values.double() / scale).expand(channels, -1)
        least, most = _extremes(values, first.clamp(max=last), final.clamp(min=0))
        some = first <= final
        return torch.where(some, least, math.inf), torch.where(some, most, -math.inf)


class _Affine(Rule):
    """Weights applied to centre and radius of the box in float64: W c + b +- |W| r."""

    def box(self, layer, lower, upper):
        low, high = lower.double(), upper.double()
        centre, radius = (low + high) / 2, (high - low) / 2
        weight, bias = _weights(layer)
        middle = self.apply(layer, centre, weight, bias)
        reach = self.apply(layer, radius, weight.abs(), None)
        return middle - reach, middle + reach

    def spread(self, layer, error):
        return self.apply(layer, error, _weights(layer)[0].abs(), None)

    def local(self, layer, inputs, outputs, form):
        weight, bias = (None if t is None else t.abs() for t in _weights(layer))
        terms = weight[0].numel()
        share = form.relative(terms + 6)  # products, sums and bias; centre, radius and ends of a box
        flushed = 4 * form.tiny / share  # operands below `tiny` may count as 0, on either side of a product
        results = terms * flushed  # and so may each product and partial sum
        bias = results if bias is None else bias + results
        bias = torch.as_tensor(bias).to(weight).expand(len(weight))
        return share * self.apply(layer, inputs.double() + flushed, weight + flushed, bias)


class _Linear(_Affine):
    def apply(self, layer, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)


class _Conv(_Affine):
    def apply(self, layer, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = layer.padding
        if layer.padding_mode == "circular" and not isinstance(layer, nn.Conv2d):
            x, padding = F.pad(x, (padding,) * 4, mode="circular"), 0
        elif layer.padding_mode != "zeros":
            raise ValueError(
                f"nn.Conv2d with padding_mode={layer.padding_mode!r} is not covered; use 'zeros'"
            )
        options = (getattr(layer, "dilation", 1), getattr(layer, "groups", 1))
        return F.conv2d(x, weight, bias, layer.stride, padding, *options)


class _Distance(Rule):
    """max_i |x_i - w_i| + b, or K sorted ones with weights of sum at most 1.

    Each |x_i - w_i| is one subtraction; maximum and sort choose among the rounded ones, and the k-th largest
    of numbers that are each off by a relative u is off by a relative u. Then come K products and K - 1 sums,
    and one sum for the bias.
    """

    def box(self, layer, lower, upper):
        low, high = self.rows(layer, lower), self.rows(layer, upper)
        if isinstance(layer, LInfDistance):
            low, high = linf_dist.linf_distance_bounds(low, high, layer.weight)
        else:
            low, high = sortnet.sortnet_bounds(low, high, -layer.weight, layer.rank_weight)
        if layer.bias is not None:
            low, high = low + layer.bias, high + layer.bias
        return self.shaped(layer, low, lower), self.shaped(layer, high, lower)

    def spread(self, layer, error):
        largest = self.rows(layer, error).amax(-1, keepdim=True)
        return self.shaped(layer, largest.expand(*largest.shape[:-1], layer.out_features), error)

    def local(self, layer, inputs, outputs, form):
        roundings = 1 if isinstance(layer, LInfDistance) else layer.top + 1
        if layer.bias is not None:
            roundings += 1
            outputs = outputs + self.per_output(layer.bias.abs(), outputs)
        return form.relative(roundings) * outputs + 2 * (roundings + 1) * form.tiny

    def rows(self, layer, x: Tensor) -> Tensor:
        """The inputs of the neurons, (..., I)."""
        return x

    def shaped(self, layer, rows: Tensor, x: Tensor) -> Tensor:
        """The outputs (..., O) in the layer's form, for an input of the shape of ``x``."""
        return rows

    def per_output(self, values: Tensor, outputs: Tensor) -> Tensor:
        return values.to(outputs.dtype)


class _DistanceConv(_Distance):
    def rows(self, layer, x):
        return layer.patches(x)

    def shaped(self, layer, rows, x):
        return layer.as_images(rows, x)

    def per_output(self, values, outputs):
        return values.to(outputs.dtype)[:, None, None]


def _combine(low: tuple[Tensor, ...], high: tuple[Tensor, ...], *factors: Tensor) -> Box:
    """Bounds of factors[0] a + factors[1] b for (a, b) between ``low`` and ``high``."""
    least, most = zip(*(_product(a, b, factor) for a, b, factor in zip(low, high, factors)))
    return least[0] + least[1], most[0] + most[1]


def _product(low: Tensor, high: Tensor, factor: Tensor) -> Box:
    return torch.minimum(low * factor, high * factor), torch.maximum(low * factor, high * factor)


def _extremes(values: Tensor, first: Tensor, final: Tensor) -> Box:
    """The least and the largest of values[c, first:final + 1] (C, N), from those of runs of 1, 2, 4, ... values."""
    count, least, most = values.shape[1], [values], [values]
    while 2 ** len(least) <= count:
        step = -(2 ** (len(least) - 1))  # what comes around the end is never asked for
        least.append(torch.minimum(least[-1], least[-1].roll(step, 1)))
        most.append(torch.maximum(most[-1], most[-1].roll(step, 1)))
    level = (final - first + 1).clamp(min=1).double().frexp().exponent.long() - 1
    runs = level * count + first, level * count + final + 1 - 2**level
    low, high = ([torch.cat(ends, 1).gather(1, run) for run in runs] for ends in (least, most))
    return torch.minimum(*low), torch.maximum(*high)


def _weights(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    return layer.weight.double(), None if layer.bias is None else layer.bias.double()


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


LINEAR = {nn.Linear, LInfLinear, L1Linear, SpectralLinear, OrthonormalLinear, LipschitzLinear}
CONVOLUTIONS = {nn.Conv2d, LInfConv2d, L1Conv2d, SpectralConv2d, OrthonormalConv2d}

RULES: dict[type[nn.Module], Rule] = {
    nn.Identity: Rule(),
    nn.ReLU: _Compare(),
    nn.MaxPool2d: _MaxPool(),
    **dict.fromkeys((nn.Flatten, nn.Unflatten), _Reshape()),
    **dict.fromkeys((nn.Hardtanh, nn.ReLU6), _Relative(1)),
    **dict.fromkeys((nn.Tanh, nn.Sigmoid), _Relative(2 * ULPS)),
    **dict.fromkeys((LeakyReLU, nn.LeakyReLU, PReLU), _Kinked(2)),
    **dict.fromkeys((GroupSort, MaxMin, FullSort), _Sort()),
    **dict.fromkeys(LINEAR, _Linear()),
    **dict.fromkeys(CONVOLUTIONS, _Conv()),
    **dict.fromkeys((LInfDistance, SortNetLayer), _Distance()),
    **dict.fromkeys((LInfDistanceConv2d, SortNetConv2d), _DistanceConv()),
    nn.AvgPool2d: _AvgPool(),
    Abs: _Abs(1),
    Householder: _Householder(),
    LearnableSpline: _Spline(),
    MeanShift: _Relative(1),
    Normalise: _Relative(4),
    CentreSample: Centre(),
    ClipNorm: Clip(),
    Scale: _Scale(2),
    StableSoftplus: _Softplus(),
}
