"""Many small 1-Lipschitz networks R -> R trained at once: parameters carry a leading axis P, one per member.

Shapes: P members, w neurons of each of the H hidden layers, B points. Activations are the lab's own layers over
P w channels. A trained member leaves as a chain of the lab's layers (:meth:`Population.members`), and what is
reported is measured on that chain: its constant is proven, where the batched form may be off by rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.experiments.activation_zoo import make_activation
from lablib.experiments.threads import one_thread
from lablib.layers import LearnableSpline, LInfLinear, LipschitzSequential, OrthonormalLinear
from lablib.layers.splines import spline_parameter_groups
from lablib.ops.orthonormal import cayley
from lablib.ops.projections import scale_groups
from lablib.train.optimiser import set_rate

LINEAR = {"l2": OrthonormalLinear, "linf": LInfLinear}
LEARNED = ("slope", "angle", "coefficients", "scale")  # of PReLU, Householder and splines, channels first


class Population(nn.Module):
    """P networks 1-w-...-w-1 with one activation, 1-Lipschitz in one norm on the hidden layers.

    Member i's start depends on ``seeds[i]`` alone. Weights: orthonormal by the Cayley map ("l2") or rows scaled
    to an l1 norm of at most 1 ("linf"), as OrthonormalLinear and LInfLinear have them.

    Args:
        activation: a name of :func:`~lablib.experiments.activation_zoo.make_activation`.
        norm: "l2" or "linf"; the activation must be 1-Lipschitz in it.
        seeds: (P,), one per member.
        width, hidden: w and H, both at least 1.
        options: of the activation.

    Raises:
        ValueError: for another norm, no seeds or no neurons, or what the activation refuses.
    """

    def __init__(
        self,
        activation: str,
        norm: str,
        seeds: Sequence[int],
        width: int = 10,
        hidden: int = 3,
        **options: Any,
    ) -> None:
        super().__init__()
        if norm not in LINEAR:
            raise ValueError(f"no weights for the norm {norm!r}; choose from {', '.join(LINEAR)}")
        if not len(seeds) or width < 1 or hidden < 1:
            raise ValueError(f"give seeds, width and hidden layers, not {len(seeds)}, {width} and {hidden}")
        self.activation, self.norm, self.options, self.width = activation, norm, options, width
        self.size = len(seeds)
        channels = [make_activation(activation, self.size * width, **options) for _ in range(hidden)]
        if norm not in channels[0].norms:
            raise ValueError(f"{activation} is 1-Lipschitz in {', '.join(channels[0].norms)}, not in {norm}")
        self.activations = nn.ModuleList(channels)
        starts = [_start(norm, width, hidden + 1, torch.Generator().manual_seed(int(seed))) for seed in seeds]
        free, base, bias = (torch.stack(parts, 1) for parts in zip(*starts))
        self.free, self.bias = nn.Parameter(free), nn.Parameter(bias)
        self.register_buffer("base", base)
        self.register_buffer("mask", _used(norm, width, hidden + 1))

    def weights(self) -> list[Tensor]:
        """Return the constrained weights: (P, w, 1), then (P, w, w) H - 1 times, then (P, 1, w)."""
        used = self.free * self.mask
        if self.norm == "linf":
            first, *inner, last = scale_groups(used, -1)
            return [first[..., :1], *inner, last[:, :1]]
        first, *inner, last = self.base @ cayley(used)
        return [first[..., :1], *inner, last[..., :1].mT]

    def forward(self, x: Tensor) -> Tensor:
        """x (P, B) -> (P, B), each member at its own points."""
        first, *rest = self.weights()
        values = first * x[:, None] + self.bias[0][..., None]
        for weight, bias, activation in zip(rest, self.bias[1:], self.activations):
            values = activation(values.reshape(1, -1, x.shape[1])).reshape(values.shape)
            values = torch.baddbmm(bias[:, : weight.shape[1], None], weight, values)
        return values[:, 0]

    def variation(self) -> Tensor:
        """Return (P,): the sum of TV(2) over each member's splines, 0 without splines."""
        splines = [
            layer.second_variation() for layer in self.activations if isinstance(layer, LearnableSpline)
        ]
        if not splines:
            return self.bias.new_zeros(self.size)
        return torch.stack(splines).reshape(len(splines), self.size, -1).sum((0, 2))

    @torch.no_grad()
    def members(self, chosen: Sequence[int]) -> list[LipschitzSequential]:
        """Return these networks as chains of the lab's layers, which take (B, 1)."""
        weights, learned = self.weights(), [self._learned(layer) for layer in self.activations]
        return [self._member(weights, learned, index) for index in chosen]

    def _learned(self, activation: nn.Module) -> dict[str, Tensor]:
        """Return what an activation has learned, as constrained: name -> (P, ...)."""
        read = {name: getattr(activation, name, None) for name in LEARNED}
        kept = {name: value for name, value in read.items() if isinstance(value, Tensor)}
        return {name: value.unflatten(0, (self.size, -1)) for name, value in kept.items()}

    def _member(
        self, weights: list[Tensor], learned: list[dict[str, Tensor]], index: int
    ) -> LipschitzSequential:
        linear, layers = LINEAR[self.norm], []
        for number, (weight, bias) in enumerate(zip(weights, self.bias)):
            layer = linear(weight.shape[2], weight.shape[1])
            layer.weight = weight[index]
            layer.bias.copy_(bias[index, : weight.shape[1]])
            layers.append(layer)
            if number < len(learned):
                activation = make_activation(self.activation, self.width, **self.options)
                for name, values in learned[number].items():
                    constrained = parametrize.is_parametrized(activation, name)
                    setattr(
                        activation,
                        name,
                        values[index] if constrained else nn.Parameter(values[index].clone()),
                    )
                layers.append(activation)
        return LipschitzSequential(*layers)


@one_thread()
def train(
    population: Population,
    points: np.ndarray,
    values: np.ndarray,
    *,
    steps: int,
    batch: int,
    rate: Callable[[int], float],
    weight: float | np.ndarray = 0.0,
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Minimise mean squared error + weight * TV(2) of every member with Adam, in place.

    Rates of weights, scales and coefficients: rate(step) times 1, 1/4 and 1/40 (arXiv 2210.16222). Members do
    not influence each other: their losses are added, and Adam works entry by entry.

    Args:
        points, values: (P, N), the data of each member.
        steps: how many, each on ``batch`` points; all are visited in random order before any comes again.
        rate: step -> learning rate of the weights.
        weight: of TV(2), for all or one per member (P,).
        seed: of the order of points.
        on_step: called with the number of the step just taken.

    Raises:
        ValueError: if the shapes do not fit, a number is not finite, or steps or batch are below 1.
    """
    x, y = (torch.as_tensor(np.asarray(part), dtype=torch.float32) for part in (points, values))
    penalty = torch.as_tensor(weight, dtype=torch.float32)
    if (
        x.shape != y.shape
        or x.dim() != 2
        or len(x) != population.size
        or penalty.shape not in ((), (len(x),))
    ):
        raise ValueError(
            f"{population.size} members need points and values of one shape ({population.size}, N), got "
            f"{tuple(x.shape)} and {tuple(y.shape)}, and one weight or one each, got {tuple(penalty.shape)}"
        )
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("points and values must be finite; look for NaN in the data")
    if steps < 1 or not 1 <= batch <= x.shape[1]:
        raise ValueError(f"take at least one step on 1 to {x.shape[1]} points, not {steps} on {batch}")
    optimiser = torch.optim.Adam(spline_parameter_groups(population, rate(0)), fused=True)
    order = _batches(x, y, batch, torch.Generator().manual_seed(seed))
    for step, (inputs, targets) in zip(range(steps), order):
        set_rate(optimiser, rate(step))
        with parametrize.cached():  # coefficients are read by the forward pass and by TV(2)
            errors = population(inputs) - targets
            loss = errors.square().mean(1).sum()
            if penalty.any():
                loss = loss + (penalty * population.variation()).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
        optimiser.step()
        if on_step is not None:
            on_step(step)


@torch.no_grad()
def evaluate(network: nn.Module, x: np.ndarray) -> np.ndarray:
    """Return the outputs (N,) of one network at ``x`` (N,) as float64, computed in the dtype of its weights."""
    inputs = torch.as_tensor(x, dtype=next(network.parameters()).dtype)[:, None]
    return network(inputs)[:, 0].double().numpy()


def count_knots(network: nn.Module, tolerance: float) -> int:
    """Return how many knots bend by more than ``tolerance`` in all splines of one network."""
    splines = (part for part in network.modules() if isinstance(part, LearnableSpline))
    return sum(int(spline.active_knots(tolerance).sum()) for spline in splines)


def _batches(x: Tensor, y: Tensor, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield parts (P, batch) without end: a new random order each round, a short rest left out."""
    while True:
        order = torch.randperm(x.shape[1], generator=generator)[: x.shape[1] // batch * batch]
        yield from zip(x[:, order].split(batch, 1), y[:, order].split(batch, 1))


def _start(norm: str, width: int, layers: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw free weights and base (layers, w, w) and biases (layers, w), as torch's Linear and the lab's layers."""
    fans = torch.tensor([1.0] + [float(width)] * (layers - 1))
    bias = (2 * torch.rand(layers, width, generator=generator) - 1) / fans.sqrt()[:, None]
    if norm == "linf":
        uniform = 2 * torch.rand(layers, width, width, generator=generator) - 1
        return uniform / fans.sqrt()[:, None, None], torch.zeros(layers, 0), bias
    basis, factor = torch.linalg.qr(torch.randn(layers, width, width, generator=generator))
    signs = torch.where(factor.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    return torch.zeros(layers, width, width), basis * signs[:, None], bias


def _used(norm: str, width: int, layers: int) -> Tensor:
    """Return (layers, 1, w, w) of 0 and 1: the entries of the free weights that matter."""
    used = torch.ones(layers, 1, width, width)
    if norm == "l2":
        used = used.tril(-1)
        used[-1, ..., 1:] = 0  # the last weight is a column, transposed
    else:
        used[-1, :, 1:] = 0
    used[0, ..., 1:] = 0
    return used
