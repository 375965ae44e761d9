"""What the per-sample losses share: the statement they make, and the check of their settings."""

import abc
import math
import numbers

from torch import Tensor, nn


class PerSampleLoss(nn.Module, abc.ABC):
    """Base of the losses of :mod:`lablib.privacy.losses`; a subclass elsewhere states nothing that is believed."""

    @property
    @abc.abstractmethod
    def lipschitz(self) -> float:
        """The proven l2 Lipschitz constant of each sample's loss in its outputs."""

    @abc.abstractmethod
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (B,) of outputs (B, C), float32 or float64.

        Raises:
            ValueError: for outputs or targets of another shape or dtype, out of range, or not finite.
        """


def number(value: float, name: str) -> float:
    """Return ``value`` as a float; raise ValueError unless it is a finite number."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def positive(value: float, name: str) -> float:
    """Return ``value`` as a float; raise ValueError unless it is from 1e-6 to 1e6, where float32 has no trouble."""
    if not 1e-6 <= number(value, name) <= 1e6:
        raise ValueError(f"{name} must lie between 1e-6 and 1e6, got {value}")
    return float(value)


def output_count(value: int | None) -> int | None:
    """Return the number of outputs a loss is made for, None for any; raise ValueError for anything else."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"outputs is their number, a whole one from 1 on, or None, got {value!r}")
    return value
