"""Lipschitz networks of two inputs: a flower-shaped boundary, and the gradients that each norm lets them reach.

The flower follows arXiv 2307.07512, section 2.3, and the script beside its code: the level sets of
rho / (1 - 0.1 cos 20 theta). Their gradient is up to 2.3 long in l2 and 3.2 in l1, so that networks of a smaller
constant fit them flattened. What matters most is the group size: sorting pairs leaves the circle without petals.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lablib.certify import certify_slopes
from lablib.experiments.monotone_population import GRADIENT_NORM, Population, evaluate, train
from lablib.layers import LipschitzLinear
from lablib.ops.projections import project_rows_l1
from lablib.theory.budget import budget
from lablib.theory.network import affine, group_sort

OnStep = Callable[[int], None]
FRAME = (-2.35, 2.35)
BOUNDARY = 0.5  # of the fitted level: the flower of mean radius 1.5


@dataclasses.dataclass(frozen=True)
class FlowerConfig:
    """Fits of the level on three flowers; lambdas, widths and group sizes are swept one at a time.

    Attributes:
        lipschitz, width, group: what is kept while another is swept; groups are no larger than the width.
        angles: points on each flower of the training set; ``tests``, fresh points of the ring around them.
    """

    seeds: int
    steps: int
    lambdas: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    widths: tuple[int, ...] = (8, 16, 32, 64)
    groups: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    lipschitz: float = 4.0
    width: int = 64
    group: int = 32
    device: str = "cpu"
    hidden: int = 2
    petals: int = 20
    depth: float = 0.1
    radii: tuple[float, ...] = (1.0, 1.5, 2.0)
    angles: int = 400
    tests: int = 4000
    batch: int = 150
    rate: float = 3e-2
    side: int = 101

    def __post_init__(self) -> None:
        for kept, sweep in (
            (self.lipschitz, self.lambdas),
            (self.width, self.widths),
            (self.group, self.groups),
        ):
            if kept not in sweep:
                raise ValueError(f"{kept} is kept while others are swept, but is not among {sweep}")

    def sweeps(self) -> dict[str, tuple[int, ...]]:
        """Return what is swept in runs of their own: every width and group size but the one that is kept."""
        widths = tuple(width for width in self.widths if width != self.width)
        return {"width": widths, "group": tuple(group for group in self.groups if group != self.group)}


def flower_radius(config: FlowerConfig, points: np.ndarray) -> np.ndarray:
    """Return the mean radius (N,) of the flower that each point (N, 2) lies on: rho / (1 - depth cos n theta)."""
    angle = np.arctan2(points[:, 1], points[:, 0])
    return np.hypot(*points.T) / (1 - config.depth * np.cos(config.petals * angle))


def flower_points(config: FlowerConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the training set: points (N, 2) on the flowers and their levels (N,), mean radius less one."""
    angle = np.linspace(0, 2 * np.pi, config.angles, endpoint=False)
    shape = (1 - config.depth * np.cos(config.petals * angle))[:, None] * np.stack(
        [np.cos(angle), np.sin(angle)], 1
    )
    points = np.concatenate([radius * shape for radius in config.radii])
    return points, np.repeat(config.radii, config.angles) - 1.0


def flower_tests(config: FlowerConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return fresh points (N, 2), uniform on the ring between the innermost and the outermost flower, and levels."""
    rng = np.random.default_rng(12345)
    angle, radius = rng.uniform(0, 2 * np.pi, config.tests), np.sqrt(rng.uniform(0, 1, config.tests))
    inner, outer = config.radii[0], config.radii[-1]
    mean = np.sqrt(inner**2 + radius**2 * (outer**2 - inner**2))
    ring = mean * (1 - config.depth * np.cos(config.petals * angle))
    return ring[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), mean - 1.0


def fit_flower(config: FlowerConfig, job: str, on_step: OnStep) -> dict[str, Any]:
    """Fit ``"<kind> lambdas"``, ``"<kind> width <w>"`` or ``"<kind> group <g>"``; return scores, (settings, S).

    ``accuracy`` of the decision level > 1/2, and ``error``, mean absolute, of the level, both at fresh points. Of the
    sweep of lambdas also ``field`` (lambdas, side, side), the first seed's output on the frame.
    """
    kind, sweep, *value = job.split()
    lambdas = config.lambdas if sweep == "lambdas" else (config.lipschitz,)
    width = int(value[0]) if sweep == "width" else config.width
    group = int(value[0]) if sweep == "group" else config.group
    population = Population(
        kind,
        np.repeat(lambdas, config.seeds),
        np.tile(np.arange(config.seeds), len(lambdas)),
        inputs=2,
        widths=[width] * config.hidden,
        group_size=min(group, width),
        directions=(0, 0),
    )
    points, levels = flower_points(config)
    sizes = {"steps": config.steps, "rate": config.rate, "batch": config.batch, "device": config.device}
    train(population, points, levels, loss="l1", on_step=on_step, **sizes)
    tests, wanted = flower_tests(config)
    networks = population.members()
    made = np.stack([evaluate(network, tests)[0] for network in networks])
    right = ((made > BOUNDARY) == (wanted > BOUNDARY)).mean(1)
    result = {"accuracy": right, "error": np.abs(made - wanted).mean(1)}
    result = {key: value.reshape(len(lambdas), config.seeds) for key, value in result.items()}
    if sweep == "lambdas":
        axis = np.linspace(*FRAME, config.side)
        grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        fields = [
            evaluate(network, grid)[0].reshape(config.side, -1) for network in networks[:: config.seeds]
        ]
        result["field"] = np.stack(fields).astype(np.float32)
    return result


@dataclasses.dataclass(frozen=True)
class GradientConfig:
    """Linear targets a x on Gaussian inputs, a on a grid of steps lambda / 2 up to ``reach`` steps from 0.

    With Gaussian inputs the best function under a constraint of gradients to a closed convex set C is linear, and its
    gradient is the point of C nearest to a: for any other f and n = a - proj(a), Stein's lemma gives
    cov(n x, f - proj(a) x) = E[n (grad f - proj(a))] <= 0, which is what makes proj(a) x the nearest function.
    """

    seeds: int
    steps: int
    device: str = "cpu"
    lipschitz: float = 1.0
    reach: int = 3
    points: int = 256
    widths: tuple[int, ...] = (16, 16)
    measured: int = 12
    rate: float = 1e-2

    def wanted(self) -> np.ndarray:
        """Return the gradients that are asked for, (targets, 2)."""
        steps = np.arange(-self.reach, self.reach + 1) * (self.lipschitz / 2)
        return np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)

    @property
    def corner(self) -> int:
        """Which target is (lambda, lambda)."""
        return int(np.abs(self.wanted() - self.lipschitz).sum(1).argmin())


def fit_gradients(config: GradientConfig, kind: str, on_step: OnStep) -> dict[str, Any]:
    """Fit all targets with networks of one kind; return their gradients and what the budgets allow.

    ``gradients`` (targets, S, measured, 2) at fresh points; ``mean`` (targets, S, 2) over 2000 points; ``nearest``
    (targets, 2), the projection onto the set; ``budget`` and ``certified`` (targets, S, 2), proven bounds of |slope|.
    """
    wanted = config.wanted()
    rng = np.random.default_rng(0)
    points = rng.standard_normal((config.points, 2))
    population = Population(
        kind,
        [config.lipschitz] * (len(wanted) * config.seeds),
        np.tile(np.arange(config.seeds), len(wanted)),
        inputs=2,
        widths=config.widths,
        directions=(0, 0),
    )
    y = np.repeat(wanted, config.seeds, axis=0) @ points.T
    train(population, points, y, steps=config.steps, rate=config.rate, device=config.device, on_step=on_step)
    fresh = rng.standard_normal((2000, 2))
    slopes, budgets, certified = [], [], []
    for network in population.members():
        slopes.append(evaluate(network, fresh)[1])
        budgets.append(budget(_as_layers(network), 2)[0])
        bound = certify_slopes(network)
        certified.append(np.maximum(-bound.low[0], bound.high[0]))
    shape = (len(wanted), config.seeds)
    every = np.stack(slopes).reshape(*shape, -1, 2)
    return {
        "gradients": every[:, :, : config.measured],
        "mean": every.mean(2),
        "longest": dual_norm(every, GRADIENT_NORM[kind]).max((1, 2)),
        "nearest": nearest(wanted, GRADIENT_NORM[kind], config.lipschitz),
        "budget": np.stack(budgets).reshape(*shape, 2),
        "certified": np.stack(certified).reshape(*shape, 2),
    }


def nearest(gradients: np.ndarray, norm: str, lipschitz: float) -> np.ndarray:
    """Project gradients (N, 2) onto those that a lambda-Lipschitz function in ``norm`` can have."""
    scaled = gradients / lipschitz
    if norm == "l1":
        return lipschitz * scaled.clip(-1, 1)
    if norm == "l2":
        return lipschitz * scaled / np.maximum(1.0, np.linalg.norm(scaled, axis=1, keepdims=True))
    return lipschitz * project_rows_l1(torch.from_numpy(scaled)).numpy()


def dual_norm(gradients: np.ndarray, norm: str) -> np.ndarray:
    """Return the norm of gradients (..., 2) that is at most lambda for a lambda-Lipschitz function in ``norm``."""
    return np.linalg.norm(gradients, ord={"l1": np.inf, "l2": 2, "linf": 1}[norm], axis=-1)


def _as_layers(network: torch.nn.Module) -> list[dict[str, Any]]:
    """Return a network without directions as the plain layers of :mod:`lablib.theory`."""
    linear = [layer for layer in network.modules() if isinstance(layer, LipschitzLinear)]
    layers = []
    for layer in linear:
        layers += [affine(layer.weight.detach().numpy(), layer.bias.detach().numpy())]
        layers += [group_sort(network.group_size)]
    return layers[:-1]
