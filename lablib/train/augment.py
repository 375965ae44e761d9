"""Random crops and flips of a whole batch at once, on the device it lies on."""

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Moves:
    """What :func:`draw_moves` chose for each image: offsets (B, 2) int64, mirrored (B,) bool."""

    offsets: Tensor
    mirrored: Tensor

    def __getitem__(self, rows: slice) -> "Moves":
        return Moves(self.offsets[rows], self.mirrored[rows])


def draw_moves(images: int, pad: int, flip: bool, generator: torch.Generator) -> Moves:
    """Draw an offset in -pad..pad along each axis, and a fair coin where ``flip``, for each of B images."""
    device = generator.device
    offsets = torch.randint(-pad, pad + 1, (images, 2), generator=generator, device=device)
    coins = torch.rand(images, generator=generator, device=device)
    return Moves(offsets, (coins < 0.5) & flip)


def move_images(images: Tensor, moves: Moves) -> Tensor:
    """Return each image mirrored where said, then shifted, the edge repeated: crops of an edge-padded image.

    Args:
        images: (B, C, H, W), any dtype.
        moves: for B images.

    Raises:
        ValueError: for other shapes.
    """
    if images.dim() != 4 or len(images) != len(moves.offsets):
        raise ValueError(
            f"images (B, C, H, W) and as many moves expected, got {tuple(images.shape)} and {len(moves.offsets)}"
        )
    batch, _, height, width = images.shape
    row = _shifted(height, moves.offsets[:, 0])
    column = _shifted(width, moves.offsets[:, 1])
    column = torch.where(moves.mirrored[:, None], width - 1 - column, column)
    sample = torch.arange(batch, device=images.device)[:, None, None]
    # advanced indices on axes 0, 2, 3 around a slice: the result is (B, H, W, C)
    return images[sample, :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _shifted(size: int, offset: Tensor) -> Tensor:
    """Indices 0..size-1 moved by each offset and kept inside, which repeats the edge: (B, size)."""
    return (torch.arange(size, device=offset.device) + offset[:, None]).clamp(0, size - 1)
