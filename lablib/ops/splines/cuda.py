"""Linear splines on a GPU: the functions of reference.py for float32 and half precision, by triton_spline.py."""

import math

import torch
from torch import Tensor

from lablib.ops.gpu import LANES, launch
from lablib.ops.splines import triton_spline
from lablib.ops.splines.reference import Gradients, Needs

TILE = 8  # elements of a lane in the forward pass
UNROLL = 4  # loads on their way at once
WIDTH = 64  # knots of one program at most: that many sums in registers of each lane
PROGRAMS = 2048  # to keep a large device busy; fixed, for the order of the sums depends on it
FEW = 32  # rows that a program should have at least


def forward(x: Tensor, values: Tensor, scale: Tensor | None, reach: float) -> Tensor:
    """As in reference.py."""
    triton_spline.load()
    y = torch.empty_like(x)
    knots = values.shape[1]
    spacing = 2 * reach / (knots - 1)
    launch(
        triton_spline.spline_kernel, (math.ceil(x.numel() / (TILE * LANES)), 1), x.device,
        x, values, scale, y, x.numel(), x.shape[1], x.shape[2], knots, 1 / spacing, spacing, reach, TILE=TILE,
    )  # fmt: skip
    return y


def backward(
    grad: Tensor, x: Tensor, values: Tensor, scale: Tensor | None, reach: float, needs: Needs
) -> Gradients:
    """As in reference.py, sums in float32: first of each lane, then of the lanes, then of the parts."""
    triton_spline.load()
    rows, channels, inner = x.shape
    knots, columns, planes = values.shape[1], channels * inner, inner >= LANES
    width = min(WIDTH, 1 << (knots - 1).bit_length())
    blocks = math.ceil(knots / width) if needs[1] else 1
    programs = channels if planes else math.ceil(columns / LANES)
    steps = math.ceil(rows * inner / LANES) if planes else rows
    parts = max(1, min(PROGRAMS // (programs * blocks), steps // FEW))
    by_x = torch.empty_like(x) if needs[0] else None
    places = (parts, channels if planes else columns)
    sums = values.new_empty((*places, knots)) if needs[1] else None
    heights = values.new_empty(places) if needs[2] else None
    launch(
        triton_spline.spline_backward_kernel, (programs, parts * blocks), x.device,
        grad, x, values, scale, by_x, sums, heights, rows, columns, channels, inner, knots, parts,
        (knots - 1) / (2 * reach), PLANES=planes, WIDTH=width, UNROLL=UNROLL,
    )  # fmt: skip
    by_values = by_scale = None
    if sums is not None:
        by_values = sums.view(parts, channels, -1, knots).sum((0, 2))
        by_values = by_values if scale is None else by_values / scale[:, None]
    if heights is not None:
        by_scale = -heights.view(parts, channels, -1).sum((0, 2)) / scale.square()
    return by_x, by_values, by_scale
