"""The gradient norm of every single sample, for analysis: private training never computes it.

A dense layer's gradient for one sample is g x^T, so its norm is ||g|| ||x||; a convolution's is g (U x)^T with U the
unfolding into windows. One forward and one backward pass of the summed loss give all x and g.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lablib.privacy import ClipCotangent

CHUNK = 256  # samples whose convolution gradients are held at once


def sample_gradients(
    module: nn.Sequential, criterion: Callable[[Tensor, Tensor], Tensor], clip: float, x: Tensor, y: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the l2 norm of each sample's gradient and the sum of all gradients, by parameter name.

    Args:
        module: a flat chain, whose trained layers are ``nn.Linear`` on (B, I) and ``nn.Conv2d`` without groups and
            dilation; others have no parameters.
        criterion: outputs, targets -> losses (B,).
        clip: each sample's cotangent at the outputs is clipped to this, as the engine does.
        x, y: (B, ...) and (B,).

    Returns:
        {name: (B,) float64}, {name: tensor of the parameter's shape, float64}.

    Raises:
        ValueError: for another trained layer.
    """
    norms: dict[str, list[Tensor]] = {}
    sums: dict[str, Tensor] = {}
    for part_x, part_y in zip(x.split(CHUNK), y.split(CHUNK)):
        for name, layer, features, cotangent in _flows(module, criterion, clip, part_x, part_y):
            for own, (sizes, total) in _gradients(name, layer, features, cotangent).items():
                norms.setdefault(own, []).append(sizes)
                sums[own] = sums[own] + total if own in sums else total
    return {name: torch.cat(parts) for name, parts in norms.items()}, sums


def _flows(module, criterion, clip, x, y) -> list[tuple[str, nn.Module, Tensor, Tensor]]:
    """Return name, layer, input and cotangent of each trained layer."""
    met = []
    with torch.enable_grad():
        for name, layer in module.named_children():
            before, x = x, layer(x)
            if any(p.requires_grad for p in layer.parameters()):
                x.retain_grad()
                met.append((name, layer, before.detach(), x))
        losses = criterion(ClipCotangent(clip)(x), y)
        found = torch.autograd.grad(losses.sum(), [output for *_, output in met])
    return [(name, layer, before, g) for (name, layer, before, _), g in zip(met, found)]


def _gradients(
    name: str, layer: nn.Module, features: Tensor, cotangent: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return norms (B,) and sum of the gradients of one layer's parameters."""
    x, g = features.double(), cotangent.double()
    if type(layer) is nn.Linear and x.dim() == 2:
        sizes, total, by_bias = g.norm(dim=1) * x.norm(dim=1), g.mT @ x, g
    elif type(layer) is nn.Conv2d and layer.groups == 1 and layer.dilation == (1, 1):
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            raise ValueError(f"{name}: only padding with zeros, given in numbers, is analysed")
        windows = F.unfold(x, layer.kernel_size, padding=layer.padding, stride=layer.stride)
        each = g.flatten(2) @ windows.mT
        sizes, total, by_bias = each.flatten(1).norm(dim=1), each.sum(0).view_as(layer.weight), g.sum((2, 3))
    else:
        raise ValueError(
            f"{name}: {type(layer).__name__} is not analysed; use nn.Linear on (B, I) or nn.Conv2d"
        )
    found = {f"{name}.weight": (sizes, total)}
    if layer.bias is not None:
        found[f"{name}.bias"] = (by_bias.norm(dim=1), by_bias.sum(0))
    return found
