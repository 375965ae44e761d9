"""Norm-bounded 2-D convolutions. x (B, I, H, W) -> (B, O, H', W'), the norm in the name.

An image needs its batch axis (``image[None]``): activations take channels from axis 1, so that without it
they would silently work along the height.

Bounds hold for every image size (:mod:`lablib.ops.conv_norms`). Padding adds zeros; with stride 1 it may
instead be circular, where 2 padding < kernel size keeps the operator a piece of a circulant one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lablib.layers.base import Constraint, Fixed, LipschitzLayer, check_channels, constrain, exact
from lablib.layers.linear import ScaleGroups
from lablib.ops.conv_norms import from_phases, to_phases
from lablib.ops.orthonormal import orthonormal_kernel, scale_conv_spectral
from lablib.ops.projections import scale_groups


class ScaleColumns(Constraint):
    """Parametrization for l1: each input channel and stride phase has a sum of at most 1 over outputs.

    With stride s an input pixel meets only the taps of its own phase, so phases are scaled apart.
    """

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, kernel: Tensor) -> Tensor:
        phases = scale_groups(to_phases(kernel, self.stride), (0, 2, 3))
        return from_phases(phases, self.stride)[:, :, : kernel.shape[2], : kernel.shape[3]]


class ScaleConvSpectral(Constraint):
    """Parametrization K / max(1, bound): see :func:`lablib.ops.conv_norms.bound_conv_spectral`."""

    def __init__(self, stride: int, grid: int | None):
        super().__init__()
        self.stride, self.grid = stride, grid

    def forward(self, kernel: Tensor) -> Tensor:
        return scale_conv_spectral(kernel, self.stride, self.grid)


class OrthonormalKernel(nn.Module):
    """Parametrization from free square matrices: see :func:`lablib.ops.orthonormal.orthonormal_kernel`."""

    def __init__(self, out_channels: int, in_channels: int, stride: int):
        super().__init__()
        self.out_channels, self.in_channels, self.stride = out_channels, in_channels, stride

    def forward(self, free: Tensor) -> Tensor:
        return orthonormal_kernel(free, self.out_channels, self.in_channels, self.stride)


class _Conv2d(LipschitzLayer):
    kernel_size, stride, padding, padding_mode = Fixed(), Fixed(), Fixed(), Fixed()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        *,
        padding_mode: str = "zeros",
        device=None,
        dtype=None,
    ):
        super().__init__()
        for name, value, least in (
            ("in_channels", in_channels, 1),
            ("out_channels", out_channels, 1),
            ("kernel_size", kernel_size, 1),
            ("stride", stride, 1),
            ("padding", padding, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        if padding_mode not in ("zeros", "circular"):
            raise ValueError(f"padding_mode is 'zeros' or 'circular', got {padding_mode!r}")
        if padding_mode == "circular" and (stride != 1 or 2 * padding >= kernel_size):
            raise ValueError(
                "circular padding needs stride 1 and 2 padding < kernel_size; use padding_mode='zeros'"
            )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.padding_mode = stride, padding, padding_mode
        start = nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias, device=device, dtype=dtype)
        self.weight, self.bias = start.weight, start.bias

    @exact
    def forward(self, x: Tensor) -> Tensor:
        """x (B, I, H, W) -> (B, O, H', W')."""
        if x.dim() != 4:
            raise ValueError(
                f"a convolution needs (B, I, H, W), got a tensor of shape {tuple(x.shape)}; "
                "give a single image as image[None]"
            )
        check_channels(x, self.in_channels, 1, self)
        if min(x.shape[-2:]) + 2 * self.padding < self.kernel_size:
            raise ValueError(f"an image of {tuple(x.shape[-2:])} is smaller than the kernel; add padding")
        padding = self.padding
        if self.padding_mode == "circular" and padding:
            if min(x.shape[-2:]) < self.kernel_size:
                raise ValueError(
                    f"circular padding needs images of at least {self.kernel_size} x {self.kernel_size}"
                )
            x = F.pad(x, (padding,) * 4, mode="circular")
            padding = 0
        return F.conv2d(x, self.weight, self.bias, self.stride, padding)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, padding_mode={self.padding_mode!r}, bias={self.bias is not None}"
        )


class LInfConv2d(_Conv2d):
    """Sum of |K| over (I, k, k) at most 1 per output channel: 1-Lipschitz in linf, exactly."""

    norms = ("linf",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        constrain(self, "weight", ScaleGroups((1, 2, 3)))


class L1Conv2d(_Conv2d):
    """Sum of |K| over (O, k, k) at most 1 per input channel and stride phase: 1-Lipschitz in l1, exactly."""

    norms = ("l1",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        constrain(self, "weight", ScaleColumns(self.stride))


class SpectralConv2d(_Conv2d):
    """K / max(1, proven l2 bound): 1-Lipschitz in l2 for every stride, padding and image size.

    Args:
        grid: frequencies per axis; more is tighter and slower (default: at most 2 % above the norm per axis).
    """

    norms = ("l2",)

    def __init__(self, *args, grid: int | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        nn.init.dirac_(self.weight)
        with torch.no_grad():
            self.weight.add_(torch.randn_like(self.weight) / self.weight[0].numel() ** 0.5)
        constrain(self, "weight", ScaleConvSpectral(self.stride, grid))


class OrthonormalConv2d(_Conv2d):
    """Orthonormal convolution: 1-Lipschitz in l2; keeps norms with circular padding or patches if O >= I s^2.

    ``kernel_size`` must be a multiple of ``stride``; equal to it, the layer maps patches apart from one
    another. With O < I s^2 it is the adjoint of a norm-preserving map. Built by block convolution
    (:func:`orthonormal_kernel`), no iteration that could stop early.
    """

    norms = ("l2",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.kernel_size % self.stride:
            raise ValueError(
                f"an orthonormal convolution needs a kernel_size that its stride divides, "
                f"got {self.kernel_size} and {self.stride}"
            )
        size = max(self.out_channels, self.in_channels * self.stride**2)
        factors = 2 * (self.kernel_size // self.stride) - 1
        # Skew parts of singular values around 1: rotations by large angles, far from the identity.
        free = 2.0 * torch.randn(factors, size, size).to(self.weight) / size**0.5
        self.weight = nn.Parameter(free)
        constrain(self, "weight", OrthonormalKernel(self.out_channels, self.in_channels, self.stride))
