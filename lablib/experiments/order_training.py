"""Train many small Lipschitz networks at once to be as close as possible to an order statistic on [0,1]^d.

The loss is a soft maximum of |f(x) - x_(k)| that sharpens with time. The reported error is measured on the
exported network, in float64, at every vertex and at random points: a lower bound of its sup error (an
estimate).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lablib.experiments.batched_layers import build_layers, make_feasible
from lablib.experiments.batched_networks import Architecture, Schedule, one_thread
from lablib.theory.network import evaluate
from lablib.theory.order_statistics import check_order, grid, order_statistic

BATCH = 256  # points of a step; half of them vertices
INTERIOR = 4096  # random points beside the vertices on which the error is measured


@dataclasses.dataclass(frozen=True)
class Trained:
    """P networks of one shape as plain data, and the largest error seen of each, ``errors`` (P,)."""

    networks: list[list[dict[str, Any]]]
    errors: np.ndarray

    @property
    def best(self) -> list[dict[str, Any]]:
        """The network with the smallest error."""
        return self.networks[int(np.argmin(self.errors))]


@one_thread()
def train_order_statistic(
    architecture: Architecture,
    d: int,
    k: int,
    *,
    steps: int,
    seeds: int,
    seed: int = 0,
    report: Callable[[int], None] | None = None,
) -> Trained:
    """Train ``seeds`` networks from different starts towards the k-th largest of d coordinates.

    Args:
        architecture: family and widths (see :mod:`lablib.experiments.batched_networks`).
        d, k: the order statistic; d <= 16.
        steps: of Adam, each on ``BATCH`` points.
        seeds: number of networks.
        seed: of the starts and of the points.
        report: called with the number of steps done since the last call.

    Raises:
        ValueError: if k does not lie between 1 and d, d > 16, or there is nothing to train.
    """
    check_order(d, k)
    if d > 16 or steps < 1 or seeds < 1:
        raise ValueError(f"train with d <= 16, steps >= 1 and seeds >= 1, not {d}, {steps}, {seeds}")
    generator = torch.Generator().manual_seed(seed)
    layers = build_layers(architecture, d, seeds, generator)
    parameters = [tensor for layer in layers for tensor in layer.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=0.02, betas=(0.9, 0.99))
    schedule = Schedule(steps=steps, sharpness=(10.0, 300.0))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate(step)
        for layer in layers:
            layer.anneal(schedule.progress(step))
        points = _draw(d, generator)
        hidden = points - 0.5
        for layer in layers:
            hidden = layer(hidden)
        target = points.topk(k, dim=1).values[:, -1]
        beta = schedule.beta(step)
        errors = hidden.squeeze(-1) - target
        loss = (torch.logsumexp(torch.cat([beta * errors, -beta * errors], dim=1), dim=1) / beta).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if report is not None:
            report(1)
    layers = make_feasible(layers)
    return _measure([[op for layer in layers for op in layer.export(i)] for i in range(seeds)], d, k, seed)


def _draw(d: int, generator: torch.Generator) -> torch.Tensor:
    """Return (BATCH, d) points, half of them vertices with every number of ones equally often."""
    half = BATCH // 2
    inner = torch.rand(half, d, generator=generator)
    ones = torch.randint(0, d + 1, (half, 1), generator=generator)
    order = torch.rand(half, d, generator=generator).argsort(dim=1)
    return torch.cat([(order < ones).float(), inner])


def _measure(networks: list[list[dict[str, Any]]], d: int, k: int, seed: int) -> Trained:
    """Move each output by a constant so that its largest errors up and down are equal, and measure them."""
    inner = np.random.default_rng(seed).random((INTERIOR, d))
    points = np.concatenate([grid(d, 2), inner])
    target, errors = order_statistic(points, k), []
    for network in networks:
        error = evaluate(network, points)[:, 0] - target
        network[-1]["bias"] = network[-1]["bias"] - (error.max() + error.min()) / 2
        errors.append((error.max() - error.min()) / 2)
    return Trained(networks, np.array(errors))
