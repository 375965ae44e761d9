"""A trigger on toy displaced vertices: what does monotonicity cost, and what does it save?

Candidates are those of :mod:`lablib.experiments.trigger_events` (a toy, not detector data), classifiers those of
:mod:`lablib.experiments.trigger_models`, and what is measured is in :mod:`lablib.experiments.trigger_study`. Each
seed draws its own training candidates, weights and batches; all are tested on the same candidates. The monotone
network is also trained with other constants, for what a tighter one costs and proves.

How an unconstrained network treats signal far away depends on the background that it met there. So both networks
are also trained and cut with fewer strange hadrons in the background, and with none.
Standard takes about seven minutes on one core.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.recipe import Recipe
from lablib.experiments.trigger_events import BACKGROUND, DIRECTIONS, FEATURES, KINDS, Candidates
from lablib.experiments.trigger_latency import time_classifiers
from lablib.experiments.trigger_models import LIPSCHITZ, MODELS, Trained, Training, fit, missing
from lablib.experiments.trigger_study import (
    LIFETIMES,
    PAIRS,
    PUSHES,
    RATE,
    RATES,
    Samples,
    certify,
    draw_background,
    draw_samples,
    draw_training,
    map_axes,
    measure,
    measure_share,
    response_maps,
)

NAME = "trigger"
SHOWN = ("unconstrained", "lightgbm", "monotone")  # in the maps, and in this order
SCANNED = "monotone"
FIRST = "first seed"
SINGLED = ("unconstrained", "monotone", "boosting", "lightgbm")  # timed, and drawn if shown
TIMED_ROWS = 2000
COMPARED = ("unconstrained", "monotone")  # with other shares of strange hadrons
SHOWN_RADII = np.linspace(0.0, 1.5, 61)  # in deviations
SCORES = ("cut", "area", "efficiency", "rate", "size")


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes.

    Attributes:
        candidates: training candidates of a seed, half of them signal.
        signal, background: test candidates.
        certified: test candidates of each class whose radius is certified.
        turns: of each implementation, when times are taken.
        constants: other lambdas of the monotone network.
        strange: other shares of strange hadrons in the background.
        test_seed: of the test candidates; training takes 0, 1, ...
    """

    mode: str
    seeds: int
    candidates: int
    signal: int
    background: int
    certified: int
    training: Training
    turns: int = 31
    constants: tuple[float, ...] = (1.0, 4.0, 8.0)
    strange: tuple[float, ...] = (0.003, 0.0)
    test_seed: int = 1_000_000


SIZES = {
    "quick": Config(
        "quick",
        seeds=2,
        candidates=4000,
        signal=2000,
        background=4000,
        certified=4,
        training=Training(steps=80, trees=20),
        turns=2,
        constants=(8.0,),
        strange=(0.0,),
    ),
    "standard": Config(
        "standard",
        seeds=5,
        candidates=100_000,
        signal=100_000,
        background=300_000,
        certified=200,
        training=Training(),
    ),
    "full": Config(
        "full",
        seeds=25,
        candidates=1_000_000,
        signal=500_000,
        background=2_000_000,
        certified=2000,
        training=Training(steps=25_000),
    ),
}


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train and measure everything; a stopped run goes on behind the last finished classifier."""
    absent = missing()
    jobs = [(name, LIPSCHITZ) for name in MODELS if name not in absent]
    jobs += [(SCANNED, constant) for constant in config.constants]
    parts = Checkpoint(NAME, config.mode, dataclasses.asdict(config))
    samples = draw_samples(config.signal, config.background, config.test_seed)
    fits = [f"{_key(*job)} {seed}" for seed in range(config.seeds) for job in jobs]
    with parts.bar(dict.fromkeys(fits, 1), "fit") as bar:
        for seed in range(config.seeds):
            training = draw_training(config.candidates, seed)
            for name, constant in jobs:
                key = _key(name, constant)
                if f"{key} {seed}" not in parts:
                    bar.set_postfix_str(f"{key} {seed}")
                    trained = fit(name, training, seed, config.training, constant)
                    parts[f"{key} {seed}"] = _measure(trained, training, samples, config)
                    bar.update()
    for strange in config.strange:
        if _share_key(strange) not in parts:
            parts[_share_key(strange)] = _measure_shares(strange, samples, config)
    if FIRST not in parts:
        kept = [name for name, constant in jobs if name in SINGLED and constant == LIPSCHITZ]
        parts[FIRST] = _measure_first(kept, samples, config)
    runs = {
        _key(name, constant): [parts[f"{_key(name, constant)} {seed}"] for seed in range(config.seeds)]
        for name, constant in jobs
    }
    metrics = _metrics(runs, samples) | {"left_out": absent, "latency": parts[FIRST]["latency"]}
    shares = {strange: parts[_share_key(strange)] for strange in config.strange}
    metrics["strange"] = {
        f"{strange:g}": {name: [run["efficiency"] for run in seeds] for name, seeds in found.items()}
        for strange, found in shares.items()
    }
    arrays = _arrays(runs, parts[FIRST])
    for strange, found in shares.items():
        for name, seeds in found.items():
            values = [run["by_lifetime"] for run in seeds]
            arrays[f"by lifetime {name} {_share_key(strange)}"] = np.array(values, dtype=float)
    return metrics, arrays


def _key(name: str, constant: float) -> str:
    return name if constant == LIPSCHITZ else f"{name} λ={constant:g}"


def _measure(trained: Trained, training: Candidates, samples: Samples, config: Config) -> dict[str, Any]:
    made = measure(trained, training, samples) | {"longest": float(training.lifetime[training.signal].max())}
    if trained.network is not None:
        made["certified"] = certify(trained, made["cut"], samples, config.certified)
    return made


def _share_key(strange: float) -> str:
    return f"strange={strange:g}"


def _measure_shares(strange: float, samples: Samples, config: Config) -> dict[str, list[dict[str, Any]]]:
    """Return, for both networks, what is measured of each seed with this share of strange hadrons everywhere."""
    background = draw_background(config.background, strange, config.test_seed)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in COMPARED}
    for seed in range(config.seeds):
        training = draw_training(config.candidates, seed, strange)
        for name, runs in found.items():
            runs.append(
                measure_share(fit(name, training, seed, config.training, LIPSCHITZ), background, samples)
            )
    return found


def _measure_first(names: list[str], samples: Samples, config: Config) -> dict[str, Any]:
    """Train the classifiers of the first seed once more, and return their maps and times."""
    training = draw_training(config.candidates, 0)
    fixed = np.median(training.features, axis=0)
    fitted = {name: fit(name, training, 0, config.training) for name in names}
    return {
        "fixed": fixed.tolist(),
        "farthest": training.features[training.signal].max(axis=0).tolist(),
        "maps": {name: response_maps(fitted[name], fixed).tolist() for name in names if name in SHOWN},
        "latency": time_classifiers(fitted, samples.signal.features[:TIMED_ROWS], config.turns),
    }


def _metrics(runs: dict[str, list[dict]], samples: Samples) -> dict[str, Any]:
    """Return lists over the seeds, by name of the classifier."""
    rows = {}
    for key, parts in runs.items():
        row: dict[str, Any] = {name: [part[name] for part in parts] for name in SCORES}
        row |= {name: [part["beyond"][name] for part in parts] for name in ("falls", "displaced")}
        row["kept_kinds"] = {
            kind: [part["kept_kinds"][kind] for part in parts] for kind in parts[0]["kept_kinds"]
        }
        row["changed"] = {
            change: {
                "efficiency": [part["changed"][change][0] for part in parts],
                "rate": [part["changed"][change][1] for part in parts],
            }
            for change in parts[0]["changed"]
        }
        if "certified" in parts[0]:
            row["slopes"] = {end: [part["certified"][end] for part in parts] for end in ("low", "high")}
        rows[key] = row
    return {
        "rate": RATE,
        "features": FEATURES,
        "kinds": KINDS,
        "test_signal": len(samples.signal),
        "test_background": len(samples.background),
        "displaced_count": [part["beyond"]["displaced_count"] for part in next(iter(runs.values()))],
        "longest": [part["longest"] for part in next(iter(runs.values()))],
        "models": rows,
    }


def _arrays(runs: dict[str, list[dict]], first: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return what the figures need, an axis of seeds first; maps of the first seed only."""
    arrays = {"rates": RATES, "lifetimes": LIFETIMES, "pushes": PUSHES, "map axes": map_axes()}
    for key, parts in runs.items():
        for name, values in (
            ("roc", [part["roc"] for part in parts]),
            ("by lifetime", [part["by_lifetime"] for part in parts]),
            ("pushed", [part["beyond"]["pushed"] for part in parts]),
        ):
            arrays[f"{name} {key}"] = np.array(values, dtype=float)
        if "certified" in parts[0]:
            radii = [part["certified"]["radii"] for part in parts]
            arrays[f"radii {key}"] = np.array(radii, dtype=np.float32)
    arrays |= {f"map {name}": np.array(scores, np.float32) for name, scores in first["maps"].items()}
    return arrays | {"map fixed": np.array(first["fixed"]), "map farthest": np.array(first["farthest"])}


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw response maps, efficiency against lifetime, rate and pushes, changed detectors and certified radii."""
    from lablib.plots import trigger as plots

    metrics, arrays = record["metrics"], record["arrays"]
    rows = metrics["models"]
    names = {key: label for key, label in MODELS.items() if key in rows}

    def of(what: str) -> dict[str, np.ndarray]:
        return {label: arrays[f"{what} {key}"] for key, label in names.items()}

    def maps(pairs: list[int]):
        shown = {
            names[key]: (arrays[f"map {key}"][pairs], rows[key]["cut"][0]) for key in SHOWN if key in rows
        }
        chosen = [PAIRS[pair] for pair in pairs]
        return plots.draw_maps(shown, arrays["map axes"], chosen, FEATURES, arrays["map farthest"])

    changes = {
        change: {
            label: list(zip(rows[key]["changed"][change]["efficiency"], rows[key]["changed"][change]["rate"]))
            for key, label in names.items()
        }
        for change in rows["unconstrained"]["changed"]
    }
    scanned = _with_constants(record["config"]["constants"])
    radii = {
        label: (arrays[f"radii {key}"].reshape(len(rows[key]["cut"]), -1, 1) > SHOWN_RADII).mean(axis=1)
        for key, label in scanned.items()
    }
    key, label = list(scanned.items())[-1]
    widest = {label: arrays[f"roc {key}"]}
    keys = {BACKGROUND["strange"]: ""} | {
        share: f" {_share_key(share)}" for share in record["config"]["strange"]
    }
    shares = {
        f"{100 * share:g} % of the background": {
            MODELS[name]: arrays[f"by lifetime {name}{key}"] for name in COMPARED
        }
        for share, key in keys.items()
    }
    free = [pair for pair, chosen in enumerate(PAIRS) if DIRECTIONS.index(0) in chosen]
    return {
        NAME: plots.draw_lifetimes(
            arrays["lifetimes"], of("by lifetime"), metrics["rate"], max(metrics["longest"])
        ),
        f"{NAME}_strange": plots.draw_shares(arrays["lifetimes"], shares, max(metrics["longest"])),
        f"{NAME}_rate": plots.draw_rates(arrays["rates"], of("roc") | widest, metrics["rate"]),
        f"{NAME}_beyond": plots.draw_pushes(arrays["pushes"], of("pushed")),
        f"{NAME}_maps": maps([pair for pair in range(len(PAIRS)) if pair not in free]),
        f"{NAME}_maps_vertex": maps(free),
        f"{NAME}_detector": plots.draw_changes(changes),
        f"{NAME}_radii": plots.draw_radii(SHOWN_RADII, radii),
        f"{NAME}_latency": plots.draw_latency(metrics["latency"]["microseconds_per_event"]),
    }


def _with_constants(constants: Sequence[float]) -> dict[str, str]:
    """Return key -> label of the unconstrained network and of the monotone ones, by growing lambda."""
    name = MODELS[SCANNED].removesuffix(f"{LIPSCHITZ:g}")
    scanned = {_key(SCANNED, value): f"{name}{value:g}" for value in sorted({LIPSCHITZ, *constants})}
    return {"unconstrained": MODELS["unconstrained"], **scanned}


RECIPE = Recipe(
    name=NAME,
    question="What does a trigger lose, and what does it gain, when more displaced can never be worse?",
    sizes=SIZES,
    run=run,
    draw=draw,
)
