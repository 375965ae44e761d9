"""What a rule of :mod:`lablib.privacy.rules` takes and gives, and how it rounds."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from lablib.certify.arithmetic import Arithmetic
from lablib.ops.norms import NOT_FINITE

# Every bound below is a product, sum or root of a few nonnegative float64 numbers: relative errors of 2^-50. What
# underflows in float32 (at most 2^-126 for each of n terms and entries) is below SLACK FLOOR, as long as there
# are fewer than 2^34 of them and the loss is divided by less than 2^41: so one share covers both.
SLACK = 2.0**-30
FLOOR = 2.0**-20  # X and G are taken to be at least this


@dataclasses.dataclass(frozen=True)
class Flow:
    """Features of one sample: their ``shape`` (no batch axis) and ``norm``, a bound of their l2 norm (or inf)."""

    shape: tuple[int, ...]
    norm: float


@dataclasses.dataclass(frozen=True)
class Effect:
    """What a layer does: see the module's text. ``cap`` bounds the cotangent that leaves, whatever comes in."""

    shape: tuple[int, ...]
    norm: float
    gain: float = 1.0
    parameters: Mapping[str, float] = dataclasses.field(default_factory=dict)
    cap: float = math.inf


@dataclasses.dataclass(frozen=True)
class Arithmetics:
    """In which arithmetic the layers compute.

    Attributes:
        form: the floating-point format.
        coarse: relative error of a product of two numbers beyond that of the format: 0, or what shortened operands
            (TF32) and fast convolutions may add.
    """

    form: Arithmetic
    coarse: float = 0.0

    def sums(self, roundings: int) -> float:
        """Return the relative error of sums of positive terms, each with that many roundings."""
        return self.form.relative(roundings)

    def products(self, terms: int) -> float:
        """Return the error of a sum of ``terms`` products, relative to that of their absolute values."""
        return self.form.relative(terms + 2) + self.coarse


Measured = Callable[[str], float | None]  # local parameter name -> proven operator norm, if one is known
Rule = Callable[[nn.Module, Flow, Arithmetics, Measured], Effect]


def norm_of(values: Tensor) -> float:
    """Return a proven bound of the l2 norm of all entries.

    Raises:
        ValueError: for NaN or infinity.
    """
    size = float(torch.linalg.vector_norm(values.detach().double()))
    if not math.isfinite(size):
        raise ValueError(NOT_FINITE)
    return size * (1.0 + values.numel() * 2.0**-52) + 2.0**-500


def times(factor: float, norm: float) -> float:
    """factor norm, where 0 times an unbounded norm is 0."""
    return factor * norm if factor else 0.0
