"""The l_p and l_inf distances on a GPU: what the dispatcher calls. Kernels: triton_lp.py and triton_linf.py.

All results are float32 (half inputs are widened first). No atomics: the order of every sum is fixed, so that the
same input gives the same bits. Shape letters and layout: :mod:`lablib.ops.gpu`; masks as in
:func:`lablib.ops.linf_dist.lp_distance`.
"""

import math

import torch
from torch import Tensor

from lablib.ops.gpu import LANES, TILE_ROWS, add_at, interpreted, launch, pack, tiles
from lablib.ops.linf_dist import triton_linf, triton_lp
from lablib.ops.linf_dist.triton_near import floor_of

PROBED = range(1, 7)  # p = 2 ... 64: a sample scales the sum; the largest is looked for only where that fails
PROBE_STEP = 16
PROBE_MIN_INPUTS = 256
PROGRAMS = 4096  # of one backward launch: several rounds on every multiprocessor
SPLITS_MAX = 256
NEAR_FROM = 128.0  # powers for which most pairs are left out (triton_near.py) ...
NEAR_FROM_REAL = 48.0  # ... and for which that is cheaper than a logarithm and an exponential of every pair
BOX_ROWS = 16  # rows of a tile of boxes: twice the values of a row, so half of the rows


def power_steps(p: float) -> tuple[int, bool]:
    """Return (k, three) with p = 2^k or 3 2^k, k <= 12; (-1, False) for every other p."""
    for three in (False, True):
        mantissa, exponent = math.frexp(p / 3 if three else p)
        if mantissa == 0.5 and 1 <= exponent <= 13:
            return exponent - 1, three
    return -1, False


def near(p: float) -> bool:
    """Return whether only differences near the largest are raised to the power p."""
    return p >= (NEAR_FROM_REAL if power_steps(p)[0] < 0 else NEAR_FROM)


def lp_forward(
    x: Tensor, w: Tensor, p: float, inputs: Tensor | None, outputs: Tensor | None, rows: int
) -> Tensor:
    """Return (sum_i |x_i - w_ki|^p)^(1/p), 1 <= p < inf: x (B, I'), w (O, I) -> (B, O')."""
    triton_lp.load()
    steps, three = power_steps(p)
    shape = _Shape(x, w, inputs, outputs, rows)
    y = x.new_empty((shape.batch, shape.outputs), dtype=torch.float32)
    probe = not three and steps in PROBED and shape.inputs >= PROBE_MIN_INPUTS
    if y.numel():
        launch(
            triton_lp.lp_kernel, shape.grid, x.device,
            *shape.forward_arguments(x, w, inputs, outputs), y, *shape.sizes, float(p), floor_of(p),
            STEPS=steps, THREE=three, NEAR=near(p), FAST=not interpreted(), PROBE=PROBE_STEP if probe else 1,
            ROOM=2.0 ** min(100 / p, 12.0) if probe else 1.0, **shape.constants,
        )  # fmt: skip
    return y


def lp_backward(
    grad: Tensor,
    x: Tensor,
    w: Tensor,
    y: Tensor,
    p: float,
    inputs: Tensor | None,
    outputs: Tensor | None,
    rows: int,
    need_x: bool = True,
) -> tuple[Tensor | None, Tensor]:
    """Return (dx (B, I') or None, dw (O, I)) from grad and y (B, O'), both in float32:

    dy/dx_i = sign(x_i - w_i) (|x_i - w_i| / y)^(p-1), 0 where x_i = w_i or y = 0.

    One sweep makes both: dw rows are added to in place, tile after tile (launches follow each other), dx is summed
    from one part per range of outputs.
    """
    triton_lp.load()
    steps, three = power_steps(p)
    shape = _Shape(x, w, inputs, outputs, rows)
    dw = torch.zeros(w.shape, dtype=torch.float32, device=w.device)
    dx = x.new_zeros((shape.batch, shape.inputs), dtype=torch.float32) if need_x else None
    if not (shape.batch and shape.inputs and shape.outputs):
        return dx, dw
    xs, slopes = pack(x, shape.rows), pack(grad, shape.rows)
    floor = floor_of(max(p - 1, 1.0))
    # where y = 0 every difference is 0: scaled by 0, or below an infinite limit; NaN stays NaN
    scales = torch.where(y == 0, math.inf, floor * y) if near(p) else torch.where(y == 0, 0.0, 1 / y)
    scales = pack(scales, shape.rows, fill=math.inf if near(p) else 0.0)
    blocks = math.ceil(shape.inputs / LANES)
    splits = max(1, min(SPLITS_MAX, shape.outputs, PROGRAMS // blocks))
    each = math.ceil(shape.outputs / splits)
    splits = math.ceil(shape.outputs / each)
    parts = x.new_empty((splits if need_x else 0, TILE_ROWS, shape.inputs), dtype=torch.float32)
    weight = w.to(torch.float32).contiguous()
    for tile in range(shape.tiles):
        sub, part = divmod(tile, shape.parts)
        ins, outs = (None if m is None else m[sub].contiguous() for m in (inputs, outputs))
        launch(
            triton_lp.lp_backward_kernel, (blocks, splits), x.device,
            xs[tile], weight, slopes[tile], scales[tile], ins, outs, dw, parts,
            shape.all_inputs, shape.inputs, shape.outputs, each, float(p), floor,
            STEPS=steps, THREE=three, NEAR=near(p), FAST=not interpreted(), WANT_X=need_x, **shape.constants,
        )  # fmt: skip
        if dx is not None:
            first = sub * shape.rows + part * TILE_ROWS
            last = min(first + TILE_ROWS, (sub + 1) * shape.rows, shape.batch)
            if last > first:
                dx[first:last] = parts.sum(0)[: last - first]
    return dx, dw


def linf_forward(
    x: Tensor, w: Tensor, inputs: Tensor | None, outputs: Tensor | None, rows: int, want_index: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return max_i |x_i - w_ki|, (B, O'), and the first i (a column of x) that reaches it, int64, if wanted."""
    triton_linf.load()
    shape = _Shape(x, w, inputs, outputs, rows)
    y = x.new_empty((shape.batch, shape.outputs), dtype=torch.float32)
    index = torch.empty_like(y, dtype=torch.int32) if want_index else None
    if y.numel():
        launch(
            triton_linf.linf_kernel, shape.grid, x.device, *shape.forward_arguments(x, w, inputs, outputs),
            y, index, *shape.sizes, **shape.constants,
        )  # fmt: skip
    return y, None if index is None else index.long()


def linf_backward(
    grad: Tensor,
    x: Tensor,
    w: Tensor,
    index: Tensor,
    inputs: Tensor | None,
    outputs: Tensor | None,
    rows: int,
) -> tuple[Tensor, Tensor]:
    """Return (dx (B, I'), dw (O, I)) from grad and index (B, O'): everything goes to the first maximum."""
    sub = torch.arange(x.shape[0], device=x.device)[:, None] // rows
    neuron = torch.arange(index.shape[1], device=x.device).expand_as(index)
    neuron = neuron if outputs is None else outputs[sub, neuron]
    column = index if inputs is None else inputs[sub, index]
    slope = grad.float() * (x.gather(1, index).float() - w[neuron, column].float()).sign()
    dw = -add_at(slope.view(1, -1), (neuron * w.shape[1] + column).view(1, -1), w.numel())
    return add_at(slope, index, x.shape[1]), dw.view(w.shape)


def linf_bounds_forward(
    lower: Tensor, upper: Tensor, w: Tensor, want_index: bool = False
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return (min, max of the neuron over the box, the first input that decides each), all (B, O).

    Per input, the largest |x_i - w_i| is max(w_i - l_i, u_i - w_i), the smallest the distance of w_i to [l_i, u_i].
    """
    triton_linf.load()
    shape = _Shape(lower, w, None, None, len(lower), BOX_ROWS)
    low, high = (lower.new_empty((shape.batch, shape.outputs), dtype=torch.float32) for _ in range(2))
    indices = [torch.empty_like(low, dtype=torch.int32) if want_index else None for _ in range(2)]
    if low.numel():
        arguments = shape.forward_arguments(lower, w, None, None)
        launch(
            triton_linf.linf_bounds_kernel, shape.grid, lower.device,
            arguments[0], pack(upper, shape.rows, BOX_ROWS), arguments[1], low, high, *indices, *shape.sizes,
            **shape.constants,
        )  # fmt: skip
    return low, high, *(None if index is None else index.long() for index in indices)


def linf_bounds_backward(
    low_grad: Tensor,
    high_grad: Tensor,
    lower: Tensor,
    upper: Tensor,
    w: Tensor,
    low_index: Tensor,
    high_index: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients to lower (B, I), upper (B, I) and w (O, I); of equal sides the lower one counts."""
    neuron = torch.arange(w.shape[0], device=w.device).expand_as(low_index)
    to_lower, to_upper, to_weight = [], [], []
    for grad, index, sign in ((low_grad, low_index, -1.0), (high_grad, high_index, 1.0)):
        center = w[neuron, index].float()
        below = sign * (center - lower.gather(1, index).float())
        above = sign * (upper.gather(1, index).float() - center)
        slope = sign * grad.float() * (torch.maximum(below, above) > 0)  # a center inside the box: distance 0
        to_lower.append(add_at(-slope * (below >= above), index, lower.shape[1]))
        to_upper.append(add_at(slope * (below < above), index, upper.shape[1]))
        places = (neuron * w.shape[1] + index).view(1, -1)
        to_weight.append(add_at(torch.where(below >= above, slope, -slope).view(1, -1), places, w.numel()))
    return sum(to_lower), sum(to_upper), sum(to_weight).view(w.shape)


class _Shape:
    """Sizes, grid and packed arguments of one call; without masks the whole batch is one sub-batch."""

    def __init__(
        self,
        x: Tensor,
        w: Tensor,
        inputs: Tensor | None,
        outputs: Tensor | None,
        rows: int,
        tile: int = TILE_ROWS,
    ):
        self.tile = tile
        self.batch, self.inputs = x.shape
        self.all_outputs, self.all_inputs = w.shape
        self.outputs = self.all_outputs if outputs is None else outputs.shape[1]
        masked = inputs is not None or outputs is not None
        self.rows = rows if masked else max(1, self.batch)
        subs, self.parts = tiles(self.batch, self.rows, tile)
        self.tiles = subs * self.parts
        self.grid = (self.tiles, math.ceil(self.outputs / LANES))
        self.sizes = (self.batch, self.inputs, self.outputs, self.all_outputs, self.rows, self.parts)
        self.constants = {
            "TILE": tile,
            "KEPT_IN": inputs is not None,
            "KEPT_OUT": outputs is not None,
        }

    def forward_arguments(self, x: Tensor, w: Tensor, inputs: Tensor | None, outputs: Tensor | None) -> tuple:
        """Return packed x, the transposed weight and the masks."""
        masks = (None if mask is None else mask.contiguous() for mask in (inputs, outputs))
        return pack(x, self.rows, self.tile), w.t().to(torch.float32).contiguous(), *masks
