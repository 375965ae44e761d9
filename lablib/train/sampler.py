"""Batches of a data set that lies on the device: shuffled, augmented, cut into the parts of the ranks."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from lablib.train.augment import draw_moves, move_images


@dataclasses.dataclass(frozen=True)
class Batch:
    """The part of one batch that this process trains on.

    Attributes:
        x: (b, C, H, W) float32 in [0, 1].
        y: (b,) int64.
        first, total: it is rows first .. first + b - 1 of a batch of ``total`` over all processes.
    """

    x: Tensor
    y: Tensor
    first: int
    total: int


class Sampler:
    """Goes through the data epoch by epoch, in an order that seed and epoch alone decide.

    Each process knows the whole order and the augmentation of the whole batch, and takes its own rows, whole
    units of ``unit`` rows: so a run over several processes sees what a run of one sees.

    Args:
        x: (N, C, H, W) uint8, on the device.
        y: (N,) int64, likewise.
        scale: largest raw value; batches are ``x / scale``.
        batch: samples over all processes. The last batch of an epoch may be smaller.
        seed: of order and augmentation.
        pad: of the random crop, 0 for none.
        flip: mirror half of the images.
        unit: rows that stay together, 32 for sub-batch masks.
        rank, world: of this process.

    Raises:
        ValueError: for no data, shapes that do not match, or a batch that does not give each process a unit.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        scale: float,
        batch: int,
        seed: int,
        pad: int = 0,
        flip: bool = False,
        unit: int = 32,
        rank: int = 0,
        world: int = 1,
    ):
        if x.dim() != 4 or y.shape != x.shape[:1] or not len(x):
            raise ValueError(
                f"images (N, C, H, W), N >= 1, and labels (N,) expected, got {tuple(x.shape)}, {tuple(y.shape)}"
            )
        if batch < 1 or (world > 1 and batch < unit * world):
            raise ValueError(
                f"a batch of {batch} does not give each of {world} processes {unit} rows; make it larger"
            )
        if pad < 0:
            raise ValueError(f"the padding of a crop must not be negative, got {pad}")
        self.x, self.y, self.scale, self.batch, self.seed = x, y, scale, batch, seed
        self.pad, self.flip, self.unit, self.rank, self.world = pad, flip, unit, rank, world
        self.generator = torch.Generator(x.device).manual_seed(seed)
        self.epoch, self.position = 0, 0
        self._order: Tensor | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        return -(-len(self.x) // self.batch)

    def next(self) -> Batch:
        """Return the next batch; after the last one of an epoch the next epoch begins."""
        if self._order is None:
            shuffle = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            self._order = torch.randperm(len(self.x), generator=shuffle).to(self.x.device)
        chosen = self._order[self.position : self.position + self.batch]
        moves = draw_moves(len(chosen), self.pad, self.flip, self.generator)
        self.position += len(chosen)
        if self.position == len(self.x):
            self.epoch, self.position, self._order = self.epoch + 1, 0, None
        rows = share(len(chosen), self.unit, self.rank, self.world)
        images = self.x[chosen[rows]]
        if self.pad or self.flip:
            images = move_images(images, moves[rows])
        return Batch(images.float() / self.scale, self.y[chosen[rows]], rows.start, len(chosen))

    def state_dict(self) -> dict:
        """Return the position and the state of the generator."""
        return {"epoch": self.epoch, "position": self.position, "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on from where :meth:`state_dict` was taken, with the same data and settings."""
        self.epoch, self.position, self._order = state["epoch"], state["position"], None
        self.generator.set_state(state["generator"].cpu())


def share(rows: int, unit: int, rank: int, world: int) -> slice:
    """Return which of ``rows`` rows belong to ``rank``: whole units, spread as evenly as they go.

    >>> [share(96, 32, rank, 2) for rank in (0, 1)]
    [slice(0, 32, None), slice(32, 96, None)]
    """
    units = -(-rows // unit)
    start, stop = (min(rows, units * part // world * unit) for part in (rank, rank + 1))
    return slice(start, stop)
