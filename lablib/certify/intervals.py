"""Interval bounds through a chain of known layers, rounded outward.

A box [lower, upper] goes through the layers one by one (interval bound propagation: Gowal et al., arXiv
1810.12715; for distance neurons, arXiv 2102.05363, section 5, and the SortNet paper, arXiv 2210.01787). After
each layer the box is widened by what rounding may add, on both sides: to the ends computed here, and to the
layer as anyone computes it. By induction every box contains *both* the exact value and every computed value of
its layer, for all inputs of the box. A class that wins over the whole box therefore is the class of the real
function and of every float evaluation of it, in any order of summation.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.certify.arithmetic import arithmetic, check_size, outward
from lablib.certify.chain import check_inputs, check_labels, check_logits, known_layers
from lablib.certify.final import split_final
from lablib.certify.progress import bar
from lablib.certify.rounding import ROWS, bound_radius
from lablib.certify.rules import RULES, Box
from lablib.certify.skips import Skip
from lablib.layers.intact import plain_class
from lablib.layers.sequential import ConvexResidual, LipschitzSequential


def bound_logits(network: nn.Module, lower: Tensor, upper: Tensor) -> Box:
    """Return proven bounds (lower, upper) of the outputs over the box, exact and computed ones alike.

    Args:
        network: a chain of known layers in evaluation mode, float32 or float64.
        lower, upper: (B, ...), lower <= upper, in the network's dtype.

    Returns:
        (B, C) twice, in the network's dtype.

    Raises:
        ValueError: for a network that is not covered, or boxes that do not fit.
    """
    layers = prepare(network, lower, upper)
    with torch.no_grad(), parametrize.cached():
        return through(layers, (lower, upper))


def bound_margins(network: nn.Module, lower: Tensor, upper: Tensor, labels: Tensor) -> Tensor:
    """Return proven lower bounds of f_y - f_j over the box, (B, C); infinity at j = y.

    Where the network ends in a linear layer, f_y - f_j is bounded as one function of its inputs (rows w_y -
    w_j), which is tighter than the difference of two bounds. Positive means: for every input of the box, exact
    and computed f_y are larger than f_j.

    Args, Raises: as :func:`bound_logits`; ``labels`` (B,) integers.
    """
    layers = prepare(network, lower, upper)
    with torch.no_grad(), parametrize.cached():
        body, final = split_final(layers)
        low, high = through(body, (lower, upper))
        check_logits(low)
        classes = low.shape[1] if final is None else len(final.layer.weight)
        y = check_labels(labels, len(low), classes).to(low.device)
        if final is not None:
            return final.bound_margins((low, high), y)
        # In float64 the difference of two float32 numbers is positive only if the true one is.
        own, others = low.double().gather(1, y[:, None]), high.double()
        return (own - others).scatter(1, y[:, None], torch.inf)


def bound_radius_box(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    lower: float = 0.0,
    upper: float = 1.0,
    *,
    tolerance: float = 1e-4,
    margins: bool = True,
    progress: bool = False,
) -> np.ndarray:
    """Return linf radii certified by interval bounds within the valid box: 0 where the class is wrong.

    For every x' in [lower, upper] with |x' - x|_inf <= r, the class of the exact function and the class that
    floats compute at x' are y. r is the largest radius found at which :func:`bound_margins` is positive
    (regula falsi with bisections, all samples of a block side by side; the radius returned was itself
    checked), or the radius of :func:`~lablib.certify.rounding.bound_radius` where that is larger.

    Args:
        network: a chain of known layers in evaluation mode.
        x: (B, ...) within [lower, upper], in the network's dtype.
        labels: (B,) integers.
        lower, upper: the valid values of each input (in the network's dtype), pixels in [0, 1] by default.
        tolerance: how far below the largest such radius the search may stop.
        margins: take Lipschitz margins into account where the network states a constant in linf.
        progress: show a bar (with tqdm, where it is installed).

    Returns:
        (B,) float32.

    Raises:
        ValueError: as :func:`bound_margins`; for inputs outside the box, or a tolerance that is not positive.
    """
    known_layers(network)
    check_inputs(network, x)
    if not lower < upper or not tolerance > 0:
        raise ValueError(
            f"lower < upper and a positive tolerance expected, got {lower}, {upper}, {tolerance}"
        )
    if not ((x >= lower).all() and (x <= upper).all()):
        raise ValueError(
            f"inputs must lie in [{lower:g}, {upper:g}]; give raw pixels, or the valid range as lower= and upper="
        )
    y = check_labels(labels, len(x)).to(x.device)
    lipschitz = margins and isinstance(network, LipschitzSequential) and "linf" in network.norms
    found = []
    with torch.no_grad(), parametrize.cached():
        for start in bar(range(0, len(x), ROWS), "interval radii", progress):
            part, own = x[start : start + ROWS], y[start : start + ROWS]
            known = bound_radius(network, part, own, "linf") if lipschitz else np.zeros(len(part), np.float32)
            found.append(np.maximum(_search(network, part, own, (lower, upper), tolerance, known), known))
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _search(
    network, x: Tensor, labels: Tensor, valid: tuple[float, float], tolerance: float, known
) -> np.ndarray:
    """Return the largest radii found (float32) at which the margins over the ball, cut to ``valid``, are positive."""

    def worst(eps: np.ndarray, rows: np.ndarray) -> np.ndarray:
        pick = torch.from_numpy(rows).to(x.device)
        centre = x[pick]
        reach = torch.from_numpy(eps).to(centre).reshape(-1, *[1] * (x.dim() - 1))
        infinity = torch.full_like(reach, torch.inf)
        low = torch.nextafter(centre - reach, -infinity).clamp(min=valid[0])
        high = torch.nextafter(centre + reach, infinity).clamp(max=valid[1])
        return bound_margins(network, low, high, labels[pick]).amin(1).double().cpu().numpy()

    low, high = np.zeros(len(x), np.float32), np.full(len(x), valid[1] - valid[0], np.float32)
    at_low, at_high = worst(low, np.arange(len(x))), worst(high, np.arange(len(x)))
    low = np.where(at_high > 0, high, low)
    active = np.flatnonzero((at_low > 0) & (at_high <= 0))
    for step in range(64):
        active = active[high[active] - low[active] > tolerance]
        if not len(active):
            break
        a, b, fa, fb = (v[active].astype(np.float64) for v in (low, high, at_low, at_high))
        # A little to either side of the chord's root, in turn, closes in on it from both; bisection now and
        # then sees to it that no shape of the margin makes this slow.
        aim = a + (b - a) * fa / (fa - fb) + (0.4 if step % 2 else -0.4) * tolerance
        middle = known[active] if step == 0 else (a + b) / 2
        aim = np.where((step % 3 == 0) | ~np.isfinite(aim), middle, aim)
        eps = np.clip(aim, a + 0.2 * tolerance, b - 0.2 * tolerance).astype(np.float32)
        value = worst(eps, active)
        passed = value > 0
        up, down = active[passed], active[~passed]
        low[up], at_low[up] = eps[passed], value[passed]
        high[down], at_high[down] = eps[~passed], value[~passed]
    return np.where(at_low > 0, low, 0.0).astype(np.float32)


def prepare(network: nn.Module, lower: Tensor, upper: Tensor) -> list[nn.Module]:
    """Return the layers of ``network`` after checking it and the box.

    Raises:
        ValueError: for a network that is not covered, or boxes that do not fit or are empty.
    """
    layers = known_layers(network)
    check_inputs(network, lower, upper)
    if not (lower <= upper).all():
        raise ValueError("the box is empty: lower must not be larger than upper")
    return layers


def through(layers: list[nn.Module], box: Box) -> Box:
    """Return the box (B, ...) behind known layers, of exact and computed values."""
    for layer in layers:
        kind = plain_class(layer)
        if kind is ConvexResidual:
            box = _residual(layer, box)
        elif kind is Skip:
            box = _skip(layer, box)
        else:
            box = _layer(layer, box)
    return box


def _layer(layer: nn.Module, box: Box) -> Box:
    rule = RULES[plain_class(layer)]
    low, high = rule.box(layer, *box)
    inputs, outputs = _size(*box), _size(low, high)
    theirs = rule.local(layer, inputs, outputs, arithmetic(box[0].dtype))
    check_size(outputs, torch.zeros_like(outputs) if theirs is None else theirs, box[0].dtype)
    if theirs is None:  # values are only moved
        return low, high
    own = rule.local(layer, inputs, outputs, arithmetic(low.dtype))
    return outward(low, high, theirs + own, box[0].dtype)


def _residual(layer: ConvexResidual, box: Box) -> Box:
    """(1 - alpha) x + alpha branch(x): the boxes add; four roundings of nonnegative multiples."""
    alpha = layer.alpha.double()
    inner = through(known_layers(layer.branch), box)
    low, high = ((1 - alpha) * a.double() + alpha * b.double() for a, b in zip(box, inner))
    size = (1 - alpha) * _size(*box).double() + alpha * _size(*inner).double()
    form = arithmetic(box[0].dtype)
    width = (form.relative(4) + arithmetic(torch.float64).relative(4)) * size + 8 * form.tiny
    check_size(size, width, box[0].dtype)
    return outward(low, high, width, box[0].dtype)


def _skip(layer: Skip, box: Box) -> Box:
    inner = through(known_layers(layer.inner), box)
    return _layer(layer.join, tuple(torch.cat(ends, -1) for ends in zip(inner, box)))


def _size(lower: Tensor, upper: Tensor) -> Tensor:
    return torch.maximum(-lower, upper)  # of |z| for lower <= z <= upper
