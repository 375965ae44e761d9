"""How windows of a convolution or pooling cover an axis: the exact counts behind the bounds."""

import dataclasses
import functools

import torch
from torch import Tensor

from lablib.ops.norms import bound_spectral_norm


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows along one axis: window q reads the places q stride - before + t dilation, t < kernel, on the axis.

    Attributes:
        size: places on the axis.
        kernel, stride, dilation: of the windows.
        before, after: padding on each side.
        ceil_mode: torch's: one more window where the last places would be left out, if it starts before the
            padding on the right.
    """

    size: int
    kernel: int
    stride: int
    before: int = 0
    after: int = 0
    dilation: int = 1
    ceil_mode: bool = False

    @property
    def count(self) -> int:
        """How many windows there are.

        Raises:
            ValueError: if there is none.
        """
        span = self.size + self.before + self.after - self.dilation * (self.kernel - 1) - 1
        count = -(-span // self.stride) + 1 if self.ceil_mode else span // self.stride + 1
        if self.ceil_mode and (count - 1) * self.stride >= self.size + self.before:
            count -= 1
        if span < 0 or count < 1:
            raise ValueError(
                f"a window of {self.kernel} does not fit on an axis of {self.size} (padding {self.before} and "
                f"{self.after}); give larger inputs"
            )
        return count

    def overlap(self) -> int:
        """Return the largest number of windows that read one place: at most ceil(kernel / stride)."""
        return _overlap(self)

    def empty(self) -> bool:
        """Return whether a window reads padding only."""
        return not bool(_reads(self).any(1).all())

    def average_norm(self, include_padding: bool) -> float:
        """Return a proven bound of the l2 norm of taking the mean of each window.

        ``include_padding``: the mean counts the padding as zeros, as torch's ``count_include_pad``.
        """
        return _average_norm(self, include_padding)

    def sum_norm(self) -> float:
        """Return a proven bound of the l2 norm of taking the sum of each window."""
        return float(bound_spectral_norm(_reads(self)))


def _reads(windows: Windows) -> Tensor:
    """Which window (rows) reads which place (columns), as zeros and ones in float64."""
    reads = torch.zeros(windows.count, windows.size, dtype=torch.float64)
    for q in range(windows.count):
        for t in range(windows.kernel):
            place = q * windows.stride - windows.before + t * windows.dilation
            if 0 <= place < windows.size:
                reads[q, place] = 1.0
    return reads


@functools.lru_cache(maxsize=256)
def _overlap(windows: Windows) -> int:
    return max(1, int(_reads(windows).sum(0).max()))


@functools.lru_cache(maxsize=256)
def _average_norm(windows: Windows, include_padding: bool) -> float:
    reads = _reads(windows)
    counted = reads.sum(1)
    if include_padding:
        ends = windows.size + windows.before + windows.after
        starts = torch.arange(windows.count, dtype=torch.float64) * windows.stride
        counted = (starts + windows.kernel).clamp(max=ends) - starts
    return float(bound_spectral_norm(reads / counted[:, None]))
