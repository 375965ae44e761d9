"""Networks on tables: ours, the published package as its users would, and without constraints; all seeds at once.

Every network is small, so that one by one most of the time would be lost between operations. Members of a
population share sizes and settings but neither rows nor starts; their losses are added, and Adam works entry by
entry, so that they do not influence each other. What is measured at the end is each member alone, as the module that
a user would have: :class:`~lablib.layers.MonotoneNetwork` in float64, the package's own in float32.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lablib.experiments.monotone_population import UNCONSTRAINED, Population
from lablib.experiments.tabular_rows import Job, stacked
from lablib.experiments.threads import one_thread

OURS, MLP, PEER, PEER_DEFAULT = "monotone", "mlp", "package", "package_default"
NETWORKS = (OURS, MLP, PEER, PEER_DEFAULT)
Setting = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model: ``score`` (N, I) -> (N,) on standardised features, and how many ``parameters`` it has."""

    score: Callable[[np.ndarray], np.ndarray]
    parameters: int


class PackagePopulation(nn.Module):
    """Members built from the package monotonicnetworks, run side by side by ``torch.vmap``.

    As its README asks: kind "one-inf" in the first layer and "inf" in the others; or, if ``default``, the kind that
    ``LipschitzLinear`` takes when nothing is said, "one-inf" in all, which bounds no slope. Groups of two.

    Args:
        residual: what is added per monotone input; by default the product of the layers' constants.
    """

    def __init__(
        self,
        lipschitz: float,
        widths: Sequence[int],
        directions: Sequence[int],
        seeds: Sequence[int],
        default: bool = False,
        residual: float | None = None,
    ) -> None:
        super().__init__()
        self.built = [
            _build_package(lipschitz, widths, directions, seed, default, residual) for seed in seeds
        ]
        names = [name for name, _ in self.built[0].named_parameters()]
        self.names = {name: name.replace(".", "_") for name in names}
        for name, own in self.names.items():
            each = torch.stack([dict(model.named_parameters())[name].detach() for model in self.built])
            self.register_parameter(own, nn.Parameter(each))
        self.size = len(self.built)

    def forward(self, x: Tensor) -> Tensor:
        """x (P, N, I) -> (P, N)."""

        def one(parameters, inputs):
            return torch.func.functional_call(self.built[0], parameters, (inputs,))[..., 0]

        return torch.vmap(one)({name: getattr(self, own) for name, own in self.names.items()}, x)

    @torch.no_grad()
    def members(self, chosen: Sequence[int]) -> list[nn.Module]:
        """Return these members as they are now, modules of the package."""
        for index in chosen:
            for name, value in self.built[index].named_parameters():
                value.copy_(getattr(self, self.names[name])[index])
        return [self.built[index] for index in chosen]


def _build_package(lipschitz, widths, directions, seed, default, residual) -> nn.Module:
    import monotonicnetworks as package

    sizes = (len(directions), *widths, 1)
    cap = lipschitz ** (1 / (len(sizes) - 1))
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for place, (before, after) in enumerate(itertools.pairwise(sizes)):
            kind = "inf" if place and not default else "one-inf"
            layers += [package.GroupSort(before // 2)] if place else []
            layers.append(package.LipschitzLinear(before, after, lipschitz_const=cap, kind=kind))
    return package.MonotonicWrapper(
        nn.Sequential(*layers), lipschitz_const=residual or lipschitz, monotonic_constraints=list(directions)
    )


def build(method: str, setting: Setting, jobs: Sequence[Job]) -> nn.Module:
    """Return an untrained population with one member per job.

    Raises:
        ValueError: for an unknown method.
    """
    if method not in NETWORKS:
        raise ValueError(f"no network {method!r}; choose from {', '.join(NETWORKS)}")
    seeds, directions = [job.seed for job in jobs], jobs[0].directions
    widths, lipschitz = setting["widths"], setting.get("lipschitz", 1.0)
    if method in (PEER, PEER_DEFAULT):
        default = method == PEER_DEFAULT
        return PackagePopulation(lipschitz, widths, directions, seeds, default, setting.get("residual"))
    kind = "one-inf" if method == OURS else UNCONSTRAINED
    sizes = {"inputs": len(directions), "widths": widths, "directions": directions}
    return Population(kind, [lipschitz] * len(jobs), seeds, **sizes)


@one_thread()
def train(
    population: nn.Module,
    jobs: Sequence[Job],
    setting: Setting,
    checks: Sequence[int],
    on_check: Callable[[int], None],
) -> None:
    """Train in place with Adam at a constant rate; call ``on_check(number)`` after each of ``checks`` steps.

    ``setting``: ``rate``, ``batch`` (None: all rows), ``decay`` (of the weights, per rate; 0), ``shuffle`` (True).
    """
    x, y, _, _ = (torch.from_numpy(part) for part in stacked(jobs))
    loss = F.binary_cross_entropy_with_logits if jobs[0].classes else F.mse_loss
    optimiser = torch.optim.AdamW(
        population.parameters(), setting["rate"], weight_decay=setting.get("decay", 0.0)
    )
    batches = _batches(x, y, setting["batch"], setting.get("shuffle", True), [job.seed for job in jobs])
    step = 0
    for number, until in enumerate(checks):
        for _ in range(until - step):
            rows, wanted = next(batches)
            value = loss(population(rows), wanted, reduction="none").mean(1).sum()
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
        step = until
        on_check(number)


def courses(method: str, setting: Setting, jobs: Sequence[Job], checks: Sequence[int]) -> np.ndarray:
    """Train one member per job; return the scores of its held rows after each of ``checks``: (P, C, M)."""
    population = build(method, setting, jobs)
    held = torch.from_numpy(stacked(jobs)[2])
    found = []

    def keep(_: int) -> None:
        with torch.no_grad():
            found.append(population(held).numpy())

    train(population, jobs, setting, checks, keep)
    return np.stack(found, axis=1)


def fit(
    method: str, setting: Setting, jobs: Sequence[Job], checks: Sequence[int], stops: Sequence[int]
) -> list[Trained]:
    """Train one member per job, each as far as its own check number ``stops``; return them alone."""
    population = build(method, setting, jobs)
    done: dict[int, Trained] = {}

    def keep(number: int) -> None:
        for index in np.flatnonzero(np.asarray(stops) == number):
            member = population.members([int(index)])[0]
            done[int(index)] = Trained(
                _scorer(member), sum(p[index].numel() for p in population.parameters())
            )

    train(population, jobs, setting, checks[: max(stops) + 1], keep)
    return [done[index] for index in range(len(jobs))]


def _scorer(network: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    dtype = next(network.parameters()).dtype

    @torch.no_grad()
    def score(x: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(x).to(dtype))[..., 0].double().numpy()

    return score


def _batches(x: Tensor, y: Tensor, batch: int | None, shuffle: bool, seeds: Sequence[int]):
    """Yield (P, batch, I), (P, batch) without end; each member has an order of its own, a new one each round."""
    if batch is None or batch >= x.shape[1]:
        while True:
            yield x, y
    generators = [np.random.default_rng([seed, 3]) for seed in seeds]
    members = torch.arange(len(x))[:, None]
    order = torch.arange(x.shape[1]).expand(len(x), -1)
    while True:
        if shuffle:
            order = torch.from_numpy(np.stack([g.permutation(x.shape[1]) for g in generators]))
        for rows in order.split(batch, 1):
            yield x[members, rows], y[members, rows]
