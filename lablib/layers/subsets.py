"""Which neurons a training step keeps: dropout by sub-batches, as the SortNet paper trains (arXiv 2210.01787).

Per layer and step one count ~ Binomial(C, q); each sub-batch of 32 samples has its own random subset of that
size. All the work of a dropped neuron is saved: it is neither computed nor read.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

SUB_BATCH = 32


class SubsetSource:
    """Draws the subsets of one training run, for the whole batch also where this process has a part of it.

    Args:
        seed: of both generators.
        device: where subsets are drawn. Counts are drawn on the CPU, so that no GPU has to be waited for.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu"):
        self.counts = torch.Generator().manual_seed(seed)
        self.subsets = torch.Generator(device).manual_seed(seed + 1)
        self._first: int | None = None
        self._total: int | None = None

    def place(self, first: int, total: int) -> None:
        """Say which rows of a batch of ``total`` the next forward has: those from ``first`` on.

        Raises:
            ValueError: if ``first`` is not where a sub-batch begins: all ranks must cut the batch alike.
        """
        if (first % SUB_BATCH and first != total) or not 0 <= first <= total:
            raise ValueError(
                f"a part of a batch begins at a multiple of {SUB_BATCH} rows, not at row {first} of {total}"
            )
        self._first, self._total = first, total

    def draw(self, features: int, keep: float, samples: int) -> Tensor:
        """Return the kept neurons of each sub-batch of this process: (ceil(samples / 32), count) int64, sorted.

        Args:
            features: C, neurons to choose from; at least one is kept.
            keep: q, the probability to keep one.
            samples: of this process. Without :meth:`place` they are the whole batch.
        """
        first, total = (0, samples) if self._total is None else (self._first, self._total)
        chosen = torch.rand(features, generator=self.counts) < keep
        count = max(1, int(chosen.sum()))
        order = torch.rand(
            -(-total // SUB_BATCH), features, generator=self.subsets, device=self.subsets.device
        )
        start = -(-first // SUB_BATCH)
        mine = order[start : start + -(-samples // SUB_BATCH)]
        return mine.topk(count, dim=1, sorted=False).indices.sort(1).values

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the generators."""
        return {"counts": self.counts.get_state(), "subsets": self.subsets.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that :meth:`state_dict` gave."""
        self.counts.set_state(state["counts"].cpu())
        self.subsets.set_state(state["subsets"].cpu())
