r"""What each layer does to the two bounds that sensitivity is made of: one small function per kind of layer.

Forward, X bounds the l2 norm of any one sample's features; backward, G bounds the l2 norm of its cotangent (the
gradient of its loss by the features). A rule says, for a layer whose input is bounded by X,

    output norm   X' = rule(X)            of the *computed* output
    gain          G_in <= gain G_out      of the *computed* cotangent
    parameters    ||gradient|| <= parameters[p] G_out, of one sample, for each trained parameter p

Rounding. For a product with n terms, fl(sum a_i b_i) errs by at most gamma_n sum |a_i b_i|, gamma_n = n u / (1 - n
u), in any order (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1), so a product with
W by at most gamma_n || |W| ||_2 ||x|| <= gamma_n ||W||_F ||x||, in l2. Masks, sorts and maxima are decided by
computed values; the bounds hold for every outcome. The rounding of products in float64, and underflow, are
covered by :data:`~lablib.privacy.effects.SLACK` and :data:`~lablib.privacy.effects.FLOOR`.

The bounds are those of Bethune et al., "DP-SGD Without Clipping: The Lipschitz Neural Network Way" (ICLR 2024,
arXiv 2305.16202, section 3 and appendix), with the constants of convolutions and pooling derived anew.
"""

import math

import torch
from torch import Tensor, nn

from lablib.certify.arithmetic import ULPS
from lablib.layers.activations import Abs, FullSort, GroupSort, Householder, LeakyReLU, MaxMin, PReLU
from lablib.layers.base import layer_name
from lablib.layers.per_sample import CentreSample, ClipNorm
from lablib.layers.shift import Normalise, Scale
from lablib.layers.splines import LearnableSpline
from lablib.privacy.affine_rules import convolution, linear
from lablib.privacy.cotangents import ClipCotangent
from lablib.privacy.effects import SLACK, Arithmetics, Effect, Flow, Measured, Rule, norm_of, times
from lablib.privacy.windows import Windows

_MIXING = (
    "makes the samples of a batch depend on one another, so that no sample's gradient is bounded by itself"
)
REASONS: dict[str, str] = {
    **dict.fromkeys(
        ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm", "MeanShift"),
        f"{_MIXING}; use CentreSample, which takes the mean of each sample",
    ),
    **dict.fromkeys(
        ("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout"),
        "scales what it keeps by 1 / (1 - p) at random; leave it out, the noise of private training regularises",
    ),
    **dict.fromkeys(
        ("LayerNorm", "GroupNorm", "InstanceNorm2d", "RMSNorm"),
        "divides by a norm that may be near 0, so that its gradient has no bound; use CentreSample",
    ),
    **dict.fromkeys(
        ("OrthonormalLinear", "SpectralLinear", "LInfLinear", "L1Linear", "LipschitzLinear"),
        "computes its weights from free parameters, whose gradients have no bound here; use nn.Linear and a "
        'constraint ("orthonormal"), which projects the weights after each step',
    ),
    **dict.fromkeys(
        ("OrthonormalConv2d", "SpectralConv2d", "LInfConv2d", "L1Conv2d"),
        "computes its weights from free parameters, whose gradients have no bound here; use nn.Conv2d and a "
        'constraint ("orthonormal"), which projects the weights after each step',
    ),
}


def _unchanged(layer: nn.Module, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    """Values are moved, kept or set to 0, by whatever is decided on the way forward; cotangents go back the same way.

    Identity; ReLU, a mask of zeros and ones (also at ties: any mask has norm 1); sorts, a permutation (ties too:
    it is always one); absolute value, signs (0 at 0).
    """
    return Effect(flow.shape, flow.norm)


def _reshaped(layer: nn.Module, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    """Flatten, Unflatten: the same numbers in another shape. The batch axis has to stay as it is."""
    first = layer.start_dim if isinstance(layer, nn.Flatten) else layer.dim
    if not isinstance(first, int) or first < 1:
        raise ValueError(
            f"it changes axis {first!r}, which may be the batch; count axes from the front, 1 or more"
        )
    try:
        shape = layer(torch.empty(2, *flow.shape, device="meta")).shape
    except (RuntimeError, IndexError) as error:
        raise ValueError(f"it does not fit its input of shape {flow.shape}: {error}") from error
    return Effect(tuple(shape[1:]), flow.norm)


def _kinked(layer: nn.Module, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    """x on one side of 0, slope x on the other: both bounds times max(1, |slope|), one or two roundings.

    nn.LeakyReLU takes slopes above 1; ours (fixed, or PReLU's) are at most 1.
    """
    slope = 1.0
    if any(p.requires_grad for p in layer.parameters()):
        raise ValueError(
            "it learns slopes, which has no rule; call requires_grad_(False) on it, or use LeakyReLU"
        )
    if isinstance(layer, nn.LeakyReLU):
        slope = abs(float(layer.negative_slope))
    return _stretched(flow, slope if not slope < 1.0 else 1.0, how)  # not max(), which loses NaN


def _scaled(layer: Scale, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    """c x, c rounded to the format: both bounds times |c|."""
    return _stretched(flow, abs(layer.constant), how)


def _stretched(flow: Flow, factor: float, how: Arithmetics) -> Effect:
    if not math.isfinite(factor):
        raise ValueError("its slope or constant is not finite; choose a finite number")
    gain = factor * (1.0 + how.sums(4)) + SLACK
    return Effect(flow.shape, times(gain, flow.norm), gain)


def _normalised(layer: Normalise, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    """(x - mean) / std: (X + ||mean||) / std, with the mean repeated over all pixels; gain 1 / std."""
    channels = flow.shape[0]
    mean = layer.mean.double()
    if mean.numel() not in (1, channels):
        raise ValueError(f"it has {mean.numel()} means, its input has shape {flow.shape}; correct either")
    size = math.sqrt(math.prod(flow.shape) / mean.numel()) * norm_of(layer.mean)
    gain = (1.0 + how.sums(6)) / layer.std + SLACK
    return Effect(flow.shape, times(gain, flow.norm + size), gain)


def _tanh(layer: nn.Tanh, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    """|tanh x| <= min(|x|, 1), slope 1 - y^2 in [0, 1]: X' = min(X, sqrt(n)) for n features, gain 1.

    An unbounded input may hold NaN, which tanh keeps: only ClipNorm makes a bound of none.
    """
    norm = min(flow.norm, math.sqrt(math.prod(flow.shape))) if flow.norm < math.inf else math.inf
    gain = 1.0 + how.sums(4 * ULPS) + SLACK
    return Effect(flow.shape, norm * gain, gain)


def _householder(layer: Householder, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    r"""Pairs v are kept or reflected, R_t v: norms stay, whichever side rounding takes.

    sin and cos err by 2 ULPS u, so entries by c u (|v_1| + |v_2|), c = 2 ULPS + 3, and a pair by 2 c u ||v||.
    The gradient by the angle of a pair is sum_p g_p . R'_t v_p with R' orthogonal too: over all pairs at most
    sum ||g|| ||v|| <= G X.
    """
    gain = 1.0 + 2.0 * how.sums(2 * ULPS + 6) + SLACK
    parameters = {}
    if layer.angle.requires_grad:
        positions = math.prod(flow.shape) // max(1, layer.channels)
        parameters["angle"] = flow.norm * (1.0 + 4.0 * how.sums(positions + 2 * ULPS + 6) + SLACK)
    return Effect(flow.shape, gain * flow.norm, gain, parameters)


def _spline(layer: LearnableSpline, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    r"""A fixed spline with slopes of size <= S in each channel: |s(x)| <= S |x| + |s(0)|.

        X' = S X + ||s(0)||  over all features,    gain S

    s(0) need not be 0. Rounding errs by 24 u (S (|x| + 2 R / alpha) + |s|) (:mod:`lablib.certify.rules`).
    """
    if any(p.requires_grad for p in layer.parameters()):
        raise ValueError(
            "learned splines compute their coefficients from free parameters, whose gradients have no bound here; "
            "call requires_grad_(False) on it, or use GroupSort"
        )
    slope = layer.lipschitz
    with torch.no_grad():
        wide = layer.values.double()
        scale = torch.ones(1) if layer.scale is None else layer.scale.detach()
        at_zero = _spline_at_zero(layer, wide, scale)
    channels, features = layer.channels, math.prod(flow.shape)
    start = math.sqrt(features / channels) * at_zero
    size = math.sqrt(features) * 2.0 * layer.range / float(scale.min())
    error = how.sums(32)
    gain = slope * (1.0 + error) + SLACK
    norm = (times(gain, flow.norm) + start) * (1.0 + error) + error * slope * (times(1.0, flow.norm) + size)
    return Effect(flow.shape, norm, gain)


def _spline_at_zero(layer: LearnableSpline, values: Tensor, scale: Tensor) -> float:
    """||s(0)|| over the channels: S(0) lies between the values at the knots around 0, or at the middle one."""
    last = layer.knots - 1
    around = values[:, [last // 2, last - last // 2]].abs().amax(1) / scale.double()
    return float(torch.linalg.vector_norm(around)) * (1.0 + SLACK)


def _average_pool(layer: nn.AvgPool2d, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    r"""Means over windows: the operator is B_h (x) B_w, one matrix for each axis, with norm ||B_h|| ||B_w||.

    Windows of k that do not overlap: rows of k entries 1 / k, orthogonal, so ||B|| = 1 / sqrt(k): AvgPool2d(2)
    halves both bounds. Otherwise (stride < kernel, padding, ceil_mode) B is written out and its norm bounded. At the
    border torch divides by the number of places in the window, the padding included or not: both factorise.
    With a fixed divisor D the matrices are sums, over D. Entries are not negative, so rounding is relative.
    """
    axes = _pool_windows(layer, flow.shape)
    if layer.divisor_override is not None:
        norm = math.prod(axis.sum_norm() for axis in axes) / abs(layer.divisor_override)
    else:
        norm = math.prod(axis.average_norm(layer.count_include_pad) for axis in axes)
    terms = math.prod(axis.kernel for axis in axes)
    gain = norm * (1.0 + how.sums(terms + 4)) + SLACK
    return Effect((flow.shape[0], *(axis.count for axis in axes)), times(gain, flow.norm), gain)


def _max_pool(layer: nn.MaxPool2d, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    """Each output is one of the inputs; a pixel is chosen by at most the r windows that read it.

    So ||y||^2 <= r ||x||^2, and backward a pixel gets the sum of at most r cotangents: gain sqrt(r) (ties: torch
    sends each cotangent to one place). 1 for windows that do not overlap.
    """
    if layer.return_indices:
        raise ValueError("return_indices=True gives two outputs; leave it False")
    axes = _pool_windows(layer, flow.shape)
    if any(axis.empty() for axis in axes):
        raise ValueError(
            "one of its windows reads padding only, where the maximum is -infinity; use less dilation"
        )
    overlap = math.prod(axis.overlap() for axis in axes)
    gain = math.sqrt(overlap) * (1.0 + how.sums(overlap) + SLACK)
    shape = (flow.shape[0], *(axis.count for axis in axes))
    return Effect(shape, gain * flow.norm, gain)


def _centred(layer: CentreSample, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    """x - mean: an orthogonal projection, forward and backward. The mean of n errs by gamma_n mean |x|, which over
    n features has the norm gamma_n ||x|| at most."""
    axes = layer.axes(len(flow.shape) + 1)
    terms = math.prod(flow.shape[axis - 1] for axis in axes)
    gain = 1.0 + 2.0 * how.sums(terms + 4) + SLACK
    return Effect(flow.shape, gain * flow.norm, gain)


def _clipped(layer: ClipNorm, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    """X' = min(X, bound). The Jacobian is c (1 - x x^T / ||x||^2) with c <= 1, or 1: gain 1.

    In training mode that holds for any input, NaN included. Norms are taken in float64; x^T g, a sum over all n
    features, is rounded as the features are."""
    gain = 1.0 + how.sums(math.prod(flow.shape) + 8) + SLACK
    return Effect(flow.shape, min(flow.norm, layer.bound), gain)


def _cotangent_clipped(layer: ClipCotangent, flow: Flow, how: Arithmetics, measured: Measured) -> Effect:
    """The identity; cotangents leave with a norm of at most its bound, whatever comes."""
    return Effect(flow.shape, flow.norm, 1.0, cap=layer.bound)


def _pool_windows(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Windows, Windows]:
    if len(shape) != 3:
        raise ValueError(
            f"{layer_name(layer)} takes images (C, H, W), its input has shape {shape}; correct either"
        )
    options = (layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1))
    return tuple(
        Windows(size, k, s, p, p, d, layer.ceil_mode)
        for size, k, s, p, d in zip(shape[1:], *(_pair(option) for option in options))
    )


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Conv2d: convolution,
    **dict.fromkeys((nn.Identity, nn.ReLU, Abs, GroupSort, MaxMin, FullSort), _unchanged),
    **dict.fromkeys((nn.Flatten, nn.Unflatten), _reshaped),
    **dict.fromkeys((nn.LeakyReLU, LeakyReLU, PReLU), _kinked),
    Scale: _scaled,
    Normalise: _normalised,
    nn.Tanh: _tanh,
    Householder: _householder,
    LearnableSpline: _spline,
    nn.AvgPool2d: _average_pool,
    nn.MaxPool2d: _max_pool,
    CentreSample: _centred,
    ClipNorm: _clipped,
    ClipCotangent: _cotangent_clipped,
}
