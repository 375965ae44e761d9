"""Private training of one network by each of three methods, at the same sample rate, steps and noise multiplier."""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lablib.privacy.accounting import epsilon, find_noise_multiplier
from lablib.privacy.engine import CliplessEngine
from lablib.privacy.losses import CrossEntropy

CLIPLESS, PER_SAMPLE, GHOST = "clipless", "per sample", "ghost"
METHODS = (CLIPLESS, PER_SAMPLE, GHOST)
MOMENTUM = 0.9
PHYSICAL = 100  # samples whose gradients Opacus keeps at once
ROWS = 2000  # samples evaluated at once


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train. Chosen by looking at results, which no epsilon here counts.

    Attributes:
        rate: learning rate of the first step; it falls linearly to 0.
        clip: of the l2 norm of a sample's gradient: by the logits for clipless training, by the weights for Opacus.
        epochs: times over the data.
        batches: of an epoch: the sample rate is 1 / batches, up to rounding of the batch size.
        temperature: of the cross entropy.
        noise, constraint: of the clipless engine.
    """

    rate: float
    clip: float
    epochs: int
    batches: int
    temperature: float = 1.0
    noise: str = "global"
    constraint: str | None = None


def train(
    method: str,
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    settings: Settings,
    *,
    target: float,
    delta: float,
    seed: int,
) -> dict[str, float]:
    """Train ``module`` in place on samples x (N, ...) with labels y (N,), for an epsilon of at most ``target``.

    Returns:
        epsilon (by privacy loss distributions), sigma, q, steps, seconds of the training itself.

    Raises:
        ValueError: for an unknown method.
        ImportError: without the extra ``private``.
    """
    if method not in METHODS:
        raise ValueError(f"methods are {', '.join(METHODS)}, not {method!r}")
    size = -(-len(x) // settings.batches)
    steps = settings.epochs * settings.batches
    rate = size / len(x) if method == CLIPLESS else 1.0 / -(-len(x) // size)  # as Opacus's loader has it
    sigma = find_noise_multiplier(target, delta, rate, steps)
    made = _clipless if method == CLIPLESS else _opacus
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus: of its secure mode, and of hooks on inputs without gradient
        torch.manual_seed(seed)
        optimizer = torch.optim.SGD(module.parameters(), lr=settings.rate, momentum=MOMENTUM)
        ledger, *parts = made(method, module, optimizer, x, y, settings, size, sigma, seed)
        start = time.perf_counter()
        with _physical(method, parts[-1], parts[1]) as batches:
            _descend(*parts[:-1], batches, settings, lambda: sum(entry[2] for entry in ledger()) / steps)
        seconds = time.perf_counter() - start
    ((sigma, rate, steps),) = ledger()
    spent = epsilon((sigma, rate, steps), delta)
    return {"epsilon": spent, "sigma": sigma, "q": rate, "steps": steps, "seconds": seconds}


def accuracy(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of samples x (N, ...) that ``module`` assigns to their class y (N,)."""
    module.eval()
    with torch.no_grad():
        right = sum(
            int((module(a).argmax(1) == b).sum()) for a, b in zip(x.split(ROWS), y.split(ROWS), strict=True)
        )
    return right / len(x)


def _descend(
    module, optimizer, criterion, batches: Iterable, settings: Settings, progress: Callable[[], float]
):
    module.train()
    for _ in range(settings.epochs):
        for x, y in batches:
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * (1.0 - progress())
            optimizer.zero_grad()
            criterion(module(x), y).backward()
            optimizer.step()


def _physical(method: str, loader: DataLoader, optimizer) -> contextlib.AbstractContextManager:
    """Cut batches where per-sample gradients are kept: in parts that fit a cache they are several times faster."""
    if method != PER_SAMPLE:
        return contextlib.nullcontext(loader)
    from opacus.utils.batch_memory_manager import BatchMemoryManager

    return BatchMemoryManager(data_loader=loader, max_physical_batch_size=PHYSICAL, optimizer=optimizer)


def _clipless(method, module, optimizer, x, y, settings: Settings, size: int, sigma: float, seed: int):
    engine = CliplessEngine(seed=seed)
    parts = engine.make_private(
        module=module,
        optimizer=optimizer,
        criterion=CrossEntropy(settings.temperature),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=size),
        noise_multiplier=sigma,
        loss_clip=settings.clip,
        noise=settings.noise,
        constraint=settings.constraint,
    )
    return lambda: engine.ledger.entries(), *parts


def _opacus(method, module, optimizer, x, y, settings: Settings, size: int, sigma: float, seed: int):
    from opacus import PrivacyEngine

    criterion = nn.CrossEntropyLoss()
    engine = PrivacyEngine()
    module, optimizer, *ghost, loader = engine.make_private(
        module=module,
        optimizer=optimizer,
        criterion=criterion,
        data_loader=DataLoader(_Rows(x, y), batch_size=size, collate_fn=_as_they_are),
        noise_multiplier=sigma,
        max_grad_norm=settings.clip,
        grad_sample_mode="hooks" if method == PER_SAMPLE else "ghost",
        poisson_sampling=True,
    )
    return lambda: engine.accountant.history, module, optimizer, ghost[0] if ghost else criterion, loader


class _Rows(Dataset):
    """Rows of tensors, a whole batch at once: collating thousands of single rows takes longer than the step."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, row: int) -> tuple[Tensor, ...]:
        return tuple(tensor[row] for tensor in self.tensors)

    def __getitems__(self, rows: list[int]) -> list[Tensor]:
        return [tensor[torch.tensor(rows, dtype=torch.int64)] for tensor in self.tensors]


def _as_they_are(batch: list[Tensor]) -> list[Tensor]:
    return batch
