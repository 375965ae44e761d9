"""Poisson sampling: rates, independence, empty batches, cutting, workers, and what is refused."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

from lablib.privacy.gathering import Gathering
from lablib.privacy.loader import PoissonLoader, check_loader
from lablib.privacy.noise import SAMPLING, Randomness


class Rows(Dataset):
    """Samples that say their own number."""

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return {"x": torch.full((2, 3), float(i)), "label": i}


def loader_of(dataset, batch_size, *, seed=0, physical=None, spent=lambda: False, step=None, **options):
    gathering, taken = Gathering(), [0]
    loader = PoissonLoader(
        DataLoader(dataset, batch_size=batch_size, **options),
        batch_size,
        max_physical_batch=physical,
        gathering=gathering,
        generator=lambda step: Randomness(seed).generator(SAMPLING, step),
        steps=lambda: taken[0],
        spent=spent,
    )

    def stepped():
        """Iterate as a loop does that steps after each complete batch."""
        for batch in loader:
            complete = gathering.complete
            yield batch, complete
            if complete:
                gathering.close()
                taken[0] += 1

    return loader, stepped, gathering


def numbered(count):
    return TensorDataset(torch.arange(count), torch.arange(count) * 10)


@pytest.mark.parametrize("seed", [3, None])
def test_each_sample_is_drawn_on_its_own_at_the_rate(seed):
    count, rate, rounds = 50, 0.3, 40
    loader, stepped, _ = loader_of(numbered(count), 15, seed=seed)
    assert (loader.sample_rate, loader.batch_size, len(loader)) == (rate, 15, 3)
    drawn = np.zeros((rounds * len(loader), count))
    row = 0
    for _ in range(rounds):
        for (x, y), _ in stepped():
            assert torch.equal(y, 10 * x)
            assert len(set(x.tolist())) == len(x)
            drawn[row, x.numpy()] = 1
            row += 1
    assert row == len(drawn)
    # each of the three statistics is normal to good accuracy; 5 sd
    mean = drawn.mean()
    assert abs(mean - rate) < 5 * np.sqrt(rate * (1 - rate) / drawn.size)
    variances = len(drawn) * ((drawn.mean(0) - rate) ** 2).sum() / (rate * (1 - rate))
    assert abs(variances - count) < 5 * np.sqrt(2 * count)
    sizes = drawn.sum(1)  # sums of independent draws, not constant
    expected = count * rate * (1 - rate)
    assert abs(sizes.var() - expected) < 5 * expected * np.sqrt(2 / len(sizes))


def test_a_rate_of_one_is_the_whole_set():
    loader, stepped, _ = loader_of(numbered(7), 7)
    (((x, _), complete),) = stepped()
    assert x.tolist() == list(range(7))
    assert complete
    assert len(loader) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_empty_batches_and_collating(workers):
    loader, stepped, _ = loader_of(Rows(), 1, num_workers=workers)
    sizes = []
    for batch, _ in stepped():
        assert batch["x"].shape == (len(batch["label"]), 2, 3)
        assert batch["x"].dtype == torch.float32
        assert batch["label"].dtype == torch.int64
        assert torch.equal(batch["x"][:, 0, 0], batch["label"].float())
        sizes.append(len(batch["label"]))
    assert len(sizes) == len(loader) == 40
    assert 0 in sizes
    assert max(sizes) > 1
    # the same seed draws the same batches, whoever collates them
    tensors = TensorDataset(torch.arange(40))
    assert [len(x) for (x,), _ in loader_of(tensors, 1)[1]()] == sizes


def test_large_batches_are_cut():
    whole = [x.tolist() for (x, _), _ in loader_of(numbered(60), 20)[1]()]
    loader, stepped, _ = loader_of(numbered(60), 20, physical=6)
    batches, parts = [], []
    for (x, _), complete in stepped():
        assert 0 < len(x) <= 6
        parts += x.tolist()
        if complete:
            batches.append(parts)
            parts = []
    assert batches == whole
    assert len(loader) == len(whole) == 3


def test_it_ends_where_the_budget_does():
    taken = []
    _, stepped, _ = loader_of(numbered(20), 2, spent=lambda: len(taken) >= 4)
    for batch, _ in stepped():
        taken.append(batch)
    assert len(taken) == 4


def test_a_batch_left_out_is_refused_and_a_look_is_not():
    loader, stepped, gathering = loader_of(numbered(20), 5)
    with pytest.raises(ValueError, match="drawn but not stepped"):
        for _ in loader:
            pass
    looked = next(iter(loader))
    assert gathering.drawn
    ((x, y), _) = next(stepped())
    assert torch.equal(x, looked[0])  # the step it stands for is the same
    assert torch.equal(y, looked[1])


def test_two_iterations_at_once_are_refused():
    loader, _, gathering = loader_of(numbered(20), 20, physical=10)
    first, second = iter(loader), iter(loader)
    next(first)
    next(second)
    with pytest.raises(ValueError, match="one at a time"):
        next(first)
    assert not gathering.complete


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([1, 2], "DataLoader, not list"),
        (DataLoader(Stream()), "not a stream"),
        (DataLoader(TensorDataset(torch.zeros(0))), "empty"),
        (
            DataLoader(numbered(3), sampler=WeightedRandomSampler([1.0, 2.0, 3.0], 3)),
            "WeightedRandomSampler is replaced",
        ),
    ],
    ids=["list", "stream", "empty", "weighted"],
)
def test_refused_loaders(loader, message):
    with pytest.raises(ValueError, match=message):
        check_loader(loader)


def test_batches_without_an_empty_form_are_refused():
    with pytest.raises(ValueError, match="tensors in lists, tuples and dicts, not str"):
        loader_of(["a", "b"], 1)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "a"])
def test_refused_seeds(seed):
    with pytest.raises(ValueError, match="a seed is a whole number"):
        Randomness(seed)
