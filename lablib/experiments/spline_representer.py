"""The representer theorem made visible: knots vanish as lambda grows, and training comes close to the optimum.

    minimise  (1/N) sum_i (f(x_i) - y_i)^2 + lambda TV(2)   on N noisy points

Over all 1-Lipschitz functions this is a convex problem (:mod:`lablib.theory.spline_regression`): the optimum is a
broken line with at most N - 2 knots, and its dual value is a lower bound for anything trained here: one learned
spline on a fine grid, and networks with one hidden layer under l2 and under linf weights. The gap to it is reported
for every lambda, and the convex optimum on uniform grids separates what the grid costs from what training costs.

Adam moves the values at the knots, as published, or the changes of slope (:class:`Bends`): the same functions, but
few knots are found in the second way only.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.recipe import Recipe
from lablib.experiments.spline_population import Population, evaluate, train
from lablib.layers import LearnableSpline, total_variation
from lablib.theory.spline_regression import active_knots, fit, sparsest
from lablib.theory.spline_targets import make_target, sample
from lablib.train.schedules import cosine

NAME = "spline_representer"
COORDINATES = ("values", "bends")  # what Adam moves: values at the knots, as published, or changes of slope
MODELS = ("spline", "l2", "linf")  # one spline; networks 1-w-1 with the weights of that norm
LAMBDAS = tuple(float(f"{weight:.2g}") for weight in np.logspace(-6, -1, 11))
DRAWN = (1e-5, 1e-4, 1e-3)
SHOWN = np.linspace(-1.0, 1.0, 401)


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the runs.

    Attributes:
        weights: the lambdas; ``drawn``, those whose functions are stored.
        grids: knots of the uniform grids of the convex optima; the trained splines have ``knots``.
        rates: of Adam for networks, 40 times that of coefficients; a spline alone, without weights to wait for,
            takes ``spline_rate`` times as much.
        tolerance: a knot counts if without it the function would move by more than this.
    """

    mode: str
    weights: tuple[float, ...]
    drawn: tuple[float, ...]
    grids: tuple[int, ...]
    seeds: int
    steps: int
    points: int = 60
    noise: float = 0.03
    switches: int = 6
    target_seed: int = 3
    knots: int = 101
    width: int = 10
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: {"values": 0.02, "bends": 0.1})
    spline_rate: float = 8.0
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if not set(self.drawn) <= set(self.weights):
            raise ValueError(
                f"{self.drawn} are drawn but not all of them are among the lambdas {self.weights}"
            )


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Solve the convex problems, train the models, and compare; a stopped run goes on with the next model."""
    target = make_target("f2", config.switches, config.target_seed)
    x, y = sample(target, config.points, np.random.default_rng(0), config.noise)
    optima = [_optimum(x, y, weight, config) for weight in config.weights]
    arrays = {"x": x, "y": y, "shown": SHOWN, "target": target(SHOWN)}
    for weight, optimum in zip(config.weights, optima):
        line = optimum.pop("line")
        if weight in config.drawn:
            arrays[f"optimum {weight:g}"] = line(SHOWN)
            arrays[f"knots {weight:g}"] = np.stack([line.positions[1:-1], line.values[1:-1]])
    lower = np.array([row["lower_bound"] for row in optima])[:, None]
    parts, trained = Checkpoint(NAME, config.mode, dataclasses.asdict(config)), {}
    jobs = [(model, coordinates) for model in MODELS for coordinates in COORDINATES]
    sizes = {f"{model} {coordinates}": config.steps for model, coordinates in jobs}
    with parts.bar(sizes, "step") as bar:
        for model, coordinates in jobs:
            part = f"{model} {coordinates}"
            if part not in parts:
                bar.set_postfix_str(part)
                parts[part] = train_model(model, coordinates, x, y, config, lambda _: bar.update())
            made = parts[part]
            trained[part] = {key: made[key] for key in ("mse", "objective", "knots")}
            trained[part]["gap"] = np.array(made["objective"]) / lower - 1
            for weight, function in zip(config.weights, made["functions"]):
                if weight in config.drawn:
                    arrays[f"{part} {weight:g}"] = np.array(function)
    return {"knots_at_most": config.points - 2, "optima": optima, "models": trained}, arrays


def _optimum(x: np.ndarray, y: np.ndarray, weight: float, config: Config) -> dict[str, Any]:
    """Return the convex optimum over all functions, and by how much those on uniform grids miss it."""
    best = fit(x, y, weight)
    line = sparsest(best.line)
    grids = [fit(x, y, weight, np.linspace(-1.0, 1.0, knots)) for knots in config.grids]
    return {
        "weight": weight,
        "mse": best.mse,
        "objective": best.objective,
        "lower_bound": best.lower_bound,
        "knots": len(line.positions) - 2,
        "knots_at_data": len(active_knots(best.line)),
        "grid_gap": [(on_grid.objective - best.lower_bound) / best.lower_bound for on_grid in grids],
        "line": line,
    }


def train_model(
    model: str,
    coordinates: str,
    x: np.ndarray,
    y: np.ndarray,
    config: Config,
    on_step: Callable[[int], None] | None = None,
) -> dict[str, list]:
    """Train a model for every lambda and seed at once.

    Returns:
        ``objective``, ``mse`` and ``knots``, each (lambdas, seeds), and as ``functions`` those of least objective
        at ``SHOWN``, (lambdas, 401). A single spline starts at 0 and has no seed: one column.

    Raises:
        ValueError: for another model or other coordinates.
    """
    if model not in MODELS or coordinates not in COORDINATES:
        raise ValueError(
            f"no model {model!r} in {coordinates!r}; choose from {', '.join(MODELS)} and {', '.join(COORDINATES)}"
        )
    seeds = 1 if model == "spline" else config.seeds
    weights = np.repeat(config.weights, seeds)
    if model == "spline":
        network, rate = SplineRow(len(weights), config.knots), config.rates[coordinates] * config.spline_rate
    else:
        starts = [*range(seeds)] * len(config.weights)
        options = {"knots": config.knots, "range": 1.0, "init": "identity"}
        network, rate = (
            Population("spline", model, starts, config.width, 1, **options),
            config.rates[coordinates],
        )
    if coordinates == "bends":
        for splines in network.modules():
            if isinstance(splines, LearnableSpline):
                move_bends(splines)
    data = np.tile(x, (len(weights), 1)), np.tile(y, (len(weights), 1))
    falling = cosine(rate, config.steps, rate / 1000)
    train(network, *data, steps=config.steps, batch=len(x), rate=falling, weight=weights, on_step=on_step)
    functions = [function.double() for function in network.members(range(len(weights)))]
    mse = np.array([((evaluate(function, x) - y) ** 2).mean() for function in functions])
    with torch.no_grad():
        variation = np.array([float(total_variation(function)) for function in functions])
    objective = mse + weights * variation
    knots = np.array([_knots(function, config.tolerance) for function in functions])
    best = objective.reshape(-1, seeds).argmin(1) + seeds * np.arange(len(config.weights))
    curves = np.stack([evaluate(functions[index], SHOWN) for index in best])
    table = {"mse": mse, "objective": objective, "knots": knots}
    return {key: values.reshape(-1, seeds).tolist() for key, values in table.items()} | {
        "functions": curves.tolist()
    }


class Bends(nn.Module):
    """Parametrization of splines by their changes of slope: (C, K) numbers -> values at the knots (C, K).

        v(t) = b_1 + b_K t + sum_{0 < k < K - 1} b_k |t - t_k| / 2

    TV(2) is sum_k |b_k| then, a lasso: Adam lets a bend go or stay on its own, where on the values at the knots
    one bend takes a move of all values on a side of it.
    """

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        inner = (positions - positions[1:-1, None]).abs() / 2
        basis = torch.stack([torch.ones_like(positions), *inner, positions])
        self.register_buffer("basis", basis.float())
        self.register_buffer("inverse", torch.linalg.inv(basis).float())

    def forward(self, bends: Tensor) -> Tensor:
        return bends @ self.basis

    def right_inverse(self, values: Tensor) -> Tensor:
        return values @ self.inverse


def move_bends(splines: LearnableSpline) -> None:
    """Let the optimiser move the changes of slope of ``splines``, which stay the functions they are."""
    chain = splines.parametrizations["coefficients"]
    bends = Bends(splines.positions())
    with torch.no_grad():
        chain.original.copy_(bends.right_inverse(splines.coefficients))
    chain.insert(0, bends)


class SplineRow(nn.Module):
    """P learned splines on [-1, 1], each a member of its own: what :func:`train` takes, without affine layers."""

    def __init__(self, size: int, knots: int) -> None:
        super().__init__()
        self.size = size
        self.splines = LearnableSpline(size, knots, init="zero", scaling=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (P, B) -> (P, B)."""
        return self.splines(x[None])[0]

    def variation(self) -> Tensor:
        """Return TV(2) of each member (P,)."""
        return self.splines.second_variation()

    @torch.no_grad()
    def members(self, chosen: Sequence[int]) -> list[LearnableSpline]:
        """Return these splines as layers of one channel."""
        values = self.splines.values
        start = {"init": "zero", "scaling": False}
        alone = [LearnableSpline(1, values.shape[1], **start) for _ in chosen]
        for spline, index in zip(alone, chosen):
            spline.coefficients = values[index : index + 1]
        return alone


def _knots(function: nn.Module, tolerance: float) -> int:
    splines = [part for part in function.modules() if isinstance(part, LearnableSpline)]
    return sum(len(line.positions) - 2 for spline in splines for line in spline.simplified(tolerance))


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw three functions with their knots, and gap, error and knots against lambda."""
    from lablib.plots.spline_representer import draw_functions, draw_path

    config, metrics, arrays = record["config"], record["metrics"], record["arrays"]
    panels = []
    for weight in config["drawn"]:
        number = config["weights"].index(weight)
        lines = {"optimum": arrays[f"optimum {weight:g}"]}
        for model, text in (("spline", "one spline, trained"), ("l2", "network, l2 weights")):
            names = [f"{model} {coordinates}" for coordinates in COORDINATES]
            better = min(
                names, key=lambda name, number=number: min(metrics["models"][name]["objective"][number])
            )
            lines[text] = arrays[f"{better} {weight:g}"]
        panels.append({"weight": weight, "knots": arrays[f"knots {weight:g}"], "lines": lines})
    models = {
        name: {key: np.array(rows) for key, rows in table.items()}
        for name, table in metrics["models"].items()
    }
    optima = {key: np.array([row[key] for row in metrics["optima"]]) for key in metrics["optima"][0]}
    return {
        NAME: draw_functions(arrays["x"], arrays["y"], arrays["shown"], panels),
        f"{NAME}_path": draw_path(optima, config["grids"], models, metrics["knots_at_most"]),
    }


RECIPE = Recipe(
    name=NAME,
    question="Do knots vanish as the theorem says, and how far is training from the convex optimum?",
    sizes={
        "quick": Config("quick", DRAWN, DRAWN, (11, 21, 41), seeds=2, steps=150, knots=41),
        "standard": Config("standard", LAMBDAS, DRAWN, (11, 21, 51, 101, 201), seeds=3, steps=10_000),
        "full": Config("full", LAMBDAS, DRAWN, (11, 21, 51, 101, 201), seeds=25, steps=100_000),
    },
    run=run,
    draw=draw,
)
