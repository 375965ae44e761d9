"""The true least and largest slope of small piecewise linear networks, by branch and bound over their regions.

f is affine on each region of the inputs (one outcome of every comparison), so the extreme entries of Clarke's
generalised Jacobian, over the space or over a box, are the extreme gradients of the regions that have an interior.
The tree decides comparisons one by one, first layers first. A node is a polytope in which the first layers are one
affine map; the layers behind are bounded by intervals (:mod:`lablib.ops.slopes`). A linear program (HiGHS through
SciPy) finds the largest ball in it: none, and the node is dropped; else the gradient at its centre, if no
comparison is tied there, is a slope that f has. Nodes whose bound does not beat the slopes found are dropped too.
"""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from lablib.certify.chain import in_float64
from lablib.certify.pieces import Affine, Piece, Sort, monotone_parts, pieces
from lablib.certify.polytopes import Space
from lablib.certify.slope_search import Search

LIMIT = 20_000  # nodes, a few milliseconds each
COMPARISONS = 2_000  # a tree this deep would never end
AGREEMENT = 1e-6  # of the gradient that torch computes at a point with the slope found there


@dataclasses.dataclass(frozen=True)
class ExactSlopes:
    """Both ends of the least and the largest slope of each output asked for (O) in each input asked for (I').

    Attributes:
        low, high: (O, I'), the least and the largest slope found; NaN where none was.
        low_points, high_points: (O, I', I) inputs around which the slope is that.
        low_bound, high_bound: (O, I'), no region that was not dropped as empty has a slope outside.
        complete: whether the search ended; then the bounds are the slopes found, up to rounding.
        stopped: why it did not, in a sentence, else "".
        nodes: how many there were.
        seconds: time taken.
    """

    low: np.ndarray
    high: np.ndarray
    low_points: np.ndarray
    high_points: np.ndarray
    low_bound: np.ndarray
    high_bound: np.ndarray
    complete: bool
    stopped: str
    nodes: int
    seconds: float


def exact_slopes(
    model: nn.Module,
    lower: Sequence[float] | np.ndarray | float | None = None,
    upper: Sequence[float] | np.ndarray | float | None = None,
    inputs: Sequence[int] | None = None,
    outputs: Sequence[int] | None = None,
    limit: int = LIMIT,
    *,
    progress: bool = False,
) -> ExactSlopes:
    """Return the least and the largest slope of f_o in x_i over all regions with an interior.

    What "exact" means. Slopes found are gradients at a point, computed in float64 and confirmed by torch's
    gradient there: f has them. The other end, ``low_bound`` and ``high_bound``, is proven by interval bounds,
    rounding included, for every node that was kept or outweighed. It is *not* proven that what was dropped as empty
    is empty: HiGHS works in floats, to 1e-9. Coordinates are scaled to [-1, 1] (to the size of the first biases
    where the box is infinite); regions that hold no ball of radius 1e-8 there, or that lie beyond a million, are
    not seen, and a comparison whose sides differ by less than 1e-13 of the largest weights counts as a tie.
    :func:`~lablib.certify.slopes.certify_slopes` is proven without such provisos, and wider.

    The number of regions grows exponentially with the number of inputs: for networks of some ten units per layer
    and a few inputs. Ctrl-C ends the search and returns what it has.

    Args:
        model: a chain of linear layers, shifts, scales, sorts, absolute values and (leaky) ReLU, or a
            MonotoneNetwork without a head; in evaluation mode.
        lower, upper: the box, numbers or (I,); None or infinities: no bound on that side.
        inputs, outputs: which slopes to look for; default all.
        limit: how many nodes may be cut in two; then the search stops and returns the ends reached so far.
        progress: show a bar.

    Raises:
        ValueError: for layers that are not made of linear pieces, a network far too large, an empty box, or
            numbers so far apart that floats do not do.
    """
    began = time.perf_counter()
    parts = monotone_parts(model)
    if parts.head is not None:
        raise ValueError(
            "a network with a head is not piecewise linear; look for the slopes of the same network without one: the "
            "head multiplies them by at most 1/4 (sigmoid) or 1 (softplus)"
        )
    steps, size = pieces(parts.network)
    count = sum(_comparisons(step) for step in steps)
    if count > COMPARISONS:
        raise ValueError(
            f"the network makes {count} comparisons, and the search ends only for small ones (at most "
            f"{COMPARISONS}); use certify_slopes, or take a smaller one"
        )
    if not isinstance(limit, int) or limit < 1:
        raise ValueError(f"limit must be a whole number of nodes, at least 1, got {limit}")
    width = len([step for step in steps if isinstance(step, Affine)][-1].weight)
    rows = _chosen(outputs, width, "outputs")
    columns = _chosen(inputs, size, "inputs")
    shift = np.zeros((width, size)) + (0.0 if parts.added is None else parts.added)
    search = Search(steps, shift, np.ix_(rows, columns), Space(steps, size, lower, upper))
    search.run(limit, progress)
    _confirm(parts.network, shift, search, rows, columns)
    (low, low_points), (high, high_points) = search.found
    bounds = search.bounds()
    return ExactSlopes(
        low=np.where(np.isfinite(low), low, np.nan),
        high=np.where(np.isfinite(high), high, np.nan),
        low_points=low_points,
        high_points=high_points,
        low_bound=bounds[0],
        high_bound=bounds[1],
        complete=not search.stopped,
        stopped=search.stopped,
        nodes=search.nodes,
        seconds=time.perf_counter() - began,
    )


def _comparisons(step: Piece) -> int:
    if isinstance(step, Sort):
        return step.groups * step.size * (step.size - 1) // 2
    return 0 if isinstance(step, Affine) else len(step.slope)


def _chosen(asked: Sequence[int] | None, count: int, name: str) -> np.ndarray:
    if asked is None:
        return np.arange(count)
    index = np.asarray(asked)
    if (
        index.ndim != 1
        or not len(index)
        or index.dtype.kind not in "iu"
        or not ((index >= 0) & (index < count)).all()
    ):
        raise ValueError(f"{name} are numbers from 0 to {count - 1}, got {asked!r}")
    return index


def _confirm(
    network: nn.Module, shift: np.ndarray, search: Search, rows: np.ndarray, columns: np.ndarray
) -> None:
    """Compare each slope found with the gradient that torch computes there, in float64."""
    double = in_float64(network)
    for found, points in search.found:
        for r, c in zip(*np.nonzero(np.isfinite(found))):
            x = torch.from_numpy(points[r, c])[None].requires_grad_()
            (gradient,) = torch.autograd.grad(double(x)[0, rows[r]], x)
            slope = float(gradient[0, columns[c]]) + shift[rows[r], columns[c]]
            if abs(slope - found[r, c]) > AGREEMENT * search.scale:
                raise ValueError(
                    f"the gradient is {slope:.6g} where the search found {found[r, c]:.6g}: the numbers of this "
                    "network are too far apart for floats; scale inputs or weights to about 1"
                )
