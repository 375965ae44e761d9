"""Fit a small monotone network to a table of numbers, quickly enough to be watched, and ask it for its slopes."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils import parametrize

from lablib.certify import bound_radius_slopes, certify_slopes
from lablib.certify.chain import known_layers
from lablib.certify.slopes import slopes_of_chain
from lablib.experiments.live_tables import Rows
from lablib.experiments.threads import one_thread
from lablib.layers import MonotoneNetwork
from lablib.plots.monotone import value_band
from lablib.train.loop import fit as train
from lablib.train.schedules import cosine

HIDDEN = (16, 16)
RATE = 0.02
HELD_OUT = 0.25
REPORT_SECONDS = 0.2
TINY = 1e-9  # ends of proven slopes closer to 0 are drawn at 0, if that widens the interval


@dataclasses.dataclass(frozen=True)
class LiveMonotone:
    """A network at one moment of its training. Features go in, and the score comes out, in their own units.

    Attributes:
        model: (N, I) -> (N, 1), float64, from standardised features to the logit or the standardised number.
        rows: its table; ``train``: (N,) which rows it learns from.
        centre, scale: (I,) mean and spread of the features over those rows. ``level``, ``unit``: the same of y (0
            and 1 for classes).
        step, seconds: how long it has been trained.
    """

    model: MonotoneNetwork
    rows: Rows
    train: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    level: float
    unit: float
    step: int
    seconds: float

    @property
    def directions(self) -> np.ndarray:
        """(I,) +1, 0 or -1: what the network promises."""
        return self.model.directions[0].detach().numpy().astype(int)

    @one_thread()
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the score (...,) of features (..., I): a logit for classes, else in the units of y."""
        with torch.no_grad():
            made = self.model(torch.from_numpy(self._standard(x)))[..., 0]
        return self.level + self.unit * made.numpy()

    @one_thread()
    def slopes(self, lower: np.ndarray | None = None, upper: np.ndarray | None = None) -> np.ndarray:
        """Return certified slopes (2, ..., I), low and high, of the score per *spread* of each feature.

        ``lower``, ``upper``: (..., I) boxes of features within which they hold; the whole space without.
        """
        if lower is None or upper is None:
            found = certify_slopes(self.model)
            return self.unit * np.stack([found.low[0], found.high[0]])
        ends = np.broadcast_arrays(self._standard(lower), self._standard(upper))
        shape = ends[0].shape
        box = tuple(torch.from_numpy(end.reshape(-1, shape[-1])) for end in ends)
        with torch.no_grad(), parametrize.cached():  # all boxes in one pass
            state = slopes_of_chain(known_layers(self.model), box)
        found = torch.stack([state.low[..., 0, :], state.high[..., 0, :]])
        found = found.reshape(2, -1, shape[-1]).expand(2, len(box[0]), shape[-1])
        return self.unit * found.numpy().reshape(2, *shape)

    @one_thread()
    def radius(self, x: np.ndarray, norm: str, local: bool = True) -> np.ndarray:
        """Return (N,) how far rows (N, I) may move in ``norm``, in spreads, on their side of the threshold.

        ``local``: search for larger radii by the slopes within each ball, which takes ten times as long.
        """
        inputs = torch.from_numpy(self._standard(x))
        return bound_radius_slopes(self.model, inputs, norm=norm, local=local)

    def quality(self, held_out: bool = True) -> float:
        """Return accuracy (classes) or root mean squared error, by default on the rows it never saw."""
        chosen = ~self.train if held_out else self.train
        score, wanted = self.predict(self.rows.x[chosen]), self.rows.y[chosen]
        if self.rows.classes:
            return float(((score > 0) == (wanted > 0.5)).mean())
        return float(np.sqrt(((score - wanted) ** 2).mean()))

    def partial(self, feature: int, cells: int = 20, sample: int = 30) -> "Partial":
        """Return how the score of ``sample`` rows follows one feature, with certified slopes in each of the cells.

        The slopes hold for every row whose other features lie within their ranges in the table.
        """
        x = self.rows.x
        edges = np.linspace(x[:, feature].min(), x[:, feature].max(), cells + 1)
        chosen = x[np.linspace(0, len(x) - 1, min(sample, len(x))).astype(int)]
        moved = np.repeat(chosen[:, None], cells + 1, axis=1)
        moved[..., feature] = edges
        lower, upper = np.repeat(x.min(0)[None], cells, 0), np.repeat(x.max(0)[None], cells, 0)
        lower[:, feature], upper[:, feature] = edges[:-1], edges[1:]
        low, high = self.slopes(lower, upper)[..., feature]
        return Partial(edges, self.predict(moved), low, high, float(self.scale[feature]))

    def what_if(self, x: np.ndarray, feature: int, reach: float, cells: int = 24) -> "WhatIf":
        """Return what is proven about one row (I,): along one feature, and with all of them moving at once.

        ``reach``: how far every feature may move, in spreads.
        """
        x = np.asarray(x, dtype=np.float64)
        column = self.rows.x[:, feature]
        ends = (min(column.min(), x[feature]), max(column.max(), x[feature]))
        edges = np.unique(np.append(np.linspace(*ends, cells + 1), x[feature]))
        moved = np.repeat(x[None], len(edges), axis=0)
        moved[:, feature] = edges
        low, high = self.slopes(moved[:-1], moved[1:])[..., feature]
        score = float(self.predict(x))
        here = int(np.searchsorted(edges, x[feature]))
        places = edges / self.scale[feature]
        floor, roof = value_band(places, low, high, here, score)
        cone = np.stack(value_band(places, *self.slopes()[:, feature], here, score))
        around = self.slopes(x - reach * self.scale, x + reach * self.scale)
        radius = {norm: float(self.radius(x[None], norm, local=False)[0]) for norm in ("l1", "linf")}
        return WhatIf(
            score=score,
            here=float(x[feature]),
            edges=edges,
            curve=self.predict(moved),
            floor=floor,
            roof=roof,
            cone=cone,
            raised=reach * around,
            measured=self.predict(x + reach * np.diag(self.scale)) - score,
            change=reach * float(np.abs(around).max(axis=0).sum()),
            radius=radius,
        )

    def dependence(self, feature: int) -> dict[str, object]:
        """Return the partial dependence of one feature as ``draw_partial_dependence`` has it.

        Slopes are per unit of the feature there; see :func:`lablib.plots.monotone.draw_partial_dependence`.
        """
        seen = self.partial(feature)
        low, high = seen.low / seen.spread, seen.high / seen.spread
        return {
            "name": self.rows.features[feature],
            "direction": int(self.directions[feature]),
            "x": seen.edges,
            "values": seen.mean,
            "others": seen.scores,
            "low": np.where(np.abs(low) < TINY, np.minimum(low, 0.0), low),
            "high": np.where(np.abs(high) < TINY, np.maximum(high, 0.0), high),
            "rows": self.rows.x[:, feature],
        }

    @property
    def threshold(self) -> float:
        """The score at which the decision changes: 0 for a logit, the mean of y for a number."""
        return self.level

    def _standard(self, x: np.ndarray) -> np.ndarray:
        return (np.asarray(x, dtype=np.float64) - self.centre) / self.scale


@dataclasses.dataclass(frozen=True)
class Partial:
    """How the score follows one feature.

    Attributes:
        edges: (K + 1,) values of the feature. ``scores``: (S, K + 1) of S rows with the feature set to them.
        low, high: (K,) certified slopes of the score within each cell, per spread of the feature.
        spread: of the feature, in its own units.
    """

    edges: np.ndarray
    scores: np.ndarray
    low: np.ndarray
    high: np.ndarray
    spread: float

    @property
    def mean(self) -> np.ndarray:
        """(K + 1,) the partial dependence."""
        return self.scores.mean(axis=0)

    @property
    def slope(self) -> np.ndarray:
        """(S, K) mean slopes of the rows' curves in the cells, per spread."""
        return np.diff(self.scores, axis=1) / np.diff(self.edges) * self.spread


@dataclasses.dataclass(frozen=True)
class WhatIf:
    """What is known of one row.

    Attributes:
        score: its own. ``here``: its value of one feature. ``edges``, ``curve``: (K,) the score along that feature.
        floor, roof: (K,) what the slopes that are certified along this line, cell by cell, allow from the score of
            the row on. ``cone``: (2, K) the same with the slopes that are certified for all inputs.
        raised: (2, I) certified change of the score if a feature is raised by the reach, the others anywhere
            within it. Lowering it is the same with the sign changed. ``measured``: (I,) what the score does if this
            feature alone is raised.
        change: certified change of the score, up or down, if every feature moves by at most the reach.
        radius: norm -> how far, in spreads, the row may move without changing the decision.
    """

    score: float
    here: float
    edges: np.ndarray
    curve: np.ndarray
    floor: np.ndarray
    roof: np.ndarray
    cone: np.ndarray
    raised: np.ndarray
    measured: np.ndarray
    change: float
    radius: dict[str, float]


@one_thread()
def fit(
    rows: Rows,
    directions: Sequence[int] | None = None,
    *,
    lipschitz: float = 1.0,
    residual: str = "certified",
    steps: int = 150,
    seed: int = 0,
    keep_on_interrupt: bool = False,
    on_progress: Callable[[LiveMonotone], None] | None = None,
) -> LiveMonotone:
    """Fit a monotone network to three quarters of the rows, with Adam on all of them at once.

    Cross entropy for classes, squared error otherwise; features, and a number to predict, are standardised by the
    rows that are learned from.

    Args:
        rows: the table.
        directions: (I,) +1, 0 or -1; those of the table by default.
        lipschitz: lambda > 0, how much the score may change (in spreads of y, or units of the logit) per spread of
            a feature before the residual is added.
        residual: "certified" or "lipschitz", see :class:`lablib.layers.MonotoneNetwork`.
        keep_on_interrupt: Ctrl-C returns what was learned so far; by default it is passed on.
        on_progress: called a few times a second with the network as it is then.

    Raises:
        ValueError: for a table of fewer than eight rows, or what MonotoneNetwork refuses.
    """
    count, inputs = rows.x.shape
    if count < 8:
        raise ValueError(f"{rows.name} has {count} rows; eight are needed to hold some out")
    learns = np.random.default_rng(seed).permutation(count) >= HELD_OUT * count
    known, wanted = rows.x[learns], rows.y[learns]
    centre, scale = known.mean(0), known.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    level, unit = (0.0, 1.0) if rows.classes else (float(wanted.mean()), float(wanted.std()) or 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (
            MonotoneNetwork(
                inputs,
                HIDDEN,
                lipschitz=lipschitz,
                directions=rows.directions if directions is None else tuple(directions),
                residual=residual,
            )
            .double()
            .eval()
        )
    start = last = time.perf_counter()
    taken = 0

    def state() -> LiveMonotone:
        seconds = time.perf_counter() - start
        return LiveMonotone(model, rows, learns, centre, scale, level, unit, taken, seconds)

    def report(step: int, _loss: float) -> None:
        nonlocal last, taken
        taken = step + 1
        if on_progress is not None and time.perf_counter() - last > REPORT_SECONDS:
            model.eval()  # what is certified is not in training
            on_progress(state())
            model.train()
            last = time.perf_counter()

    loss = functional.binary_cross_entropy_with_logits if rows.classes else functional.mse_loss
    batch = (
        torch.from_numpy((known - centre) / scale),
        torch.from_numpy(((wanted - level) / unit)[:, None].astype(np.float64)),
    )
    options = {"progress": False, "keep_on_interrupt": keep_on_interrupt, "on_step": report}
    train(model, loss, [batch], steps, cosine(RATE, steps, RATE / 20), **options)
    return state()
