"""What an exported network computes with: float32 numbers, and the slopes that can be proven of these very numbers.

Rounding weights to float32 changes the slopes, so what is added to make them positive is checked again here, and
where it falls short raised. Statements are about the real function of the exported numbers: evaluated in float32, two
close points may still come out the wrong way round by the rounding of the output.
"""

import dataclasses

import numpy as np
import torch
from torch import nn

from lablib.certify.pieces import Affine, Sort, monotone_parts, pieces
from lablib.certify.slopes import added_slopes
from lablib.layers.monotone import round_up
from lablib.ops.slope_state import SlopeState
from lablib.ops.slopes import through_elementwise

ROUNDING = 1e-5  # share of the slopes by which rounding to float32 may change what is to be added


@dataclasses.dataclass(frozen=True)
class Numbers:
    """head(g(z) + added z) of z = (x - mean) * factor, all float32.

    Attributes:
        weights, biases: of the linear layers of g, (O_l, I_l) and (O_l,).
        sizes: group sizes of the sorts between them, one fewer.
        added: (O, I) with signs, or None.
        head: None, "sigmoid" or "softplus".
        mean, factor: (I,), factor > 0; or None both.

    Raises:
        ValueError: for arrays that are not of these shapes, in float32 and finite, or sizes that do not fit.
    """

    weights: list[np.ndarray]
    biases: list[np.ndarray]
    sizes: list[int]
    added: np.ndarray | None
    head: str | None
    mean: np.ndarray | None
    factor: np.ndarray | None

    def __post_init__(self):
        widths = [self.inputs, *map(len, self.weights)]
        shapes = {f"weight {k}": (w, (widths[k + 1], widths[k])) for k, w in enumerate(self.weights)}
        shapes |= {f"bias {k}": (b, widths[k + 1 : k + 2]) for k, b in enumerate(self.biases)}
        shapes |= {key: (v, widths[:1]) for key, v in self.optional.items() if key != "added"}
        if self.added is not None:
            shapes["added"] = self.added, (self.outputs, self.inputs)
        for key, (values, shape) in shapes.items():
            if values.shape != tuple(shape) or values.dtype != np.float32 or not np.isfinite(values).all():
                raise ValueError(f"{key} should be finite float32 numbers of shape {tuple(shape)}")
        if not len(self.weights) == len(self.biases) == len(self.sizes) + 1 or any(
            size < 1 or width % size for size, width in zip(self.sizes, widths[1:])
        ):
            raise ValueError(f"sorts in groups of {self.sizes} do not fit widths {widths}")
        if (self.mean is None) != (self.factor is None) or not (
            self.factor is None or (self.factor > 0).all()
        ):
            raise ValueError("mean and factor go together, and factors are positive")

    @property
    def inputs(self) -> int:
        """I."""
        return self.weights[0].shape[1]

    @property
    def outputs(self) -> int:
        """O."""
        return len(self.weights[-1])

    @property
    def optional(self) -> dict[str, np.ndarray]:
        """Those of added, mean and factor that there are."""
        found = {key: getattr(self, key) for key in ("added", "mean", "factor")}
        return {key: values for key, values in found.items() if values is not None}

    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return proven bounds (low, high), (O, I) float64, of every slope in x before the head, rounded outward."""
        state = self._inner_slopes()
        if self.added is not None:
            state = state.plus(added_slopes(torch.from_numpy(self.added), SlopeState.of_inputs(self.inputs)))
        low, high = state.low.T, state.high.T  # a positive factor for each input
        if self.factor is not None:
            factor = torch.from_numpy(self.factor).double()
            ends = through_elementwise(low, high, factor, factor)
            low = torch.where(low >= 0, ends[0].clamp(min=0.0), ends[0])
            high = torch.where(high <= 0, ends[1].clamp(max=0.0), ends[1])
        return low.T.numpy(), high.T.numpy()

    def _inner_slopes(self) -> SlopeState:
        """Of g in z."""
        state = SlopeState.of_inputs(self.inputs)
        for place, weight in enumerate(self.weights):
            state = state.group_sort(self.sizes[place - 1]) if place else state
            state = state.linear(torch.from_numpy(weight))
        return state


def numbers_of(
    model: nn.Module, mean: np.ndarray | None = None, deviation: np.ndarray | None = None
) -> Numbers:
    """Return the numbers of ``model`` on inputs standardised by ``mean`` and ``deviation`` (I,), if given.

    Args:
        model: a MonotoneNetwork, also a frozen one, a MonotonicWrapper, or a chain of linear layers with sorts
            between them; float32 or float64 (rounded), in evaluation mode.

    Raises:
        ValueError: for another structure, numbers that float32 does not hold, or a mean and deviations that do not
            fit or are not positive; for a sign that is not proven.
    """
    parts = monotone_parts(model)
    steps, inputs = pieces(parts.network)
    weights, biases, sizes = [], [], []
    for place, step in enumerate(steps):
        if place % 2 == 0 and isinstance(step, Affine):
            weights.append(step.weight)
            biases.append(step.bias)
        elif place % 2 == 1 and isinstance(step, Sort):
            sizes.append(step.size)
        else:
            raise ValueError(
                "only linear layers with one GroupSort, MaxMin or FullSort between each two are exported; "
                f"part {place} is another"
            )
    if len(weights) != len(sizes) + 1:
        raise ValueError("the network ends in a sort; end it in a linear layer")
    added = None if parts.added is None else np.zeros((len(weights[-1]), inputs)) + parts.added
    mean, factor = _standard(mean, deviation, inputs)
    found = Numbers(
        weights=[_float32(w) for w in weights],
        biases=[_float32(b) for b in biases],
        sizes=sizes,
        added=None if added is None else _float32(added),
        head=parts.head,
        mean=mean,
        factor=factor,
    )
    return found if added is None else _made_monotone(found, np.zeros_like(added) + parts.directions)


def by_place(numbers: Numbers) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return weights (O, I) and biases with the units before each sort place by place.

    First the first members of all groups, then the second ones, ...
    """
    weights, biases = [*numbers.weights], [*numbers.biases]
    for k, order in enumerate(_orders(numbers)):
        weights[k], biases[k], weights[k + 1] = weights[k][order], biases[k][order], weights[k + 1][:, order]
    return weights, biases


def by_group(stored: Numbers) -> Numbers:
    """Return the numbers of which ``stored`` holds weights and biases in the order of :func:`by_place`."""
    weights, biases = [*stored.weights], [*stored.biases]
    for k, order in enumerate(_orders(stored)):
        back = np.argsort(order)
        weights[k], biases[k], weights[k + 1] = weights[k][back], biases[k][back], weights[k + 1][:, back]
    return dataclasses.replace(stored, weights=weights, biases=biases)


def _orders(numbers: Numbers) -> list[np.ndarray]:
    return [np.arange(len(w)).reshape(-1, k).T.ravel() for k, w in zip(numbers.sizes, numbers.weights)]


def _made_monotone(numbers: Numbers, directions: np.ndarray) -> Numbers:
    """Return ``numbers`` with so much added that every slope with a direction has its sign.

    Raises:
        ValueError: if that is more than rounding to float32 asks for.
    """
    inner = numbers._inner_slopes()
    wrong_side = torch.where(torch.from_numpy(directions > 0), -inner.low, inner.high).clamp(min=0.0)
    needed = np.where(directions == 0, 0.0, round_up(wrong_side, torch.float32).numpy())
    added = np.abs(numbers.added)
    short = needed - added > ROUNDING * np.maximum(needed, float(torch.maximum(-inner.low, inner.high).max()))
    if short.any():
        o, i = np.argwhere(short)[0]
        raise ValueError(
            f"the slope of output {o} in input {i} is not proven to have its sign: {added[o, i]:.6g} is added, and "
            f"{needed[o, i]:.6g} would be enough; export a MonotoneNetwork, or a wrapper with a larger constant"
        )
    return dataclasses.replace(numbers, added=_float32(directions * np.maximum(added, needed)))


def _standard(mean, deviation, inputs: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    if mean is None and deviation is None:
        return None, None
    shift = np.zeros(inputs) if mean is None else np.asarray(mean, dtype=np.float64)
    spread = np.ones(inputs) if deviation is None else np.asarray(deviation, dtype=np.float64)
    if shift.shape != (inputs,) or spread.shape != (inputs,) or not (spread > 0).all():
        raise ValueError(
            f"mean and deviation are ({inputs},) each, deviations positive; got {mean}, {deviation}"
        )
    factor = _float32(1.0 / spread)
    if not (factor > 0).all():
        raise ValueError("a deviation is too large for float32; scale the inputs")
    return _float32(shift), factor


def _float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(rounded).all():
        raise ValueError("the network holds numbers that float32 does not; scale it before exporting it")
    return rounded
