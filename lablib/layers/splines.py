"""Learnable linear splines with slopes that cannot leave their bounds: one activation per channel.

Source: Ducotterd et al., "Improving Lipschitz-constrained neural networks by learning activation functions"
(JMLR 25, 2024, arXiv 2210.16222), section 3. Letters: C channels, K knots, T knot spacing.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lablib.layers.base import (
    ALL_NORMS,
    Constraint,
    Fixed,
    LipschitzLayer,
    check_channels,
    check_dim,
    constrain,
    exact,
    layer_name,
)
from lablib.ops.sorting import channel_dim
from lablib.ops.splines import (
    count_active_knots,
    linear_spline,
    project_slopes,
    remove_knots,
    second_variation,
)

Init = str | Tensor | Callable[[Tensor], Tensor]
LARGEST_SCALE = 64.0  # a scale lies in [1/64, 64]: beyond, the knots would leave any range of inputs
RATES = {"weights": 1.0, "scale": 1 / 4, "coefficients": 1 / 40}  # of learning rates, the paper's

_SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": torch.clone,
    "zero": torch.zeros_like,
    "relu": torch.relu,
    "abs": torch.abs,
}


@dataclasses.dataclass(frozen=True, eq=False)
class PiecewiseLinear:
    """A piecewise-linear function of one number as plain data.

    Attributes:
        positions: (K,) float64, increasing.
        values: (K,) float64, the function there; linear between.
        slopes: to the left of the first position and to the right of the last.
    """

    positions: np.ndarray
    values: np.ndarray
    slopes: tuple[float, float]

    def __call__(self, x) -> np.ndarray:
        """Return the function at the numbers ``x``, in float64."""
        x = np.asarray(x, dtype=np.float64)
        left = self.slopes[0] * np.minimum(x - self.positions[0], 0.0)
        right = self.slopes[1] * np.maximum(x - self.positions[-1], 0.0)
        return np.interp(x, self.positions, self.values) + left + right


class ProjectSlopes(Constraint):
    """Parametrization: see :func:`lablib.ops.splines.project_slopes`."""

    reach = Fixed()
    slopes = Fixed()

    def __init__(self, reach: float, slopes: tuple[float, float]):
        super().__init__()
        self.reach, self.slopes = reach, slopes

    def right_inverse(self, values: Tensor) -> Tensor:
        self.check_shape(values)
        if not values.isfinite().all():
            raise ValueError("there are coefficients that are NaN or infinite; assign finite ones")
        return values

    def forward(self, values: Tensor) -> Tensor:
        return project_slopes(values, self.reach, *self.slopes)


class BoundedScale(Constraint):
    """Parametrization alpha = exp(b sin(free / b)), b = log 64: positive, 1 with slope 1 at free = 0.

    It reaches both ends of [1/64, 64] and does not get stuck there.
    """

    def forward(self, free: Tensor) -> Tensor:
        bound = math.log(LARGEST_SCALE)
        return (bound * (free / bound).sin()).exp()

    def right_inverse(self, scale: Tensor) -> Tensor:
        """Scales outside [1/64, 64] are moved to the nearest end."""
        self.check_shape(scale)
        if scale.isnan().any():
            raise ValueError("a scale is NaN; assign positive numbers")
        bound = math.log(LARGEST_SCALE)
        inside = scale.clamp(1.0 / LARGEST_SCALE, LARGEST_SCALE)
        return bound * (inside.log() / bound).clamp(-1.0, 1.0).asin()


class LearnableSpline(LipschitzLayer):
    r"""One learned piecewise-linear activation per channel, its slopes within bounds: all norms.

        s(x) = S(alpha x) / alpha,    S linear between the knots t_k = -R + k T,  T = 2 R / (K - 1),

    and linear on with the end segments outside [-R, R]: there is no dead zone. The chain rule gives s' = S'
    at alpha x, so alpha moves the knots (to t_k / alpha) and changes neither slopes nor the total variation
    of the slope. The slopes of the coefficients S(t_k), as stored, are within the bounds exactly: in the
    forward pass they come from free parameters by :func:`~lablib.ops.splines.project_slopes`, through which
    gradients flow.

    Args:
        channels: how many, or 1 for a spline shared by all channels.
        knots: K >= 2, even or odd.
        range: R > 0, in units of the input.
        init: the function to start from: "identity", "zero", "relu", "abs", "maxmin" (channels alternate
            |x| and x), a callable that maps the knots (K,) to values (K,) or (C, K), or these values.
            Interpolated at the knots, and projected where its slopes are out of bounds.
        slopes: (low, high), the bounds of all slopes; (0, 1) makes the activations monotone.
        scaling: learn alpha; otherwise it is 1.
        dim: channel axis; default 1 (0 for a vector).

    Attributes:
        coefficients: S(t_k) (C, K), within the bounds; assigned ones are projected.
        scale: alpha (C,) in [1/64, 64] up to rounding, None without ``scaling``.

    Raises:
        ValueError: for channels < 1, knots < 2, a range that is not between 1e-30 (K - 1) and 1e30, slopes that
            are no finite bounds low <= high, an unknown init or one that is not finite, or the batch as an axis.

    >>> network = nn.Sequential(nn.Linear(2, 8), LearnableSpline(8, init="relu"), nn.Linear(8, 1))
    >>> network(torch.rand(5, 2)).shape, round(total_variation(network).item(), 3)  # eight ReLUs, each bends by 1
    (torch.Size([5, 1]), 8.0)
    """

    norms = ALL_NORMS
    channels = Fixed()
    knots = Fixed()
    range = Fixed()
    slopes = Fixed()
    scaling = Fixed()

    def __init__(
        self,
        channels: int,
        knots: int = 21,
        range: float = 1.0,
        init: Init = "identity",
        slopes: tuple[float, float] = (-1.0, 1.0),
        scaling: bool = True,
        dim: int | None = None,
    ):
        super().__init__()
        if not _is_count(channels, 1) or not _is_count(knots, 2):
            raise ValueError(
                f"a spline needs channels >= 1 and knots >= 2, whole numbers, got {channels!r} and {knots!r}"
            )
        if not isinstance(range, numbers.Real) or not 1e-30 * (knots - 1) <= range <= 1e30:
            raise ValueError(f"the range must be a number between 1e-30 (knots - 1) and 1e30, got {range!r}")
        channels, knots = int(channels), int(knots)
        self.channels, self.knots, self.scaling, self.dim = channels, knots, bool(scaling), check_dim(dim)
        self.range, self.slopes = float(range), _bounds(slopes)
        start = _start(init, channels, self.positions())
        self.coefficients = nn.Parameter(start.to(torch.get_default_dtype()))
        constrain(self, "coefficients", ProjectSlopes(self.range, self.slopes))
        if not self.coefficients.isfinite().all():
            raise ValueError(
                f"no {self.coefficients.dtype} coefficients have slopes in {slopes}; widen the bounds"
            )
        self.scale = nn.Parameter(torch.ones(channels)) if scaling else None
        if scaling:
            constrain(self, "scale", BoundedScale())

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "scale" and value is not None and not self.scaling:  # it would not be kept positive
            raise AttributeError(f"this spline has no scale; make a new {layer_name(self)} with scaling=True")
        super().__setattr__(name, value)

    @property
    def lipschitz(self) -> float:
        return max(abs(bound) for bound in self.slopes)

    @property
    def values(self) -> Tensor:
        """S at its knots (C, K): the coefficients."""
        return self.coefficients

    @exact
    def forward(self, x: Tensor) -> Tensor:
        """x, channels on axis ``dim``: the same shape."""
        if self.channels > 1:
            check_channels(x, self.channels, channel_dim(x, self.dim), self)
        return linear_spline(x, self.values, self.range, self.dim, self.scale)

    def positions(self) -> Tensor:
        """Return the knots t_k (K,) of S in float64."""
        last = self.knots - 1  # symmetric about 0, where linspace is not
        return self.range * torch.arange(-last, last + 1, 2, dtype=torch.float64) / last

    def second_variation(self) -> Tensor:
        """Return TV(2) of each spline (C,): the sum of |slope changes|, the same for s and S."""
        return second_variation(self.values, self.range)

    def active_knots(self, tolerance: float = 1e-4) -> Tensor:
        """Return how many knots of each spline change the slope by more than ``tolerance`` (C,)."""
        return count_active_knots(self.values, self.range, tolerance)

    def export(self) -> list[PiecewiseLinear]:
        """Return s of each channel (one, if shared) as plain data at all its knots t_k / alpha."""
        positions, values = self.positions().numpy(), self.values.detach().double().cpu().numpy()
        return self._rescaled([(positions, row) for row in values])

    def simplified(self, tolerance: float = 0.0) -> list[PiecewiseLinear]:
        """Return :meth:`export` with the fewest of its knots that keep S within ``tolerance`` everywhere.

        So s stays within tolerance / alpha. With 0 only knots without any bend go: the same function.
        """
        kept = remove_knots(self.values, self.range, tolerance)
        return self._rescaled([(positions.numpy(), values.numpy()) for positions, values in kept])

    def _rescaled(self, functions: list[tuple[np.ndarray, np.ndarray]]) -> list[PiecewiseLinear]:
        """S(t) of each channel as s(x): positions and values over alpha, slopes the same."""
        scale = [1.0] * self.channels if self.scale is None else self.scale.detach().double().tolist()
        made = []
        for (positions, values), alpha in zip(functions, scale):
            slopes = np.diff(values) / np.diff(positions)
            made.append(PiecewiseLinear(positions / alpha, values / alpha, (slopes[0], slopes[-1])))
        return made

    def extra_repr(self) -> str:
        parts = f"{self.channels}, knots={self.knots}, range={self.range:g}, slopes={self.slopes}"
        return parts if self.scaling else f"{parts}, scaling=False"


def total_variation(model: nn.Module) -> Tensor:
    """Return the sum of TV(2) over all channels of all :class:`LearnableSpline` in ``model``: the regulariser.

    A scalar, differentiable, 0 where there are none; a layer used twice counts once. Source: arXiv 2210.16222,
    section 3.3.
    """
    splines = [part for part in model.modules() if isinstance(part, LearnableSpline)]
    if not splines:
        return next(model.parameters(), torch.zeros(())).new_zeros(())
    total = splines[0].second_variation().sum()
    for spline in splines[1:]:
        total = total + spline.second_variation().sum().to(total)
    return total


def spline_parameter_groups(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Return optimiser groups with the rates of the paper: weights lr, scales lr / 4, coefficients lr / 40.

    Every parameter of ``model`` is in exactly one; groups without any are left out. Each also holds its
    ``name`` and the ``factor`` of its rate, which :func:`lablib.train.optimiser.set_rate` multiplies with.

    Raises:
        ValueError: for a rate that is not positive and finite.
    """
    if not 0.0 < lr < math.inf:
        raise ValueError(f"the learning rate must be positive and finite, got {lr}")
    kinds = {}
    for part in model.modules():
        if isinstance(part, LearnableSpline):
            kinds |= {weight.original: name for name, weight in part.parametrizations.items()}
    members: dict[str, list[nn.Parameter]] = {name: [] for name in RATES}
    for parameter in model.parameters():
        members[kinds.get(parameter, "weights")].append(parameter)
    return [
        {"name": name, "params": members[name], "lr": lr * factor, "factor": factor}
        for name, factor in RATES.items()
        if members[name]
    ]


def _start(init: Init, channels: int, positions: Tensor) -> Tensor:
    """Return the values (C, K) of ``init`` at the knots ``positions`` (K,), in float64."""
    if isinstance(init, str):
        if init == "maxmin":
            if channels < 2:
                raise ValueError("init 'maxmin' alternates channels; give two or more, or take 'abs'")
            return torch.stack([positions if c % 2 else positions.abs() for c in range(channels)])
        if init not in _SHAPES:
            known = ", ".join([*_SHAPES, "maxmin"])
            raise ValueError(f"no init {init!r}; choose from {known}, or give a callable or the values")
        start = _SHAPES[init](positions)
    else:
        given = init(positions) if callable(init) else init
        try:
            start = torch.as_tensor(given).detach().to(positions)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"init is a name, a callable or values at the knots, not {type(given).__name__}: {error}"
            ) from error
    wanted = (channels, len(positions))
    if start.shape not in (wanted, wanted[1:]) or not start.isfinite().all():
        raise ValueError(
            f"init must give finite values at the knots, of shape {wanted} or {wanted[1:]}; got "
            f"{tuple(start.shape)}{'' if start.isfinite().all() else ' with NaN or infinity'}"
        )
    return start.expand(wanted).clone()


def _bounds(slopes: Any) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in slopes)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"slopes are two finite bounds (low, high) with low <= high, got {slopes}")
    return low, high


def _is_count(number: object, least: int) -> bool:
    return isinstance(number, numbers.Integral) and not isinstance(number, bool) and number >= least
