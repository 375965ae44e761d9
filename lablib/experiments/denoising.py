"""Which activation makes the best 1-Lipschitz denoiser? BSDS500 patches with Gaussian noise of 5 and 15 (of 255)."""

import dataclasses
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lablib.experiments.activation_zoo import ACTIVATIONS
from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.denoiser import (
    STORED,
    Architecture,
    averaged,
    model_file,
    pack,
    read_model,
    write_model,
)
from lablib.experiments.denoising_training import (
    Config,
    apply,
    device_of,
    firmness,
    noisy_pictures,
    quality,
    stack,
    study_pictures,
    train,
    tune_total_variation,
)
from lablib.experiments.recipe import Recipe
from lablib.experiments.results import results_dir
from lablib.experiments.total_variation import denoise_total_variation
from lablib.files import atomic_write
from lablib.layers import LearnableSpline

NAME = "denoising"
TUNED_ON, TUNED_SIZE = (
    8,
    160,
)  # training pictures and pixels a side on which the weight of total variation is chosen
SHOWN_SIGMA, SHOWN_SEED = 15, 0
CROP = (slice(100, 228), slice(180, 308))  # of the first test picture, where it is large enough
SHOWN_SPLINES = 8

Job = tuple[str, int, str, int]  # activation, sigma, target, seed


def jobs(config: Config) -> Iterator[Job]:
    """Yield what is trained, seed by seed, so that a stopped run has compared all activations already."""
    for seed in range(max(config.network_seeds, config.averaged_seeds)):
        for target, seeds in (("network", config.network_seeds), ("averaged", config.averaged_seeds)):
            for sigma in config.sigmas if seed < seeds else ():
                for activation in config.activations:
                    yield activation, sigma, target, seed


def run(config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train and measure denoiser by denoiser; a stopped run goes on with the next one."""
    pictures, device = study_pictures(NAME, config.mode), device_of(config)
    patches, held_out = (
        stack(pictures.train).to(device),
        stack(pictures.test, config.pictures).to(device),
    )
    settings = dataclasses.asdict(config) | {"data": pictures.name, "on": device.type}
    parts = Checkpoint(NAME, config.mode, settings)
    every = list(jobs(config))
    with parts.bar({"_".join(map(str, job)): config.steps for job in every}, "step") as bar:
        for job in every:
            name, path = "_".join(map(str, job)), model_file(config.mode, *job)
            if name in parts:
                if path.exists():
                    continue
                bar.update(-config.steps)  # its model is gone: once more
            bar.set_postfix_str(name)
            model = train(config, patches, *job, report=bar.update).eval()
            write_model(path, model, Architecture(job[0], config.channels, config.hidden), job[2])
            parts[name] = measure(model, job, held_out)
    metrics = {
        "data": pictures.name,
        "device": device.type,
        "training_pictures": len(patches),
        "pictures": len(held_out),
        "rows": [parts["_".join(map(str, job))] for job in every],
        "baselines": [baselines(patches, held_out, sigma) for sigma in config.sigmas],
    }
    store_small_models(config)
    return metrics, examples(config, held_out, metrics["baselines"])


def measure(model: nn.Module, job: Job, held_out: Tensor) -> dict[str, Any]:
    """Return quality on the held-out pictures, firmness of the averaged operator, and what the splines became."""
    activation, sigma, target, seed = job
    clean, noisy = noisy_pictures(held_out, sigma)
    row = {"activation": activation, "sigma": sigma, "target": target, "seed": seed}
    row |= quality(apply(model, noisy), clean)
    operator = averaged(model) if target == "network" else model
    row["firmness"] = firmness(operator, clean[:4], noisy[:4])
    splines = _splines(model)
    if splines:
        row["active_knots"] = float(torch.cat([s.active_knots() for s in splines]).double().mean())
        row["knots"] = splines[0].knots
    return row


def baselines(training: Tensor, held_out: Tensor, sigma: int) -> dict[str, Any]:
    """Return the quality of the noisy pictures and of total variation, its weight chosen on training pictures."""
    clean, noisy = noisy_pictures(held_out, sigma)
    weight = tune_total_variation(training[:TUNED_ON, :TUNED_SIZE, :TUNED_SIZE], sigma)
    smooth = apply(lambda picture: denoise_total_variation(picture, weight), noisy)
    return {
        "sigma": sigma,
        "noisy": quality(noisy, clean),
        "tv": quality(smooth, clean),
        "tv_weight": weight,
    }


def store_small_models(config: Config) -> None:
    """Write the averaged denoisers of seed 0 to one npz file beside the result, for those who only apply them."""
    wanted = [job for job in jobs(config) if job[2:] == ("averaged", 0)]
    models = {job[:2]: read_model(model_file(config.mode, *job)) for job in wanted}
    content = io.BytesIO()
    np.savez_compressed(content, **pack(models, {"channels": config.channels, "hidden": config.hidden}))
    with atomic_write(results_dir(config.mode) / f"{STORED}_{config.mode}.npz", "wb") as file:
        file.write(content.getvalue())


def examples(config: Config, held_out: Tensor, measured: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return a crop of one picture by every method (uint8), and splines of the first hidden layer."""
    arrays: dict[str, np.ndarray] = {}
    sigma = _shown_sigma(config.sigmas)
    clean, noisy = noisy_pictures(held_out[:1], sigma)
    weight = next(row["tv_weight"] for row in measured if row["sigma"] == sigma)
    shown = {"clean": clean, "noisy": noisy, "tv": denoise_total_variation(noisy, weight)}
    for activation in config.activations:
        model = read_model(model_file(config.mode, activation, sigma, "network", SHOWN_SEED)).to(noisy.device)
        shown[activation] = apply(model, noisy)
    for name, picture in shown.items():
        levels = (picture[0, 0].clamp(0, 1) * 255).round().byte().cpu().numpy()
        crop = levels[CROP]
        arrays[f"picture_{name}"] = crop if crop.shape == (128, 128) else levels[:128, :128]
    if "spline" in config.activations:
        for sigma in config.sigmas:
            model = read_model(model_file(config.mode, "spline", sigma, "network", SHOWN_SEED))
            drawn = _splines(model)[0].export()[:SHOWN_SPLINES]
            arrays[f"spline_positions_{sigma}"] = np.stack([f.positions for f in drawn])
            arrays[f"spline_values_{sigma}"] = np.stack([f.values for f in drawn])
    return arrays


def _shown_sigma(sigmas: Sequence[int]) -> int:
    return SHOWN_SIGMA if SHOWN_SIGMA in sigmas else sigmas[-1]


def _splines(model: nn.Module) -> list[LearnableSpline]:
    return [layer for layer in model.modules() if isinstance(layer, LearnableSpline)]


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw the quality of every denoiser, one picture by all of them, and the splines with their knots."""
    from lablib.plots import denoising as plots

    metrics, arrays = record["metrics"], record["arrays"]
    pictures = {name.removeprefix("picture_"): arrays[name] for name in arrays if name.startswith("picture_")}
    figures = {
        "denoising_quality": plots.draw_quality(metrics["rows"], metrics["baselines"], ACTIVATIONS),
        "denoising_pictures": plots.draw_pictures(
            pictures, ACTIVATIONS, _shown_sigma(record["config"]["sigmas"])
        ),
    }
    splines = {
        int(name.rsplit("_", 1)[1]): (arrays[name], arrays[name.replace("positions", "values")])
        for name in arrays
        if name.startswith("spline_positions_")
    }
    if splines:
        rows = [row for row in metrics["rows"] if "active_knots" in row]
        figures["denoising_splines"] = plots.draw_splines(splines, rows)
    return figures


RECIPE = Recipe(
    name=NAME,
    question="Which activation makes the best 1-Lipschitz denoiser?",
    sizes={
        "quick": Config("quick", 4, 2, 15, 8, 24, 1e-2, network_seeds=1, averaged_seeds=1, pictures=1),
        "standard": Config(
            "standard", 16, 4, 600, 16, 40, 1e-2, network_seeds=2, averaged_seeds=1, pictures=24
        ),
        "full": Config(
            "full",
            64,
            7,
            20_000,
            128,
            40,
            2e-3,
            network_seeds=1,
            averaged_seeds=1,
            pictures=68,
            device="cuda",
        ),
    },
    run=run,
    draw=draw,
)
