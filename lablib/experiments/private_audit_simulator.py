"""The private mechanism for thousands of runs at once, the attacker's score, and ways to build it wrongly.

The data set is N equal records and, or without, the canary. One step of a run draws n of the N and perhaps the
canary, sums their gradients at the run's own weights, adds noise of its own sensitivity, divides by a public constant
and moves the weights. The attacker knows everything but the draws: from each movement of the weights it takes the
noisy sum y back, and adds up log((1 - q) + q exp(<y - base, u> - |u|^2 / 2)), products in units of the noise, u the
gradient of the canary and base that of the others as expected: the log likelihood ratio of the two data sets.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from lablib.experiments.private_audit_models import (
    Record,
    Subject,
    claimed_sensitivity,
    gradients,
    trained,
)
from lablib.privacy.noise import NOISES

KINDS = ("quiet", "copies", "mirrored")
FLAWS = ("scale", "drawn", "shuffled", "silent")
MOVEMENT = 0.02  # of the weights in a whole run, so that the canary stays a canary


@dataclasses.dataclass(frozen=True)
class Setting:
    """One mechanism and what is known of the data.

    Attributes:
        noise_multiplier: sigma.
        steps: T.
        sample_rate: q; 1 takes every record in every step.
        noise: one of ``NOISES``.
        others: N, how many equal records there are beside the canary.
        kind: what they are: ``"quiet"`` (no gradient), ``"copies"`` (the canary's) or ``"mirrored"``.
        flaw: None for the sound mechanism. ``"scale"``: the noise is of ``scale`` times the sensitivity.
            ``"drawn"``: divided by the drawn number of records. ``"shuffled"``: batches of q (N + 1) in a new
            order each epoch, accounted as Poisson. ``"silent"``: no step, so no noise, where nothing is drawn.
        scale: pairs (parameter, factor) of the first flaw.
    """

    noise_multiplier: float
    steps: int
    sample_rate: float = 1.0
    noise: str = "global"
    others: int = 1
    kind: str = "quiet"
    flaw: str | None = None
    scale: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.noise not in NOISES or self.kind not in KINDS or self.flaw not in (None, *FLAWS):
            raise ValueError(
                f"noise is one of {NOISES}, kind of {KINDS}, flaw of {FLAWS} or None; got {self.noise!r}, "
                f"{self.kind!r} and {self.flaw!r}"
            )

    @property
    def expected(self) -> float:
        """The public constant that sums are divided by: q (N + 1)."""
        return self.sample_rate * (self.others + 1)

    def learning_rate(self, total: float) -> float:
        """Return the step size that moves the weights by about ``MOVEMENT`` at sensitivity ``total``."""
        return MOVEMENT * self.expected / (self.noise_multiplier * total * math.sqrt(self.steps))


Draw = tuple[
    Tensor, Tensor, dict[str, Tensor]
]  # others (R,), canary (R,), standard normals (R, ...) by parameter


def noise_levels(
    setting: Setting, bounds: Mapping[str, Tensor], sizes: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return the standard deviation of the noise of each parameter, (R,), from its sensitivity in each run (R,).

    Args:
        setting: names the allocation; its ``scale`` makes the sensitivities wrong first.
        bounds: parameter -> (R,).
        sizes: parameter -> number of entries.
    """
    wrong = dict(setting.scale)
    bounds = {name: bound * wrong.get(name, 1.0) for name, bound in bounds.items()}
    sigma = setting.noise_multiplier
    if setting.noise == "balanced":
        whole = sum(bound * math.sqrt(sizes[name]) for name, bound in bounds.items())
        return {
            name: sigma * (bound * whole / math.sqrt(sizes[name])).sqrt() for name, bound in bounds.items()
        }
    groups = {name: name.rpartition(".")[0] if setting.noise == "per-layer" else "" for name in bounds}
    found = {}
    for name, group in groups.items():
        own = sum(bounds[other].square() for other in bounds if groups[other] == group).sqrt()
        found[name] = sigma * math.sqrt(len(set(groups.values()))) * own
    return found


def simulate(
    subject: Subject,
    setting: Setting,
    canary: Record,
    other: Record,
    present: bool,
    runs: int,
    seed: int,
    *,
    gradient_canary: bool = False,
    draws: Iterable[Draw] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run the mechanism ``runs`` times; return the scores (R,) and the last weights (R, ...) by parameter.

    Args:
        subject, setting: the model and the mechanism.
        canary, other: the sample in question and the one of which the data hold N copies.
        present: whether the canary is in the data.
        runs: R.
        seed: of all that is drawn at random.
        gradient_canary: put in a gradient with one entry, at the bound, for each parameter in place of the canary's.
        draws: replaces what the steps draw at random.
    """
    module = subject.build()
    start = {name: value.detach() for name, value in trained(module).items()}
    claimed = claimed_sensitivity(subject, module)
    rate = setting.learning_rate(math.sqrt(sum(bound**2 for bound in claimed.values())))
    weights = {name: value.expand(runs, *value.shape).clone() for name, value in start.items()}
    if draws is None:
        draws = draw_steps(setting, present, runs, weights, torch.Generator().manual_seed(seed))
    scores = torch.zeros(runs)
    for step, (others, drawn, normals) in enumerate(draws):
        bounds = current_bounds(subject, claimed, start, weights)
        levels = noise_levels(setting, bounds, {name: value.numel() for name, value in start.items()})
        known = gradients(module, weights, other)
        own = _one_entry(bounds, weights) if gradient_canary else gradients(module, weights, canary)
        count = others + drawn
        share = setting.expected / count.clamp(min=1.0) if setting.flaw == "drawn" else torch.ones(runs)
        pace = rate / setting.expected * (count > 0 if setting.flaw == "silent" else torch.ones(runs))
        after = {}
        for name, value in weights.items():
            summed = _each(share * others, known[name]) + _each(share * drawn, own[name])
            after[name] = value - _each(pace, summed + _each(levels[name], normals[name]))
        released = {
            name: (value - after[name]) * (setting.expected / rate) for name, value in weights.items()
        }
        scores += score_step(setting, step, released, levels, own, known)
        weights = after
    return scores, weights


def draw_steps(
    setting: Setting, present: bool, runs: int, weights: Mapping[str, Tensor], generator: torch.Generator
) -> Iterator[Draw]:
    """Yield what each step draws at random: by Poisson sampling, or from the shuffled batches of that flaw."""
    places = torch.zeros(runs)
    for step in range(setting.steps):
        if setting.flaw == "shuffled":
            size, batches = round(setting.expected), round(1.0 / setting.sample_rate)
            if step % batches == 0:  # an epoch begins; where the canary is not, the last batch is one short
                places = torch.randint(batches, (runs,), generator=generator)
            drawn = (places == step % batches).float() * present
            full = size if present or step % batches < batches - 1 else size - 1
            others = full - drawn
        else:
            chances = torch.full((runs,), float(setting.sample_rate))
            drawn = torch.bernoulli(chances, generator=generator) * present
            others = torch.binomial(torch.full((runs,), float(setting.others)), chances, generator=generator)
        shapes = {name: value.shape for name, value in weights.items()}
        yield others, drawn, {name: torch.randn(s, generator=generator) for name, s in shapes.items()}


def current_bounds(
    subject: Subject, claimed: Mapping[str, float], start: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the sensitivity of each parameter in each run, (R,), at its present weights.

    That at the start, times how much the operator norms of the *other* layers have grown since: forward bounds grow
    by those below, cotangents by those above.
    """
    runs = len(next(iter(weights.values())))
    growth = {
        name: torch.linalg.matrix_norm(weights[name], 2) / torch.linalg.matrix_norm(start[name], 2)
        for name in subject.operators
    }
    found = {}
    for name, bound in claimed.items():
        found[name] = torch.full((runs,), bound)
        for other, factor in growth.items():
            if other != name:
                found[name] = found[name] * factor
    return found


def score_step(
    setting: Setting,
    step: int,
    released: Mapping[str, Tensor],
    levels: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    known: Mapping[str, Tensor],
) -> Tensor:
    """Return what one step adds to the score of each run, (R,): a log likelihood ratio, or a count for ``silent``.

    Args:
        released: noisy sums (R, ...) by parameter, as the movement of the weights tells them.
        levels: standard deviation of the noise (R,) by parameter.
        own, known: gradients (R, ...) of the canary and of one of the others.
    """
    if setting.flaw == "silent":
        return (
            torch.stack([value.flatten(1).abs().amax(1) for value in released.values()]).amax(0).gt(0).float()
        )
    rate, base = setting.sample_rate, setting.sample_rate * setting.others
    shift = dict(own)
    if setting.flaw == "drawn":  # a mean: the canary takes the place of one of about E + 1
        base = setting.expected
        share = setting.expected / (setting.expected + 1.0)
        shift = {name: share * (value - known[name]) for name, value in own.items()}
    if setting.flaw == "shuffled":  # wherever the canary is, the last batch of the epoch is full
        batches = round(1.0 / rate)
        if step % batches < batches - 1:
            return torch.zeros(len(next(iter(released.values()))))
        rate, base, shift = 1.0, setting.expected - 1.0, dict(known)
    product = square = 0.0
    for name, value in released.items():
        unit = (shift[name] / _like(levels[name], value)).flatten(1)
        rest = ((value - base * known[name]) / _like(levels[name], value)).flatten(1)
        product = product + (rest * unit).sum(1)
        square = square + unit.square().sum(1)
    ratio = product - square / 2.0
    if rate == 1.0:
        return ratio
    return torch.logaddexp(torch.full_like(ratio, math.log1p(-rate)), ratio + math.log(rate))


def _one_entry(bounds: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return gradients (R, ...) whose first entry is the bound of their parameter and the rest 0."""
    found = {name: torch.zeros_like(value) for name, value in weights.items()}
    for name, value in found.items():
        value.flatten(1)[:, 0] = bounds[name]
    return found


def _each(factors: Tensor, values: Tensor) -> Tensor:
    """Return factors (R,) times values (R, ...), run by run."""
    return _like(factors, values) * values


def _like(factors: Tensor, values: Tensor) -> Tensor:
    return factors.reshape(-1, *[1] * (values.dim() - 1))
