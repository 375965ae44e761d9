"""Linear splines, forward and backward, against ReLU, gathers in plain torch, GroupSort, and the algorithm of the
published package deepsplines, rebuilt here so that nothing needs to be installed. And the layer, with its learned
scale and projection, against ReLU and against the spline alone.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from lablib.experiments.contest import Contest
from lablib.layers import LearnableSpline
from lablib.ops.splines import linear_spline, project_slopes

SHAPES = ((512, 1024), (32, 64, 40, 40))
KNOTS = (21, 51, 101)
REACH = 3.0  # of inputs from a normal distribution few are outside

Form = Callable[[Tensor, Tensor, float], Tensor]
Sides = tuple[Callable[[], object], Callable[[], object]]


def spline_contests() -> list[Contest]:
    """Return the comparisons of linear splines, and of splines with projected coefficients."""
    found = []
    for shape in SHAPES:
        for knots in KNOTS:
            name = f"linear spline forward+backward, {shape}, {knots} knots"
            for said, peer in PEERS.items():
                found.append(Contest(name, said, functools.partial(_sides, shape, knots, peer)))
            name = f"LearnableSpline forward+backward, {shape}, {knots} knots"
            for said, peer in {"ReLU": _relu, "linear spline alone": linear_spline}.items():
                found.append(Contest(name, said, functools.partial(_layer_sides, shape, knots, peer)))
        name = f"linear spline with projection forward+backward, {shape}, {KNOTS[0]} knots"
        projected = functools.partial(_sides, shape, KNOTS[0], _projected_peer, projected=True)
        found.append(Contest(name, "custom autograd, projection in plain torch", projected))
    return found


def gather_form(x: Tensor, values: Tensor, reach: float) -> Tensor:
    """Return the spline of channels on axis 1 by plain torch and its own derivatives: many tensors are kept."""
    spacing, knots = 2 * reach / (values.shape[1] - 1), values.shape[1]
    flat, first = values.flatten(), _first(x, knots)
    k = ((x.detach() + reach) / spacing).floor().clamp(0, knots - 2)
    share = (x + reach) / spacing - k
    at = first + k.long()
    return flat[at] * (1 - share) + flat[at + 1] * share


class CustomAutograd(torch.autograd.Function):
    """The algorithm of github.com/Biomedical-Imaging-Group/DeepSplines: place and share of each input are kept."""

    @staticmethod
    def forward(ctx, x: Tensor, values: Tensor, reach: float) -> Tensor:
        """As :func:`gather_form`."""
        spacing, knots = 2 * reach / (values.shape[1] - 1), values.shape[1]
        flat = values.flatten()
        k = ((x.clamp(-reach, reach - spacing) + reach) / spacing).floor()
        share, at = (x + reach) / spacing - k, (_first(x, knots) + k).long()
        ctx.save_for_backward(share, values, at)
        ctx.spacing = spacing
        return flat[at + 1] * share + flat[at] * (1 - share)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of x and values."""
        share, values, at = ctx.saved_tensors
        flat = values.flatten()
        made = torch.zeros_like(flat)
        made.scatter_add_(0, at.view(-1) + 1, (share * grad).view(-1))
        made.scatter_add_(0, at.view(-1), ((1 - share) * grad).view(-1))
        return (flat[at + 1] - flat[at]) / ctx.spacing * grad, made.view_as(values), None


def _first(x: Tensor, knots: int) -> Tensor:
    """Return where each channel's coefficients start, to be broadcast against ``x``."""
    return (torch.arange(x.shape[1], device=x.device) * knots).view(-1, *[1] * (x.dim() - 2))


def _relu(x: Tensor, values: Tensor, reach: float) -> Tensor:
    return torch.relu(x)


def _group_sort(x: Tensor, values: Tensor, reach: float) -> Tensor:
    from lablib.ops.sorting import group_sort

    return group_sort(x, 2)


def _projected_peer(x: Tensor, values: Tensor, reach: float) -> Tensor:
    spacing = 2 * reach / (values.shape[1] - 1)
    steps = values.diff(dim=1).clamp(-spacing, spacing).cumsum(1)
    made = torch.nn.functional.pad(steps, (1, 0))
    return CustomAutograd.apply(x, made + (values - made).mean(1, keepdim=True), reach)


PEERS: dict[str, Form] = {
    "ReLU": _relu,
    "gathers in plain torch": gather_form,
    "custom autograd, place and share kept": CustomAutograd.apply,
    "GroupSort(2)": _group_sort,
}


def _sides(shape: tuple[int, ...], knots: int, peer: Form, projected: bool = False) -> Sides:
    def ours(x: Tensor, values: Tensor, reach: float) -> Tensor:
        return linear_spline(x, project_slopes(values, reach) if projected else values, reach)

    x, values = _drawn(shape, knots)
    return _step(ours, x, values), _step(peer, x, values)


def _layer_sides(shape: tuple[int, ...], knots: int, peer: Form) -> Sides:
    layer = LearnableSpline(shape[1], knots, REACH)
    x, values = _drawn(shape, knots)
    sides = (x, *layer.parameters())
    grad = torch.ones(shape)
    return lambda: torch.autograd.grad(layer(x), sides, grad), _step(peer, x, values)


def _drawn(shape: tuple[int, ...], knots: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).requires_grad_()
    return x, torch.randn(shape[1], knots, generator=generator).requires_grad_()


def _step(form: Form, x: Tensor, values: Tensor) -> Callable[[], object]:
    """Forward and backward pass of ``form``, by ``values`` too where it has any."""
    sides = (x,) if form in (_relu, _group_sort) else (x, values)
    grad = torch.ones(x.shape)
    return lambda: torch.autograd.grad(form(x, values, REACH), sides, grad)
