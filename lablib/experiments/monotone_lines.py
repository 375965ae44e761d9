"""Monotone networks of one input: noisy log extrapolated, sin with an outlier, and slopes that a residual forces.

The first two follow arXiv 2112.00038, section 4.1 and the notebook beside its code: log x on [1, 3] with noise that
grows from 0.01 to 0.3, and sin x on [-3, 3] with one point far off. The third is the slip in the public COMPAS script
(caps of 1.3 on three layers, but a residual of 1.3^4) taken alone, on straight lines as targets.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from lablib.certify import certify_slopes
from lablib.experiments.monotone_population import UNCONSTRAINED, Population, evaluate, train

OnStep = Callable[[int], None]
LOG_MODELS = {
    "unconstrained": "unconstrained ReLU",
    "lipschitz": "λ-Lipschitz, no direction",
    "published": "monotone, residual λ",
    "certified": "monotone, certified residual",
    "boosting": "monotone boosting",
}
FORCED_MODELS = {
    "mismatch": "caps 1.3, 1.3, 1.3; residual 1.3⁴",
    "published": "caps 1.3, 1.3, 1.3; residual 1.3³",
    "certified": "caps 1.3, 1.3, 1.3; certified residual",
}


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """Noisy log: a seed draws the noise and the start. ``inside`` is where the data are, up to ``end`` it is tested.

    The trees may have leaves of ``leaf`` points: scikit-learn's default of 20 would leave one split for 30 points.
    Curves have ``cells`` steps; slopes are certified over ``span`` of them at a time.
    """

    seeds: int
    steps: int
    width: int
    device: str = "cpu"
    hidden: int = 3
    points: int = 30
    inside: tuple[float, float] = (1.0, 3.0)
    end: float = 6.0
    noise: tuple[float, float] = (0.01, 0.3)
    lipschitz: float = 1.0
    rate: float = 1e-2
    leaf: int = 3
    trees: int = 100
    cells: int = 100
    span: int = 5

    def __post_init__(self) -> None:
        if self.cells % self.span:
            raise ValueError(f"certified spans of {self.span} cells do not fill {self.cells}; take a divisor")


def fit_log(config: LogConfig, model: str, on_step: OnStep) -> dict[str, Any]:
    """Fit one of ``LOG_MODELS`` to all draws; return errors against log x, curves, and certified slopes."""
    x = np.linspace(*config.inside, config.points)
    shown = np.linspace(config.inside[0], config.end, config.cells + 1)
    y = np.stack([log_data(config, seed) for seed in range(config.seeds)])
    made: dict[str, Any] = {}
    if model == "boosting":
        curves = np.stack([_boosted(config, x, values, shown) for values in y])
    else:
        kind = UNCONSTRAINED if model == "unconstrained" else "one-inf"
        population = Population(
            kind,
            [config.lipschitz] * config.seeds,
            range(config.seeds),
            widths=[config.width] * config.hidden,
            directions=(int(model in ("published", "certified")),),
            residual="lipschitz" if model == "published" else "certified",
        )
        sizes = {"steps": config.steps, "rate": config.rate, "device": config.device}
        train(population, x[:, None], y, on_step=on_step, **sizes)
        networks = population.members()
        curves = np.stack([evaluate(network, shown[:, None])[0] for network in networks])
        whole = [certify_slopes(network) for network in networks]
        made["certified_low"] = [float(bound.low[0, 0]) for bound in whole]
        made["certified_high"] = [float(bound.high[0, 0]) for bound in whole]
        cells = itertools.pairwise(shown[:: config.span])
        bands = [certify_slopes(networks[0], *(end[None] for end in cell)) for cell in cells]
        made["band"] = np.repeat([[band.low[0, 0], band.high[0, 0]] for band in bands], config.span, axis=0)
    outside = shown > config.inside[1]
    errors = curves - np.log(shown)
    made["inside"], made["outside"] = (np.sqrt((errors[:, at] ** 2).mean(1)) for at in (~outside, outside))
    made["decreasing"] = (np.diff(curves) < 0).mean(1)  # share of the steps of the grid that go down
    return made | {"curves": curves}


def log_data(config: LogConfig, seed: int) -> np.ndarray:
    """Return y (points,) = log x plus noise whose spread grows along x."""
    spread = np.linspace(*config.noise, config.points)
    noise = np.random.default_rng(seed).standard_normal(config.points)
    return np.log(np.linspace(*config.inside, config.points)) + spread * noise


def _boosted(config: LogConfig, x: np.ndarray, y: np.ndarray, shown: np.ndarray) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingRegressor

    trees = HistGradientBoostingRegressor(
        monotonic_cst=[1], min_samples_leaf=config.leaf, max_iter=config.trees, early_stopping=False
    )
    return trees.fit(x[:, None], y).predict(shown[:, None])


@dataclasses.dataclass(frozen=True)
class OutlierConfig:
    """sin x with one point moved by ``shift``; every network is trained with it and without, from the same start."""

    seeds: int
    steps: int
    width: int
    device: str = "cpu"
    lambdas: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 4.0, 8.0, 16.0)
    drawn: tuple[float, ...] = (1.0, 4.0, 16.0)
    losses: tuple[str, ...] = ("l1", "mse")
    hidden: int = 3
    points: int = 31
    half: float = 3.0
    noise: float = 0.01
    shift: float = -2.0
    rate: float = 1e-2
    shown: int = 301


def fit_outlier(config: OutlierConfig, job: str, on_step: OnStep) -> dict[str, Any]:
    """Fit ``"<loss> lipschitz"`` (all lambdas) or ``"<loss> unconstrained"``; how far does the outlier pull?

    Returns, each (lambdas, S): ``at``, |f_with - f_without| at the outlier; ``away``, its mean over the rest of the
    interval, from the outlier's neighbours on; ``error``, of f_with against sin there. And ``curves``
    (lambdas, 2, T), the first seed with and without.
    """
    loss, model = job.split()
    lambdas = config.lambdas if model == "lipschitz" else (1.0,)
    x = np.linspace(-config.half, config.half, config.points)
    seeds = np.arange(config.seeds)
    noise = np.stack([np.random.default_rng(seed).standard_normal(config.points) for seed in seeds])
    clean = np.sin(x) + config.noise * noise
    spoilt = clean.copy()
    middle = config.points // 2
    spoilt[:, middle] += config.shift
    population = Population(
        "one-inf" if model == "lipschitz" else UNCONSTRAINED,
        np.repeat(lambdas, 2 * config.seeds),
        np.tile(seeds, 2 * len(lambdas)),
        widths=[config.width] * config.hidden,
        directions=(0,),
    )
    y = np.tile(np.concatenate([spoilt, clean]), (len(lambdas), 1))
    sizes = {"steps": config.steps, "rate": config.rate, "device": config.device}
    train(population, x[:, None], y, loss=loss, on_step=on_step, **sizes)
    shown = np.linspace(-config.half, config.half, config.shown)
    values = np.stack([evaluate(network, shown[:, None])[0] for network in population.members()])
    with_it, without = np.moveaxis(values.reshape(len(lambdas), 2, config.seeds, -1), 1, 0)
    far = np.abs(shown - x[middle]) >= x[1] - x[0] - 1e-9
    pull = np.abs(with_it - without)
    return {
        "at": pull[..., np.argmin(np.abs(shown - x[middle]))],
        "away": pull[..., far].mean(2),
        "error": np.sqrt(((with_it - np.sin(shown)) ** 2)[..., far].mean(2)),
        "curves": np.stack([with_it[:, 0], without[:, 0]], 1),
        "data": spoilt[0],
    }


@dataclasses.dataclass(frozen=True)
class ForcedConfig:
    """Lines of slope t through inputs of spread 1, fitted by networks with three layers of cap 1.3 each."""

    seeds: int
    steps: int
    device: str = "cpu"
    slopes: tuple[float, ...] = (0.0, 0.1, 0.2, 0.35, 0.5, 0.66, 0.8, 1.0, 1.5, 2.0)
    cap: float = 1.3
    widths: tuple[int, ...] = (8, 8)
    points: int = 64
    rate: float = 1e-2

    @property
    def lipschitz(self) -> float:
        """The product of the caps."""
        return self.cap ** (len(self.widths) + 1)

    @property
    def mismatched(self) -> float:
        """The residual with one cap too many."""
        return self.cap ** (len(self.widths) + 2)


def fit_forced(config: ForcedConfig, model: str, on_step: OnStep) -> dict[str, Any]:
    """Fit one of ``FORCED_MODELS`` to every slope; return, (slopes, S) each, what came out.

    ``mean`` slope over the data, ``smallest`` slope at 2001 points, the proven ``low``, and ``rmse``.
    """
    x = np.linspace(-np.sqrt(3), np.sqrt(3), config.points)
    x = x / x.std()
    wanted = np.repeat(config.slopes, config.seeds)
    population = Population(
        "one-inf",
        [config.lipschitz] * len(wanted),
        np.tile(np.arange(config.seeds), len(config.slopes)),
        widths=config.widths,
        residual="certified" if model == "certified" else "lipschitz",
        strength=[config.mismatched if model == "mismatch" else config.lipschitz] * len(wanted),
    )
    y = wanted[:, None] * x
    sizes = {"steps": config.steps, "rate": config.rate, "device": config.device}
    train(population, x[:, None], y, on_step=on_step, **sizes)
    made: dict[str, list[float]] = {"mean": [], "smallest": [], "low": [], "rmse": []}
    dense = np.linspace(x[0], x[-1], 2001)
    for network, line in zip(population.members(), y):
        values, slopes = evaluate(network, x[:, None])
        made["mean"].append(slopes.mean())
        made["smallest"].append(evaluate(network, dense[:, None])[1].min())
        made["low"].append(certify_slopes(network).low[0, 0])
        made["rmse"].append(np.sqrt(((values - line) ** 2).mean()))
    return {key: np.array(value).reshape(len(config.slopes), -1) for key, value in made.items()}
