"""The tree of regions behind :func:`lablib.certify.exact_slopes.exact_slopes`: nodes, comparisons, slopes found."""

import dataclasses
import heapq

import numpy as np
import torch

from lablib.certify.pieces import Affine, Bend, Piece, Sort
from lablib.certify.polytopes import THIN, Space, samples
from lablib.certify.progress import bar
from lablib.ops.slopes import add_slopes, through_elementwise, through_group_sort, through_linear

FLAT = 1e-13  # a difference of this share of the largest weights is rounding
SETTLED = 1e-12  # share of the largest slope by which a node may beat what was found


@dataclasses.dataclass
class Node:
    """A polytope in which the steps before ``at``, and ``done`` comparisons of that step, are one affine map.

    ``forms`` (C, I + 1): the values as functions a x + c; ``low``, ``high`` (C, I): proven bounds of their slopes.
    ``done``: of each group of a sort how many exchanges; of each bend 0 or 1.
    """

    at: int
    done: np.ndarray | None
    forms: np.ndarray
    low: torch.Tensor
    high: torch.Tensor
    planes: np.ndarray
    centre: np.ndarray
    radius: float
    ends: tuple[np.ndarray, np.ndarray] | None = None  # bounds of the slopes asked for


class Search:
    """The tree, the slopes found and the points they were found at."""

    def __init__(self, steps: list[Piece], residual: np.ndarray, asked, space: Space):
        self.steps, self.residual, self.asked, self.space = steps, residual, asked, space
        self.open: dict[int, Node] = {}
        self.heap: list[tuple[float, int]] = []
        shape = residual[asked].shape
        nowhere = np.full((*shape, len(space.half)), np.nan)
        # slope found and where, (least, largest); exchanged as a whole, so that Ctrl-C cannot part them
        self.found = (np.full(shape, np.inf), nowhere), (np.full(shape, -np.inf), nowhere)
        self.outweighed = np.full(shape, np.inf), np.full(shape, -np.inf)  # bounds of nodes dropped by them
        self.stopped, self.nodes = "", 0
        self.scale, self.flat = _sizes(steps, len(space.half))

    def run(self, limit: int, progress: bool) -> None:
        """Grow the tree until no node can beat what was found, ``limit`` nodes, or Ctrl-C."""
        inputs = len(self.space.half)
        eye = torch.eye(inputs, dtype=torch.float64)
        ball = self.space.ball(np.zeros((0, inputs + 1)))
        root = Node(0, None, np.eye(inputs, inputs + 1), eye, eye, np.zeros((0, inputs + 1)), *ball)
        self._add(root)
        try:
            for point in samples(self.space):  # good slopes early: the tree then drops more
                self._try(dataclasses.replace(root, centre=point))
            for _ in bar(range(limit), "slopes", progress):
                name = self._next()
                if name is None:
                    return
                for child in self._split(self.open[name]):
                    self._add(child)
                del self.open[name]  # only now: an interrupted search has lost no node
            if self._next() is not None:
                self.stopped = (
                    f"stopped after {limit} nodes; give a larger limit, a smaller box or fewer slopes"
                )
        except KeyboardInterrupt:
            self.stopped = "interrupted; the ends are those reached so far"

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return bounds (low, high) of the slopes asked for, over all that was not dropped as empty."""
        low, high = (v.copy() for v in self.outweighed)
        for node in self.open.values():
            low, high = np.minimum(low, node.ends[0]), np.maximum(high, node.ends[1])
        return np.minimum(low, self.found[0][0]), np.maximum(high, self.found[1][0])

    # --- nodes

    def _add(self, node: Node) -> None:
        """Move the node to its next open comparison, bound it, try the gradient at its centre, and keep it."""
        self._advance(node)
        node.ends = self._bound(node)
        self._try(node)
        name, self.nodes = self.nodes, self.nodes + 1
        if node.at == len(self.steps):
            self._outweigh(node)
        else:
            self.open[name] = node
            heapq.heappush(self.heap, (-self._gain(node), name))

    def _next(self) -> int | None:
        """Return the node with the most to gain; drop those that have none by now."""
        while self.heap:
            _, name = self.heap[0]
            gain = self._gain(self.open[name])
            if gain <= SETTLED * self.scale:
                self._outweigh(self.open[name])
                heapq.heappop(self.heap)
                del self.open[name]
            elif -self.heap[0][0] > gain:  # others have found better slopes since it was put there
                heapq.heapreplace(self.heap, (-gain, name))
            else:
                heapq.heappop(self.heap)
                return name
        return None

    def _gain(self, node: Node) -> float:
        return float(max((self.found[0][0] - node.ends[0]).max(), (node.ends[1] - self.found[1][0]).max()))

    def _outweigh(self, node: Node) -> None:
        np.minimum(self.outweighed[0], node.ends[0], out=self.outweighed[0])
        np.maximum(self.outweighed[1], node.ends[1], out=self.outweighed[1])

    def _bound(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of the slopes asked for, in all of the node."""
        low, high = node.low, node.high
        for k in range(node.at, len(self.steps)):
            step, inside = self.steps[k], k == node.at
            if isinstance(step, Affine):
                low, high = through_linear(low, high, torch.from_numpy(step.weight))
            elif isinstance(step, Sort):
                wide = through_group_sort(low, high, step.size)
                if inside:
                    ready = torch.from_numpy(np.repeat(node.done == len(step.exchanges), step.size))[:, None]
                    wide = torch.where(ready, low, wide[0]), torch.where(ready, high, wide[1])
                low, high = wide
            else:
                other = np.where(node.done == 1, 1.0, step.slope) if inside else step.slope
                least, most = (torch.from_numpy(v) for v in (np.minimum(other, 1.0), np.maximum(other, 1.0)))
                low, high = through_elementwise(low, high, least, most)
        shift = torch.from_numpy(self.residual)
        low, high = add_slopes(low, high, shift, shift)
        return low.numpy()[self.asked], high.numpy()[self.asked]

    # --- comparisons

    def _advance(self, node: Node) -> None:
        """Pass all that is affine in the node, up to the first step with a comparison that changes in the box."""
        while node.at < len(self.steps):
            step = self.steps[node.at]
            if isinstance(step, Affine):
                node.forms = step.weight @ node.forms
                node.forms[:, -1] += step.bias
                node.low, node.high = through_linear(node.low, node.high, torch.from_numpy(step.weight))
            else:
                if node.done is None:
                    node.done = np.zeros(step.groups, dtype=int)
                for g in range(len(node.done)):
                    while (form := self._comparison(node, g)) is not None:
                        sign = self.space.sign(form, self.flat[node.at])
                        if sign == 0:
                            break
                        self._decide(node, g, sign > 0)
                if any(self._comparison(node, g) is not None for g in range(len(node.done))):
                    return
            node.at, node.done = node.at + 1, None

    def _comparison(self, node: Node, g: int) -> np.ndarray | None:
        """The function whose sign is the next comparison of group or bend ``g``; None after the last."""
        step = self.steps[node.at]
        if isinstance(step, Bend):
            return None if node.done[g] or step.slope[g] == 1.0 else node.forms[g]
        exchanges = step.exchanges
        if node.done[g] == len(exchanges):
            return None
        first = g * step.size + exchanges[node.done[g]]
        return node.forms[first] - node.forms[first + 1]

    def _decide(self, node: Node, g: int, positive: bool) -> None:
        """Take one outcome of the next comparison of ``g``."""
        step = self.steps[node.at]
        if isinstance(step, Bend):
            if not positive:
                slope = torch.ones(len(step.slope), dtype=torch.float64)
                slope[g] = step.slope[g]
                node.forms = node.forms.copy()
                node.forms[g] *= step.slope[g]
                node.low, node.high = through_elementwise(node.low, node.high, slope, slope)
        elif positive:
            order = np.arange(len(node.forms))
            first = g * step.size + step.exchanges[node.done[g]]
            order[[first, first + 1]] = first + 1, first
            node.forms, node.low, node.high = node.forms[order], node.low[order], node.high[order]
        node.done = node.done.copy()
        node.done[g] += 1

    def _split(self, node: Node) -> list[Node]:
        """The node's polytope cut along the comparison whose outcomes differ most, without a part that is thin."""
        open_ = {g: self._comparison(node, g) for g in range(len(node.done))}
        weights = {
            g: np.abs(form[:-1] * self.space.half).sum() for g, form in open_.items() if form is not None
        }
        g = max(weights, key=weights.get)
        plane = self.space.plane(open_[g])
        away = float(plane[:-1] @ node.centre + plane[-1])
        children = []
        for positive, cut, distance in ((True, plane, away), (False, -plane, -away)):
            planes = np.vstack([node.planes, cut])
            known = min(
                node.radius, distance
            )  # where the centre lies well on this side, no program is needed
            enough = max(node.radius / 100, 100 * THIN)
            ball = (node.centre, known) if known > enough else self.space.ball(planes)
            if ball is not None:
                child = dataclasses.replace(node, planes=planes, centre=ball[0], radius=ball[1])
                self._decide(child, g, positive)
                children.append(child)
        return children

    def _try(self, node: Node) -> None:
        """Take the gradient at the node's centre, unless a comparison is tied there."""
        x = self.space.middle + self.space.half * node.centre
        forms = node.forms
        for k in range(node.at, len(self.steps)):
            step = self.steps[k]
            if isinstance(step, Affine):
                forms = step.weight @ forms
                forms[:, -1] += step.bias
                continue
            values = forms[:, :-1] @ x + forms[:, -1]
            if isinstance(step, Sort):
                order = np.argsort(values.reshape(-1, step.size), 1, kind="stable")
                order = order + step.size * np.arange(step.groups)[:, None]
                forms = forms[order.ravel()]
                gaps = np.diff(forms.reshape(step.groups, step.size, -1), axis=1)
                compared = gaps.reshape(-1, forms.shape[1])
            else:
                slope = np.where(node.done == 1, 1.0, step.slope) if k == node.at else step.slope
                compared = forms[slope != 1.0]
                forms = np.where((values < 0)[:, None], slope[:, None] * forms, forms)
            if self._tied(compared, x, self.flat[k]):
                return
        slopes = (forms[:, :-1] + self.residual)[self.asked]
        best = []
        for (found, points), better in zip(self.found, (np.less, np.greater)):
            wins = better(slopes, found)
            best.append((np.where(wins, slopes, found), np.where(wins[..., None], x, points)))
        self.found = tuple(best)

    def _tied(self, forms: np.ndarray, x: np.ndarray, flat: float) -> bool:
        """Whether one of the functions is 0 near ``x``, and not everywhere."""
        slopes = np.linalg.norm(forms[:, :-1] * self.space.half, axis=1)
        real = np.abs(forms[:, :-1]).max(1, initial=0.0) > flat
        values = np.abs(forms[real, :-1] @ x + forms[real, -1])
        return bool((values < THIN / 100 * slopes[real]).any())


def _sizes(steps: list[Piece], inputs: int) -> tuple[float, list[float]]:
    """How large slopes can be at the end, and what counts as none at each step."""
    size, flat = np.ones(inputs), []
    for step in steps:
        if isinstance(step, Affine):
            size = np.abs(step.weight) @ size
        elif isinstance(step, Bend):
            size = size * np.maximum(1.0, np.abs(step.slope))
        else:
            size = np.repeat(size.reshape(-1, step.size).max(1), step.size)
        flat.append(FLAT * float(size.max()))
    return float(size.max()), flat
