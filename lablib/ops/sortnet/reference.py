"""The SortNet neuron by broadcasting and a full top-K, output block by output block."""

import torch
from torch import Tensor

BLOCK_ELEMENTS = 2**23  # |x + b| held at once: 32 MiB in float32


def sortnet(x: Tensor, center: Tensor, weight: Tensor) -> Tensor:
    """x (B, I), center (O, I), weight (O, K) -> (B, O). The search keeps no graph; only the K kept are
    differentiated.
    """
    rows = max(1, BLOCK_ELEMENTS // max(1, x.shape[0] * x.shape[1]))
    return torch.cat([_block(x, b, w) for b, w in zip(center.split(rows), weight.split(rows))], 1)


def _block(x: Tensor, center: Tensor, weight: Tensor) -> Tensor:
    with torch.no_grad():
        kept = (x[:, None, :] + center).abs().topk(weight.shape[1], dim=-1, sorted=True).indices
    outputs = torch.arange(center.shape[0], device=x.device)[:, None]
    chosen = x.gather(1, kept.flatten(1)).reshape(kept.shape)
    return ((chosen + center[outputs, kept]).abs() * weight).sum(-1)
