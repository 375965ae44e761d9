"""What a private run costs: epsilon of subsampled Gaussian steps by four published accountants.

One step of noise multiplier sigma and sample rate q draws each sample with probability q, sums what the drawn
ones give (l2 sensitivity Delta for adding or removing one sample) and adds Gaussian noise of standard deviation
sigma Delta. A :class:`Ledger` lists such steps; they compose, also where sigma and q change on the way and where
Delta is chosen from earlier results (adaptive composition).

- ``"pld"``: privacy loss distributions of dp-accounting (Koskela et al., AISTATS 2020; Doroshenko et al., PETS
  2022), rounded to the safe side: the tightest here, and the default.
- ``"prv"``: privacy random variables of Opacus (Gopi et al., NeurIPS 2021, Algorithm 1), the upper end of its
  interval with ``eps_error`` 0.01.
- ``"rdp"``: Renyi differential privacy of Opacus (Mironov, CSF 2017; Mironov, Talwar and Zhang, 2019, Section
  3.3) with the conversion of Balle et al., AISTATS 2020, Theorem 21: loose, and fast.
- ``"google-rdp"``: the same theory by dp-accounting. It skips orders where its series does not converge, so that
  it can come out larger than ``"rdp"``.

The first two raise Fourier transforms to the power of the number T of steps, which moves the delta they compute by
about T u, u = 2^-53 (seen: up to 0.7 T u, to either side). Both libraries take such a delta for exact; here it is
asked for a delta that is smaller by 8 T u, and refused where that is half of delta or more: 2e-11 after 10 000 steps.

They need the extra ``private``; everything else here is plain Python and SciPy.
"""

import contextlib
import functools
import logging
import math
import numbers
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

ACCOUNTANTS = ("pld", "prv", "rdp", "google-rdp")
INTERVAL = 1e-4  # grid of a privacy loss distribution: dp-accounting's own default
COARSE = 1e-3  # ten times faster, still an upper bound, about 1e-3 larger
_PRV_ERROR = 0.01  # Opacus's own default
_FOURIER = 2.0**-50  # of delta, for each step
_ORDERS = tuple([1 + x / 10.0 for x in range(1, 100)] + list(range(12, 64)))  # as both libraries have them
_CACHED = 4096

Entry = tuple[float, float, int]


class Ledger:
    """Steps of a run: how many were taken at each (noise multiplier, sample rate). Equal ones are merged.

    >>> ledger = Ledger([(1.0, 0.01, 10)])
    >>> ledger.add(1.0, 0.01)
    >>> ledger.add(2.0, 0.01, 5)
    >>> ledger.to_list(), ledger.steps
    ([[1.0, 0.01, 11], [2.0, 0.01, 5]], 16)

    Args:
        entries: (noise multiplier, sample rate, steps), in any order: composition does not depend on it.

    Raises:
        ValueError: for a noise multiplier that is negative or no number, a rate outside (0, 1], or steps that
            are no whole number from 0 on.
    """

    def __init__(self, entries: Iterable[Sequence[float]] = ()) -> None:
        self._steps: dict[tuple[float, float], int] = {}
        for entry in entries:
            if not isinstance(entry, Sequence) or len(entry) != 3:
                raise ValueError(f"an entry is (noise_multiplier, sample_rate, steps), not {entry!r}")
            self.add(*entry)

    def add(self, noise_multiplier: float, sample_rate: float, steps: int = 1) -> None:
        """Count ``steps`` more of them."""
        sigma, rate, count = _entry(noise_multiplier, sample_rate, steps)
        if count:
            self._steps[sigma, rate] = self._steps.get((sigma, rate), 0) + count

    @property
    def steps(self) -> int:
        """All steps so far."""
        return sum(self._steps.values())

    def entries(self) -> tuple[Entry, ...]:
        """Return (noise multiplier, sample rate, steps) of each kind of step, in order of first use."""
        return tuple((sigma, rate, count) for (sigma, rate), count in self._steps.items())

    def to_list(self) -> list[list[float]]:
        """Return plain lists, which :class:`Ledger` takes again."""
        return [list(entry) for entry in self.entries()]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and self._steps == other._steps

    def __repr__(self) -> str:
        return f"Ledger({self.to_list()})"


def epsilon(
    spent: Ledger | Sequence[float],
    delta: float,
    accountant: str = "pld",
    *,
    interval: float = INTERVAL,
) -> float:
    """Return an epsilon for which the steps are (epsilon, delta)-differentially private (add or remove one).

    No steps cost 0, a step without noise infinity. Results are kept: asking again costs nothing.

    Args:
        spent: a ledger, or one (noise multiplier, sample rate, steps).
        delta: in (0, 1).
        accountant: one of :data:`ACCOUNTANTS`.
        interval: grid of the privacy loss distribution, of ``"pld"`` only: any gives an upper bound,
            :data:`COARSE` one fast enough for a slider.

    Raises:
        ValueError: for steps as in :class:`Ledger`, another delta or accountant, or where the accountant
            itself fails.
        ImportError: without the extra ``private``.
    """
    delta = _check_delta(delta)
    check_accountant(accountant)
    if not 0 < interval <= 1:
        raise ValueError(f"the grid of a privacy loss distribution is in (0, 1], not {interval!r}")
    entries = (spent if isinstance(spent, Ledger) else Ledger([spent])).entries()
    if not entries:
        return 0.0
    if any(sigma == 0 for sigma, _, _ in entries):
        return math.inf
    return _epsilon(tuple(sorted(entries)), delta, accountant, interval if accountant == "pld" else INTERVAL)


def epsilon_curve(
    noise_multiplier: float,
    sample_rate: float,
    steps: Iterable[int],
    delta: float,
    accountant: str = "pld",
    *,
    interval: float = COARSE,
) -> np.ndarray:
    """Return epsilon after each number of ``steps``, float64 of the same length; the first step is shared work.

    Args:
        noise_multiplier, sample_rate, delta, accountant, interval: as in :func:`epsilon`.
        steps: whole numbers from 0 on.

    Raises:
        ValueError, ImportError: as in :func:`epsilon`.
    """
    counts = [_entry(noise_multiplier, sample_rate, count)[2] for count in np.asarray(steps).tolist()]
    sigma, rate, _ = _entry(noise_multiplier, sample_rate, 0)
    return np.array([epsilon((sigma, rate, count), delta, accountant, interval=interval) for count in counts])


def find_noise_multiplier(
    target_epsilon: float, delta: float, sample_rate: float, steps: int, accountant: str = "pld"
) -> float:
    """Return a noise multiplier whose epsilon after ``steps`` is at most the target, and within 0.1 % of it.

    A root of log epsilon in log sigma, found on a coarser grid, is stepped up until epsilon itself, as
    :func:`epsilon` gives it, is at most the target.

    Raises:
        ValueError: as in :func:`epsilon`, and for no steps at all, or a target that is not positive or that no
            noise multiplier between 1e-2 and 1e5 meets.
        ImportError: without the extra ``private``.
    """
    from scipy.optimize import brentq

    target = _check_target(target_epsilon)
    if _entry(1.0, sample_rate, steps)[2] == 0:
        raise ValueError("no steps need no noise; give the number of steps of the run")

    grid = min(max(1e-3 * target, INTERVAL), 0.1)  # as fine as the accuracy of the root needs

    def excess(log_sigma: float) -> float:
        found = epsilon((math.exp(log_sigma), sample_rate, steps), delta, accountant, interval=grid)
        return math.log(max(found, 1e-12) / target)

    high, stride = 0.0, 0.7  # from sigma = 1 outwards: small ones are slow, and seldom wanted
    while excess(high) > 0:
        high += stride
        if high > math.log(1e5):
            raise ValueError(f"no noise multiplier up to 1e5 gives epsilon {target} by {accountant}; {_MORE}")
    low = high - stride
    while excess(low) <= 0:
        low -= stride
        if low < math.log(1e-2):
            raise ValueError(
                f"less noise than 1e-2 of the sensitivity gives epsilon {target} already; {_LESS}"
            )
    sigma = math.exp(brentq(excess, low, low + stride, xtol=1e-4))
    for _ in range(200):
        if epsilon((sigma, sample_rate, steps), delta, accountant) <= target:
            return sigma
        sigma *= 1 + 2e-4
    raise ValueError(f"{accountant} gives no epsilon of {target} near its own root; take another accountant")


_MORE = "take fewer steps, a smaller sample rate or a larger target"
_LESS = "take a smaller target, or train without privacy"


def steps_within(
    target_epsilon: float, delta: float, noise_multiplier: float, sample_rate: float, accountant: str = "pld"
) -> int:
    """Return the largest number of steps (at most 10 million) whose epsilon is at most the target; 0 if none.

    Raises:
        ValueError, ImportError: as in :func:`find_noise_multiplier`.
    """
    target = _check_target(target_epsilon)

    def fits(steps: int, interval: float) -> bool:
        if accountant in ("pld", "prv") and not _resolves(delta, steps):
            return False
        return epsilon((noise_multiplier, sample_rate, steps), delta, accountant, interval=interval) <= target

    near = _largest(lambda steps: fits(steps, COARSE), 1)
    return _largest(lambda steps: fits(steps, INTERVAL), near)


def _largest(fits: Callable[[int], bool], start: int) -> int:
    """Return the largest number from 0 to 10 million that fits, looking outwards from ``start``; 0 always does."""
    low, high, stride = start, start + 1, 1
    while low > 0 and not fits(low):
        low, high, stride = max(0, low - stride), low, 2 * stride
    while high > start and fits(high):
        low, high, stride = high, high + 2 * stride, 2 * stride
        if low >= 10**7:
            return 10**7
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def effective_noise(noise_multipliers: Iterable[float]) -> float:
    """Return sigma_eff = (sum_l sigma_l^-2)^(-1/2): the noise multiplier of Gaussians released together.

    Layer l is released with noise of standard deviation sigma_l Delta_l. Scaled by 1/Delta_l each layer has
    sensitivity 1, and the whole is one Gaussian mechanism whose sensitivity over its noise is
    (sum sigma_l^-2)^(1/2) at most (Bethune et al., ICLR 2024, Section 3.1). D equal ones act as sigma/sqrt(D):

    >>> round(effective_noise([6**0.5] * 6), 12)
    1.0

    Raises:
        ValueError: for none at all, or one that is not a number from 0 on.
    """
    sigmas = [_entry(sigma, 1.0, 0)[0] for sigma in noise_multipliers]
    if not sigmas:
        raise ValueError("give the noise multiplier of each layer; there are none")
    return 0.0 if 0.0 in sigmas else sum(sigma**-2 for sigma in sigmas) ** -0.5


# --- checks


def _entry(noise_multiplier: float, sample_rate: float, steps: int) -> Entry:
    sigma, rate = _number(noise_multiplier, "the noise multiplier"), _number(sample_rate, "the sample rate")
    if not 0 <= sigma < math.inf:
        raise ValueError(f"the noise multiplier is a finite number from 0 on, not {noise_multiplier!r}")
    if not 0 < rate <= 1:
        raise ValueError(f"the sample rate is a probability in (0, 1], not {sample_rate!r}")
    if isinstance(steps, bool) or not isinstance(steps, numbers.Integral) or steps < 0:
        raise ValueError(f"steps are a whole number from 0 on, not {steps!r}")
    return sigma, rate, int(steps)


def _number(value: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{what} is a number, not {value!r}")
    return float(value)


def _check_delta(delta: float) -> float:
    found = _number(delta, "delta")
    if not 0 < found < 1:
        raise ValueError(f"delta is in (0, 1), not {delta!r}; take one well below 1 / number of samples")
    return found


def _check_target(target_epsilon: float) -> float:
    found = _number(target_epsilon, "the target epsilon")
    if not 0 < found < math.inf:
        raise ValueError(f"the target epsilon is a positive number, not {target_epsilon!r}")
    return found


def check_accountant(accountant: str) -> None:
    """Raise ValueError unless ``accountant`` is one of :data:`ACCOUNTANTS`."""
    if accountant not in ACCOUNTANTS:
        raise ValueError(f"accountants are {', '.join(ACCOUNTANTS)}, not {accountant!r}")


# --- the four accountants: entries, delta -> epsilon


@functools.lru_cache(_CACHED)
def _epsilon(entries: tuple[Entry, ...], delta: float, accountant: str, interval: float) -> float:
    compute: dict[str, Callable[[], float]] = {
        "pld": lambda: _pld(entries, delta, interval),
        "prv": lambda: _prv(entries, delta),
        "rdp": lambda: _rdp(entries, delta),
        "google-rdp": lambda: _google_rdp(entries, delta),
    }
    try:
        with _quiet():
            found = float(compute[accountant]())
    except ImportError as error:
        raise ImportError(
            "privacy accountants need the extra 'private': pip install 'lablib[private]'"
        ) from error
    except (ArithmeticError, MemoryError, RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"{accountant} fails for these steps ({error}); take another accountant") from error
    if math.isnan(found):
        raise ValueError(f"{accountant} gives no number for these steps; take another accountant")
    return max(found, 0.0)


def _resolves(delta: float, steps: int) -> bool:
    """Return whether the rounding of Fourier transforms after ``steps`` is small against ``delta``."""
    return steps * _FOURIER < 0.5 * delta


def _less_rounding(entries: tuple[Entry, ...], delta: float) -> float:
    """Return the delta to ask of an accountant by Fourier transforms, so that ``delta`` is true."""
    steps = sum(count for _, _, count in entries)
    if not _resolves(delta, steps):
        raise ValueError(f"its rounding after {steps} steps is as large as delta {delta:g}; rdp has none")
    return delta - steps * _FOURIER


def _pld(entries: tuple[Entry, ...], delta: float, interval: float) -> float:
    certain = _less_rounding(entries, delta)
    total = None
    for sigma, rate, steps in entries:
        composed = _one_step_pld(sigma, rate, interval).self_compose(steps)
        total = composed if total is None else total.compose(composed)
    return total.get_epsilon_for_delta(certain)


@functools.lru_cache(16)
def _one_step_pld(sigma: float, rate: float, interval: float):
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        sigma, sampling_prob=rate, value_discretization_interval=interval
    )


def _prv(entries: tuple[Entry, ...], delta: float) -> float:
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = list(entries)
    return accountant.get_epsilon(_less_rounding(entries, delta), eps_error=_PRV_ERROR)


def _rdp(entries: tuple[Entry, ...], delta: float) -> float:
    from opacus.accountants.analysis import rdp

    total = sum(steps * _one_step_rdp(sigma, rate) for sigma, rate, steps in entries)
    return rdp.get_privacy_spent(orders=_ORDERS, rdp=total, delta=delta)[0]


@functools.lru_cache(256)
def _one_step_rdp(sigma: float, rate: float) -> np.ndarray:
    from opacus.accountants.analysis import rdp

    return rdp.compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=_ORDERS)


def _google_rdp(entries: tuple[Entry, ...], delta: float) -> float:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    for sigma, rate, steps in entries:
        accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(sigma)), steps)
    return accountant.get_epsilon(delta)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Undo what the libraries do besides: Opacus puts a handler on the root logger, both warn by the way.

    What they warn of (an order left out, a logarithm of 0 at the edge of a grid) keeps the bound an upper one.
    """
    root, absl = logging.getLogger(), logging.getLogger("absl")
    handlers, level, loud = list(root.handlers), root.level, absl.level
    absl.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        absl.setLevel(loud)
