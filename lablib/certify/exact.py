"""The true robust radius of small networks in linf, by mixed-integer programming: how tight certificates are.

    minimise eps   subject to   |x' - x|_inf <= eps,  x' in the valid box,  f_y(x') <= f_t(x')

for each other class t (Tjeng, Xiao, Tedrake, "Evaluating robustness of neural networks with mixed integer
programming", arXiv 1711.07356; here for sorts, distances and SortNet neurons as well). Solved by HiGHS through
SciPy. Unlike ``bound_*`` this is not a proof: HiGHS works in floats, with constraints satisfied to 1e-7 and its
gap reported; :class:`ExactRadius` keeps both ends. The upper end is a point, found by HiGHS and confirmed by
evaluating the network in float64.
"""

import dataclasses
import time

import numpy as np
import torch
from torch import Tensor, nn

from lablib.certify.chain import check_inputs, check_labels, check_logits, in_float64, known_layers
from lablib.certify.milp import Program, check_pieces
from lablib.certify.progress import bar
from lablib.certify.rules import run

# HiGHS satisfies constraints to 1e-7. Carried through a few layers that is of the order of 1e-6 in eps, by
# which the lower end is moved down; a margin, not a proof.
TOLERANCE = 1e-6
AGREEMENT = 1e-5  # of both ends, where the radius counts as found
BINARIES = 20_000


@dataclasses.dataclass(frozen=True)
class ExactRadius:
    """Both ends of the true radius of one sample.

    Attributes:
        lower: no smaller perturbation changes the class, to the solver's tolerance.
        upper: distance of ``point``; infinity where none was found (up to ``limit``, if ``optimal``).
        point: (...) float64 input whose class is not y, None where there is none.
        optimal: whether the radius was found: the search was not stopped by time, and the ends agree to 1e-5
            (or no point exists up to ``limit``). They do not where HiGHS' tolerance is too coarse for the
            network, say with logits of 1e-6: its points then are no attacks. Scale the outputs up.
        seconds: time taken.
    """

    lower: float
    upper: float
    point: np.ndarray | None
    optimal: bool
    seconds: float


def exact_radius(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    lower: float = 0.0,
    upper: float = 1.0,
    *,
    limit: Tensor | np.ndarray | None = None,
    seconds: float = 60.0,
    progress: bool = False,
) -> list[ExactRadius]:
    """Return the linf robust radius within the valid box for each sample.

    Covers chains of linear layers, convolutions, pooling by averages, shifts and scales, (leaky) ReLU, absolute
    value, sorts, linf-distance and SortNet layers: pieces that are linear. Exponential in their number, so for
    networks of some hundred neurons.

    Args:
        network: in evaluation mode.
        x: (B, ...) within [lower, upper].
        labels: (B,).
        limit: (B,), distances at which an attack is known: it need only be looked for below.
        seconds: per sample, shared by its target classes.
        progress: show a bar.

    Raises:
        ValueError: for layers that are not covered (tanh, splines, max pooling, ...), a network too large,
            or inputs that do not fit.
    """
    known_layers(network)
    check_pieces(network)
    check_inputs(network, x)
    if not lower < upper or not ((x >= lower).all() and (x <= upper).all()):
        raise ValueError(
            f"inputs must lie in [{lower:g}, {upper:g}]; give raw pixels, or the valid range as lower= and upper="
        )
    if not seconds > 0:
        raise ValueError(f"the time must be positive, got {seconds}")
    with torch.no_grad():
        classes = check_logits(run(network, x[:1])).shape[1] if len(x) else 2
    y = check_labels(labels, len(x), classes)
    double = in_float64(network)
    limits = np.full(len(x), upper - lower) if limit is None else np.asarray(limit, dtype=np.float64)
    if limits.shape != (len(x),):
        raise ValueError(f"limit (B,) expected, got shape {limits.shape}")
    return [
        _one(double, x[i : i + 1], int(y[i]), (lower, upper), min(limits[i], upper - lower), seconds)
        for i in bar(range(len(x)), "exact radii", progress)
    ]


def _one(
    network, x: Tensor, label: int, valid: tuple[float, float], limit: float, seconds: float
) -> ExactRadius:
    began = time.perf_counter()
    gaps = _gaps(network, x.double(), label)
    if (gaps <= 0).any():
        return ExactRadius(0.0, 0.0, x[0].double().numpy(), True, 0.0)
    centre = x.double().numpy()
    # room for the tolerance: an attack exactly at the limit must not be cut off
    reach = limit * (1 + 1e-6) + 1e-6
    low, high = np.maximum(centre - reach, valid[0]), np.minimum(centre + reach, valid[1])
    program = Program(low, high, BINARIES)
    outputs = program.through([network])
    least, best, point, optimal = np.inf, np.inf, None, True
    targets = [target for target in np.argsort(gaps) if target != label]
    for place, target in enumerate(targets):
        left = max(seconds - (time.perf_counter() - began), 0.01) / (len(targets) - place)
        found = program.nearest(centre, outputs, label, int(target), min(reach, best), left)
        least, optimal = min(least, found.bound), optimal and found.optimal
        if found.point is not None:
            confirmed = _confirm(network, x, label, found.point, valid)
            if confirmed is not None and confirmed[0] < best:
                best, point = confirmed
    least = min(least, best)
    whole = not np.isfinite(least)  # every program is infeasible: no attack within `reach`
    bound = limit if whole else max(0.0, least - TOLERANCE)
    agree = whole or best - bound <= AGREEMENT
    taken = time.perf_counter() - began
    return ExactRadius(float(min(bound, best)), float(best), point, bool(optimal and agree), taken)


def _confirm(network, x: Tensor, label: int, point: np.ndarray, valid: tuple[float, float]):
    """Return (distance, point) of a point near the solver's that the network in float64 gets wrong, or None."""
    centre = x.double()
    direction = torch.from_numpy(point).reshape(centre.shape) - centre
    for stretch in (0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3):
        trial = (centre + (1 + stretch) * direction).clamp(*valid)
        if (_gaps(network, trial, label) <= 0).any():
            return float((trial - centre).abs().max()), trial[0].numpy()
    return None


def _gaps(network: nn.Module, x: Tensor, label: int) -> np.ndarray:
    """Return f_y - f_j in float64 (C,); infinity at j = y."""
    with torch.no_grad():
        f = run(network, x)[0].numpy()
    gaps = f[label] - f
    gaps[label] = np.inf
    return gaps
