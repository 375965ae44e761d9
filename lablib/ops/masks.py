"""Sub-batch masks of the distance and SortNet neurons: what they must look like.

Sub-batch s is rows s * rows .. (s + 1) * rows of x (B, I'), the last may be short; S of them. ``inputs`` (S, I') and
``outputs`` (S, O') name, rising, the inputs and neurons that it keeps of a weight (O, I).
"""

import torch
from torch import Tensor


def checked_rows(x: Tensor, weight: Tensor, inputs: Tensor | None, outputs: Tensor | None, rows: int) -> int:
    """Return ``rows``, at most the rows of ``x`` (at least 1), after checking the shapes of the masks.

    Raises:
        ValueError: for shapes, dtypes or devices that do not match, or ``rows`` < 1.
    """
    if rows < 1:
        raise ValueError(f"a sub-batch needs at least one row, got rows = {rows}")
    rows = min(rows, max(1, x.shape[0]))
    subs = -(-x.shape[0] // rows)
    for name, mask, size in (("inputs", inputs, weight.shape[1]), ("outputs", outputs, weight.shape[0])):
        if mask is None:
            continue
        if mask.dim() != 2 or mask.shape[0] != subs or mask.dtype != torch.int64 or mask.device != x.device:
            raise ValueError(
                f"{name} must be int64 ({subs}, n), one row for each {rows} rows of x and on its device, "
                f"got {mask.dtype} {tuple(mask.shape)} on {mask.device}"
            )
        if mask.shape[1] > size:
            raise ValueError(f"{name} names {mask.shape[1]} of {size}: each may be kept once")
    return rows


def check_rising(weight: Tensor, inputs: Tensor | None, outputs: Tensor | None) -> None:
    """Check what the masks name. Not on a GPU, which would have to wait, nor while torch traces the call.

    Raises:
        ValueError: if a row of a mask does not rise, or names what is not there.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return
    for name, mask, size in (("inputs", inputs, weight.shape[1]), ("outputs", outputs, weight.shape[0])):
        if mask is None or mask.device.type != "cpu" or not mask.numel():
            continue
        rises = bool((mask[:, 1:] > mask[:, :-1]).all())
        if not rises or int(mask[:, 0].min()) < 0 or int(mask[:, -1].max()) >= size:
            raise ValueError(f"each row of {name} must rise from 0 at least and stay below {size}")
