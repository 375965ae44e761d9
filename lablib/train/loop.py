"""One visible training loop for small models."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from lablib.train.optimiser import set_rate
from lablib.train.schedules import Schedule, constant

Batch = tuple[Tensor, Tensor]


def fit(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[Batch] | Callable[[], Iterable[Batch]],
    steps: int,
    lr: float | Schedule = 1e-2,
    *,
    optimiser: torch.optim.Optimizer | None = None,
    progress: bool = True,
    keep_on_interrupt: bool = False,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train ``model`` in place with Adam for ``steps`` steps; return the loss of each step.

    The model keeps its mode (train or eval) afterwards.

    Args:
        model: maps x to outputs.
        loss: (outputs, y) -> scalar.
        batches: (x, y) pairs; gone through again and again. A list, a loader, or a function that makes an
        iterable.
        steps: how many optimiser steps.
        lr: a number, or a schedule step -> value.
        optimiser: another optimiser of the model's parameters; ``lr`` sets the learning rate of each group, times
        the group's ``factor`` where it has one.
        progress: show a bar (with tqdm, where it is installed).
        keep_on_interrupt: Ctrl-C stops, and the losses so far are returned, the model left trained. By default it
            is passed on, so that no unfinished network is taken for a finished one.
        on_step: called with (step, loss) after each step.

    Raises:
        ValueError: for no batches, or a loss that is NaN or infinite (the message says at which step).
    """
    rate = lr if callable(lr) else constant(lr)
    optimiser = optimiser or torch.optim.Adam(model.parameters(), lr=rate(0))
    losses: list[float] = []
    was_training = model.training
    model.train()
    bar = _bar(steps, progress)
    try:
        for step, (x, y) in zip(bar, _forever(batches)):
            set_rate(optimiser, rate(step))
            value = loss(model(x), y)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            losses.append(value.item())
            if not math.isfinite(losses[-1]):
                raise ValueError(
                    f"the loss is {losses[-1]} at step {step}; lower the learning rate or look at the data"
                )
            if on_step is not None:
                on_step(step, losses[-1])
    except KeyboardInterrupt:
        if not keep_on_interrupt:
            raise
    finally:
        model.train(was_training)
        if hasattr(bar, "close"):
            bar.close()
    return losses


def _bar(steps: int, progress: bool) -> Iterable[int]:
    if progress:
        try:
            from tqdm.auto import trange
        except ModuleNotFoundError:
            return range(steps)
        return trange(steps, leave=False)
    return range(steps)


def _forever(batches: Iterable[Batch] | Callable[[], Iterable[Batch]]) -> Iterator[Batch]:
    for _ in itertools.count():
        empty = True
        for batch in batches() if callable(batches) else batches:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                "there are no batches (left); give a list, a loader, or a function that makes them anew"
            )
