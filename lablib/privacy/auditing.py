"""Lower bounds on epsilon from runs: what an attack that tells two neighbouring data sets apart proves.

A mechanism is run many times on each of two data sets that differ in one sample, the canary, and each run is given a
score. Whoever says "the canary was there" when the score exceeds a threshold errs with rates alpha (it was not) and
beta (missed). Under (epsilon, delta)-differential privacy each test obeys

    alpha e^epsilon + beta >= 1 - delta   and   beta e^epsilon + alpha >= 1 - delta

(Kairouz, Oh and Viswanath, ICML 2015, Theorem 2.1), so upper bounds of both rates give a lower bound on epsilon:
max(ln((1 - delta - beta) / alpha), ln((1 - delta - alpha) / beta)) (Jagielski, Ullman and Oprea, "Auditing
differentially private machine learning", NeurIPS 2020, Section 3). A whole trade-off curve is a stronger claim, and
easier to refute: a mechanism that is mu-Gaussian private obeys Phi^-1(1 - alpha) - Phi^-1(beta) <= mu (Dong, Roth and
Su, "Gaussian differential privacy", JRSS B 84, 2022, Section 2.2; Nasr et al., "Tight auditing of differentially
private machine learning", USENIX Security 2023, Section 4). What a mu that is too large refutes is that claim, made
for noise on every sample in each of T steps with mu = sqrt(T) / noise multiplier; it says nothing of others.

The threshold is chosen on one half of the runs; the rates are those of the other half, so that choosing costs no
confidence. Rates are bounded by Clopper and Pearson (Biometrika 26, 1934), each at half of what may go wrong.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, special, stats

THRESHOLDS = 400  # candidates at most, on the first half
CAUTION = (
    1e-6  # the confidence 1 - CAUTION of the choice among them keeps thresholds away that few runs speak for
)


@dataclasses.dataclass(frozen=True)
class Audit:
    """What one threshold proves, each number at the confidence of the audit.

    Attributes:
        threshold: a score above it counts as "the canary was there".
        false_positive_bound: upper bound on the rate of that answer without the canary (alpha).
        false_negative_bound: upper bound on the rate of the other answer with it (beta).
        bound: lower bound on what was asked for (epsilon or mu), 0 or more.
        runs: of the smaller group in the half that the rates are measured on.
    """

    threshold: float
    false_positive_bound: float
    false_negative_bound: float
    bound: float
    runs: int


def bound_rate(events: int | np.ndarray, runs: int, confidence: float) -> float | np.ndarray:
    """Return the upper Clopper-Pearson bound on a rate: ``events`` or fewer then have probability 1 - confidence.

    Raises:
        ValueError: if there are no runs, more events than runs, or the confidence is not in (0, 1).

    >>> round(bound_rate(0, 100, 0.95), 4)  # 1 - 0.05^(1 / 100)
    0.0295
    """
    counts = np.asarray(events)
    if runs < 1 or counts.min(initial=0) < 0 or counts.max(initial=0) > runs:
        raise ValueError(f"a rate needs runs >= 1 and events between 0 and runs, got {events} of {runs}")
    _check_probability("confidence", confidence)
    upper = stats.beta.ppf(confidence, counts + 1, np.maximum(runs - counts, 1))
    found = np.where(counts == runs, 1.0, upper)
    return float(found) if counts.ndim == 0 else found


def bound_epsilon(
    false_positive: float | np.ndarray, false_negative: float | np.ndarray, delta: float
) -> float | np.ndarray:
    """Return the lower bound on epsilon at ``delta`` that upper bounds on both error rates prove; at least 0.

    Raises:
        ValueError: if a rate is not in [0, 1] or delta not in (0, 1).

    >>> round(bound_epsilon(0.01, 0.5, 1e-5), 3)  # ln(0.49999 / 0.01)
    3.912
    """
    alpha, beta = _rates(false_positive, false_negative)
    _check_probability("delta", delta)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.log(np.maximum(1.0 - delta - beta, 0.0)) - np.log(alpha)
        second = np.log(np.maximum(1.0 - delta - alpha, 0.0)) - np.log(beta)
    found = np.maximum(np.nan_to_num(np.maximum(first, second), nan=0.0, posinf=np.inf, neginf=0.0), 0.0)
    return float(found) if found.ndim == 0 else found


def bound_mu(false_positive: float | np.ndarray, false_negative: float | np.ndarray) -> float | np.ndarray:
    """Return the lower bound on mu, of mu-Gaussian privacy, that upper bounds on both error rates prove; at least 0.

    Raises:
        ValueError: if a rate is not in [0, 1].

    >>> round(bound_mu(0.5, 0.158655), 4)  # Phi^-1(0.5) - Phi^-1(0.158655)
    1.0
    """
    alpha, beta = _rates(false_positive, false_negative)
    with np.errstate(
        invalid="ignore"
    ):  # infinities of both signs: one rate is 1, the other 0, which proves nothing
        apart = -special.ndtri(alpha) - special.ndtri(beta)
    found = np.maximum(np.nan_to_num(apart, nan=0.0, posinf=np.inf), 0.0)
    return float(found) if found.ndim == 0 else found


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the smallest delta at which mu-Gaussian privacy gives ``epsilon`` (Dong, Roth and Su, Corollary 2.13).

    delta = Phi(-epsilon / mu + mu / 2) - e^epsilon Phi(-epsilon / mu - mu / 2).
    """
    first, second = special.log_ndtr([mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu])
    return float(np.exp(first) * -np.expm1(min(epsilon + second - first, 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the smallest epsilon >= 0 of mu-Gaussian privacy at ``delta``.

    Raises:
        ValueError: if mu is negative or not finite, or delta not in (0, 1).
    """
    if not 0 <= mu < math.inf:
        raise ValueError(f"mu is a finite number >= 0, got {mu}")
    _check_probability("delta", delta)
    if mu == 0 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    most = mu * (mu / 2 - special.ndtri(delta)) + 1.0  # there the first term alone is below delta
    return float(optimize.brentq(lambda epsilon: gaussian_delta(mu, epsilon) - delta, 0.0, most))


def audit_epsilon(
    without: np.ndarray, with_canary: np.ndarray, delta: float, confidence: float = 0.95
) -> Audit:
    """Return the lower bound on epsilon at ``delta`` that the scores of two groups of runs prove.

    Args:
        without, with_canary: (R,) and (S,) scores, one of each independent run; larger says "the canary was there".
        delta: of the privacy claim, in (0, 1).
        confidence: with which ``bound`` holds, over the draw of the runs.

    Raises:
        ValueError: if a group has fewer than two runs, or a score is not finite.
    """
    return _audit(without, with_canary, confidence, lambda alpha, beta: bound_epsilon(alpha, beta, delta))


def audit_mu(without: np.ndarray, with_canary: np.ndarray, confidence: float = 0.95) -> Audit:
    """Return the lower bound on mu, of mu-Gaussian privacy; arguments as :func:`audit_epsilon`."""
    return _audit(without, with_canary, confidence, bound_mu)


def refutes(epsilons: np.ndarray, deltas: np.ndarray, false_positive: float, false_negative: float) -> bool:
    """Whether upper bounds on both error rates contradict a privacy profile: (epsilons[i], deltas[i]) for every i.

    A profile is one claim, so that it falls when one of its points does, at the confidence of the two rates.
    """
    alpha, beta = _rates(false_positive, false_negative)
    with np.errstate(over="ignore", invalid="ignore"):
        grown = np.exp(np.asarray(epsilons, dtype=np.float64))
        room = 1.0 - np.asarray(deltas, dtype=np.float64)
        return bool(np.any((grown * alpha + beta < room) | (grown * beta + alpha < room)))


def _audit(
    without: np.ndarray, with_canary: np.ndarray, confidence: float, bound: Callable[..., float | np.ndarray]
) -> Audit:
    _check_probability("confidence", confidence)
    first, second = zip(_halves("without", without), _halves("with_canary", with_canary), strict=True)
    each = (1.0 + confidence) / 2.0  # both rates together then fail with at most 1 - confidence
    candidates = _candidates(np.concatenate(first))
    threshold = float(candidates[np.argmax(bound(*_rate_bounds(*first, candidates, 1.0 - CAUTION)))])
    alpha, beta = (float(rate[0]) for rate in _rate_bounds(*second, np.array([threshold]), each))
    return Audit(threshold, alpha, beta, float(bound(alpha, beta)), min(map(len, second)))


def _halves(name: str, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"{name}: at least two finite scores (R,) expected, got shape {values.shape}")
    middle = len(values) // 2
    return np.sort(values[:middle]), np.sort(values[middle:])


def _candidates(scores: np.ndarray) -> np.ndarray:
    """Return scores to try as thresholds: every one near both ends, where few errors are left, and some between."""
    values = np.sort(scores)
    steps = np.unique(np.geomspace(1, len(values), THRESHOLDS // 2).astype(int) - 1)
    return np.unique(np.concatenate([values[steps], values[::-1][steps]]))


def _rate_bounds(
    without: np.ndarray, with_canary: np.ndarray, thresholds: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return upper bounds on false positive and false negative rates at each threshold; both groups are sorted."""
    above = len(without) - np.searchsorted(without, thresholds, side="right")
    missed = np.searchsorted(with_canary, thresholds, side="right")
    return bound_rate(above, len(without), confidence), bound_rate(missed, len(with_canary), confidence)


def _rates(first: float | np.ndarray, second: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    alpha, beta = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    for values in (alpha, beta):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"error rates lie between 0 and 1, got {values}")
    return alpha, beta


def _check_probability(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} lies strictly between 0 and 1, got {value}")
