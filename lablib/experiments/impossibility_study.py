"""Impossibility certificates for all pairs of classes of a data set: made, checked exactly, kept, summed up.

Each certificate is a file of its own in ``results/certificates/``, written only after the exact checker has
accepted it. A run that was stopped goes on with the pairs that have no (valid) file yet.
"""

import dataclasses
import math
import sys
import time
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from lablib.data import Dataset, available, load
from lablib.experiments.results import results_dir
from lablib.theory.impossibility import Certificate, CertificateError, DamagedCertificateError, check, solve

FALLBACK = "digits"


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """What is certified.

    Attributes:
        mode: which of the three sizes this is.
        data: name of the data set; a quick run takes the bundled digits where it is not at hand.
        classes: every two of them are certified.
        limit: the first so many training images per class; None is all.
        tolerance: relative gap between upper and lower bound at which a search stops.
        curves: pairs of classes for which R_M is followed over the depth M.
        groups: sizes of the sorted groups of these curves.
        shown: pairs of classes whose heaviest image pairs are kept for the figures.
    """

    mode: str
    data: str
    classes: tuple[int, ...]
    limit: int | None
    tolerance: float
    curves: tuple[tuple[int, int], ...]
    groups: tuple[int, ...]
    shown: tuple[tuple[int, int], ...]


def class_points(data: Dataset, label: int, limit: int | None = None) -> np.ndarray:
    """Return the first ``limit`` training images (n, C, H, W) of one class, in their order in the data set.

    Raises:
        ValueError: if the data set has no such class or the limit is not positive.
    """
    if not 0 <= label < len(data.class_names):
        raise ValueError(f"{data.name} has classes 0 to {len(data.class_names) - 1}, not {label}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit} must be at least 1")
    return data.x_train[data.y_train == label][:limit]


def certify(
    data: Dataset,
    labels: tuple[int, ...],
    path: Path,
    *,
    limit: int | None = None,
    tolerance: float = 1e-4,
    depth: int = 1,
    group: int = 1,
    start: Certificate | None = None,
) -> Certificate:
    """Return the certificate for these classes: from ``path`` if it is there and holds, else made and written there.

    ``certificate.run`` records seconds, rounds, and that the exact checker has looked at every pair.
    """
    points = [class_points(data, label, limit) for label in labels]
    names = [data.class_names[label] for label in labels]
    kept = _kept(path, points, data.scale, {"names": names, "depth": depth, "group": group}, tolerance)
    if kept:
        return kept
    made = solve(
        points, names=names, scale=data.scale, depth=depth, group=group, tolerance=tolerance, start=start
    )
    began = time.perf_counter()
    check(made, points, scale=data.scale)
    cost = {"checked": True, "check_seconds": round(time.perf_counter() - began, 2)}
    made = dataclasses.replace(made, run=made.run | cost | {"peak_memory_mb": _peak_memory_mb()})
    made.save(path)
    return made


def run_study(config: StudyConfig) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Certify every two classes and the depth curves; return metrics and arrays for the result file."""
    from tqdm import tqdm

    name = config.data
    if config.mode == "quick" and not available(name).ready:
        print(f"  {name} is not at hand (see: python -m lablib doctor); this quick run uses {FALLBACK}")
        name = FALLBACK
    data = load(name)
    folder = results_dir(config.mode) / "certificates"
    made: dict[tuple[int, int], Certificate] = {}
    pairs = list(combinations(config.classes, 2))
    with tqdm(pairs, desc=f"{name}: pairs of classes", unit="pair", disable=None) as bar:
        for pair in bar:
            path = folder / f"{name}_{pair[0]}_{pair[1]}.json"
            made[pair] = certify(data, pair, path, limit=config.limit, tolerance=config.tolerance)
            bar.set_postfix_str(f"{pair[0]}-{pair[1]}: R <= {float(made[pair].upper):.4f}")
    curves = []
    jobs = [(pair, group) for pair in config.curves for group in config.groups]
    for pair, group in tqdm(jobs, desc=f"{name}: depth curves", unit="curve", disable=None):
        curves.append(_depth_curve(data, pair, group, made[pair], config, folder))
    metrics = {
        "data": name,
        "class_names": list(data.class_names),
        "points_per_class": [len(class_points(data, label, config.limit)) for label in config.classes],
        "pairs": [
            _row(pair, certificate, f"{name}_{pair[0]}_{pair[1]}") for pair, certificate in made.items()
        ],
        "all_checked": all(certificate.run["checked"] for certificate in made.values()),
        "solve_seconds": round(sum(certificate.run["seconds"] for certificate in made.values()), 1),
        "check_seconds": round(sum(certificate.run["check_seconds"] for certificate in made.values()), 1),
        "peak_memory_mb": max(certificate.run["peak_memory_mb"] for certificate in made.values()),
        "depth_curves": curves,
    }
    return metrics, _pictures(data, made, config)


def decimal_up(exact: Fraction, digits: int = 6) -> float:
    """Return the fraction rounded up: a bound from above stays one."""
    return math.ceil(exact * 10**digits) / 10**digits


def decimal_down(exact: Fraction, digits: int = 6) -> float:
    """Return the fraction rounded down: a bound from below stays one."""
    return math.floor(exact * 10**digits) / 10**digits


def _depth_curve(data, pair, group, first, config, folder) -> dict[str, Any]:
    """Follow R_M over M = 1, 2, ... until it reaches half the separation, where it says nothing any more."""
    points, before = [_depth_row(first)], first
    while before.lower < before.half_separation:
        depth = before.depth + 1
        path = folder / f"{data.name}_{pair[0]}_{pair[1]}_depth{depth}_group{group}.json"
        sizes = {"depth": depth, "group": group, "limit": config.limit, "tolerance": config.tolerance}
        before = certify(data, pair, path, start=before, **sizes)
        points.append(_depth_row(before))
    return {
        "classes": list(pair),
        "group": group,
        "half_separation": float(first.half_separation),
        "least_depth": before.depth,
        "points": points,
    }


def _depth_row(certificate: Certificate) -> dict[str, Any]:
    return {
        "depth": certificate.depth,
        "budget": certificate.budget,
        "lower": decimal_down(certificate.lower),
        "upper": decimal_up(certificate.upper),
        "checked": certificate.run["checked"],
    }


def _row(pair: tuple[int, int], certificate: Certificate, stem: str) -> dict[str, Any]:
    """Sum up one certificate for the result file; decimals are rounded so that they stay bounds."""
    run = certificate.run
    return {
        "classes": list(pair),
        "lower": decimal_down(certificate.lower),
        "upper": decimal_up(certificate.upper),
        "upper_exact": str(certificate.upper),
        "half_separation": float(certificate.half_separation),
        "support_pairs": len(certificate.pairs),
        "support_coordinates": len(certificate.budgets[0]),
        "certificate": f"certificates/{stem}.json",
        **{key: run[key] for key in ("checked", "rounds", "seconds", "check_seconds", "peak_memory_mb")},
    }


def _pictures(data: Dataset, made: dict, config: StudyConfig) -> dict[str, np.ndarray]:
    """Return what the figures show: every lambda, and the heaviest image pairs of the pairs of classes shown."""
    shape, count = data.x_train.shape[1:], 8
    arrays = {
        "lambdas": np.stack(
            [certificate.lambdas()[0].reshape(shape) for certificate in made.values()], dtype=np.float32
        )
    }
    for first, second in config.shown:
        pairs, shares = made[first, second].heaviest(count)
        sides = [class_points(data, label, config.limit) for label in (first, second)]
        images = np.stack([sides[0][pairs[:, 1]], sides[1][pairs[:, 3]]], axis=1)
        arrays[f"pairs_{first}_{second}"], arrays[f"shares_{first}_{second}"] = images, shares
    return arrays


def _kept(
    path: Path, points: list, scale: int, wanted: dict[str, Any], tolerance: float
) -> Certificate | None:
    """Return the certificate in the file if it proves what is wanted about these points; None makes a new one."""
    try:
        kept = Certificate.load(path)
        check(kept, points, scale=scale, exhaustive=False)
    except (FileNotFoundError, DamagedCertificateError, CertificateError):
        return None
    same = {"names": list(kept.names), "depth": kept.depth, "group": kept.group} == wanted
    return kept if same and kept.run.get("checked") and kept.run.get("tolerance") == tolerance else None


def _peak_memory_mb() -> int:
    """Return the largest memory this process has held so far; 0 where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20) if sys.platform == "darwin" else peak / 1024)
