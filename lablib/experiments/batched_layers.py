"""Layers of a population of networks: parameters with a leading axis P, and a float64 form that is exactly
feasible.

Every layer is 1-Lipschitz in l_inf for whatever values its free parameters take, so training needs no
constraint. Inputs are (B, d) in the first layer (given less 1/2, so that they are centred) and (P, B, n)
after.
"""

import math
from typing import Any

import numpy as np
import torch

FAMILIES = ("abs", "relu", "spline", "maxmin", "linf_distance", "sortnet")
SAFETY = 1 - 2.0**-40  # far above rounding: a float64 row scaled by it sums to at most one exactly
P_RANGE = (8.0, 200.0)  # exponent of the relaxed l_inf distance over training; p = infinity when evaluated
SPLINE_RANGE = 1.0  # a learned spline bends inside [-1, 1] and is constant outside
SPLINE_SPACING = 32.0  # an exported layer has one activation: neuron k's spline sits around 32 k


class Layer:
    """One layer of P networks; ``first`` says that its input is (B, d) centred cube points."""

    def __init__(self, first: bool) -> None:
        self.first = first

    def parameters(self) -> list[torch.Tensor]:
        """Return the free tensors, each (P, ...)."""
        return [value for value in vars(self).values() if isinstance(value, torch.Tensor)]

    def anneal(self, progress: float) -> None:
        """Move a relaxation towards its exact form; ``progress`` = 1 is exact."""

    def export(self, index: int) -> list[dict[str, Any]]:
        """Return network ``index``'s layer as plain data that acts on points of [0,1]^d."""
        raise NotImplementedError

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Affine(Layer):
    """z = W x + b with W = V / row l1 norm of V, so that every row has l1 norm one."""

    def __init__(self, size: int, inputs: int, outputs: int, generator: torch.Generator, first: bool) -> None:
        super().__init__(first)
        self.free = torch.randn(size, outputs, inputs, generator=generator) / math.sqrt(inputs)
        spread = 0.5 if first else 0.2
        self.bias = (torch.rand(size, outputs, generator=generator) - 0.5) * spread

    def weight(self) -> torch.Tensor:
        """Return W (P, out, in)."""
        return _unit_rows(self.free)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight()
        if x.dim() == 2:
            return torch.einsum("bi,poi->pbo", x, weight) + self.bias[:, None]
        return torch.baddbmm(self.bias[:, None], x, weight.transpose(1, 2))

    def export(self, index: int) -> list[dict[str, Any]]:
        weight, bias = self.weight()[index], self.bias[index]
        if self.first:
            bias = bias - 0.5 * weight.sum(dim=1)
        return [{"op": "affine", "weight": weight.numpy(), "bias": bias.numpy()}]


class Elementwise(Layer):
    """|z| or max(z, 0)."""

    def __init__(self, kind: str) -> None:
        super().__init__(first=False)
        self.kind = kind

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs() if self.kind == "abs" else x.relu()

    def export(self, index: int) -> list[dict[str, Any]]:
        return [{"op": "activation", "kind": self.kind}]


class Spline(Layer):
    """A piecewise linear function per neuron: K equal pieces on [-1, 1] with slopes in [-1, 1]."""

    def __init__(self, size: int, neurons: int, pieces: int, generator: torch.Generator) -> None:
        super().__init__(first=False)
        self.free = torch.randn(size, neurons, pieces, generator=generator)
        self.pieces = pieces

    def slopes(self) -> torch.Tensor:
        """Return (P, n, K) in [-1, 1]; the sine reaches both ends with a finite parameter."""
        slopes = torch.sin(self.free)
        return slopes * SAFETY if slopes.dtype == torch.float64 else slopes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        slopes = self.slopes()
        step = 2 * SPLINE_RANGE / self.pieces
        place = ((x + SPLINE_RANGE) / step).clamp(0, self.pieces)
        piece = place.detach().floor().clamp(max=self.pieces - 1)
        rise = torch.cumsum(slopes, dim=-1) * step
        index = piece.long().transpose(1, 2)
        slope = slopes.gather(2, index).transpose(1, 2)
        end = rise.gather(2, index).transpose(1, 2)
        return end - slope * (piece + 1 - place) * step

    def export(self, index: int) -> list[dict[str, Any]]:
        slopes = self.slopes()[index].numpy()
        neurons, step = len(slopes), 2 * SPLINE_RANGE / self.pieces
        values = np.cumsum(np.pad(slopes, ((0, 0), (1, 0))), axis=1) * step
        # Each spline goes on flat for a quarter of the spacing; the way to its neighbour is then long enough
        # for a slope below one, because values stay below 2 and inputs (weighted means, plus biases) below 8.
        bends = np.linspace(-SPLINE_RANGE, SPLINE_RANGE, self.pieces + 1)
        places = np.array([-SPLINE_SPACING / 4, *bends, SPLINE_SPACING / 4])
        offsets = SPLINE_SPACING * np.arange(neurons)
        return [
            {"op": "affine", "weight": np.eye(neurons), "bias": offsets},
            {
                "op": "activation",
                "kind": "piecewise_linear",
                "knots": (offsets[:, None] + places).ravel(),
                "values": np.pad(values, ((0, 0), (1, 1)), mode="edge").ravel(),
            },
        ]


class MaxMin(Layer):
    """Sort consecutive pairs."""

    def __init__(self) -> None:
        super().__init__(first=False)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        low, high = x[..., ::2], x[..., 1::2]
        return torch.stack([torch.minimum(low, high), torch.maximum(low, high)], dim=-1).flatten(-2)

    def export(self, index: int) -> list[dict[str, Any]]:
        return [{"op": "group_sort", "size": 2}]


class LInfDistance(Layer):
    """z_k = max_i |x_i - w_ki| + b_k, trained as an l_p distance whose p grows."""

    def __init__(self, size: int, inputs: int, outputs: int, generator: torch.Generator, first: bool) -> None:
        super().__init__(first)
        self.centre = torch.randn(size, outputs, inputs, generator=generator) * (0.7 if first else 0.3)
        self.bias = torch.zeros(size, outputs)
        self.power = math.inf

    def anneal(self, progress: float) -> None:
        low, high = P_RANGE
        self.power = math.inf if progress >= 1 else low * (high / low) ** progress

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        gaps = (x.unsqueeze(-2) - self.centre.unsqueeze(1)).abs()
        largest = gaps.amax(dim=-1)
        if math.isinf(self.power):
            return largest + self.bias[:, None]
        # Divided by the largest gap (a constant to autograd: the norm is homogeneous), no power
        # under/overflows.
        unit = largest.detach().clamp_min(1e-6).unsqueeze(-1)
        powers = (gaps / unit).clamp_min(1e-6) ** self.power
        # The sum is at least one, unless a point sits on a centre: there the root's slope would be infinite.
        return unit.squeeze(-1) * powers.sum(dim=-1).clamp_min(0.5) ** (1 / self.power) + self.bias[:, None]

    def export(self, index: int) -> list[dict[str, Any]]:
        centre = self.centre[index] + (0.5 if self.first else 0.0)
        return [{"op": "linf_distance", "weight": centre.numpy(), "bias": self.bias[index].numpy()}]


class SortNet(Layer):
    """z_k = sum_i w_ki s_i + b_k, s the ``top`` largest of |x + c_k| in descending order, sum_i |w_ki| =
    1."""

    def __init__(
        self, size: int, inputs: int, outputs: int, top: int, generator: torch.Generator, first: bool
    ) -> None:
        super().__init__(first)
        self.centre = torch.randn(size, outputs, inputs, generator=generator) * (0.7 if first else 0.3)
        top = min(top, inputs)
        start = 0.5 ** torch.arange(
            1, top + 1
        )  # geometric weights, as the paper fixes them; here they may move
        self.free = start * (1 + 0.1 * torch.randn(size, outputs, top, generator=generator))
        self.bias = torch.zeros(size, outputs)
        self.inputs = inputs

    def weight(self) -> torch.Tensor:
        """Return (P, out, top)."""
        return _unit_rows(self.free)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        gaps = (x.unsqueeze(-2) + self.centre.unsqueeze(1)).abs()
        weight = self.weight()
        largest = gaps.topk(weight.shape[-1], dim=-1).values
        return (largest * weight.unsqueeze(1)).sum(dim=-1) + self.bias[:, None]

    def export(self, index: int) -> list[dict[str, Any]]:
        centre = self.centre[index] - (0.5 if self.first else 0.0)
        weight = torch.zeros(centre.shape[0], self.inputs, dtype=centre.dtype)
        weight[:, : self.free.shape[-1]] = self.weight()[index]
        bias = self.bias[index].numpy()
        return [{"op": "sortnet", "weight": weight.numpy(), "center": centre.numpy(), "bias": bias}]


def build_layers(architecture, inputs: int, size: int, generator: torch.Generator) -> list[Layer]:
    """Return the freshly drawn layers of ``size`` networks with one output each."""
    family, widths = architecture.family, (*architecture.widths, 1)
    layers: list[Layer] = []
    for depth, (before, after) in enumerate(zip((inputs, *widths), widths)):
        first, last = depth == 0, depth == len(widths) - 1
        if family == "linf_distance":
            layers.append(LInfDistance(size, before, after, generator, first))
            continue
        if family == "sortnet":
            layers.append(SortNet(size, before, after, architecture.top, generator, first))
            continue
        layers.append(Affine(size, before, after, generator, first))
        if family == "spline" and not last:
            layers.append(Spline(size, after, architecture.knots, generator))
        elif family == "maxmin" and not last:
            layers.append(MaxMin())
        elif not last:
            layers.append(Elementwise(family))
    for layer in layers:
        for tensor in layer.parameters():
            tensor.requires_grad_()
    return layers


def make_feasible(layers: list[Layer]) -> list[Layer]:
    """Turn the layers to float64, in place: rows (and slopes) then keep their bound in exact arithmetic."""
    for layer in layers:
        for name, value in list(vars(layer).items()):
            if isinstance(value, torch.Tensor):
                setattr(layer, name, value.detach().double())
        layer.anneal(1.0)
    return layers


def _unit_rows(free: torch.Tensor) -> torch.Tensor:
    """Divide each row by its l1 norm; in float64 by a hair more, so that rounding cannot push it over one."""
    rows = free / free.abs().sum(dim=-1, keepdim=True).clamp_min(1e-12)
    return rows * SAFETY if free.dtype == torch.float64 else rows
