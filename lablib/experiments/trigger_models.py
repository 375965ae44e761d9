"""Classifiers for the trigger: networks with and without constraints, and gradient boosting with monotone trees.

Each is a score on (N, 4) features (:data:`lablib.experiments.trigger_events.FEATURES`); a candidate is kept where the
score is above a cut. Scores are log-odds of signal against background in equal shares.

Settings follow the public code of Kitouni, Nolte, Williams (arXiv 2112.00038): directions (+1, +1, 0, +1),
lambda = 2, sorted pairs as activation in both networks, LightGBM with 25 leaves at rate 0.05 and early stopping after
15 rounds. Ours differ in that inputs are standardised, by mean and deviation of the training candidates: a deviation
is 2.7 to 3 units of the feature (GeV, or of a logarithm), so that the same lambda is about three times stricter here.
"""

import dataclasses
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lablib.experiments.threads import one_thread
from lablib.experiments.trigger_events import DIRECTIONS, Candidates
from lablib.layers import MaxMin, MonotoneNetwork
from lablib.train.loop import fit as train
from lablib.train.schedules import exponential

LIPSCHITZ = 2.0
MODELS = {
    "unconstrained": "Unconstrained network",
    "boosting": "Monotone trees (scikit-learn)",
    "lightgbm": "Monotone trees (LightGBM)",
    "monotone": f"Monotone network, certified residual, λ = {LIPSCHITZ:g}",
    "monotone_lambda": f"Monotone network, residual λ = {LIPSCHITZ:g}",
}
NEEDS = {"boosting": "sklearn", "lightgbm": "lightgbm"}  # packages that are optional
LAST_RATE = 1e-3
TREES = {"rate": 0.05, "leaves": 25, "patience": 15, "held_out": 0.1}
BLOCK = 1 << 16


@dataclasses.dataclass(frozen=True)
class Training:
    """Of the networks: hidden widths, Adam steps and candidates in each, and first learning rates.

    The rates fall exponentially to 0.001. ``trees`` is the most rounds of boosting.
    """

    widths: tuple[int, ...] = (16, 16)
    steps: int = 2500
    batch: int = 512
    rate: float = 1e-2
    monotone_rate: float = 3e-2
    trees: int = 1000


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained classifier.

    Attributes:
        name: one of :data:`MODELS`.
        raw: (N, 4) float64 -> (N,) scores.
        network: the network on standardised inputs (float64, evaluation mode); None for trees.
        mean, deviation: (4,) of the standardised inputs.
        size: parameters of a network, or how many trees.
    """

    name: str
    raw: Callable[[np.ndarray], np.ndarray]
    network: nn.Module | None
    mean: np.ndarray
    deviation: np.ndarray
    size: int

    def score(self, features: np.ndarray) -> np.ndarray:
        """Return the scores (N,) float64 of features (N, 4).

        Raises:
            ValueError: if the features are not finite numbers of that shape.
        """
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or features.shape[1] != len(DIRECTIONS):
            raise ValueError(f"features must be (candidates, {len(DIRECTIONS)}), got {features.shape}")
        if not np.isfinite(features).all():
            raise ValueError("features hold NaN or infinity; leave those candidates out")
        return np.concatenate(
            [self.raw(features[start : start + BLOCK]) for start in range(0, len(features), BLOCK)]
            or [np.empty(0)]
        )


def missing(models: Sequence[str] = tuple(MODELS)) -> dict[str, str]:
    """Return model -> package for those of ``models`` whose package is not installed."""
    return {name: NEEDS[name] for name in models if name in NEEDS and find_spec(NEEDS[name]) is None}


def fit(
    name: str,
    candidates: Candidates,
    seed: int,
    training: Training | None = None,
    lipschitz: float = LIPSCHITZ,
) -> Trained:
    """Train one of :data:`MODELS` to tell signal from background.

    Args:
        name: which.
        candidates: both kinds; for log-odds at equal shares, as many of each.
        seed: of weights, batches and held-out candidates.
        training: sizes.
        lipschitz: lambda of the monotone networks, in log-odds per deviation of an input.

    Raises:
        ValueError: for an unknown model, or candidates of only one kind.
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; choose from {', '.join(MODELS)}")
    if candidates.signal.all() or not candidates.signal.any():
        raise ValueError("candidates must be of both kinds, signal and background")
    training = training or Training()
    mean, deviation = candidates.features.mean(axis=0), candidates.features.std(axis=0)
    if name in NEEDS:
        raw, size = {"boosting": _fit_boosting, "lightgbm": _fit_lightgbm}[name](
            candidates, seed, training.trees
        )
        return Trained(name, raw, None, mean, deviation, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(name, training.widths, lipschitz)
        _train(network, candidates, mean, deviation, seed, name, training)
    network = network.double().eval().requires_grad_(False)

    @one_thread()
    def raw(features: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy((features - mean) / deviation))[:, 0].numpy()

    return Trained(name, raw, network, mean, deviation, sum(p.numel() for p in network.parameters()))


def build_network(name: str, widths: Sequence[int], lipschitz: float = LIPSCHITZ) -> nn.Module:
    """Return the untrained network (N, 4) -> (N, 1) of a model."""
    inputs = len(DIRECTIONS)
    if name == "unconstrained":
        layers: list[nn.Module] = []
        for before, after in zip((inputs, *widths), widths):
            layers += [nn.Linear(before, after), MaxMin()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], 1))
    residual = {"monotone": "certified", "monotone_lambda": "lipschitz"}[name]
    return MonotoneNetwork(inputs, widths, 1, lipschitz, DIRECTIONS, residual=residual)


@one_thread()
def _train(
    network: nn.Module,
    candidates: Candidates,
    mean: np.ndarray,
    deviation: np.ndarray,
    seed: int,
    name: str,
    training: Training,
) -> None:
    x = torch.from_numpy((candidates.features - mean) / deviation).float()
    y = torch.from_numpy(candidates.signal).float()[:, None]
    generator = torch.Generator().manual_seed(seed)

    def batches():
        rows = torch.randperm(len(x), generator=generator).split(training.batch)
        return ((x[chosen], y[chosen]) for chosen in rows)

    first = training.rate if name == "unconstrained" else training.monotone_rate
    train(
        network,
        lambda outputs, wanted: F.binary_cross_entropy_with_logits(outputs, wanted),
        batches,
        training.steps,
        exponential(first, LAST_RATE, training.steps),
        progress=False,
    )


def _fit_boosting(candidates: Candidates, seed: int, trees: int) -> tuple[Callable, int]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        learning_rate=TREES["rate"],
        max_iter=trees,
        max_leaf_nodes=TREES["leaves"],
        monotonic_cst=list(DIRECTIONS),
        early_stopping=True,
        validation_fraction=TREES["held_out"],
        n_iter_no_change=TREES["patience"],
        random_state=seed,
    )
    model.fit(candidates.features, candidates.signal)
    return model.decision_function, model.n_iter_


def _fit_lightgbm(candidates: Candidates, seed: int, trees: int) -> tuple[Callable, int]:
    import lightgbm

    held = np.random.default_rng(seed).random(len(candidates)) < TREES["held_out"]
    settings = {
        "objective": "binary",
        "learning_rate": TREES["rate"],
        "num_leaves": TREES["leaves"],
        "monotone_constraints": list(DIRECTIONS),
        "seed": seed,
        "num_threads": 1,
        "verbosity": -1,
    }
    fitted, checked = (
        lightgbm.Dataset(candidates.features[rows], candidates.signal[rows].astype(float))
        for rows in (~held, held)
    )
    model = lightgbm.train(
        settings,
        fitted,
        trees,
        valid_sets=[checked],
        callbacks=[lightgbm.early_stopping(TREES["patience"], verbose=False)],
    )
    return lambda features: model.predict(features, raw_score=True, num_threads=1), model.best_iteration
