"""Poisson sampling: each sample of a data set is in a batch with probability q, on its own."""

import collections
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from lablib.privacy.gathering import Gathering


def check_loader(loader: DataLoader) -> None:
    """Refuse what Poisson sampling cannot stand for.

    Raises:
        ValueError: for no DataLoader, a stream, an empty data set, or a sampler that prefers some samples.
    """
    if not isinstance(loader, DataLoader):
        raise ValueError(
            f"the data loader is a torch.utils.data.DataLoader, not {type(loader).__name__}; wrap the data set in one"
        )
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
        raise ValueError(
            "Poisson sampling draws samples by number; give a data set with a length, not a stream (an "
            "IterableDataset); gather its samples in a TensorDataset or a Dataset with __getitem__"
        )
    if len(loader.dataset) == 0:
        raise ValueError("the data set is empty; give one with samples")
    if type(loader.sampler) not in (SequentialSampler, RandomSampler):
        raise ValueError(
            f"{type(loader.sampler).__name__} is replaced by Poisson sampling, where all samples have the same rate; "
            "select samples by torch.utils.data.Subset, and use a loader without a sampler of its own"
        )


class PoissonLoader:
    """Batches of a Poisson sample: as many as an epoch has, cut to a size that fits into memory.

    Sample i is in a logical batch if a uniform of 53 bits is below q; sizes vary, and may be 0: an empty batch has
    tensors of length 0, and needs its step like any other. Each logical batch comes as one or more physical ones.
    Iteration ends by itself where a target epsilon allows no further step. A batch that was drawn and not stepped is
    forgotten when iteration begins anew.

    ``len()`` is the number of logical batches of an epoch, round(1 / q).

    Attributes:
        dataset, batch_size, sample_rate: the data set, the expected batch size, and q = batch_size / samples.
    """

    def __init__(
        self,
        loader: DataLoader,
        batch_size: int,
        *,
        max_physical_batch: int | None,
        gathering: Gathering,
        generator: Callable[[int], np.random.Generator],
        steps: Callable[[], int],
        spent: Callable[[], bool],
    ) -> None:
        self.dataset, self.batch_size = loader.dataset, batch_size
        self._rate = batch_size / len(loader.dataset)
        self.blank = _emptied(loader.collate_fn([self.dataset[0]]))
        self._loader, self._physical = loader, max_physical_batch
        self._gathering, self._generator, self._steps, self._spent = gathering, generator, steps, spent
        self._iteration = 0

    @property
    def sample_rate(self) -> float:
        """q, which the ledger counts with, so that it cannot be set."""
        return self._rate

    def __repr__(self) -> str:
        return (
            f"PoissonLoader(samples={len(self.dataset)}, expected_batch={self.batch_size}, "
            f"sample_rate={self._rate:.4g}, batches={len(self)})"
        )

    def __len__(self) -> int:
        return epoch_steps(self._rate)

    def __iter__(self) -> Iterator[Any]:
        self._gathering.close()
        self._iteration += 1
        iteration, ahead = self._iteration, collections.deque()
        for batch in self._load(self._draw(ahead)):
            if self._iteration != iteration:
                raise ValueError(
                    "iteration over the private loader began anew; one at a time, or samples would mix"
                )
            size, first, last = ahead.popleft()
            if first and self._spent():
                return
            if first and self._gathering.drawn:
                raise ValueError(
                    "the batch before was drawn but not stepped; call step() after every batch, empty ones too: "
                    "which batches are left out would tell about the data"
                )
            self._gathering.draw(size, last)
            yield batch

    def _draw(self, ahead: collections.deque) -> Iterator[list[int]]:
        """Yield the numbers of the samples of each physical batch, and note its size and place for later.

        Worker processes ask for batches ahead of time, so that nothing else may happen here.
        """
        begun = self._steps()
        for step in range(begun, begun + len(self)):
            chosen = np.flatnonzero(self._generator(step).random(len(self.dataset)) < self._rate)
            pieces = max(1, math.ceil(len(chosen) / self._physical)) if self._physical else 1
            for number, part in enumerate(np.array_split(chosen, pieces)):
                ahead.append((len(part), number == 0, number == pieces - 1))
                yield part.tolist()

    def _load(self, numbers: Iterator[list[int]]) -> Iterator[Any]:
        loader = self._loader
        if (
            type(self.dataset) is TensorDataset
            and loader.collate_fn is default_collate
            and not loader.pin_memory
        ):
            for part in numbers:  # the same as collating one by one, and much faster
                chosen = torch.tensor(part, dtype=torch.int64)
                yield [tensor[chosen] for tensor in self.dataset.tensors]
            return
        yield from DataLoader(
            self.dataset,
            batch_sampler=numbers,
            collate_fn=_CollateOrBlank(loader.collate_fn, self.blank),
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
        )


def epoch_steps(sample_rate: float) -> int:
    """Return the number of logical batches of an epoch: round(1 / q), at least 1."""
    return max(1, round(1 / sample_rate))


class _CollateOrBlank:
    """The loader's own collating, which seldom takes an empty list, and the blank batch for that."""

    def __init__(self, collate: Callable[[list[Any]], Any], blank: Any) -> None:
        self.collate, self.blank = collate, blank

    def __call__(self, samples: list[Any]) -> Any:
        return self.collate(samples) if samples else self.blank


def _emptied(batch: Any) -> Any:
    """Return ``batch`` with all its tensors cut to length 0."""
    if isinstance(batch, Tensor):
        return batch[:0]
    if isinstance(batch, Mapping):
        return {key: _emptied(value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [_emptied(value) for value in batch]
    raise ValueError(
        f"a batch holds tensors in lists, tuples and dicts, not {type(batch).__name__}: an empty one has no other "
        "form; change collate_fn"
    )
