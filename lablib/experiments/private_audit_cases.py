"""The mechanisms that are audited, sound and broken, and what each claims."""

import dataclasses
import functools
import math

import numpy as np

from lablib.experiments.private_audit_models import SUBJECTS
from lablib.experiments.private_audit_simulator import Setting
from lablib.privacy.accounting import epsilon
from lablib.privacy.auditing import Audit, gaussian_epsilon, refutes

CURVE = np.concatenate(
    [np.linspace(0.0, 3.0, 61), np.geomspace(3.1, 60.0, 80)]
)  # epsilons of a privacy profile
GRID = 5e-3  # of privacy losses in it; any gives an upper bound, this one fast
FARTHEST = 8  # times larger or smaller noise multipliers are looked at


@dataclasses.dataclass(frozen=True)
class Case:
    """One audited mechanism.

    Attributes:
        label: for people, and the name of its part in a checkpoint.
        subject: a key of ``SUBJECTS``.
        setting: the mechanism.
        gradient_canary: the canary's gradient is put in by hand, at the bound in every parameter.
        micro: records in a physical batch, and ``constraint`` of the weights: of runs of the engine only.
    """

    label: str
    subject: str
    setting: Setting
    gradient_canary: bool = False
    micro: int | None = None
    constraint: str | None = None

    def __post_init__(self) -> None:
        if self.subject not in SUBJECTS:
            raise ValueError(f"subjects are {', '.join(SUBJECTS)}; got {self.subject!r}")

    @property
    def sound(self) -> bool:
        """Whether nothing is broken."""
        return self.setting.flaw is None


def claimed_epsilon(setting: Setting, delta: float) -> float:
    """Return the epsilon that the accountant states for so many steps on Poisson samples."""
    return epsilon((setting.noise_multiplier, setting.sample_rate, setting.steps), delta)


def refuted_epsilon(setting: Setting, audit: Audit, delta: float) -> float:
    """Return epsilon at the smallest noise multiplier that the two error rates of ``audit`` refute, 0 if none is.

    A claim is the whole profile of T Poisson-sampled Gaussian steps of a noise multiplier (Nasr et al., 2023, Section
    5, there by trade-off curves): stronger than one (epsilon, delta), so more of it can be refuted, and the bound is
    about the noise of this kind of mechanism and no other. With q = 1 that is mu = sqrt(T) / noise multiplier.
    Smaller noise multipliers claim less, so that a bisection finds the smallest refuted one, to 1 %.
    """
    rates = audit.false_positive_bound, audit.false_negative_bound
    if setting.sample_rate == 1.0:
        return gaussian_epsilon(audit.bound, delta)

    def wrong(noise: float) -> bool:
        return refutes(CURVE, _profile(noise, setting.sample_rate, setting.steps), *rates)

    high = setting.noise_multiplier
    while not wrong(high):
        high *= 2.0
        if high > FARTHEST * setting.noise_multiplier:
            return 0.0
    low = high / 2.0
    while low > setting.noise_multiplier / FARTHEST and wrong(low):
        low, high = low / 2.0, low
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if wrong(middle) else (middle, high)
    return claimed_epsilon(dataclasses.replace(setting, noise_multiplier=high), delta)


@functools.lru_cache(256)
def _profile(noise_multiplier: float, rate: float, steps: int) -> np.ndarray:
    """Return an upper bound on delta at every epsilon of ``CURVE``."""
    from dp_accounting.pld import privacy_loss_distribution

    one = privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier, sampling_prob=rate, value_discretization_interval=GRID
    )
    return np.asarray(one.self_compose(steps).get_delta_for_epsilon(CURVE))


def _dense(label: str, sigma: float, steps: int, rate: float = 1.0, **more) -> Case:
    return Case(label, "dense", Setting(sigma, steps, rate, **more))


SIMULATED = (
    _dense("dense, σ = 4", 4.0, 4),
    _dense("dense, σ = 2, per-layer", 2.0, 4, noise="per-layer"),
    _dense("dense, σ = 0.5, balanced", 0.5, 1, noise="balanced"),
    Case("two dense, σ = 3, global", "two dense", Setting(3.0, 5)),
    Case("two dense, σ = 1.5, per-layer", "two dense", Setting(1.5, 4, noise="per-layer")),
    Case("two dense, σ = 1, balanced", "two dense", Setting(1.0, 1, noise="balanced")),
    Case("two dense, σ = 1, gradient canary", "two dense", Setting(1.0, 3), gradient_canary=True),
    Case("convolution, σ = 2.5", "convolution", Setting(2.5, 4)),
    Case("bias of a map, σ = 8, global", "bias of a map", Setting(8.0, 9)),
    Case("bias of a map, σ = 1, per-layer", "bias of a map", Setting(1.0, 2, noise="per-layer")),
    Case("bias of a map, σ = 0.8, balanced", "bias of a map", Setting(0.8, 4, noise="balanced")),
    _dense("dense, σ = 1, q = 1/2", 1.0, 5, 0.5),
    _dense("dense, σ = 0.7, q = 1/4, balanced", 0.7, 5, 0.25, noise="balanced"),
    _dense("dense, σ = 2, q = 1/10, equal records", 2.0, 50, 0.1, others=9, kind="copies"),
    Case("two dense, σ = 1, q = 1/4, per-layer", "two dense", Setting(1.0, 10, 0.25, noise="per-layer")),
    Case("convolution, σ = 0.6, q = 1/10", "convolution", Setting(0.6, 10, 0.1)),
    Case("bias of a map, σ = 1, q = 1/8", "bias of a map", Setting(1.0, 10, 0.125, others=7)),
)


def _scaled(factor: float, *names: str) -> dict:
    return {"flaw": "scale", "scale": tuple((name, factor) for name in names)}


BROKEN = (
    Case("bias without √(HW)", "bias of a map", Setting(2.0, 4, **_scaled(0.25, "1.bias"))),
    Case("windows not counted", "convolution", Setting(2.4, 4, **_scaled(1 / 3, "1.weight"))),
    _dense("L / batch size", 8.0, 4, others=31, **_scaled(1 / 32, "1.weight", "1.bias")),
    _dense("L / batch size, q = 1/8", 3.0, 10, 0.125, others=31, **_scaled(1 / 4, "1.weight", "1.bias")),
    Case(
        "divided by the drawn batch",
        "bias of a map",
        Setting(2.0, 20, 0.125, others=63, kind="mirrored", flaw="drawn"),
    ),
    _dense("shuffled, not Poisson", 2.0, 80, 0.1, others=39, kind="copies", flaw="shuffled"),
    _dense("no noise on empty batches", 6.0, 40, 0.1, flaw="silent"),
)

ENGINE = (
    _dense("dense", 0.75, 4),
    Case("two dense, orthonormal", "two dense", Setting(1.0, 3, noise="balanced"), constraint="orthonormal"),
    Case("convolution, micro-batches", "convolution", Setting(0.75, 2, others=3), micro=2),
    Case(
        "bias of a map, q = 1/2, micro-batches",
        "bias of a map",
        Setting(0.7, 4, 0.5, noise="per-layer", others=5),
        micro=2,
    ),
)
