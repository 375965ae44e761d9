"""How much of its bound a sample's gradient uses, layer by layer, during private training, and what raises it.

Noise is in proportion to the bound, so a ratio of 5 % is twenty times the noise that the samples at hand would need.
That excess cannot be taken back by looking: a bound computed from the data (the largest norm seen, the mean input)
would itself have to be released with noise. What may be used is public: the clipping radius of the inputs, the
clip C of the loss gradient, the temperature, the expected batch size, the architecture, and the released weights.
All runs have the same sampling rate, number of steps and sigma, so the same epsilon; learning rate and radii were
chosen by hand, which is not accounted for. The ratios are computed from the training data and are not private.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lablib.data import load
from lablib.experiments.checkpoint import Checkpoint
from lablib.experiments.private_tightness_designs import DESIGNS, Design, Scale, build
from lablib.experiments.private_tightness_gradients import sample_gradients
from lablib.experiments.recipe import Recipe
from lablib.experiments.results import refuse_worse_data
from lablib.experiments.threads import one_thread
from lablib.privacy import CliplessEngine, CrossEntropy, Sensitivity, loss_lipschitz
from lablib.privacy.noise import noise_scales

NAME = "private_tightness"
LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)  # quantiles of the ratio that are kept
PUBLIC = (
    "the radius that inputs are clipped to",
    "the clip C of the loss gradient by the logits",
    "the temperature of the loss",
    "the expected batch size and the sampling rate",
    "the architecture and the initial weights",
    "the weights after each step, and all that is computed from them: operator norms and bounds",
)
NOT_FREE = (
    "the largest or a typical norm of inputs or features of the training set",
    "the largest or a typical gradient norm, and any ratio of this report",
    "the mean of the training images (CentreSample takes that of each image alone)",
    "a radius, a clip or a learning rate chosen because it did well on the training set",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Data, budget and training.

    Attributes:
        data: "digits" or "mnist"; digits stand in for what is not at hand.
        batch: expected batch size.
        probe: training samples whose gradients are measured, the first ones.
        rate: learning rate of Adam.
    """

    mode: str
    data: str
    epsilon: float
    delta: float
    epochs: int
    batch: int
    probe: int
    seeds: int
    rate: float


SCALES = {
    "digits": Scale(side=8, pool=1, radius=2.0, temperature=4.0),
    "mnist": Scale(side=28, pool=2, radius=3.0, temperature=4.0),
}


@dataclasses.dataclass(frozen=True)
class Images:
    """Training images (N, 1, S, S) in [0, 1] with labels, those for testing, and the numbers of the data set."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    scale: Scale
    classes: int


def read(name: str) -> Images:
    """Return a data set as tensors."""
    data = load(name)
    x, x_test = (torch.from_numpy(part).float() / data.scale for part in (data.x_train, data.x_test))
    y, y_test = map(torch.from_numpy, (data.y_train, data.y_test))
    return Images(x, y, x_test, y_test, SCALES[name], len(data.class_names))


@one_thread()
def run(config: Config) -> dict[str, Any]:
    """Train every design for every seed; a stopped run goes on with the next one."""
    found = config.data
    try:
        images = read(found)
    except OSError:
        found = "digits"
        images = read(found)
    refuse_worse_data(NAME, config.mode, found, config.data)
    parts = Checkpoint(NAME, config.mode, dataclasses.asdict(config) | {"found": found})
    plan = {
        f"{design.family}, {design.text}, {seed}": (design, seed)
        for design in DESIGNS
        for seed in range(config.seeds)
    }
    with parts.bar(dict.fromkeys(plan, 1), "run") as bar:
        for part, (design, seed) in plan.items():
            if part not in parts:
                bar.set_postfix_str(part)
                parts[part] = train(design, images, config, seed)
                bar.update(1)
    rows = [
        {"design": design.text, "family": design.family}
        | {"seeds": [parts[p] for p, (other, _) in plan.items() if other == design]}
        for design in DESIGNS
    ]
    return {"data": found, "levels": LEVELS, "rows": rows, "public": PUBLIC, "not_free": NOT_FREE}


def train(design: Design, images: Images, config: Config, seed: int) -> dict[str, Any]:
    """Train one network privately; return ``moments``, test ``accuracy``, ``epsilon``, ``sigma``, ``entries``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(design, images.scale, images.classes)
    criterion = CrossEntropy(images.scale.temperature)
    clip = loss_lipschitz(criterion, design.loss_clip)
    engine = CliplessEngine(seed=seed)
    model, optimizer, loss, loader = engine.make_private_with_epsilon(
        module=module,
        optimizer=torch.optim.Adam(module.parameters(), lr=config.rate),
        criterion=criterion,
        data_loader=DataLoader(TensorDataset(images.x, images.y), batch_size=config.batch),
        target_epsilon=config.epsilon,
        target_delta=config.delta,
        epochs=config.epochs,
        constraint=design.constraint,
        noise=design.noise,
        loss_clip=design.loss_clip,
    )
    steps = len(loader) * config.epochs
    probe = images.x[: config.probe], images.y[: config.probe]

    def look(step: int) -> dict[str, Any]:
        bounds, sigma = engine.sensitivity(), engine.noise_multiplier
        gradients = sample_gradients(module, criterion, clip, *probe)
        return {"step": step} | moment(gradients, bounds, module, sigma, design.noise, config.batch)

    moments, step = [look(0)], 0
    for _ in range(config.epochs):
        for x, y in loader:
            loss(model(x), y).backward()
            optimizer.step()
            step += 1
            if step in (steps // 2, steps):
                moments.append(look(step))
    with torch.no_grad():
        right = module(images.x_test).argmax(1) == images.y_test
    return {
        "moments": moments,
        "accuracy": float(right.double().mean()),
        "epsilon": engine.get_epsilon(config.delta),
        "sigma": engine.noise_multiplier,
        "entries": sum(p.numel() for p in module.parameters()),
    }


def moment(
    gradients: tuple[dict[str, Tensor], dict[str, Tensor]],
    bounds: Sensitivity,
    module: nn.Module,
    sigma: float,
    noise: str,
    batch: int,
) -> dict[str, Any]:
    """Return ``layers`` (name, bound, quantiles of gradient norm over bound, signal to noise) and the signal to
    noise of all.

    Signal to noise: the norm of the summed gradient of an expected batch over the root of the expected squared norm
    of its noise. The squared norm of the mean gradient is estimated without bias from n samples,
    (||sum g||^2 - sum ||g||^2) / (n (n - 1)).
    """
    norms, sums = gradients
    sizes = {name: p.numel() for name, p in module.named_parameters()}
    scales = noise_scales(bounds, sizes, sigma, noise)
    layers, signal, clutter = [], 0.0, 0.0
    for name, bound in bounds.parameters.items():
        ratios = norms[name] / bound
        count = len(ratios)
        mean = float(sums[name].square().sum() - norms[name].square().sum()) / (count * (count - 1))
        power, noise_power = batch**2 * max(mean, 0.0), scales[name] ** 2 * sizes[name]
        signal, clutter = signal + power, clutter + noise_power
        layers.append(
            {
                "name": name,
                "bound": bound,
                "quantiles": np.quantile(ratios.numpy(), LEVELS).tolist(),
                "signal_to_noise": math.sqrt(power / noise_power),
            }
        )
    return {"layers": layers, "signal_to_noise": math.sqrt(signal / clutter)}


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Draw the ratios of each layer at the end of training, one panel per design, with signal to noise."""
    from lablib.plots.private_tightness import draw_tightness

    metrics = record["metrics"]
    return {
        NAME: draw_tightness(metrics["rows"], metrics["levels"], record["config"]["epsilon"], metrics["data"])
    }


RECIPE = Recipe(
    name=NAME,
    question="How much of its bound does a sample's gradient use in private training, and what raises that?",
    sizes={
        "quick": Config(
            "quick", "digits", epsilon=8.0, delta=1e-4, epochs=2, batch=256, probe=256, seeds=1, rate=0.01
        ),
        "standard": Config(
            "standard", "mnist", epsilon=3.0, delta=1e-5, epochs=2, batch=2048, probe=2048, seeds=3, rate=0.01
        ),
        "full": Config(
            "full", "mnist", epsilon=3.0, delta=1e-5, epochs=20, batch=2048, probe=10_000, seeds=5, rate=0.005
        ),
    },
    run=run,
    draw=draw,
)
