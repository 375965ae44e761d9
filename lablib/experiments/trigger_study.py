"""What is measured of one trigger classifier: rates, lifetimes, what lies beyond the training data, worse detectors.

The cut of a classifier is where it keeps the wanted share of the nominal background; everything else is measured at
that cut. Ties are kept out, so that the share is never above the wanted one on the background of the cut.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lablib.certify import bound_radius_slopes, certify_slopes
from lablib.experiments.threads import one_thread
from lablib.experiments.trigger_events import (
    BACKGROUND,
    FEATURES,
    KINDS,
    Candidates,
    Detector,
    background_counts,
    generate,
    generate_mixture,
)
from lablib.experiments.trigger_models import Trained

RATE = 0.022  # kept share of the background: 660 kHz of 30 MHz, as in the published study
RATES = np.geomspace(1e-3, 0.2, 41)
LIFETIMES = np.geomspace(0.05, 200.0, 31)  # ps: edges of the bins
PUSHES = np.geomspace(1.0, 1000.0, 25)  # factors on all distances
CHANGES = {  # what the detector does instead of what the training assumed
    "errors × 1.5, known": Detector(resolution=1.5),
    "errors × 2, known": Detector(resolution=2.0),
    "errors × 1.5, not known": Detector(unknown=1.5),
    "errors × 2, not known": Detector(unknown=2.0),
    "all tracks badly measured": Detector(bad_share=1.0),
}
PAIRS = tuple(itertools.combinations(range(len(FEATURES)), 2))
MAP_RANGES = ((-2.0, 14.0), (1.0, 15.0), (0.0, 20.0), (-6.0, 12.0))
MAP_SIDE = 61
PUSHED = 10_000  # signal candidates that are pushed
_FLIGHT, _IMPACT = 0, 3  # columns of the logarithms that grow with every distance


@dataclasses.dataclass(frozen=True)
class Samples:
    """Test candidates, the same for all classifiers.

    Attributes:
        signal, background: as in training, other candidates.
        cut: background that only sets the cut.
        flat: signal with proper times even in their logarithm, over the range of :data:`LIFETIMES`.
        changed: name of a change -> (signal, background) of that detector.
    """

    signal: Candidates
    background: Candidates
    cut: Candidates
    flat: Candidates
    changed: Mapping[str, tuple[Candidates, Candidates]]


def draw_samples(signal: int, background: int, seed: int) -> Samples:
    """Return test samples of these sizes; changed detectors get a quarter of each."""
    changed = {}
    for number, (name, detector) in enumerate(CHANGES.items()):
        counts = background_counts(max(background // 4, 1))
        changed[name] = (
            generate("beauty", max(signal // 4, 1), seed=(seed, 10 + number), detector=detector),
            generate_mixture(counts, seed=(seed, 20 + number), detector=detector),
        )
    return Samples(
        signal=generate("beauty", signal, seed=(seed, 0)),
        background=generate_mixture(background_counts(background), seed=(seed, 1)),
        cut=generate_mixture(background_counts(background), seed=(seed, 2)),
        flat=generate("beauty", signal, seed=(seed, 3), lifetimes=(LIFETIMES[0], LIFETIMES[-1])),
        changed=changed,
    )


def draw_training(count: int, seed: int, strange: float = BACKGROUND["strange"]) -> Candidates:
    """Return ``count`` training candidates, half of them signal; ``strange`` is a share of the background."""
    background = background_counts(count - count // 2, strange)
    return generate_mixture({"beauty": count // 2, **background}, seed=(seed, 100))


def draw_background(count: int, strange: float, seed: int) -> Candidates:
    """Return background with another share of strange hadrons, to set the cut of what was trained with that share."""
    return generate_mixture(background_counts(count, strange), seed=(seed, 30))


def measure_share(trained: Trained, background: Candidates, samples: Samples) -> dict[str, Any]:
    """Return efficiencies at the cut that ``background`` sets: of the test signal, and by lifetime."""
    cut = place_cut(trained.score(background.features), RATE)
    return {
        "efficiency": _share(trained.score(samples.signal.features) > cut),
        "by_lifetime": by_lifetime(trained.score(samples.flat.features) > cut, samples.flat.lifetime),
    }


def place_cut(scores: np.ndarray, rate: float) -> float:
    """Return the least observed score with at most ``rate`` of the ``scores`` (N,) strictly above it.

    Raises:
        ValueError: for no scores, or a rate that is not between 0 and 1.
    """
    if not len(scores) or not 0.0 < rate < 1.0:
        raise ValueError(f"a cut needs scores and a rate between 0 and 1, got {len(scores)} and {rate}")
    ordered = np.sort(scores)
    return float(ordered[len(ordered) - 1 - int(rate * len(ordered))])


def measure(trained: Trained, training: Candidates, samples: Samples) -> dict[str, Any]:
    """Return all numbers of one classifier, as plain data.

    ``cut``; ``area`` under the ROC curve; ``efficiency`` and ``rate`` at the cut, the latter also per kind of
    background (``kept_kinds``); ``roc`` efficiencies at :data:`RATES`; ``by_lifetime`` efficiency per bin of
    :data:`LIFETIMES`; ``beyond``, see :func:`measure_beyond`; ``changed`` name -> [efficiency, rate] of that
    detector; ``size``.
    """
    cut_scores = trained.score(samples.cut.features)
    cut = place_cut(cut_scores, RATE)
    signal, background = (trained.score(part.features) for part in (samples.signal, samples.background))
    return {
        "cut": cut,
        "area": area(signal, background),
        "efficiency": _share(signal > cut),
        "rate": _share(background > cut),
        "kept_kinds": {
            kind: _share(background[samples.background.kind == KINDS.index(kind)] > cut)
            for kind in BACKGROUND
        },
        "roc": [_share(signal > place_cut(cut_scores, rate)) for rate in RATES],
        "by_lifetime": by_lifetime(trained.score(samples.flat.features) > cut, samples.flat.lifetime),
        "beyond": measure_beyond(trained, cut, training, samples),
        "changed": {
            name: [_share(trained.score(part.features) > cut) for part in parts]
            for name, parts in samples.changed.items()
        },
        "size": trained.size,
    }


def _share(kept: np.ndarray) -> float:
    return float(np.mean(kept))


def by_lifetime(kept: np.ndarray, lifetime: np.ndarray) -> list[float | None]:
    """Return the share of ``kept`` (N,) in each bin of :data:`LIFETIMES`; None in a bin with no candidate."""
    bins = np.digitize(lifetime, LIFETIMES[1:-1])
    counts, found = (np.bincount(bins, weights=w, minlength=len(LIFETIMES) - 1) for w in (None, kept))
    return [float(share / count) if count else None for share, count in zip(found, counts)]


def area(signal: np.ndarray, background: np.ndarray) -> float:
    """Return the area under the ROC curve of scores: P(signal > background) + P(equal) / 2."""
    ordered = np.sort(background)
    below = np.searchsorted(ordered, signal, side="left").mean()
    not_above = np.searchsorted(ordered, signal, side="right").mean()
    return float((below + not_above) / (2 * len(ordered)))


def measure_beyond(trained: Trained, cut: float, training: Candidates, samples: Samples) -> dict[str, Any]:
    """Return what becomes of signal that is more displaced than the training candidates.

    The first 10,000 of test signal are pushed: both logarithms grow by 2 log s, for the factors s in :data:`PUSHES`
    on all distances. ``pushed``: of those kept before, the share still kept; ``falls``: the share whose score falls
    anywhere on that way. A classifier that is increasing has all ones and 0. ``displaced``: of the flat signal with a
    flight distance chi^2 above that of all training signal, the share kept; ``displaced_count``: how many those are.
    """
    features = samples.signal.features[:PUSHED]
    scores = trained.score(features)
    kept, falls, before = scores > cut, np.zeros(len(features), bool), scores
    pushed = []
    for factor in PUSHES:
        moved = features.copy()
        moved[:, [_FLIGHT, _IMPACT]] += 2.0 * np.log(factor)
        scores = trained.score(moved)
        falls |= scores < before
        before = scores
        pushed.append(_share(scores[kept] > cut) if kept.any() else None)
    farthest = training.features[training.signal, _FLIGHT].max()
    displaced = samples.flat.features[samples.flat.features[:, _FLIGHT] > farthest]
    return {
        "pushed": pushed,
        "falls": _share(falls),
        "displaced": _share(trained.score(displaced) > cut) if len(displaced) else None,
        "displaced_count": len(displaced),
    }


@one_thread()
def certify(trained: Trained, cut: float, samples: Samples, rows: int) -> dict[str, Any]:
    """Return what is proven of a network: slopes of the score per feature, and radii of decisions.

    ``low`` and ``high`` (4,): bounds of the slope in each feature in its own unit (GeV, or of a logarithm), for all
    inputs; ``radii`` (2, rows): for the first signal and background candidates, by how much all four features
    may be off, in deviations of the training candidates, with no other decision.
    """
    slopes = certify_slopes(trained.network)
    radii = []
    for part in (samples.signal, samples.background):
        x = torch.from_numpy((part.features[:rows] - trained.mean) / trained.deviation)
        radii.append(bound_radius_slopes(trained.network, x, norm="linf", threshold=cut).tolist())
    return {
        "low": (slopes.low[0] / trained.deviation).tolist(),
        "high": (slopes.high[0] / trained.deviation).tolist(),
        "radii": radii,
    }


def response_maps(trained: Trained, fixed: np.ndarray) -> np.ndarray:
    """Return scores (pairs, side, side), row = second feature of the pair; the others are ``fixed`` (4,).

    Axes are those of :func:`map_axes`; pairs as in :data:`PAIRS`.
    """
    maps = []
    for first, second in PAIRS:
        grid = np.tile(fixed, (MAP_SIDE, MAP_SIDE, 1))
        grid[..., first] = map_axes()[first][None, :]
        grid[..., second] = map_axes()[second][:, None]
        maps.append(trained.score(grid.reshape(-1, len(FEATURES))).reshape(MAP_SIDE, MAP_SIDE))
    return np.stack(maps)


def map_axes() -> np.ndarray:
    """Return where the maps are evaluated: (4, side), in the units of each feature."""
    return np.stack([np.linspace(*ends, MAP_SIDE) for ends in MAP_RANGES])
