"""Order statistics by MaxMin and GroupSort: comparator networks written as layers whose rows are unit
vectors.

A comparator network is a list of *rounds*; a round is a list of disjoint pairs (i, j), i < j, and puts the
smaller value on wire i. One round = one affine layer that fetches the pairs (rows with a single 1) and one
group_sort. The whole network has rounds + 1 affine layers.

By the 0-1 principle (Knuth, The Art of Computer Programming 3, Section 5.3.4) a comparator network that sorts
every 0/1 vector sorts everything. A comparator may be replaced by a *merge-split* of two blocks of h values
(sort the 2h, the lower half to the first block): that is a group_sort of size 2h, and sorts h times as many
values in as many rounds.

Depth (SortNet paper, arXiv 2210.01787, Thm 3.9): r group_sorts of size G give a budget of at most G^r, and an
exact order statistic needs budget 1 on each of d inputs, so r >= log_G d. The tournament for the maximum
meets this bound.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from lablib.theory.network import Layer, affine, fractions, group_sort
from lablib.theory.order_statistics import check_order

Rounds = list[list[tuple[int, int]]]


def depth_lower_bound(d: int, group: int = 2) -> int:
    """Return the fewest group_sorts with which an order statistic of d inputs can be exact: ceil(log_G d).

    Raises:
        ValueError: if d < 1 or group < 2 (a standard network, group 1, is never exact for d > 1).
    """
    if d < 1 or group < 2:
        raise ValueError(f"the bound needs d >= 1 and a group size of at least 2, not {d} and {group}")
    sorts, budget = 0, 1
    while budget < d:
        sorts, budget = sorts + 1, budget * group
    return sorts


def odd_even_transposition(wires: int) -> Rounds:
    """Return the rounds that compare neighbours, even and odd pairs in turn: ``wires`` rounds."""
    rounds = [[(i, i + 1) for i in range(turn % 2, wires - 1, 2)] for turn in range(wires)]
    return [pairs for pairs in rounds if pairs]


def batcher(wires: int) -> Rounds:
    """Return Batcher's merge exchange (Knuth, Algorithm 5.2.2M): t (t + 1) / 2 rounds, t = ceil(log2 n)."""
    rounds: Rounds = []
    top = 1 << max(wires - 1, 0).bit_length() >> 1
    p = top
    while p:
        q, r, step = top, 0, p
        while True:
            rounds.append([(i, i + step) for i in range(wires - step) if i & p == r])
            if q == p:
                break
            step, q, r = q - p, q >> 1, p
        p >>= 1
    return [pairs for pairs in rounds if pairs]


SCHEDULES = {"batcher": batcher, "transposition": odd_even_transposition}


def sorting_network(
    d: int, group: int = 2, schedule: str = "batcher", ceiling: Fraction | int = 1
) -> list[Layer]:
    """Return layers that sort d values in ascending order with group_sorts of size G.

    If d <= G one group_sort does it. Otherwise the values are cut into blocks of floor(G/2), the last may be
    shorter, and the schedule's comparators become merge-splits of blocks. Groups with fewer than G members
    are filled with the constant ``ceiling`` (a row of zeros with a bias), so the inputs must not exceed it;
    no filling, and so all of R^d, if G is even and floor(G/2) divides d.

    Args:
        d: number of values.
        group: G >= 2.
        schedule: ``batcher`` or ``transposition``.
        ceiling: an upper bound of all inputs.

    Raises:
        ValueError: if d < 1, group < 2 or the schedule is unknown.
    """
    depth_lower_bound(d, group)
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}; choose from {', '.join(SCHEDULES)}")
    if d == 1:
        return [affine([[1]])]
    if d <= group:
        rounds, blocks = [[(0,)]], [list(range(d))]
    else:
        half = group // 2
        blocks = [list(range(start, min(start + half, d))) for start in range(0, d, half)]
        rounds = SCHEDULES[schedule](len(blocks))
    layers: list[Layer] = []
    fetch = np.eye(d, dtype=np.int64)  # rows that read the sorted wires from the last layer's features
    for meetings in rounds:
        gather, fetch = _round(meetings, blocks, group, fetch)
        bias = np.where(gather.any(axis=1), 0, 1) * ceiling
        layers += [affine(gather, bias if bias.any() else None), group_sort(group)]
    return [*layers, affine(fetch)]


def order_statistic_network(
    d: int, k: int, group: int = 2, schedule: str = "batcher", ceiling: Fraction | int = 1
) -> list[Layer]:
    """Return layers for the k-th largest of d values: a tournament for k = 1 and k = d, else a sorting
    network.

    The tournament holds on all of R^d; for the domain of the sorting network see :func:`sorting_network`.

    Raises:
        ValueError: unless 1 <= k <= d and group >= 2.
    """
    check_order(d, k)
    if k in (1, d):
        return tournament(d, group, largest=k == 1)
    *layers, last = sorting_network(d, group, schedule, ceiling)
    return [*layers, affine(last["weight"][[d - k]])]


def tournament(d: int, group: int = 2, *, largest: bool = True) -> list[Layer]:
    """Return layers for the maximum (or minimum) on R^d with ceil(log_G d) group_sorts: the fewest possible.

    Raises:
        ValueError: if d < 1 or group < 2.
    """
    rounds = depth_lower_bound(d, group)
    layers, fetch = _knockout(np.eye(d, dtype=np.int64), group, rounds, largest)
    return [*layers, affine(fetch)]


def averaged_tournament(d: int, depth: int, group: int = 2) -> list[Layer]:
    """Return M = ``depth`` affine layers with group_sorts between them: the closest to the maximum, in
    fractions.

    Let g = min(G^(M-1), d). The output is the mean over the d cyclic windows of g inputs of the window's
    maximum (a tournament of M - 1 rounds in each), plus 1/2 - g/(2d). On [0,1]^d max - mean ranges over [0, 1
    - g/d]: an input of the largest value lies in g of the d windows, so the mean is at least g/d times the
    maximum; both ends are attained at vertices. So the error is 1/2 - g/(2d) =
    ``order_statistics.error_bound(d, depth, group)``: for the maximum the bound is tight for every d, M and
    G.

    Raises:
        ValueError: if d < 1, depth < 1 or group < 2.
    """
    if depth < 1:
        raise ValueError(f"a network has at least one affine layer, not {depth}")
    rounds = min(depth - 1, depth_lower_bound(d, group))
    size = min(group**rounds, d)
    if size == d:
        return tournament(d, group)
    windows = (np.arange(d)[:, None] + np.arange(size)).reshape(-1) % d
    layers, fetch = _knockout(np.eye(d, dtype=np.int64)[windows], group, rounds, largest=True)
    mean = fractions(fetch).sum(axis=0, keepdims=True) * Fraction(1, d)
    return [*layers, affine(mean, [Fraction(d - size, 2 * d)])]


def sorts(layers: Sequence[Layer]) -> int:
    """Return the number of group_sorts, the depth that :func:`depth_lower_bound` counts."""
    return sum(layer["op"] == "group_sort" for layer in layers)


def _knockout(fetch: np.ndarray, group: int, rounds: int, largest: bool) -> tuple[list[Layer], np.ndarray]:
    """Return the layers of a few rounds among the entrants that ``fetch`` reads, and rows that read the winners.

    Each round sorts groups of G and keeps the winners; the last group is filled up by repeating its last
    member, which changes no maximum.
    """
    layers: list[Layer] = []
    for _ in range(rounds):
        groups = -(-len(fetch) // group)
        entrants = np.minimum(np.arange(groups * group), len(fetch) - 1)
        layers += [affine(fetch[entrants]), group_sort(group)]
        fetch = np.eye(groups * group, dtype=np.int64)[group - 1 if largest else 0 :: group]
    return layers, fetch


def _round(
    meetings: Sequence[Sequence[int]], blocks: list[list[int]], group: int, fetch: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the affine rows that bring the blocks of each meeting into one group, and the rows that read
    them back.

    A block that meets nobody keeps its values: two copies of each fill a group, and every second one is read.
    """
    busy = {block for meeting in meetings for block in meeting}
    idle = [(block, block) for block in range(len(blocks)) if block not in busy]
    gather, source = [], {}
    for meeting in [*meetings, *idle]:
        members = [wire for block in meeting for wire in blocks[block]]
        distinct = list(dict.fromkeys(members))
        copies = len(members) // len(distinct)
        for position, wire in enumerate(distinct):
            source[wire] = len(gather) + position * copies
        gather += [fetch[wire] for wire in sorted(members)]
        gather += [np.zeros_like(fetch[0])] * (group - len(members))
    read = np.zeros((len(source), len(gather)), dtype=np.int64)
    for wire, row in source.items():
        read[wire, row] = 1
    return np.array(gather), read
