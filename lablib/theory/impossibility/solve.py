"""Find an impossibility certificate: a linear program over all pairs of points, solved with a few of them.

With one budget lambda^y per logit (:mod:`.check` derives the inequality; w^{yz} = (lambda^y + lambda^z)/2):

    R = max r   over r and budgets with 0 <= lambda^y_j <= 1, sum_j lambda^y_j <= K,
    subject to  2r <= sum_j w^{yz}_j |a_j - b_j|   for all a in class y, b in class z, y < z.

Two classes need one budget only: r depends on lambda^1 + lambda^2, and the mean of two budgets is a budget.

*Constraint generation.* A few hundred pairs decide, but which? Repeat: solve the program with the pairs seen so far
(HiGHS); its optimum is an upper bound, its dual mu the proof. Ask the oracle for the pairs that a budget violates
most; its minimum over *all* pairs is a lower bound. Add those pairs. Stop when the bounds meet.

*Five things make it fast.* The optimum of a small program is an extreme point that many pairs violate, so the oracle
is asked at a mixture of the best budget so far and the new one (in-out separation; Ben-Ameur and Neto, Networks 49,
2007). Pairs that stay slack leave the program. Coordinates without budget are not in it (:mod:`.program`), and the
oracle does not see them, nor pairs above the upper bound. And a program on a few hundred points per class comes
first: its solution is a good start.

*Exactness.* The search is in floats; the certificate is not. mu and lambda are rounded to integers and their bounds
computed exactly, so that rounding costs tightness (about 1e-6) and never truth.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations

import numpy as np
from scipy.sparse import csr_array, hstack

from lablib.theory.impossibility.certificate import Certificate, budget_of, budget_rows
from lablib.theory.impossibility.check import difference, dual_bound
from lablib.theory.impossibility.exact import as_integers, coarse, digest, read_classes
from lablib.theory.impossibility.oracle import nearest, nearest_linf, weigh
from lablib.theory.impossibility.program import maximise

_WEIGHT_SUM = 1 << 40  # mu = integers / this
_DENOMINATOR = 1 << 24  # lambda = integers / this
_MIXTURE = 0.3  # share of the best budget in the next question to the oracle
_NEW_PAIRS = 150  # per round
_PATIENCE = 3  # rounds for which a slack pair stays
_START = 600  # points per class in the first stage
_FAR = 1e30  # above any distance, and finite

Progress = Callable[[int, float, float], None]


def solve(
    classes: Sequence[np.ndarray],
    *,
    names: Sequence[str] | None = None,
    scale: int | None = None,
    depth: int = 1,
    group: int = 1,
    tolerance: float = 1e-4,
    max_seconds: float = float("inf"),
    start: Certificate | None = None,
    compiled: bool | None = None,
    progress: Progress | None = None,
) -> Certificate:
    """Return a certificate with ``lower`` and ``upper`` bounds on R, above which no such network certifies a radius.

    What "certifies" means, and why R bounds it, stands in :mod:`.check`.

    Args:
        classes: per class an array (n_c, ...), of one dtype and shape per point.
        names: of the classes, default "0", "1", ...
        scale: for integer data, the value that counts as 1.0; default 255 for uint8, else 1.
        depth: number M of affine layers with sorts between them; 1 is a standard network of any depth.
        group: neurons G per sorted group; 2 is MaxMin. With M = 1 it plays no part.
        tolerance: stop at upper - lower <= tolerance * upper, or where R = half the l_inf separation.
        max_seconds: stop there with the bounds found so far, which are proven all the same.
        start: a certificate for the same points at another depth: its pairs and budgets are a good start, its
            separation is taken over.
        compiled: use numba; default: where it is installed.
        progress: called with (round, lower, upper) radius in data units.

    Raises:
        ValueError: for unusable points, names, depth, group, tolerance or start.
    """
    arrays = read_classes(classes)
    names = tuple(map(str, range(len(arrays)) if names is None else names))
    if len(set(names)) != len(names) or len(names) != len(arrays):
        raise ValueError(
            f"names {list(names)} do not tell {len(arrays)} classes apart; give one name per class"
        )
    if any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1 for n in (depth, group)):
        raise ValueError(f"depth {depth} and group {group} must be whole numbers of at least 1")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance {tolerance} must lie between 0 and 1")
    began = time.perf_counter()
    integers, scale = as_integers(arrays, scale)
    budget = budget_of(integers[0].shape[1], depth, group)
    if start is None:
        separation, separation_pair = _separation(integers, scale, compiled)
    elif start.scale != scale or start.digest != digest(arrays, start.statement):
        raise ValueError("start is a certificate about other points; leave it out or give one about these")
    else:
        separation, separation_pair = start.separation, start.separation_pair
    after_separation = time.perf_counter()
    search = _Search(integers, scale, budget, compiled, progress, began + max_seconds)
    if start is not None:
        search.begin_with(start)
    sizes = tuple(map(len, arrays))
    stride = -(-max(sizes) // _START)
    if start is None and stride > 1:
        search.run(tolerance=0.02, stride=stride)
    enough = float(separation) / 2
    search.run(tolerance=tolerance, stride=1, enough=enough)
    pairs, weights = search.rounded_dual()
    budgets = search.rounded_budgets()
    seconds = time.perf_counter() - began
    certificate = Certificate(
        names=names,
        sizes=sizes,
        dimension=integers[0].shape[1],
        norm="linf",
        depth=int(depth),
        group=int(group),
        budget=budget,
        digest="",
        scale=scale,
        pairs=pairs,
        weights=weights,
        weight_sum=sum(weights),
        bound=dual_bound(integers, scale, pairs, weights, budget),
        budgets=budgets,
        denominator=_DENOMINATOR,
        value=_exact_value(integers, scale, budgets, compiled),
        separation=separation,
        separation_pair=separation_pair,
        run={
            "seconds": round(seconds, 2),
            "separation_seconds": round(after_separation - began, 2),
            "oracle_seconds": round(search.oracle_seconds, 2),
            "program_seconds": round(search.program_seconds, 2),
            "rounds": search.rounds,
            "tolerance": tolerance,
        },
    )
    return dataclasses.replace(certificate, digest=digest(arrays, certificate.statement))


class _Search:
    """Constraint generation: the pairs in play, the best budgets, and the two bounds.

    Inside, one unit is the range of the data, so that the numbers are of order one; ``unit`` turns it into the
    data's own.
    """

    def __init__(self, integers, scale, budget, compiled, progress, deadline):
        low = min(int(points.min()) for points in integers)
        reach = max(max(int(points.max()) for points in integers) - low, 1)
        try:
            self.unit = reach / scale
        except OverflowError:
            raise ValueError(
                "the values span more than a float can hold; divide the data by a constant"
            ) from None
        self.points = [((points - low) / reach).astype(np.float32) for points in integers]
        self.spread = np.std(np.concatenate([part[:1000] for part in self.points]), axis=0)
        self.budget, self.compiled, self.progress, self.deadline = budget, compiled, progress, deadline
        self.rows = budget_rows(len(integers))
        self.row_of = [0, 0] if self.rows == 1 else list(range(self.rows))
        width = self.points[0].shape[1]
        self.best = np.full((self.rows, width), min(1.0, budget / width))
        self.pairs = np.zeros((0, 4), dtype=np.int64)
        self.mass = np.zeros(0)
        self.active = np.zeros(self.rows * width, dtype=bool)
        self.rounds, self.oracle_seconds, self.program_seconds = 0, 0.0, 0.0

    def begin_with(self, certificate: Certificate) -> None:
        """Take over the pairs and budgets of another certificate for the same points."""
        self.pairs = np.array(certificate.pairs, dtype=np.int64)
        best = np.zeros_like(self.best)
        for row, entries in zip(best, certificate.budgets):
            for coordinate, weight in entries:
                row[coordinate] = weight / certificate.denominator * self.budget / certificate.budget
        self.best = np.minimum(best, 1.0)

    def run(self, tolerance: float, stride: int, enough: float = float("inf")) -> None:
        """Add pairs of every ``stride``-th point until the bounds are within ``tolerance`` of each other.

        ``enough``: stop as soon as the lower bound is at this radius (data units), where the cap takes over.
        """
        parts = [points[::stride] for points in self.points]
        value = 0.0
        if not len(self.pairs):
            value, found = self._ask(parts, stride, self.best, _FAR)
            self.pairs = self._unseen(found)
        idle = np.zeros(len(self.pairs), dtype=int)
        while True:
            self.rounds += 1
            optimum = self._solve_program()
            upper, new, self.mass = optimum.radius, optimum.budgets, optimum.mass
            if self.progress:
                self.progress(self.rounds, value * self.unit, upper * self.unit)
            done = upper - value <= tolerance * upper or value * self.unit >= enough
            if done or time.perf_counter() > self.deadline:
                return
            # A mixture may violate only pairs that the new budgets already respect: then ask at those themselves.
            for share in (_MIXTURE, 0.0):
                asked = share * self.best + (1 - share) * new
                attained, found = self._ask(parts, stride, asked, upper)
                if attained > value:
                    value, self.best = attained, asked
                fresh = self._unseen(found)
                if len(fresh):
                    break
            if not len(fresh) and upper - value > tolerance * upper:
                return  # float32 cannot tell the bounds apart any further; they are exact in the certificate
            idle = np.where(optimum.slack > 1e-7, idle + 1, 0)
            kept = idle < _PATIENCE
            if len(fresh):
                self.pairs = np.concatenate([self.pairs[kept], fresh])
                idle = np.concatenate([idle[kept], np.zeros(len(fresh), dtype=int)])

    def _ask(self, parts, stride, budgets, limit):
        """Return (radius the budgets allow, pairs that allow less than ``limit``, tightest first)."""
        began = time.perf_counter()
        value, pairs, radii = np.inf, [], []
        for y, z in combinations(range(len(parts)), 2):
            weights = ((budgets[self.row_of[y]] + budgets[self.row_of[z]]) / 4).astype(np.float32)
            order = np.flatnonzero(weights)
            order = order[np.argsort(-(weights * self.spread)[order], kind="stable")]
            a, b = (weigh(parts[c], weights, order) for c in (y, z))
            a_value, a_index, b_value, b_index = nearest(a, b, limit, compiled=self.compiled)
            value = min(value, float(a_value.min()))
            i, k = np.flatnonzero(a_index >= 0), np.flatnonzero(b_index >= 0)
            first, second = np.concatenate([i, b_index[k]]), np.concatenate([a_index[i], k])
            radii.append(np.concatenate([a_value[i], b_value[k]]))
            pairs.append(
                np.stack([np.full_like(first, y), first * stride, np.full_like(first, z), second * stride], 1)
            )
        order = np.argsort(np.concatenate(radii), kind="stable")
        self.oracle_seconds += time.perf_counter() - began
        return value, np.concatenate(pairs)[order]

    def _unseen(self, found: np.ndarray) -> np.ndarray:
        """Return the first pairs of ``found`` that are not in play yet, each once."""
        seen = set(map(tuple, self.pairs.tolist()))
        fresh = [
            pair for pair in dict.fromkeys(map(tuple, found[: 4 * _NEW_PAIRS].tolist())) if pair not in seen
        ]
        return np.array(fresh[:_NEW_PAIRS], dtype=np.int64).reshape(-1, 4)

    def _solve_program(self):
        """Solve the linear program on the pairs in play."""
        began = time.perf_counter()
        y, a, z, b = self.pairs.T
        apart = np.empty((len(self.pairs), self.best.shape[1]), dtype=np.float32)
        for c, d in {(int(p), int(q)) for p, q in zip(y, z)}:
            chosen = (y == c) & (z == d)
            apart[chosen] = np.abs(self.points[c][a[chosen]] - self.points[d][b[chosen]])
        if self.rows == 1:
            worth = apart.astype(np.float64) / 2
        else:
            involved = [((y == r) | (z == r))[:, None] for r in range(self.rows)]
            worth = hstack([csr_array(np.where(mask, apart, 0) / 4) for mask in involved], format="csr")
        optimum = maximise(worth, self.rows, self.budget, self.active)
        self.program_seconds += time.perf_counter() - began
        return optimum

    def rounded_dual(self):
        """Return the pairs with weight and their integer weights, which sum to about ``_WEIGHT_SUM``."""
        total = self.mass.sum()
        # All budgets are worth nothing (equal points): any pair proves R = 0.
        mass = self.mass / total if total > 0 else np.eye(1, len(self.mass))[0]
        weights = np.round(mass * _WEIGHT_SUM).astype(np.int64)
        used = np.flatnonzero(weights)
        return tuple(map(tuple, self.pairs[used].tolist())), tuple(weights[used].tolist())

    def rounded_budgets(self):
        """Return, per row, the (coordinate, integer) with entries <= _DENOMINATOR and sum <= K _DENOMINATOR."""
        rows = []
        for row in self.best:
            whole = np.floor(row * _DENOMINATOR).astype(np.int64)  # rounded down: the sums can only fall
            excess = int(whole.sum()) - self.budget * _DENOMINATOR
            if excess > 0:  # HiGHS keeps sums within 1e-7 only
                largest = int(np.argmax(whole))
                whole[largest] -= min(excess, int(whole[largest]))
            used = np.flatnonzero(whole)
            rows.append(tuple(zip(used.tolist(), whole[used].tolist())))
        return tuple(rows)


def _separation(integers, scale, compiled):
    """Return (smallest l_inf distance between classes, a pair that attains it), exactly."""
    coarsened, shift = coarse(integers, 24)
    best = None
    for y, z in combinations(range(len(integers)), 2):
        order = np.argsort(-np.std(np.concatenate([coarsened[y], coarsened[z]]), axis=0), kind="stable")
        ones = np.ones(len(order), dtype=np.float32)
        a, b = (weigh(coarsened[c], ones, order) for c in (y, z))
        pairs = [nearest_linf(a, b, compiled=compiled)[1:]] if not shift else _within(a, b, compiled)
        for i, k in pairs:
            pair = (y, int(i), z, int(k))
            distance = max(difference(integers, pair))
            if best is None or distance < best[0]:
                best = distance, pair
    return Fraction(best[0], scale), best[1]


def _within(a, b, compiled):
    """Yield the pairs whose coarse l_inf distance is so close to the smallest that either may be the nearest."""
    least = nearest_linf(a, b, compiled=compiled)[0]
    for i, point in enumerate(a):
        for k in np.flatnonzero(np.abs(b - point).max(axis=1) <= least + 2):
            yield i, k


def _exact_value(integers, scale, budgets, compiled) -> Fraction:
    """Return min over all pairs of 1/4 sum_j (lambda^y + lambda^y')_j |a_j - b_j|, or a little less for wide data."""
    row_of = [0, 0] if len(budgets) == 1 else list(range(len(budgets)))
    width = integers[0].shape[1]
    value = None
    for y, z in combinations(range(len(integers)), 2):
        weights = np.zeros(width, dtype=np.int64)
        for c in (y, z):
            for coordinate, weight in budgets[row_of[c]]:
                weights[coordinate] += weight
        total = max(int(weights.sum()), 1)
        (a, b), shift = coarse([integers[y], integers[z]], 61 - total.bit_length())
        spread = weights * np.std(np.concatenate([a, b]), axis=0)
        order = np.argsort(-spread, kind="stable")[: np.count_nonzero(spread)]
        a, b = weigh(a, weights, order), weigh(b, weights, order)
        least = int(nearest(a, b, np.iinfo(np.int64).max, compiled=compiled)[0].min())
        if shift:  # |X_a - X_b| >= (|Q_a - Q_b| - 1) << shift
            least = max(least - total, 0) << shift
        value = least if value is None else min(value, least)
    return Fraction(value, 4 * _DENOMINATOR * scale)
