"""What the Triton kernels share: loading Triton late, rows packed for them, sums whose order is fixed.

Shape letters of all GPU files: B rows, I inputs, O outputs, I' and O' inputs and outputs kept by a mask, S
sub-batches, T tiles of ``TILE_ROWS`` rows. A tile never crosses the border of a sub-batch.

Layout: one lane holds one output (or input) and all rows of a tile, so that sums over rows stay inside a lane and
the tile's values come in as one vector. With ``TRITON_INTERPRET=1`` everything here also runs on CPU tensors.
"""

import contextlib
import importlib.util
import math
import os
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor

TILE_ROWS = 32  # the recipe's sub-batch
LANES = 64  # outputs (inputs, in backward passes) of one program: two warps
ELEMENTS_MAX = 2**31 - 1  # offsets inside one weight are 32-bit
HALF = (torch.float16, torch.bfloat16)


def interpreted() -> bool:
    """Return whether Triton was asked to interpret kernels on the CPU (to check them, thousands of times slower)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def usable(*tensors: Tensor) -> bool:
    """Return whether the kernels can take these tensors: Triton is there, float32 or half, on one CUDA device."""
    if importlib.util.find_spec("triton") is None:
        return False
    kinds = {t.dtype for t in tensors} <= {torch.float32, *HALF}
    places = interpreted() or all(t.is_cuda and t.device == tensors[0].device for t in tensors)
    return kinds and places and all(t.numel() <= ELEMENTS_MAX for t in tensors)


def load(namespace: MutableMapping[str, Any], names: tuple[str, ...]) -> None:
    """Turn the named plain functions of a module's ``globals()`` into Triton kernels, once.

    Raises:
        ModuleNotFoundError: without Triton.
    """
    if namespace["tl"] is not None:
        return
    import triton
    import triton.language as tl
    from triton.language.extra.cuda import libdevice

    for name in names:
        namespace[name] = triton.jit(namespace[name])
    namespace["tl"], namespace["libdevice"] = tl, libdevice


def launch(
    kernel: Any, grid: tuple[int, int], device: torch.device, *arguments: Any, **constants: Any
) -> None:
    """Start ``kernel`` on ``device``, which need not be the current one."""
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        kernel[grid](*arguments, **constants, LANES=LANES, num_warps=LANES // 32, enable_fp_fusion=True)


def pack(x: Tensor, rows: int, tile: int = TILE_ROWS, fill: float = 0.0) -> Tensor:
    """Return x (B, N) as float32 (T, N, tile): sub-batches of ``rows`` rows cut into tiles, ``fill`` behind."""
    batch, width = x.shape
    subs, parts = tiles(batch, rows, tile)
    packed = x.new_full((subs * rows, width), fill, dtype=torch.float32)
    packed[:batch] = x
    if parts * tile != rows:
        packed = torch.nn.functional.pad(
            packed.view(subs, rows, width), (0, 0, 0, parts * tile - rows), value=fill
        )
    return packed.reshape(subs * parts, tile, width).transpose(1, 2).contiguous()


def tiles(batch: int, rows: int, tile: int = TILE_ROWS) -> tuple[int, int]:
    """Return (number of sub-batches, tiles in each)."""
    return math.ceil(batch / rows), math.ceil(rows / tile)


def add_at(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Return z (N, size) with z[n, index[n, m]] = the sum of values[n, m]; the order of each sum is fixed.

    (``scatter_add_`` on CUDA adds in whatever order threads arrive; ``index_put_`` sorts first.)
    """
    rows = torch.arange(values.shape[0], device=values.device)[:, None]
    made = values.new_zeros((values.shape[0], size))
    return made.index_put_((rows.expand_as(index), index), values, accumulate=True)
