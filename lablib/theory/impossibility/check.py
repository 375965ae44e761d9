"""The independent checker: is the certificate's claim true of these points? Integers and fractions only.

**What is bounded.** The radius a network *certifies* by its Lipschitz margins: |f| for a sign classifier that is
1-Lipschitz in l_inf, (f_y - max f_j) / 2 for logits that are 1-Lipschitz each. Not its true robustness, which no
argument about Lipschitz constants can bound: f / 1000 is a standard network with the same decisions. And with more
than two classes a network may certify more by other means, such as a constant for each *difference* of logits; for
those, take the classes two by two: (f_y - f_y') / (its budget) is a scalar standard network again.

**Why a certificate proves a bound.** Let f_1 .. f_C be the logits of a network as in
:class:`~.certificate.Certificate`, and suppose it certifies radius >= r by its margins on all points.
*Margins.* For a in class y, b in class y': (f_y - f_y')(a) >= 2r and (f_y' - f_y)(b) >= 2r. Added up:
4r <= [f_y(a) - f_y(b)] + [f_y'(b) - f_y'(a)].
*Budget lemma.* |f_y(a) - f_y(b)| <= sum_j lambda^y_j |a_j - b_j|: an affine row with l1 norm <= 1 mixes budgets, an
elementwise activation shrinks, a sort of G neurons has at most the entrywise maximum of G budgets. So entries stay
<= 1 and the sum is at most G^(M-1); with d entries, at most K = min(d, G^(M-1)). Hence

    4r <= sum_j (lambda^y + lambda^y')_j |a_j - b_j|     for all pairs of points of different classes.

*Dual.* Weigh the pairs by any probabilities mu and let v^y_j = 1/4 sum mu_ab |a_j - b_j| over the pairs that involve
class y. Then r <= sum_y sum_j lambda^y_j v^y_j, which is at most the sum over y of the K largest entries of v^y,
whatever the budgets are: :attr:`bound`. (Two classes: both sums have the same v, and lambda = the mean of the two
budgets gives r <= 1/2 sum_j lambda_j |a_j - b_j|, the form with one budget; so one row is stored.)
*Cap.* Balls of radius r around a and b are disjoint in a classifier, so r <= 1/2 ||a - b||_inf for every pair.

**Why this argument proves no less.** Any budgets give the radius min over *all* pairs of
1/4 sum_j (lambda^y + lambda^y')_j |a_j - b_j|: :attr:`value` is below the optimum of the linear program. This takes a
look at every pair; ``exhaustive=False`` leaves it out, and the upper bound stands all the same.

Sources: SortNet paper (arXiv 2210.01787), Sec. 3, for standard networks on Boolean data; the form for any finite
data, the dual and the depth form are the lab's own.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations

import numpy as np

from lablib.theory.impossibility.certificate import Certificate, budget_of, budget_rows
from lablib.theory.impossibility.exact import as_integers, coarse, digest, read_classes

Progress = Callable[[int, int], None]

_FIRST, _BLOCK = 32, 32  # coordinates looked at for all pairs, then for those that are left
_CHUNK = 1 << 18  # pairs in memory at a time


class CertificateError(ValueError):
    """The certificate does not prove its claim about these points."""


@dataclasses.dataclass(frozen=True)
class Checked:
    """What was verified: R <= ``upper`` and, if ``exhaustive``, R >= ``lower`` and that no pair is closer.

    R is the optimum of the linear program. No network of the kind certifies more than ``upper``; whether one
    reaches ``lower`` is another question.
    """

    upper: Fraction
    lower: Fraction
    half_separation: Fraction
    exhaustive: bool
    pairs: int


def check(
    certificate: Certificate,
    classes: Sequence[np.ndarray],
    *,
    scale: int | None = None,
    exhaustive: bool = True,
    progress: Progress | None = None,
) -> Checked:
    """Verify every claim of the certificate about these points, in exact arithmetic.

    Args:
        certificate: to verify; nothing in it is trusted.
        classes: one array (n_c, ...) per class, as given to :func:`.solve.solve`.
        scale: for integer data, the value that counts as 1.0; default 255 for uint8, else 1. It is yours to say:
            the one in the certificate is only compared with it.
        exhaustive: also look at all pairs: the lower bound, and that no pair is closer than the separation.
        progress: called with (pairs looked at, pairs in all).

    Raises:
        CertificateError: naming the first claim that does not hold.
        ValueError: if the points themselves are unusable.
    """
    arrays = read_classes(classes)
    check_form(certificate)
    c = certificate
    _require(tuple(map(len, arrays)) == c.sizes, "the number of points per class is another")
    _require(len(c.names) == len(arrays), "the number of classes is another")
    _require(
        digest(arrays, c.statement) == c.digest,
        "digest: this is not the data, or not the statement, it is about",
    )
    integers, scale = as_integers(arrays, scale)
    _require(integers[0].shape[1] == c.dimension, "the points have another dimension")
    _require(
        scale == c.scale,
        f"scale: {c.scale} counts as 1.0 in it, {scale} in the data (pass scale= if that is wrong)",
    )
    _require(c.budget == budget_of(c.dimension, c.depth, c.group), "the budget is not min(d, G^(M-1))")
    _check_pairs(c)
    proven = dual_bound(integers, scale, c.pairs, c.weights, c.budget)
    _require(proven <= c.bound, "bound: the pairs and weights prove only a larger one")
    attained = Fraction(max(difference(integers, c.separation_pair)), scale)
    _require(attained == c.separation, "separation: its pair is at another distance")
    _check_budgets(c)
    looked_at = _check_all_pairs(c, integers, progress) if exhaustive else 0
    return Checked(c.upper, c.lower, c.half_separation, exhaustive, looked_at)


def difference(integers: Sequence[np.ndarray], pair: Sequence[int]) -> list[int]:
    """Return [|A_j - B_j|] as Python integers for the pair (class, index, class', index')."""
    y, a, z, b = pair
    return [abs(p - q) for p, q in zip(integers[y][a].tolist(), integers[z][b].tolist())]


def dual_bound(
    integers: Sequence[np.ndarray],
    scale: int,
    pairs: Sequence[Sequence[int]],
    weights: Sequence[int],
    budget: int,
) -> Fraction:
    """Return sum_y (sum of the K largest v^y_j), v^y_j = 1/4 sum mu_ab |a_j - b_j| over the pairs that involve y.

    Args:
        integers: per class (n_c, d); scale: coordinates are integers / scale.
        pairs: (class, index, class', index'); weights: non-negative integers, mu = weights / their sum.
        budget: K.
    """
    totals = [[0] * integers[0].shape[1] for _ in integers]
    for pair, weight in zip(pairs, weights):
        apart = difference(integers, pair)
        for y in (pair[0], pair[2]):
            totals[y] = [total + weight * step for total, step in zip(totals[y], apart)]
    largest = sum(sum(sorted(total, reverse=True)[:budget]) for total in totals)
    return Fraction(largest, 4 * sum(weights) * scale)


def check_form(c: Certificate) -> None:
    """Require that every field has the type it must have; a bool, a float or a fraction is no integer.

    Raises:
        CertificateError: naming what is wrong.
    """
    _require(type(c) is Certificate, "form: not a certificate")
    counts = [c.dimension, c.depth, c.group, c.budget, c.scale, c.weight_sum, c.denominator]
    _require(all(map(_positive, counts)), "form: a count is not a positive integer")
    _require(c.norm == "linf", "form: the only norm is linf")
    exact = (c.bound, c.value, c.separation)
    _require(
        all(type(number) is Fraction and number >= 0 for number in exact), "form: a claim is no fraction"
    )
    lists = (c.names, c.sizes, c.pairs, c.weights, c.budgets)
    _require(all(type(field) is tuple for field in lists), "form: a list is missing")
    _require(all(type(name) is str for name in c.names), "form: a name is not a string")
    _require(len(set(c.names)) == len(c.names), "form: two classes have one name")
    _require(all(map(_positive, c.sizes)), "form: a class size is not a positive integer")


def _check_pairs(c: Certificate) -> None:
    """Pairs exist, join different classes and occur once; weights are positive and add up."""
    for pair in (*c.pairs, c.separation_pair):
        _require(
            isinstance(pair, tuple) and len(pair) == 4 and all(map(_index, pair)), "pair: not four indices"
        )
        y, a, z, b = pair
        _require(y < z < len(c.sizes), "pair: it does not join two classes, the first one first")
        _require(a < c.sizes[y] and b < c.sizes[z], "pair: there is no such point")
    _require(len(set(c.pairs)) == len(c.pairs), "pair: one occurs twice")
    _require(len(c.pairs) == len(c.weights) > 0, "weights: not one per pair")
    _require(all(map(_positive, c.weights)), "weights: one is not a positive integer")
    _require(sum(c.weights) == c.weight_sum, "weights: their sum is another")


def _check_budgets(c: Certificate) -> None:
    """Every row has 0 <= lambda_j <= 1 and sum lambda_j <= K."""
    _require(
        len(c.budgets) == budget_rows(len(c.names)), "budgets: not one row per logit (one in all for two)"
    )
    for row in c.budgets:
        entries = row if isinstance(row, tuple) else (None,)
        whole = all(isinstance(e, tuple) and len(e) == 2 and all(map(_index, e)) for e in entries)
        _require(whole, "budgets: an entry is not (coordinate, weight)")
        coordinates = [coordinate for coordinate, _ in row]
        _require(len(set(coordinates)) == len(row), "budgets: a coordinate occurs twice")
        _require(all(j < c.dimension for j in coordinates), "budgets: there is no such coordinate")
        _require(all(weight <= c.denominator for _, weight in row), "budgets: an entry exceeds one")
        _require(sum(weight for _, weight in row) <= c.budget * c.denominator, "budgets: a sum exceeds K")


def _check_all_pairs(c: Certificate, integers: Sequence[np.ndarray], progress: Progress | None) -> int:
    """Look at every pair of every two classes; return how many there are."""
    rows = [dict(row) for row in c.budgets]
    rows = rows if len(rows) > 1 else rows * 2
    total, seen = sum(m * n for m, n in combinations(c.sizes, 2)), 0
    # 1/4 sum (lambda^y + lambda^y')_j |a_j - b_j| >= value, multiplied out; ||a - b||_inf >= separation.
    least_sum = _ceil(c.value * 4 * c.denominator * c.scale)
    least_step = _ceil(c.separation * c.scale)
    for y, z in combinations(range(len(integers)), 2):
        points = integers[y], integers[z]
        weights = {j: rows[y].get(j, 0) + rows[z].get(j, 0) for j in sorted(rows[y] | rows[z])}
        everywhere = dict.fromkeys(range(c.dimension), 1)
        for search in (
            _confirm(points, weights, least_sum, np.add, "value: a pair is closer than that"),
            _confirm(points, everywhere, least_step, np.maximum, "separation: a pair is closer than that"),
        ):
            for count in search:
                seen += count
                if progress:
                    progress(seen, 2 * total)
    return total


def _confirm(
    points: tuple[np.ndarray, np.ndarray],
    weights: dict[int, int],
    least: int,
    combine: np.ufunc,
    refusal: str,
) -> Iterator[int]:
    """Require that ``combine`` (add or maximum) of w_j |A_j - B_j| is >= ``least`` for all pairs (A, B).

    The terms are >= 0, so a pair is done as soon as some of them reach ``least``. The search runs in int64 on the
    highest bits of the coordinates (:func:`.exact.coarse`), few enough that no sum overflows; pairs that these
    bits leave open are settled in Python integers. Yields the number of pairs after each chunk.
    """
    weights = {j: weight for j, weight in weights.items() if weight}
    if least <= 0:
        yield len(points[0]) * len(points[1])
        return
    _require(len(weights) > 0, refusal)
    factors = list(weights.values())
    largest = sum(factors) if combine is np.add else max(factors)
    _require(largest < 1 << 48, "budgets: the denominator is too large for a check in 64 bits")
    exact = [part[:, list(weights)] for part in points]
    (a, b), shift = coarse(exact, 62 - largest.bit_length())
    # |X| >= (|Q| - 1) << shift, so what was cut off costs less than the largest combination of weights.
    enough = _ceil(Fraction(least, 1 << shift)) + (largest if shift else 0)
    size = _smallest_type(max(largest * int(max(a.max(), b.max())), enough))
    a, b = a * np.array(factors), b * np.array(factors)
    order = _telling_first(a, b)
    a, b = a[:, order].astype(size), b[:, order].astype(size)
    rows = max(1, _CHUNK // len(b))
    for start in range(0, len(a), rows):
        for i, k in _open_pairs(a[start : start + rows], b, enough, combine):
            p, q = exact[0][start + i].tolist(), exact[1][k].tolist()
            terms = [factor * abs(s - t) for factor, s, t in zip(factors, p, q)]
            _require((sum(terms) if combine is np.add else max(terms)) >= least, refusal)
        yield len(a[start : start + rows]) * len(b)


def _open_pairs(a: np.ndarray, b: np.ndarray, enough: int, combine: np.ufunc) -> Iterator[tuple[int, int]]:
    """Yield the (row of a, row of b) whose combined |a - b| stays below ``enough``."""
    reached = np.zeros((len(a), len(b)), dtype=a.dtype)
    step = np.empty_like(reached)
    for j in range(min(_FIRST, a.shape[1])):
        np.subtract.outer(a[:, j], b[:, j], out=step)
        combine(reached, np.abs(step, out=step), out=reached)
    i, k = np.nonzero(reached < enough)
    reached = reached[i, k]
    for j in range(_FIRST, a.shape[1], _BLOCK):
        if not i.size:
            return
        block = np.abs(a[i, j : j + _BLOCK] - b[k, j : j + _BLOCK])
        reached = combine(reached, combine.reduce(block, axis=1))
        left = reached < enough
        i, k, reached = i[left], k[left], reached[left]
    yield from zip(i.tolist(), k.tolist())


def _telling_first(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the columns, those in which points differ most first (a sum that wraps costs time, not truth)."""
    both = np.concatenate([a, b])
    middle = both.sum(axis=0) // len(both)
    return np.argsort(-np.abs(both - middle).sum(axis=0), kind="stable")


def _smallest_type(largest: int) -> type[np.signedinteger]:
    """Return the narrowest type for integers up to ``largest``: narrow ones are several times faster."""
    return next((t for t in (np.int16, np.int32) if largest <= np.iinfo(t).max), np.int64)


def _ceil(number: Fraction) -> int:
    return -(-number.numerator // number.denominator)


def _index(number: object) -> bool:
    return type(number) is int and number >= 0


def _positive(number: object) -> bool:
    return type(number) is int and number >= 1


def _require(holds: bool, refusal: str) -> None:
    if not holds:
        raise CertificateError(f"certificate refused: {refusal}")
