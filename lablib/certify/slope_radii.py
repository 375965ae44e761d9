r"""Certified radii of decisions from certified slopes, in l1 and linf, rounding included.

Let h be what decides: f - threshold for one output, f_y - f_j for each j against the class y. With |slope_i| <= c_i
for all inputs within reach, |h(x') - h(x)| <= c ||x' - x|| with c = max_i c_i in l1 and c = sum_i c_i in linf.
Computed values F err by at most E (:func:`~lablib.certify.box_rounding.bound_box_error`) at x and at every x'
within reach, so any r below (|H(x)| - 2 E) / c, or 2 (E_y + E_j) for two outputs, keeps the class of the real
function *and* the computed class at every x' within r.

Bounds c and E may be those of the ball itself: activations that are fixed in it make c smaller. A radius is returned
only if it was checked with the c and E of its own ball.
"""

import math
import numbers

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.certify.arithmetic import round_down
from lablib.certify.box_rounding import bound_box_error
from lablib.certify.chain import check_inputs, check_labels, check_logits, known_layers
from lablib.certify.margins import _positive
from lablib.certify.rules import Box, run
from lablib.certify.skips import StableSoftplus
from lablib.certify.slope_rules import as_stored
from lablib.certify.slopes import before_last_linear, check_gradual_underflow, slopes_of_chain
from lablib.layers.intact import plain_class
from lablib.ops.rounding import sum_allowance
from lablib.ops.slope_state import SlopeState

ROWS = 32  # samples whose slopes are followed at once
FAR = 1e6  # radii are cut at this many times the size of the input, before values overflow
STEPS = 12  # of the search for a larger radius, each a pass through the network


def bound_radius_slopes(
    model: nn.Module,
    x: Tensor,
    labels: Tensor | None = None,
    norm: str = "l1",
    threshold: float | None = None,
    *,
    local: bool = True,
) -> np.ndarray:
    """Return certified radii of decisions, 0 where the decision is not that of ``labels``.

    One output: the decision is f > threshold. Several: the class of the largest.

    Args:
        model: a chain of known layers in evaluation mode, MonotoneNetwork and MonotonicWrapper among them.
        x: (B, I) in the model's dtype.
        labels: (B,), booleans, 0/1 or -1/+1 for one output, integers for several. Default: what the model decides.
        norm: of the radius, "l1" or "linf".
        threshold: for one output, in its units; of a sigmoid or softplus, one that it can take. None: 1/2 behind a
            sigmoid, 0 otherwise.
        local: use the slopes within the ball where they give a larger radius (some ten passes more).

    Returns:
        (B,) float32, rounded down.

    Raises:
        ValueError: as :func:`~lablib.certify.slopes.certify_slopes`, and for inputs or labels that do not fit,
            another norm, or a threshold that the output cannot take.
    """
    if norm not in ("l1", "linf"):
        raise ValueError(f"slopes give radii in l1 and linf, not in {norm!r}")
    if isinstance(threshold, torch.Tensor) and threshold.numel() == 1:
        threshold = threshold.item()
    layers = known_layers(model)
    check_inputs(model, x)
    check_gradual_underflow()
    with torch.no_grad(), parametrize.cached():
        outputs = check_logits(run(model, x))
        if not outputs.isfinite().all():
            raise ValueError("outputs contain NaN or infinity; look for weights or inputs that made them")
        if threshold is None:
            ends_in_sigmoid = bool(layers) and plain_class(layers[-1]) is nn.Sigmoid
            threshold = 0.5 if ends_in_sigmoid and outputs.shape[1] == 1 else 0.0
        decision = _Decision(*_without_head(layers, outputs.shape[1], threshold), norm)
        chosen = _chosen(outputs, labels, threshold)
        radii = [
            decision.radii(x[rows], chosen[rows], local)
            for rows in torch.arange(len(x), device=x.device).split(ROWS)
            if len(rows)
        ]
    return torch.cat(radii).cpu().numpy() if radii else np.zeros(0, np.float32)


def _chosen(outputs: Tensor, labels: Tensor | None, threshold: float) -> Tensor:
    """Return the class (B,) whose radius is asked for; 0 or 1 for one output."""
    single = outputs.shape[1] == 1
    if labels is None:
        return (outputs[:, 0].double() > threshold).long() if single else outputs.argmax(1)
    if not single:
        return check_labels(labels, *outputs.shape).to(outputs.device)
    positive = torch.from_numpy(_positive(labels)).long().to(outputs.device)
    if positive.shape != (len(outputs),):
        raise ValueError(f"labels ({len(outputs)},) expected, got shape {tuple(positive.shape)}")
    return positive


def _without_head(
    layers: list[nn.Module], outputs: int, threshold: float
) -> tuple[list[nn.Module], tuple[float, ...]]:
    """Return the layers before a head of one output, and below and above which its decision is settled.

    Those are the threshold and what float32 makes of it. A head is increasing, so f > t where y > h^-1(t). The head
    as computed errs by a relative 32 u at most, which the distance of the two ends from h^-1(t) covers. Several
    outputs have no thresholds.
    """
    kind = plain_class(layers[-1]) if layers else None
    if outputs != 1:
        if threshold != 0.0:
            raise ValueError("a threshold is for one output; several are compared with one another")
        return layers, ()
    if not isinstance(threshold, numbers.Real) or not math.isfinite(threshold):
        raise ValueError(f"the threshold must be a finite number, got {threshold}")
    if kind not in (nn.Sigmoid, StableSoftplus) or plain_class(layers[0]) is kind:
        return layers, as_stored(threshold)
    if not 1e-30 < threshold < (1.0 if kind is nn.Sigmoid else math.inf):
        raise ValueError(
            f"a {kind.__name__} is never {threshold}; choose a threshold that it takes, such as 0.5"
        )
    share = 2.0**-16
    ends = threshold * (1.0 - share), threshold * (1.0 + share)
    if kind is nn.Sigmoid:
        low, high = (math.log(t / (1.0 - t)) if t < 1.0 else math.inf for t in ends)
    else:
        low, high = (t + math.log(-math.expm1(-t)) for t in ends)
    slack = 2.0**-40
    return layers[:-1], (low - slack * (1.0 + abs(low)), high + slack * (1.0 + abs(high)))


class _Decision:
    """Margins of a chain, their slopes within a box, and the radii that follow."""

    def __init__(self, layers: list[nn.Module], thresholds: tuple[float, ...], norm: str):
        self.layers, self.thresholds, self.norm = layers, thresholds, norm
        self.chain = nn.Sequential(*layers).eval()

    def radii(self, x: Tensor, chosen: Tensor, local: bool) -> Tensor:
        """Return (B,) float32 for ``x`` (B, I) and classes ``chosen`` (B,)."""
        gaps = self.gaps(run(self.chain, x).double(), chosen)
        everywhere = torch.full_like(x[:1], torch.inf, dtype=torch.float64)
        size = self.sizes((-everywhere, everywhere), chosen)
        far = FAR * x.double().abs().flatten(1).amax(1).clamp(min=1.0)
        reach = torch.minimum(self.radius(gaps, 0.0, size), far)
        found = torch.minimum(reach, self.radius(gaps, self.allowance(self.ball(x, reach), chosen), size))
        if local:
            found = self.enlarged(x, chosen, gaps, found, far)
        return round_down(found)

    def enlarged(self, x: Tensor, chosen: Tensor, gaps: Tensor, found: Tensor, far: Tensor) -> Tensor:
        """Search for larger radii, each proven by the slopes and errors of its own ball."""
        first = found.clone()
        top = torch.full_like(found, 64.0)
        bottom = torch.ones_like(found)
        for _ in range(STEPS):
            factor = (bottom * top).sqrt()  # between 1 and 64 on a logarithmic scale
            aim = torch.minimum(first * factor, far)
            ball = self.ball(x, aim)
            proven = self.radius(gaps, self.allowance(ball, chosen), self.sizes(ball, chosen)) >= aim
            found = torch.where(proven, torch.maximum(found, aim), found)
            bottom, top = torch.where(proven, factor, bottom), torch.where(proven, top, factor)
        return found

    def gaps(self, outputs: Tensor, chosen: Tensor) -> Tensor:
        """Return how far each comparison is from turning, (B, C); infinity at the class itself."""
        if self.thresholds:
            below, above = self.thresholds
            return torch.where(chosen[:, None] == 1, outputs - above, below - outputs)
        own = outputs.gather(1, chosen[:, None])
        return (own - outputs).scatter(1, chosen[:, None], torch.inf)

    def allowance(self, ball: Box, chosen: Tensor) -> Tensor:
        """Return what rounding may take from each gap, at x and at x' (B, C)."""
        error = bound_box_error(self.chain, *ball)
        if self.thresholds:
            return 2.0 * error
        return 2.0 * (error + error.gather(1, chosen[:, None]))

    def ball(self, x: Tensor, radius: Tensor) -> Box:
        """Return the box (B, I) around balls of the radii, rounded outward: of linf, and around those of l1."""
        reach = radius.reshape(-1, *[1] * (x.dim() - 1)) * (1.0 + 2.0**-20)
        infinity = torch.full_like(x, torch.inf)
        low, high = (x.double() - reach).to(x.dtype), (x.double() + reach).to(x.dtype)
        return torch.nextafter(low, -infinity), torch.nextafter(high, infinity)

    def radius(self, gaps: Tensor, allowance: Tensor | float, sizes: Tensor) -> Tensor:
        """Return min over comparisons of (gap - allowance) / size (B,), not negative, rounded down."""
        return ((gaps - allowance) / sizes.clamp(min=1e-30)).amin(1).clamp(min=0.0) * (1.0 - 2.0**-40)

    def sizes(self, box: Box, chosen: Tensor) -> Tensor:
        """Return constants (B, C) of each comparison in the norm, for inputs in the box."""
        low, high = self.differences(box, chosen)
        largest = torch.maximum(-low, high)
        if self.norm == "l1":
            return largest.amax(-1)
        return largest.sum(-1) * sum_allowance(largest.shape[-1])

    def differences(self, box: Box, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return slopes (B, C, I) of f_y - f_j; of one output, of that."""
        if self.thresholds:
            state = slopes_of_chain(self.layers, box)
            return tuple(v.expand(len(chosen), *v.shape[-2:]) for v in (state.low, state.high))
        state, weight = before_last_linear(self.layers, box)
        classes = state.low.shape[-2] if weight is None else len(weight)
        low = state.low.new_empty(len(chosen), classes, state.low.shape[-1])
        high = torch.empty_like(low)
        for y in chosen.unique().tolist():
            rows = chosen == y
            part = state.of_samples(rows)
            end = _gaps_of(part, y) if weight is None else part.linear(weight[y] - weight)
            low[rows], high[rows] = end.low, end.high
        return low, high


def _gaps_of(state: SlopeState, y: int) -> SlopeState:
    """Slopes of f_y - f_j for all j, from those of f."""
    own = SlopeState(state.low[..., y : y + 1, :], state.high[..., y : y + 1, :], {})
    return own.plus(SlopeState(-state.high, -state.low, {}))
