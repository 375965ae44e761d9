"""Small models for the audit whose sensitivity bounds are attained, and the canary that an attack finds in them.

Of all weights the ones that help the attacker are taken (a guarantee holds for every weight): orthonormal rows pass
cotangents on at full length, a frozen last layer points at the place where a window or a bias collects most.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from lablib.layers import MaxMin
from lablib.layers.per_sample import ClipNorm
from lablib.privacy.losses import CrossEntropy
from lablib.privacy.sensitivity import sensitivity

TEMPERATURE = 200.0  # a wrong class then has all the probability, and the gradient its full length sqrt(2)
RADIUS = 1.0  # of the ball that inputs are cut to
SIDE, WIDE = 4, 10  # of images


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model to audit.

    Attributes:
        name: for people.
        build: returns a fresh module, every time with the same weights.
        shape: of one input.
        operators: parameters whose operator norm takes part in the sensitivity of the others (no biases there), so
            that it changes during training.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    operators: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Record:
    """One sample: input (1, *shape) and class (1,)."""

    x: Tensor
    y: Tensor


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(columns, rows, generator=generator)).Q.mT.contiguous()


def _dense() -> nn.Module:
    layer = nn.Linear(8, 4)
    with torch.no_grad():
        layer.weight.copy_(_orthonormal(4, 8, torch.Generator().manual_seed(1)))
        layer.bias.zero_()
    return nn.Sequential(ClipNorm(RADIUS), layer)


def _two_dense() -> nn.Module:
    first, last = nn.Linear(8, 8, bias=False), nn.Linear(8, 4, bias=False)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in (first, last):
            layer.weight.copy_(_orthonormal(*layer.weight.shape, generator))
    return nn.Sequential(ClipNorm(RADIUS), first, MaxMin(), last)


def _frozen_head(direction: Tensor, generator: torch.Generator) -> nn.Linear:
    """Return a frozen layer with two orthonormal rows whose difference is sqrt(2) times ``direction``."""
    head = nn.Linear(direction.numel(), 2, bias=False).requires_grad_(False)
    unit = direction.flatten() / direction.norm()
    other = torch.randn(unit.shape, generator=generator)
    other -= (other @ unit) * unit
    other /= other.norm()
    with torch.no_grad():
        head.weight.copy_(torch.stack([other + unit, other - unit]) / math.sqrt(2.0))
    return head


def _convolution() -> nn.Module:
    """3 x 3 windows, looked at by a last layer of a smooth bump: shifted bumps are nearly the same bump.

    The bound of nine windows per pixel is reached as images grow; on 10 x 10 pixels 95 % of it are.
    """
    generator = torch.Generator().manual_seed(3)
    layer = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    wave = torch.sin(torch.arange(1, WIDE + 1) * math.pi / (WIDE + 1))
    weights = torch.tensor([0.8, 0.6])
    with torch.no_grad():
        layer.weight.copy_((weights / 3.0).reshape(2, 1, 1, 1).expand_as(layer.weight))
    place = weights.reshape(2, 1, 1) * torch.outer(wave, wave)
    return nn.Sequential(ClipNorm(RADIUS), layer, MaxMin(), nn.Flatten(), _frozen_head(place, generator))


def _feature_bias() -> nn.Module:
    """A bias added to every pixel of a map: its gradient is the sum over all of them."""
    generator = torch.Generator().manual_seed(4)
    layer = nn.Conv2d(1, 2, 1)
    weights = torch.tensor([0.8, 0.6])
    with torch.no_grad():
        layer.weight.copy_(weights.reshape(2, 1, 1, 1))
        layer.bias.zero_()
    place = weights.reshape(2, 1, 1).expand(2, SIDE, SIDE)
    return nn.Sequential(ClipNorm(RADIUS), layer, nn.Flatten(), _frozen_head(place, generator))


SUBJECTS = {
    "dense": Subject("dense", _dense, (8,)),
    "two dense": Subject("two dense", _two_dense, (8,), ("1.weight", "3.weight")),
    "convolution": Subject("convolution", _convolution, (1, WIDE, WIDE)),
    "bias of a map": Subject("bias of a map", _feature_bias, (1, SIDE, SIDE)),
}


def criterion() -> CrossEntropy:
    """Return the loss of every audit."""
    return CrossEntropy(TEMPERATURE)


def claimed_sensitivity(subject: Subject, module: nn.Module) -> dict[str, float]:
    """Return what :func:`lablib.privacy.sensitivity.sensitivity` proves for each trained parameter of ``module``."""
    return dict(sensitivity(module, subject.shape, criterion().lipschitz).parameters)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training moves, by full name."""
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def gradients(module: nn.Module, weights: Mapping[str, Tensor], record: Record) -> dict[str, Tensor]:
    """Return one record's gradients in many copies of the model at once.

    Args:
        module: gives the architecture, and the frozen weights.
        weights: name -> (R, ...), the trained ones of R runs.
        record: the sample; its loss is that of :func:`criterion`, without checks, which cannot be batched.
    """

    def loss(own: dict[str, Tensor]) -> Tensor:
        return (
            F.cross_entropy(TEMPERATURE * functional_call(module, own, (record.x,)), record.y) / TEMPERATURE
        )

    return vmap(grad(loss))(dict(weights))


def find_canary(subject: Subject, restarts: int = 8, steps: int = 100, seed: int = 0) -> tuple[Record, float]:
    """Search for the sample whose gradient is longest; return it and its length over the bound (at most 1).

    From random inputs, the gradient of a difference of two logits is made longer by ascent, the input being kept on
    the sphere of the largest norm; the class is then one that the model finds least likely. Every start is judged by
    the gradient of the loss itself.
    """
    module = subject.build()
    weights = {name: value.detach()[None] for name, value in trained(module).items()}
    total = math.sqrt(sum(bound**2 for bound in claimed_sensitivity(subject, module).values()))
    generator = torch.Generator().manual_seed(seed)
    best, longest = None, -1.0
    for _ in range(restarts):
        x = _ascend(module, torch.randn(1, *subject.shape, generator=generator), steps)
        with torch.no_grad():
            scores = module(x)[0]
        record = Record(x, scores.argmin()[None])
        length = float(
            sum(g.double().square().sum() for g in gradients(module, weights, record).values()).sqrt()
        )
        if length > longest:
            best, longest = record, length
        if length > 0.9999 * total:
            break
    return best, longest / total


def _ascend(module: nn.Module, x: Tensor, steps: int) -> Tensor:
    parameters = [value for value in module.parameters() if value.requires_grad]
    x = x.clone().requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.1)
    for _ in range(steps):
        unit = RADIUS * x / x.norm()
        scores = module(unit)[0]
        high, low = int(scores.argmax()), int(scores.argmin())
        found = torch.autograd.grad(scores[high] - scores[low], parameters, create_graph=True)
        length = sum(part.square().sum() for part in found).sqrt()
        optimiser.zero_grad()
        # a little weight on the gap of the scores: without it the loss of a long gradient may be flat
        (-(length + 0.1 * (scores[high] - scores[low]))).backward(inputs=[x])
        optimiser.step()
    return (RADIUS * x / x.norm()).detach()


def quiet(module: nn.Module, canary: Record) -> Record:
    """Return the canary's input with the class that the model is sure of: its gradient is (almost) zero."""
    with torch.no_grad():
        return Record(canary.x, module(canary.x).argmax(1))


def mirrored(module: nn.Module, canary: Record) -> Record:
    """Return -x with the least likely class: in a model that is odd in x, the cotangent is the opposite one."""
    with torch.no_grad():
        return Record(-canary.x, module(-canary.x).argmin(1))
