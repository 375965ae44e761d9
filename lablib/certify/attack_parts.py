"""What attacks are made of: the ball, margins, smoothed gradients, interval corners, random squares."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lablib.certify.chain import known_layers
from lablib.certify.rules import RULES, run
from lablib.certify.skips import Skip
from lablib.layers.distance import LInfDistance, LInfDistanceConv2d, SortNetConv2d, SortNetLayer
from lablib.layers.intact import is_chain, plain_class
from lablib.layers.sequential import ConvexResidual
from lablib.ops import linf_dist
from lablib.ops.rounding import EPS64

_DENSE, _CONV = (LInfDistance, SortNetLayer), (LInfDistanceConv2d, SortNetConv2d)


class Ball:
    """The points within ``eps`` of ``x`` in linf or l2, in exact arithmetic, that lie in [lower, upper].

    Raises:
        ValueError: for another norm, a radius that is negative or not finite, or x outside [lower, upper].
    """

    def __init__(self, x: Tensor, eps: float | Tensor, norm: str, lower: float, upper: float):
        if norm not in ("linf", "l2"):
            raise ValueError(f"attacks are for linf and l2, got {norm!r}")
        if not ((x >= lower).all() and (x <= upper).all()):
            raise ValueError(
                f"inputs must lie in [{lower:g}, {upper:g}]; give raw pixels, or the valid range as lower= and upper="
            )
        self.x, self.norm, self.valid = x, norm, (lower, upper)
        self.eps = torch.as_tensor(eps, dtype=torch.float64, device=x.device).expand(len(x))
        if not ((self.eps >= 0).all() and self.eps.isfinite().all()):
            raise ValueError("eps must be finite and not negative")
        wide = x.double()
        reach = self.per_sample(self.eps)
        # ends rounded inward: no float between them is farther than eps from x
        low, high = (wide - reach).to(x.dtype), (wide + reach).to(x.dtype)
        infinity = torch.full_like(x, torch.inf)
        low = torch.where(_gap(wide, low.double()) > reach, torch.nextafter(low, infinity), low)
        high = torch.where(_gap(wide, high.double()) > reach, torch.nextafter(high, -infinity), high)
        self.low, self.high = low.clamp(min=lower), high.clamp(max=upper)

    def per_sample(self, values: Tensor) -> Tensor:
        """(B,) -> (B, 1, ...), to broadcast against points."""
        return values.reshape(-1, *[1] * (self.x.dim() - 1))

    def distance(self, points: Tensor) -> Tensor:
        """Return the distances from x (B,) float64, rounded up."""
        gap = _gap(points.double(), self.x.double()).flatten(1)
        largest = gap.amax(1)
        if self.norm == "linf":
            return largest
        # divided by the largest, no square that counts underflows; then sums and roots, a rounding each
        size = (gap / largest.clamp(min=1e-300)[:, None]).square().sum(1).sqrt()
        return largest * size * (1.0 + (gap.shape[1] + 8) * EPS64)

    def project(self, points: Tensor) -> Tensor:
        """Return points of the ball near ``points``."""
        if self.norm == "linf":
            return torch.minimum(torch.maximum(points, self.low), self.high)
        points = points.clamp(*self.valid)
        gap = points.double() - self.x.double()
        size = self.per_sample(gap.flatten(1).norm(dim=1)).clamp(min=1e-300)
        share = (self.per_sample(self.eps) * (1.0 - 1e-6) / size).clamp(max=1.0)
        points = (self.x.double() + share * gap).to(points.dtype).clamp(*self.valid)
        inside = self.per_sample(self.distance(points) <= self.eps)
        return torch.where(inside, points, self.x)

    def random(self, generator: torch.Generator) -> Tensor:
        """Return a random point per sample: uniform in linf; in l2 a random direction and distance."""
        noise = torch.rand(self.x.shape, generator=generator, device=self.x.device, dtype=self.x.dtype)
        reach = self.per_sample(self.eps).to(self.x.dtype)
        if self.norm == "l2":
            noise = torch.randn(self.x.shape, generator=generator, device=self.x.device, dtype=self.x.dtype)
            share = torch.rand(len(self.x), generator=generator, device=self.x.device, dtype=self.x.dtype)
            noise = noise / self.per_sample(noise.flatten(1).norm(dim=1).clamp(min=1e-12))
            return self.project(self.x + self.per_sample(share) * reach * noise)
        return self.project(self.x + (2 * noise - 1) * reach)

    def step(self, points: Tensor, direction: Tensor, share: float) -> Tensor:
        """Return points moved by ``share`` eps along ``direction`` (its signs in linf) and projected."""
        if self.norm == "l2":
            size = self.per_sample(direction.flatten(1).norm(dim=1)).clamp(min=1e-30)
            direction = direction / size
        else:
            direction = direction.sign()
        return self.project(points + share * self.per_sample(self.eps).to(points.dtype) * direction)

    def between(self, points: Tensor, share: Tensor) -> Tensor:
        """Return x + share (points - x), (B,) shares in [0, 1]."""
        return self.project(self.x + self.per_sample(share) * (points - self.x))

    def corner(self, up: Tensor) -> Tensor:
        """Return the corner of the linf ball that is high where ``up``; in l2 projected onto the ball."""
        return self.project(torch.where(up, self.high, self.low))


def _gap(a: Tensor, b: Tensor) -> Tensor:
    """Return |a - b| of float64 numbers, rounded up; exact where the difference is a float64 number.

    The rounding error of a sum is itself a float: Knuth, The Art of Computer Programming 2, section 4.2.2.
    """
    gap = a - b
    taken = gap - a
    lost = (a - (gap - taken)) - (b + taken)
    size = gap.abs()
    return torch.where(lost * gap.sign() > 0, torch.nextafter(size, torch.full_like(size, torch.inf)), size)


def margins(network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Return computed f_y - max_j f_j (B,) in float64: wrong where it is not positive, ties included."""
    with torch.no_grad():
        return margins_of(run(network, x), labels)


def margins_of(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return f_y - max_j f_j (B,) in float64 of outputs (B, C)."""
    f, rows = outputs.detach().double(), labels[:, None]
    return f.gather(1, rows)[:, 0] - f.scatter(1, rows, -torch.inf).amax(1)


def smooth_forward(network: nn.Module) -> Callable[[Tensor, float], Tensor]:
    """Return (x, p) -> outputs: the network's own values, with the gradient of l_p neurons in distance layers.

    (|d_i| / y)^(p-1) instead of 1 at the maximum and 0 elsewhere: every input near the maximum counts.
    """

    def forward(x: Tensor, p: float) -> Tensor:
        return _smooth(network, x, p)

    return forward


def _smooth(module: nn.Module, x: Tensor, p: float) -> Tensor:
    if is_chain(module):
        for layer in module:
            x = _smooth(layer, x, p)
        return x
    kind = plain_class(module)
    if kind is ConvexResidual:
        return (1.0 - module.alpha) * x + module.alpha * _smooth(module.branch, x, p)
    if kind not in _DENSE + _CONV:
        return run(module, x)
    with torch.no_grad():
        exact = module(x)
    rows = module.patches(x) if kind in _CONV else x
    soft = linf_dist.lp_distance(rows.flatten(0, -2), module.weight.detach(), p)
    soft = soft.reshape(*rows.shape[:-1], -1)
    soft = module.as_images(soft, x) if kind in _CONV else soft
    return exact + (soft - soft.detach())


def interval_corner(network: nn.Module, ball: Ball, labels: Tensor, targets: Tensor) -> Tensor | None:
    """Return the corner of the ball that interval bounds of f_y - f_t call worst, or None for unknown layers.

    The lower bound of f_y - f_t is a function of all lower and upper ends; each input goes to the end that the
    bound depends on more.
    """
    try:
        layers = known_layers(network)
    except ValueError:
        return None
    with torch.enable_grad():
        low, high = ball.low.detach().requires_grad_(), ball.high.detach().requires_grad_()
        box = _through(layers, low, high)
        gap = box[0].gather(1, labels[:, None]) - box[1].gather(1, targets[:, None])
        slopes = torch.autograd.grad(gap.sum(), (low, high), allow_unused=True)
    down, up = (torch.zeros_like(ball.x) if slope is None else slope for slope in slopes)
    return ball.corner(up.abs() >= down.abs())


def _through(layers: list[nn.Module], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Interval bounds without allowance for rounding, differentiable."""
    for layer in layers:
        if plain_class(layer) is ConvexResidual:
            inner = _through(known_layers(layer.branch), low, high)
            low, high = ((1 - layer.alpha) * a + layer.alpha * b for a, b in zip((low, high), inner))
        elif plain_class(layer) is Skip:
            inner = _through(known_layers(layer.inner), low, high)
            both = (torch.cat(ends, -1) for ends in zip(inner, (low, high)))
            low, high = (end.to(low.dtype) for end in RULES[nn.Linear].box(layer.join, *both))
        else:
            ends = RULES[plain_class(layer)].box(layer, low, high)
            low, high = (end.to(low.dtype) for end in ends)
    return low, high


def squares(
    network: nn.Module, ball: Ball, labels: Tensor, start: Tensor, steps: int, generator: torch.Generator
) -> Tensor:
    """Return points found by random search from ``start``: a square (of a vector: a run) of inputs goes to an end.

    A change is kept where it lowers the margin. The share of inputs changed falls from 30 % to 1 %.
    """
    points, best = start.clone(), margins(network, start, labels)
    for step in range(steps):
        share = 0.3 * (1.0 / 30.0) ** (step / max(1, steps - 1))
        up = torch.rand(len(points), generator=generator, device=points.device) < 0.5
        ends = torch.where(ball.per_sample(up), ball.high, ball.low)
        trial = ball.project(torch.where(_patches(points, share, generator), ends, points))
        values = margins(network, trial, labels)
        better = values < best
        points, best = torch.where(ball.per_sample(better), trial, points), torch.where(better, values, best)
    return points


def _patches(like: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return masks of the shape of ``like``: one square per sample, or one run for vectors."""
    axes = like.shape[2:] if like.dim() == 4 else like.shape[-1:]
    mask = torch.ones((), dtype=torch.bool, device=like.device)
    for axis, length in enumerate(axes):
        size = max(1, round(length * share ** (1.0 / len(axes))))
        first = torch.randint(length - size + 1, (len(like),), generator=generator, device=like.device)
        place = torch.arange(length, device=like.device)
        inside = (place >= first[:, None]) & (place < first[:, None] + size)
        shape = [len(like)] + [1] * (like.dim() - 1)
        shape[like.dim() - len(axes) + axis] = length
        mask = mask & inside.reshape(shape)
    return mask.expand(like.shape)
