"""Attacks: points within a ball that a network gets wrong. What they find bounds robustness from *above*.

:func:`pgd` is projected gradient descent (Madry et al., arXiv 1706.06083). :func:`adaptive` is made for distance
networks, whose gradient is close to empty: a maximum hands it to one input. It takes the gradient of l_p
neurons on the values of the exact ones, goes for every class apart, starts where interval bounds see the worst
case (every pixel moves there), and ends with random squares (Andriushchenko et al., arXiv 1912.00049), which
need no gradient. Every point is checked on the network itself, within the ball in exact distance.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lablib.certify.attack_parts import Ball, interval_corner, margins, margins_of, smooth_forward, squares
from lablib.certify.chain import check_labels, check_logits
from lablib.certify.progress import bar
from lablib.certify.rules import run

Forward = Callable[[Tensor], Tensor]
EXPONENTS = (8.0, 256.0)  # of the l_p neurons that give the gradient, first and last step


def pgd(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    norm: str = "linf",
    *,
    steps: int = 100,
    restarts: int = 1,
    loss: str = "margin",
    lower: float = 0.0,
    upper: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the point with the smallest margin f_y - max_j f_j seen from random starts, steps of eps / 4.

    Args:
        network: any classifier, in evaluation mode.
        x: (B, ...) within [lower, upper].
        labels: (B,).
        eps: radius, one for all or (B,).
        norm: "linf" or "l2", of the ball.
        loss: "margin", or "ce" for cross entropy.
        generator: of the random starts; default one with a fixed seed.

    Returns:
        (B, ...), each within ``eps`` of ``x`` in exact arithmetic and within [lower, upper].

    Raises:
        ValueError: for unknown words, no steps, a network in training mode, or inputs outside the valid box.
    """
    labels = _check(network, x, labels, steps, restarts)
    if loss not in ("margin", "ce"):
        raise ValueError(f"the loss is 'margin' or 'ce', got {loss!r}")
    ball = Ball(x, eps, norm, lower, upper)
    generator = generator or torch.Generator(x.device).manual_seed(0)
    best = _Best(network, x, labels)
    for _ in range(restarts):
        start = ball.random(generator)
        _descend(network, ball, start, best, _loss(loss, labels), steps, lambda step: 0.25)
    return best.points


def adaptive(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    norm: str = "linf",
    *,
    steps: int = 100,
    targets: int | None = None,
    lower: float = 0.0,
    upper: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the point with the smallest margin seen by a chain of attacks made for distance networks.

    In order, each on the samples that still stand: the corner that interval bounds call worst, for each class;
    :func:`pgd`; descent with the gradients of l_p neurons, p rising from 8, towards each class, from the
    corner and from random starts; random squares.

    Args:
        targets: how many other classes to go for, those nearest first; default all.

    Other arguments, result and errors are those of :func:`pgd`.
    """
    labels = _check(network, x, labels, steps, 1)
    generator = generator or torch.Generator(x.device).manual_seed(0)
    best = _Best(network, x, labels)
    options = {"norm": norm, "lower": lower, "upper": upper}
    radius = torch.as_tensor(eps, dtype=torch.float64, device=x.device).expand(len(x))

    rows = best.standing()
    if len(rows):
        points = pgd(
            network, x[rows], labels[rows], radius[rows], steps=steps, generator=generator, **options
        )
        best.offer(points, rows)
    for target in _nearest(network, x, labels, targets).unbind(1):
        rows = best.standing()
        if not len(rows):
            break
        ball = Ball(x[rows], radius[rows], norm, lower, upper)
        towards = _towards(labels[rows], target[rows])
        starts = [ball.random(generator)]
        corner = interval_corner(network, ball, labels[rows], target[rows])
        if corner is not None:
            best.offer(corner, rows)
            starts.append(corner)
        for start in starts:
            inner = _Best(network, x[rows], labels[rows])
            forward = smooth_forward(network)
            _descend(network, ball, start, inner, towards, steps, _decay(steps), forward)
            best.offer(inner.points, rows)
    rows = best.standing()
    if len(rows):
        ball = Ball(x[rows], radius[rows], norm, lower, upper)
        best.offer(squares(network, ball, labels[rows], best.points[rows], 2 * steps, generator), rows)
    return best.points


def attacked_at(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    epsilons: list[float],
    norm: str = "linf",
    *,
    certified: Tensor | None = None,
    steps: int = 100,
    targets: int | None = None,
    lower: float = 0.0,
    upper: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the distance of the closest wrong point that :func:`adaptive` finds at any of ``epsilons``.

    Each eps, from the smallest, is tried only where it can change a count: not where a point within it is known,
    nor where it is certified.

    Args:
        certified: (B,), radii known to be safe.

    Other arguments and errors are those of :func:`adaptive`.

    Returns:
        (B,) float64, rounded up; 0 for samples that are wrong already, infinity where nothing was found.
    """
    labels = _check(network, x, labels, steps, 1)
    options = {"norm": norm, "lower": lower, "upper": upper}
    generator = generator or torch.Generator(x.device).manual_seed(0)
    distances = torch.where(margins(network, x, labels) <= 0, 0.0, torch.inf).double()
    safe = torch.zeros(len(x)) if certified is None else torch.as_tensor(certified)
    safe = safe.to(distances)
    for eps in sorted(epsilons):
        rows = torch.nonzero((distances > eps) & (safe < eps)).flatten()
        if not len(rows):
            continue
        own = labels[rows]
        ball = Ball(x[rows], eps, **options)
        found = adaptive(
            network, x[rows], own, eps, steps=steps, targets=targets, generator=generator, **options
        )
        broken = margins(network, found, own) <= 0
        closest = ball.distance(_pull(network, ball, found, own))
        distances[rows] = torch.where(broken, torch.minimum(closest, distances[rows]), distances[rows])
    return distances


def attacked_radius(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    norm: str = "linf",
    *,
    certified: Tensor | None = None,
    limit: float | None = None,
    rounds: int = 8,
    steps: int = 50,
    targets: int | None = None,
    lower: float = 0.0,
    upper: float = 1.0,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the smallest distance at which an attack was found, and the point: an upper bound of robustness.

    Per sample, doubling and then bisection on eps with :func:`adaptive`; a point found is pulled towards x as
    far as it stays wrong. 0 for samples that are wrong already, infinity where nothing was found.

    Args:
        certified: (B,), radii known to be safe: the search starts above them.
        limit: largest radius tried; default the whole valid box.
        rounds: attacks per sample.
        steps, targets, lower, upper, generator: of each attack.
        progress: show a bar.

    Returns:
        Radii (B,) float64, in exact arithmetic and rounded up; points (B, ...), x where nothing was found.

    Raises:
        ValueError: as :func:`adaptive`.
    """
    labels = _check(network, x, labels, steps, rounds)
    whole = (upper - lower) * (math.sqrt(x[0].numel()) if norm == "l2" and len(x) else 1.0)
    limit = whole if limit is None else float(limit)
    generator = generator or torch.Generator(x.device).manual_seed(0)
    safe = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    if certified is not None:
        safe = torch.as_tensor(certified, device=x.device).double().clamp(max=limit)
    wrong = margins(network, x, labels) <= 0
    radii = torch.where(wrong, 0.0, torch.inf).double()
    points = x.clone()
    for _ in bar(range(rounds), "attacking", progress):
        # failed so far: twice as far; found: half way to what is known to be safe or withstood the attack
        eps = torch.where(radii.isinf(), (2 * safe).clamp(min=limit / 32, max=limit), (safe + radii) / 2)
        rows = torch.nonzero(~wrong & (eps > safe)).flatten()
        if not len(rows):
            break
        ball = Ball(x[rows], eps[rows], norm, lower, upper)
        found = adaptive(
            network,
            x[rows],
            labels[rows],
            eps[rows],
            norm,
            steps=steps,
            targets=targets,
            lower=lower,
            upper=upper,
            generator=generator,
        )
        broken = margins(network, found, labels[rows]) <= 0
        safe[rows] = torch.where(broken, safe[rows], eps[rows])
        closest = _pull(network, ball, found, labels[rows])
        distance = torch.where(broken, ball.distance(closest), torch.inf)
        better = distance < radii[rows]
        radii[rows[better]] = distance[better]
        points[rows[better]] = closest[better]
        safe = torch.minimum(safe, radii)
    return radii, points


class _Best:
    """The point of smallest margin seen for each sample, evaluated on the network itself."""

    def __init__(self, network: nn.Module, x: Tensor, labels: Tensor):
        self.network, self.labels = network, labels
        self.points, self.margins = x.clone(), margins(network, x, labels)

    def standing(self) -> Tensor:
        """Return the samples that are still classified right."""
        return torch.nonzero(self.margins > 0).flatten()

    def offer(self, points: Tensor, rows: Tensor | None = None) -> None:
        """Evaluate ``points`` (of the samples ``rows``; default all) and keep those that are better."""
        rows = slice(None) if rows is None else rows
        self.keep(points, margins(self.network, points, self.labels[rows]), rows)

    def keep(self, points: Tensor, values: Tensor, rows: Tensor | slice) -> None:
        """Keep points whose margins ``values`` are below those so far."""
        rows = torch.arange(len(self.points), device=points.device)[rows]
        better = values < self.margins[rows]
        self.points[rows[better]], self.margins[rows[better]] = points[better].detach(), values[better]


def _descend(
    network: nn.Module,
    ball: Ball,
    point: Tensor,
    best: _Best,
    loss: Callable[[Tensor], Tensor],
    steps: int,
    share: Callable[[int], float],
    forward: Callable[[Tensor, float], Tensor] | None = None,
) -> None:
    """Go down ``loss`` (B,) from ``point`` by steps of ``share(step) * eps``; offer every point to ``best``."""
    for step in range(steps):
        exponent = EXPONENTS[0] * (EXPONENTS[1] / EXPONENTS[0]) ** (step / steps)
        with torch.enable_grad():
            at = point.detach().requires_grad_()
            outputs = run(network, at) if forward is None else forward(at, exponent)
            slope = torch.autograd.grad(loss(outputs).sum(), at)[0]
        best.keep(point, margins_of(outputs, best.labels), slice(None))
        if not len(best.standing()):
            return
        point = ball.step(point, -slope, share(step))
    best.offer(point)


def _loss(kind: str, labels: Tensor) -> Callable[[Tensor], Tensor]:
    rows = labels[:, None]

    def margin(f: Tensor) -> Tensor:
        return f.gather(1, rows)[:, 0] - f.scatter(1, rows, -torch.inf).amax(1)

    def entropy(f: Tensor) -> Tensor:
        return -nn.functional.cross_entropy(f, labels, reduction="none")

    return margin if kind == "margin" else entropy


def _towards(labels: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda f: (f.gather(1, labels[:, None]) - f.gather(1, targets[:, None]))[:, 0]


def _decay(steps: int) -> Callable[[int], float]:
    return lambda step: 0.02 + 0.48 * (1 + math.cos(math.pi * step / steps))


def _nearest(network: nn.Module, x: Tensor, labels: Tensor, count: int | None) -> Tensor:
    """Return the other classes by falling logit, (B, T)."""
    with torch.no_grad():
        f = run(network, x)
    order = f.scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)
    return order[:, : f.shape[1] - 1 if count is None else min(count, f.shape[1] - 1)]


def _pull(network: nn.Module, ball: Ball, points: Tensor, labels: Tensor, halvings: int = 12) -> Tensor:
    """Return points between x and ``points``, still wrong where those are, close to where the class changes."""
    near = torch.zeros(len(points), dtype=points.dtype, device=points.device)
    far, kept = torch.ones_like(near), points
    for _ in range(halvings):
        middle = (near + far) / 2
        trial = ball.between(points, middle)
        wrong = margins(network, trial, labels) <= 0
        near, far = torch.where(wrong, near, middle), torch.where(wrong, middle, far)
        kept = torch.where(ball.per_sample(wrong), trial, kept)
    return kept


def _check(network: nn.Module, x: Tensor, labels: Tensor, steps: int, restarts: int) -> Tensor:
    if network.training:
        raise ValueError("the network is in training mode; call eval() before attacking it")
    if steps < 1 or restarts < 1:
        raise ValueError(f"at least one step and one restart are needed, got {steps} and {restarts}")
    if x.dim() < 2 or not x.isfinite().all():
        raise ValueError(f"finite inputs (B, ...) with a batch axis expected, got shape {tuple(x.shape)}")
    with torch.no_grad():
        classes = check_logits(run(network, x[:1])).shape[1] if len(x) else 2
    return check_labels(labels, len(x), classes).to(x.device)
