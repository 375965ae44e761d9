"""Layers of distance neurons: 1-Lipschitz in linf whatever their weights.

Dense ones take x (..., I) to (..., O); convolutional ones take x (B, I, H, W) to (B, O, H', W'), the same
neurons on each patch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lablib.layers.base import Fixed, LipschitzLayer, check_channels, exact
from lablib.ops.linf_dist import linf_distance
from lablib.ops.projections import scale_groups
from lablib.ops.sortnet import geometric_weights, sortnet


class _Distance(LipschitzLayer):
    def __init__(self, in_features: int, out_features: int, bias: bool = False, *, device=None, dtype=None):
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ValueError(
                f"a distance layer needs at least one input and output, got {in_features}, {out_features}"
            )
        self.in_features, self.out_features = in_features, out_features
        # Weights N(0, 1) as in the l_inf-distance papers: the weights are points, not directions.
        self.weight = nn.Parameter(torch.randn(out_features, in_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype)) if bias else None

    @exact
    def forward(self, x: Tensor) -> Tensor:
        check_channels(x, self.in_features, -1, self)
        y = self.distance(x)
        return y if self.bias is None else y + self.bias

    def distance(self, x: Tensor) -> Tensor:
        """The neurons without their bias."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class LInfDistance(_Distance):
    """y_k = max_i |x_i - w_ki| (+ b_k). Source: arXiv 2102.05363, section 3."""

    norms = ("linf",)

    def distance(self, x: Tensor) -> Tensor:
        return linf_distance(x, self.weight)


class SortNetLayer(_Distance):
    """y_k = sum_{i <= K} q (1-q)^(i-1) |x - w_k|_(i) / (1 - (1-q)^K) (+ b_k), |.|_(i) the i-th largest.

    Source: SortNet paper (arXiv 2210.01787), section 4.2. q = 1 is :class:`LInfDistance`.

    Args:
        keep: q, the share of inputs that dropout keeps in training, in (0, 1].
        top: K; the tail beyond it is cut and the weights rescaled. At most ``in_features`` are used.
    """

    norms = ("linf",)
    keep, top = Fixed(), Fixed()

    def __init__(
        self,
        in_features: int,
        out_features: int,
        keep: float = 0.75,
        top: int = 10,
        bias: bool = False,
        **kwargs,
    ):
        super().__init__(in_features, out_features, bias, **kwargs)
        self.keep, self.top = float(keep), min(top, in_features)
        # Fixed by the two numbers above, so not saved: loading cannot change them behind the layer's back.
        ranks = geometric_weights(keep, self.top, self.weight.dtype).to(self.weight.device)
        self.register_buffer("_ranks", ranks, persistent=False)

    @property
    def rank_weight(self) -> Tensor:
        """The K weights, with a true sum of at most 1 also where the layer was moved to another dtype."""
        return self._ranks if self.keep == 1.0 else scale_groups(self._ranks, 0)

    def distance(self, x: Tensor) -> Tensor:
        return sortnet(x, -self.weight, self.rank_weight)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, keep={self.keep:g}, top={self.top}"


class _OverPatches:
    """The dense layer it is mixed into, on each k x k patch of an image. Weights are (O, I k k).

    Unfolding copies inputs (and pads with zeros), so it changes no linf distance: the constant stays 1 for
    every kernel, stride and padding.
    """

    kernel_size, stride, padding = Fixed(), Fixed(), Fixed()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *args,
        **kwargs,
    ):
        for name, value, least in (
            ("in_channels", in_channels, 1),
            ("kernel_size", kernel_size, 1),
            ("stride", stride, 1),
            ("padding", padding, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        super().__init__(in_channels * kernel_size**2, out_channels, *args, **kwargs)
        self.in_channels = in_channels
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def patches(self, x: Tensor) -> Tensor:
        """Return the patches of x (B, I, H, W), row by row: (B, H' W', I k k).

        Raises:
            ValueError: for another number of axes or channels, or an image smaller than the kernel.
        """
        if x.dim() != 4:
            raise ValueError(
                f"a convolution needs (B, I, H, W), got a tensor of shape {tuple(x.shape)}; "
                "give a single image as image[None]"
            )
        check_channels(x, self.in_channels, 1, self)
        if min(x.shape[-2:]) + 2 * self.padding < self.kernel_size:
            raise ValueError(f"an image of {tuple(x.shape[-2:])} is smaller than the kernel; add padding")
        if not len(x):  # which F.unfold does not take
            return x.new_zeros(0, self._size(x.shape[2]) * self._size(x.shape[3]), self.in_features)
        return F.unfold(x, self.kernel_size, padding=self.padding, stride=self.stride).transpose(1, 2)

    @exact
    def forward(self, x: Tensor) -> Tensor:
        y = self.distance(self.patches(x))
        return self.as_images(y if self.bias is None else y + self.bias, x)

    def as_images(self, y: Tensor, x: Tensor) -> Tensor:
        """Return outputs per patch y (B, H' W', O) as (B, O, H', W'), for inputs like ``x``."""
        return y.transpose(1, 2).unflatten(2, (self._size(x.shape[2]), self._size(x.shape[3])))

    def _size(self, length: int) -> int:
        return (length + 2 * self.padding - self.kernel_size) // self.stride + 1

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kernel_size={self.kernel_size}, stride={self.stride}"


class LInfDistanceConv2d(_OverPatches, LInfDistance):
    """:class:`LInfDistance` on each patch: y_k = max over the patch of |x - w_k| (+ b_k)."""

    norms = ("linf",)


class SortNetConv2d(_OverPatches, SortNetLayer):
    """:class:`SortNetLayer` on each patch (the "2x" models of the SortNet paper, arXiv 2210.01787)."""

    norms = ("linf",)
