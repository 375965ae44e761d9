"""Many small monotone networks R^I -> R trained at once: parameters carry a leading axis P, one per member.

    f(x) = g(x) + sum_i s_i r_i x_i,   g = W_L sort W_{L-1} ... sort W_1 x,   weights W / max(1, norm / cap)

Every member has its own Lipschitz constant lambda (caps lambda^(1/L)) and its own start; their losses are added and
Adam works entry by entry, so that members do not influence each other. A trained member leaves as a
:class:`~lablib.layers.MonotoneNetwork` in float64 (:meth:`Population.members`), and what is reported is measured on
that network, whose slopes are proven; the batched form in float32 may be off by rounding.

Shapes: P members, I inputs, B points, n units of a layer.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lablib.experiments.threads import one_thread
from lablib.layers import LipschitzLinear, MonotoneNetwork, MonotonicWrapper
from lablib.ops.sorting import group_sort
from lablib.train.schedules import cosine

GRADIENT_NORM = {
    "one-inf": "l1",
    "two-inf": "l2",
    "inf": "linf",
}  # kind -> norm of the inputs in which g is Lipschitz
UNCONSTRAINED = "unconstrained"


class Population(nn.Module):
    """P networks I-w-...-w-1: capped weights and GroupSort, or unconstrained ReLU networks.

    Args:
        kind: of the first layer, "one-inf", "two-inf" or "inf" (later layers: "inf"); or "unconstrained".
        lipschitz: (P,), lambda of each member's g; its layers share it evenly. Ignored when unconstrained.
        seeds: (P,), the start of each member depends on its seed alone.
        inputs, widths: I and the hidden widths, each divisible by ``group_size``.
        group_size: of GroupSort.
        directions: (I,) of +1, 0, -1.
        residual: "certified" sizes r_i by the slopes of the actual weights, "lipschitz" sets r_i = ``strength``.
        strength: (P,), r of each member; default lambda, as published.

    Raises:
        ValueError: for another kind or residual, or lengths that do not match.
    """

    def __init__(
        self,
        kind: str,
        lipschitz: Sequence[float],
        seeds: Sequence[int],
        *,
        inputs: int = 1,
        widths: Sequence[int] = (32, 32),
        group_size: int = 2,
        directions: Sequence[int] = (1,),
        residual: str = "certified",
        strength: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if kind not in (*GRADIENT_NORM, UNCONSTRAINED):
            raise ValueError(f"no kind {kind!r}; choose from {', '.join((*GRADIENT_NORM, UNCONSTRAINED))}")
        if residual not in ("certified", "lipschitz"):
            raise ValueError(f"no residual {residual!r}; choose certified or lipschitz")
        strength = lipschitz if strength is None else strength
        if not len(seeds) == len(lipschitz) == len(strength) or not len(seeds) or len(directions) != inputs:
            raise ValueError(
                f"{len(seeds)} seeds need as many constants and strengths, not {len(lipschitz)} and "
                f"{len(strength)}, and {inputs} inputs as many directions, not {len(directions)}"
            )
        self.kind, self.residual, self.size = kind, residual, len(seeds)
        self.widths, self.group_size = tuple(widths), group_size
        self.register_buffer("lipschitz", torch.tensor(lipschitz, dtype=torch.float64))
        self.register_buffer("strength", torch.tensor(strength, dtype=torch.float64))
        self.register_buffer("directions", torch.tensor(directions, dtype=torch.float32))
        sizes = (inputs, *widths, 1)
        starts = [_start(sizes, seed) for seed in seeds]
        free, bias = ([torch.stack(layer) for layer in zip(*parts)] for parts in zip(*starts))
        self.free, self.bias = nn.ParameterList(free), nn.ParameterList(bias)

    def weights(self) -> list[Tensor]:
        """Return the constrained weights, (P, n_out, n_in) each."""
        if self.kind == UNCONSTRAINED:
            return list(self.free)
        caps = (self.lipschitz ** (1 / len(self.free))).float().reshape(-1, 1, 1)
        first, *rest = self.free
        return [_capped(first, self.kind, caps), *(_capped(weight, "inf", caps) for weight in rest)]

    def forward(self, x: Tensor) -> Tensor:
        """x (N, I) for all, or (P, N, I) -> (P, N)."""
        weights = self.weights()
        inputs = hidden = x.expand(self.size, *x.shape[-2:])
        for number, (weight, bias) in enumerate(zip(weights, self.bias)):
            if number:
                hidden = (
                    hidden.relu() if self.kind == UNCONSTRAINED else group_sort(hidden, self.group_size, 2)
                )
            hidden = torch.baddbmm(bias[:, None], hidden, weight.mT)
        if self.kind == UNCONSTRAINED or not self.directions.any():
            return hidden[..., 0]
        return hidden[..., 0] + torch.einsum("pni,pi->pn", inputs, self.directions * self._strengths(weights))

    def _strengths(self, weights: list[Tensor]) -> Tensor:
        """Return r, (P, I)."""
        if self.residual == "lipschitz":
            return self.strength.float()[:, None].expand(-1, len(self.directions))
        low = high = weights[0]
        for weight in weights[1:]:
            size = self.group_size
            low = low.unflatten(1, (-1, size)).amin(2).repeat_interleave(size, 1)
            high = high.unflatten(1, (-1, size)).amax(2).repeat_interleave(size, 1)
            rising, falling = weight.clamp(min=0), weight.clamp(max=0)
            low, high = rising @ low + falling @ high, rising @ high + falling @ low
        needed = torch.where(self.directions > 0, -low[:, 0], high[:, 0]).clamp(min=0)
        return torch.minimum(needed, self.lipschitz.float()[:, None])

    @torch.no_grad()
    def members(self, chosen: Sequence[int] | None = None) -> list[nn.Module]:
        """Return these members (default all) in float64, (N, I) -> (N, 1).

        MonotoneNetwork; MonotonicWrapper around one's g where the strength is not lambda; or a torch chain.
        """
        return [self._member(index) for index in (range(self.size) if chosen is None else chosen)]

    def _member(self, index: int) -> nn.Module:
        inputs, lipschitz, strength = (
            len(self.directions),
            float(self.lipschitz[index]),
            float(self.strength[index]),
        )
        if self.kind == UNCONSTRAINED:
            sizes, layers = (inputs, *self.widths, 1), []
            for before, after in itertools.pairwise(sizes):
                layers += [nn.Linear(before, after), nn.ReLU()]
            network = nn.Sequential(*layers[:-1])
            linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        else:
            signs = self.directions.int().tolist()
            options = {"kind": self.kind, "group_size": self.group_size, "residual": self.residual}
            network = MonotoneNetwork(inputs, self.widths, 1, lipschitz, signs, **options)
            linear = [layer for layer in network.modules() if isinstance(layer, LipschitzLinear)]
            if self.residual == "lipschitz" and strength != lipschitz:
                network = MonotonicWrapper(network.network, strength, signs)
        for layer, weight, bias in zip(linear, self.free, self.bias, strict=True):
            stored = (
                layer.parametrizations.weight.original if hasattr(layer, "parametrizations") else layer.weight
            )
            stored.copy_(weight[index])
            layer.bias.copy_(bias[index])
        return network.cpu().double().eval()


@one_thread()
def train(
    population: Population,
    x: np.ndarray,
    y: np.ndarray,
    *,
    steps: int,
    rate: float,
    loss: str = "mse",
    batch: int | None = None,
    device: str = "cpu",
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Minimise each member's mean squared ("mse") or absolute ("l1") error with Adam, in place.

    The rate falls to 0 along a half cosine, as in the published examples.

    Args:
        x: (N, I), the same points for all members, or (P, N, I).
        y: (N,) or (P, N).
        batch: points per step, visited in random order; None takes all.
        device: where to train; the population comes back to the CPU.
        on_step: called with the number of the step just taken.

    Raises:
        ValueError: if the shapes do not fit, a number is not finite, or the loss is unknown.
    """
    inputs, targets = (torch.as_tensor(np.asarray(part), dtype=torch.float32) for part in (x, y))
    if inputs.dim() not in (2, 3) or inputs.shape[-1] != len(population.directions):
        raise ValueError(
            f"x has shape {tuple(inputs.shape)}; give (N, {len(population.directions)}), or one per member"
        )
    points = inputs.expand(population.size, *inputs.shape[-2:])
    targets = targets.expand(population.size, targets.shape[-1])
    if points.shape[:2] != targets.shape:
        raise ValueError(f"{points.shape[1]} points need as many values, not {targets.shape[1]}")
    if not (points.isfinite().all() and targets.isfinite().all()):
        raise ValueError("points and values must be finite; look for NaN in the data")
    if loss not in ("mse", "l1"):
        raise ValueError(f"no loss {loss!r}; choose mse or l1")
    population.to(device)
    schedule = cosine(rate, steps)
    optimiser = torch.optim.Adam(population.parameters(), lr=rate, fused=True)
    batches = _batches(points.to(device), targets.to(device), batch)
    for step, (at, wanted) in zip(range(steps), batches):
        for group in optimiser.param_groups:
            group["lr"] = schedule(step)
        error = population(at) - wanted
        value = (error.square() if loss == "mse" else error.abs()).mean(1).sum()
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        if on_step is not None:
            on_step(step)
    population.cpu()


def _batches(x: Tensor, y: Tensor, batch: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield parts (P, batch) without end, in a new order each round; everything if there is no batch size."""
    generator = torch.Generator().manual_seed(0)
    while True:
        if batch is None or batch >= x.shape[1]:
            yield x, y
            continue
        order = torch.randperm(x.shape[1], generator=generator).to(x.device)
        for part in order[: x.shape[1] // batch * batch].split(batch):
            yield x[:, part], y[:, part]


def _capped(weight: Tensor, kind: str, cap: Tensor) -> Tensor:
    """Return W / max(1, norm / cap), norms of entries ("one-inf") or of rows in l1 ("inf") or l2 ("two-inf")."""
    if kind == "one-inf":
        norm = weight.abs()
    elif kind == "inf":
        norm = weight.abs().sum(2, keepdim=True)
    else:
        norm = weight.norm(dim=2, keepdim=True)
    return weight / (norm / cap).clamp(min=1.0)


def _start(sizes: Sequence[int], seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Draw weights (n_out, n_in) and biases (n_out,) as torch's Linear does: uniform within 1 / sqrt(n_in)."""
    generator = torch.Generator().manual_seed(int(seed))
    weights, biases = [], []
    for before, after in itertools.pairwise(sizes):
        bound = 1 / math.sqrt(before)
        weights.append((2 * torch.rand(after, before, generator=generator) - 1) * bound)
        biases.append((2 * torch.rand(after, generator=generator) - 1) * bound)
    return weights, biases


@one_thread()
def evaluate(network: nn.Module, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return values (N,) and slopes (N, I) of one network R^I -> R at ``x`` (N, I), in float64."""
    inputs = torch.from_numpy(np.asarray(x, dtype=np.float64)).requires_grad_()
    with torch.enable_grad():
        values = network(inputs)[:, 0]
        (slopes,) = torch.autograd.grad(values.sum(), inputs)
    return values.detach().numpy(), slopes.numpy()
