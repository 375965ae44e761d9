"""How good predictions are: accuracy or squared error, likelihood, calibration; and whether a model is monotone.

A score is the logit of a class, or the predicted number.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

BINS = 10  # of equal width in probability
LEVELS = np.arange(
    0.05, 1.0, 0.1
)  # nominal levels at which the predicted distribution of a number is checked
ROUNDING = 1e-6  # falls of less, relative to the largest score, may be float32


def log_loss(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return -log P(y) in nats; logits (..., N) and y in {0, 1} that broadcasts -> (...,) mean over N."""
    return (np.logaddexp(0.0, logits) - logits * y).mean(-1)


def squared_error(predicted: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the mean squared error over the last axis."""
    return ((predicted - y) ** 2).mean(-1)


def accuracy(logits: np.ndarray, y: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """Return the share of right decisions "1 if the logit exceeds the threshold" over the last axis."""
    return ((logits > threshold) == (y > 0.5)).mean(-1)


def score_classes(logits: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return accuracy at the fixed threshold 0, ``nll`` and ``calibration`` of logits (N,)."""
    return {
        "score": float(accuracy(logits, y)),
        "nll": float(log_loss(logits, y)),
        "calibration": calibration_error(probability(logits), y),
    }


def score_numbers(predicted: np.ndarray, y: np.ndarray, spread: float) -> dict[str, float]:
    """Return the squared error, and ``nll`` and ``calibration`` of the normal law of standard deviation ``spread``.

    ``calibration``: mean difference between the nominal and the observed share of targets below a quantile.
    """
    error = float(squared_error(predicted, y))
    nll = float(np.log(spread) + 0.5 * np.log(2 * np.pi) + error / (2 * spread**2))
    observed = shares_below(predicted, y, spread)
    return {"score": error, "nll": nll, "calibration": float(np.abs(observed - LEVELS).mean())}


def shares_below(predicted: np.ndarray, y: np.ndarray, spread: float) -> np.ndarray:
    """Return the observed share of targets below each of the predicted quantiles ``LEVELS``."""
    from scipy.stats import norm

    place = norm.cdf((y - predicted) / spread)
    return (place[:, None] <= LEVELS).mean(0)


def probability(logits: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + e^-logit), without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits))


def calibration_error(predicted: np.ndarray, y: np.ndarray) -> float:
    """Return the expected calibration error: sum over bins of |share of ones - mean probability| times their weight.

    Guo and others, "On Calibration of Modern Neural Networks" (arXiv 1706.04599), section 2, for the probability of
    class 1. Biased upwards on few rows.
    """
    mean, share, count = reliability(predicted, y)
    return float((np.abs(share - mean) * count).sum() / max(count.sum(), 1))


def reliability(predicted: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (mean probability, share of ones, rows) of the bins of equal width that hold rows."""
    place = np.minimum((predicted * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    used = np.flatnonzero(count)
    share = np.bincount(place, y, BINS)[used] / count[used]
    mean = np.bincount(place, predicted, BINS)[used] / count[used]
    return mean, share, count[used]


@dataclasses.dataclass(frozen=True)
class Falls:
    """How often a score falls as a feature is raised that it should rise with (or rises where it should fall).

    Attributes:
        pairs: neighbours that were compared. ``falls``: wrong ones, ``beyond_rounding``: wrong ones by more than
            ``ROUNDING`` times the largest score.
        worst: the largest fall.
    """

    pairs: int
    falls: int
    beyond_rounding: int
    worst: float


def count_falls(
    score: Callable[[np.ndarray], np.ndarray],
    rows: np.ndarray,
    grids: np.ndarray,
    directions: Sequence[int],
) -> Falls:
    """Raise each monotone feature of each row through a grid and its own value, and count wrong steps.

    Args:
        score: (N, I) -> (N,).
        rows: (N, I).
        grids: (G, I) values for each feature, in rising order.
        directions: (I,) +1, 0 or -1.
    """
    pairs, falls, beyond, worst = 0, 0, 0, 0.0
    for feature in np.flatnonzero(directions):
        values = np.sort(
            np.column_stack([np.tile(grids[:, feature], (len(rows), 1)), rows[:, feature]]), axis=1
        )
        raised = np.repeat(rows[:, None], values.shape[1], axis=1)
        raised[:, :, feature] = values
        found = score(raised.reshape(-1, rows.shape[1])).reshape(values.shape)
        fall = -directions[feature] * np.diff(found, axis=1)[np.diff(values, axis=1) > 0]
        pairs += fall.size
        falls += int((fall > 0).sum())
        beyond += int((fall > ROUNDING * np.abs(found).max()).sum())
        worst = max(worst, float(fall.max(initial=0.0)))
    return Falls(pairs, falls, beyond, worst)
