"""Small private networks for the notebook: how budgets flow through one, what samples do to it, a run of seconds."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lablib.data import load
from lablib.experiments.private_tightness_gradients import sample_gradients
from lablib.experiments.threads import one_thread
from lablib.layers import GroupSort
from lablib.layers.per_sample import ClipNorm
from lablib.privacy.accounting import steps_within
from lablib.privacy.cotangents import ClipCotangent
from lablib.privacy.engine import CliplessEngine
from lablib.privacy.losses import CrossEntropy, loss_lipschitz
from lablib.privacy.projections import project
from lablib.privacy.sensitivity import Sensitivity, sensitivity

CLASSES = 10
CANDIDATES = 64  # of a search, in each round
ARCHITECTURES = ("dense", "convolution")
CONSTRAINTS = ("orthonormal", "spectral", "frobenius")


@one_thread()
def build(
    architecture: str = "dense",
    depth: int = 2,
    width: int = 32,
    *,
    input_bound: float = 1.0,
    shape: tuple[int, int, int] = (1, 8, 8),
    bias: bool = False,
    constraint: str | None = "orthonormal",
    seed: int = 0,
) -> nn.Sequential:
    """Return a network that begins with ClipNorm, its weights projected: ``depth`` layers and sorts, then logits.

    Args:
        architecture: "dense" (``depth`` layers of ``width`` neurons) or "convolution" (3 x 3 with padding 1,
            ``width`` / 4 channels, at least 2).
        shape: of one sample.
        bias: whether the ``depth`` layers have one; drawn small, for it adds to the norms behind it.

    Raises:
        ValueError: for an unknown architecture, or a depth or width below one.
    """
    if architecture not in ARCHITECTURES or depth < 1 or width < 2:
        raise ValueError(f"choose from {', '.join(ARCHITECTURES)}, with a depth >= 1 and a width >= 2")
    features, layers = math.prod(shape), [ClipNorm(input_bound)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture == "dense":
            layers.append(nn.Flatten())
            widths = [features, *[width] * depth]
            for inputs, outputs in itertools.pairwise(widths):
                layers += [nn.Linear(inputs, outputs, bias=bias), GroupSort(2)]
            features = width
        else:
            channels = [shape[0], *[2 * max(1, width // 8)] * depth]
            for inputs, outputs in itertools.pairwise(channels):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias), GroupSort(2)]
            layers.append(nn.Flatten())
            features = channels[-1] * shape[1] * shape[2]
        model = nn.Sequential(*layers, nn.Linear(features, CLASSES, bias=False))
        for layer in model:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.orthogonal_(layer.weight)
                if layer.bias is not None:
                    nn.init.normal_(layer.bias, std=0.01)
    project(model, constraint)
    return model


@dataclasses.dataclass(frozen=True)
class SampleNorms:
    """l2 norms (B,) of every sample by itself: features a layer passes on, cotangents at its output, gradients.

    Attributes:
        features, cotangents: by name of the layer. ``gradients``: by full name of the parameter.
    """

    features: dict[str, Tensor]
    cotangents: dict[str, Tensor]
    gradients: dict[str, Tensor]

    def largest(self) -> dict[str, dict[str, float]]:
        """Return the same names with the largest norm, as ``sensitivity_figure`` draws it."""
        return {
            field.name: {name: float(norms.max()) for name, norms in getattr(self, field.name).items()}
            for field in dataclasses.fields(self)
        }


def per_sample_norms(
    model: nn.Sequential, x: Tensor, y: Tensor, criterion: nn.Module, loss_clip: float | None = None
) -> SampleNorms:
    """Measure what a step would see of each sample, which private training never does.

    No layer mixes samples, so the gradient of the summed loss by an intermediate output holds each sample's
    cotangent in its own row.

    Args:
        model: a flat Sequential of dense and convolutional layers and layers without parameters.
        x: (B, ...) samples, y: (B,) labels. ``loss_clip``: what cotangents at the logits are clipped to.
    """
    clip = loss_lipschitz(criterion, loss_clip)
    outputs = [x.detach().requires_grad_()]  # so that layers without parameters are tracked as well
    for layer in model:
        outputs.append(layer(outputs[-1]))
    losses = criterion(ClipCotangent(clip)(outputs[-1]), y)
    back = torch.autograd.grad(losses.sum(), outputs[1:])
    parts = zip(dict(model.named_children()), outputs[1:], back, strict=True)
    norms = {name: [part.detach().flatten(1).norm(dim=1) for part in pair] for name, *pair in parts}
    features, cotangents = ({name: pair[place] for name, pair in norms.items()} for place in (0, 1))
    return SampleNorms(features, cotangents, sample_gradients(model, criterion, clip, x, y)[0])


@one_thread()
def search(
    model: nn.Sequential, shape: tuple[int, ...], criterion: nn.Module, rounds: int = 30, seed: int = 0
) -> SampleNorms:
    """Look for samples with long gradients: keep the best one for each parameter, change it at random, and go on.

    Args:
        model: begins with ClipNorm, so that any sample may be tried. ``shape``: of one sample.
        rounds: at least 1.

    Returns:
        norms of the best samples found, one row per trained parameter.
    """
    rng = torch.Generator().manual_seed(seed)
    names = [name for name, _ in model.named_parameters()]
    starts = torch.randn(CANDIDATES, *shape, generator=rng)
    starts[: CANDIDATES // 2] = starts[: CANDIDATES // 2].sign()
    starts[0] = 1.0  # constant: the worst case of one convolution
    x = 10 * functional.normalize(starts.flatten(1)).view(-1, *shape)
    y = torch.randint(CLASSES, (CANDIDATES,), generator=rng)
    parents = torch.arange(CANDIDATES) % len(names)
    for turn in range(rounds):
        found = per_sample_norms(model, x, y, criterion)
        best = torch.stack([found.gradients[name].argmax() for name in names])
        champions, size = (x[best], y[best]), 0.5 * 0.85**turn
        change = size * torch.randn(CANDIDATES, *shape, generator=rng) * champions[0].abs().mean()
        relabel = torch.rand(CANDIDATES, generator=rng) < 0.2
        change[: len(names)], relabel[: len(names)] = 0.0, False  # the best survive
        x, y = champions[0][parents] + change, champions[1][parents]
        y[relabel] = torch.randint(CLASSES, (int(relabel.sum()),), generator=rng)
    return per_sample_norms(model, *champions, criterion)


@dataclasses.dataclass(frozen=True)
class Budgets:
    """What is proven of a network, and what samples attain.

    Attributes:
        bounds: with ``rows``, ``total`` and ``loss_lipschitz``. ``measured``: see :meth:`SampleNorms.largest`.
    """

    bounds: Sensitivity
    measured: Mapping[str, Mapping[str, float]]


@one_thread()
def budgets(
    architecture: str = "dense",
    depth: int = 2,
    width: int = 32,
    *,
    bias: bool = False,
    constraint: str | None = "orthonormal",
    input_bound: float = 1.0,
    temperature: float = 8.0,
    loss_clip: float | None = None,
) -> Budgets:
    """Build a network, bound its sensitivities, and send the first 64 digits through it."""
    options = {"bias": bias, "constraint": constraint, "input_bound": input_bound}
    model, criterion = build(architecture, depth, width, **options), CrossEntropy(temperature)
    x, y = digits()
    measured = per_sample_norms(model, x[:64], y[:64], criterion, loss_clip).largest()
    return Budgets(sensitivity(model, tuple(x.shape[1:]), loss_lipschitz(criterion, loss_clip)), measured)


DELTA = 1e-5
REPORT_SECONDS = 0.2
ROWS = 20  # of the history of a run


@dataclasses.dataclass(frozen=True)
class LiveRun:
    """A private run on the digits at one moment.

    Attributes:
        model: the trained network. ``engine``: what counts its privacy.
        history: one mapping for each report: ``step``, ``epsilon`` (at ``DELTA``, by RDP), ``accuracy`` (test rows).
        seconds: since the start. ``spent``: whether the target epsilon ended it.
    """

    model: nn.Module
    engine: CliplessEngine
    history: tuple[Mapping[str, float], ...]
    seconds: float
    spent: bool

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.history[-1]["step"]) if self.history else 0


def digits(part: str = "train") -> tuple[Tensor, Tensor]:
    """Return images (N, 1, 8, 8) in [0, 1] and labels (N,) of the bundled digits, "train" or "test" rows."""
    data = load("digits")
    x, y = (data.x_train, data.y_train) if part == "train" else (data.x_test, data.y_test)
    return torch.from_numpy(x / data.scale).float(), torch.from_numpy(y)


@one_thread()
def train_private(
    *,
    noise_multiplier: float = 2.0,
    batch_size: int = 256,
    steps: int = 120,
    learning_rate: float = 0.125,
    temperature: float = 8.0,
    loss_clip: float | None = 0.5,
    noise: str = "global",
    target_epsilon: float = math.inf,
    seed: int | None = None,
    keep_on_interrupt: bool = False,
    on_progress: Callable[[LiveRun], None] | None = None,
) -> LiveRun:
    """Train a small dense network on the digits, privately, with SGD; stop early at the target epsilon.

    Args:
        noise_multiplier, loss_clip, noise, seed: see :class:`lablib.privacy.CliplessEngine`. Without a seed another
            run is drawn each time.
        batch_size: expected. ``temperature``: of the cross entropy.
        keep_on_interrupt: Ctrl-C returns what was learned so far; by default it is passed on.
        on_progress: called a few times a second.

    Returns:
        the run; ``history`` has some :data:`ROWS` rows, evenly over the steps.

    Raises:
        ValueError: for what the engine refuses, or if the target allows no step.
    """
    model = build("dense", 1, 64, seed=seed or 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    x_train, y_train = digits()
    loader = DataLoader(TensorDataset(x_train, y_train), batch_size=batch_size)
    engine = CliplessEngine(seed=seed)
    model, optimizer, criterion, loader = engine.make_private(
        module=model,
        optimizer=optimizer,
        criterion=CrossEntropy(temperature),
        data_loader=loader,
        noise_multiplier=noise_multiplier,
        loss_clip=loss_clip,
        noise=noise,
    )
    allowed = steps
    if math.isfinite(target_epsilon):
        rate = batch_size / len(x_train)
        allowed = min(steps, steps_within(target_epsilon, DELTA, noise_multiplier, rate, accountant="rdp"))
    if allowed < 1:
        raise ValueError(f"not one step fits into epsilon {target_epsilon:g}; raise the noise or the target")
    x, y = digits("test")
    history: list[dict[str, float]] = []
    start = last = time.perf_counter()

    def note(step: int) -> None:
        with torch.no_grad():
            accuracy = float((model(x).argmax(1) == y).float().mean())
        spent = engine.get_epsilon(DELTA, "rdp")
        history.append({"step": step, "epsilon": spent, "accuracy": accuracy})

    def made() -> LiveRun:
        seconds = time.perf_counter() - start
        return LiveRun(model, engine, tuple(history), seconds, history[-1]["step"] >= allowed < steps)

    taken, every = 0, -(-allowed // ROWS)
    try:
        while taken < allowed:
            for batch, labels in loader:
                optimizer.zero_grad()
                criterion(model(batch), labels).backward()
                optimizer.step()
                taken += 1
                if taken == allowed:
                    break
                if taken % every == 0:
                    note(taken)
                    if on_progress is not None and time.perf_counter() - last > REPORT_SECONDS:
                        on_progress(made())
                        last = time.perf_counter()
    except KeyboardInterrupt:
        if not keep_on_interrupt:
            raise
    if not history or history[-1]["step"] != taken:  # stopped just after a row
        note(taken)
    return made()
