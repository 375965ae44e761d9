r"""How far computed logits are from the exact ones, proven; and radii of Lipschitz margins that allow for it.

Let h_k be the exact value behind layer k (stored weights, real arithmetic) and H_k the computed one, on the
float input x. With g the exact layer,

    |H_k - h_k|  <=  |fl g(H_{k-1}) - g(H_{k-1})|  +  |g(H_{k-1}) - g(h_{k-1})|
                 <=  local_k                       +  spread_k(E_{k-1})          =:  E_k,    E_0 = 0.

A layer that is 1-Lipschitz in linf spreads no error beyond the largest it is given, so the local errors of
the layers *add*; behind a layer of constant L the earlier ones count L times. ``local`` is derived for each
layer from the standard model in :mod:`lablib.certify.rules`: of relative size u for a distance neuron (one
subtraction; the maximum is exact), (K + 1) u for K sorted ones, n u for a linear layer of n inputs (any order
of summation, fused or not). Of chains that are Lipschitz in l2 the l2 norm of the error is followed as well,
||E_k||_2 <= L_k ||E_{k-1}||_2 + ||local_k||_2, and the smaller bound used: elementwise ones grow with the
l1 norms of rows.

``local`` depends on the size of values. These are read from one evaluation, widened by 2 E_k, so that they cover
every other evaluation (order, threads, batch, device) of the same input; and by the distance L_1 ... L_k r for
all inputs within r.

Assumptions: the arithmetic of :mod:`lablib.certify.arithmetic`, in which the elementary functions are good to
4 units in the last place, and that weights are as this machine reads them (a constraint computed elsewhere may
differ in the last place).
"""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.certify.arithmetic import arithmetic, check_size, round_down
from lablib.certify.chain import check_inputs, check_labels, check_logits, known_layers
from lablib.certify.final import split_final
from lablib.certify.rules import RULES, run
from lablib.certify.skips import Skip
from lablib.layers.intact import plain_class
from lablib.layers.sequential import ConvexResidual, LipschitzSequential, guarantee
from lablib.ops.norms import check_norm

# Bounds are evaluated in float64, as sums, products and roots of nonnegative numbers. N steps of that lose a
# relative N 2^-53 at most; this covers 2^30 of them.
_EVALUATION = 1.0 + 2.0**-22
ROWS = 256  # samples taken through the network at once


def bound_output_error(
    network: nn.Module, x: Tensor, radius: float | Tensor = 0.0, norm: str | None = None
) -> Tensor:
    """Return a proven bound of |computed logit - exact logit|, for every input within ``radius`` of ``x``.

    Args:
        network: a chain of known layers in evaluation mode, float32 or float64.
        x: (B, ...), in the network's dtype.
        radius: 0 for ``x`` alone, or one number or (B,): then ``network`` is a :class:`LipschitzSequential`.
        norm: of the radius; default the network's, if it has one only.

    Returns:
        (B, C) float64.

    Raises:
        ValueError: for a network that is not covered, inputs that do not fit, a negative radius, or values
            near overflow.
    """
    layers = known_layers(network)
    check_inputs(network, x)
    reach = torch.as_tensor(radius, dtype=torch.float64, device=x.device).expand(len(x))
    if not bool((reach >= 0).all()) or not bool(reach.isfinite().all()):
        raise ValueError("the radius must be finite and not negative")
    if bool((reach > 0).any()):
        _norm_of(network, norm)
    return _evaluate(layers, x, reach)[1]


def bound_radius(
    network: LipschitzSequential, x: Tensor, labels: Tensor, norm: str | None = None
) -> np.ndarray:
    """Return certified radii by Lipschitz margins, rounding included: 0 where the class is wrong.

    For every x' (float or real) at most the radius r > 0 away from x, the class of the exact function *and* the
    class that floats compute at x' are y. Proof: let E bound the error within r, and c_j be the constant of
    f_y - f_j. The computed difference F_y - F_j is at x' at least

        (f_y - f_j)(x') - E_y - E_j  >=  (f_y - f_j)(x) - c_j r - E_y - E_j
                                     >=  (F_y - F_j)(x) - c_j r - 2 (E_y + E_j),

    so any r below min_j ((F_y - F_j)(x) - 2 (E_y + E_j)) / c_j will do. For a 1-Lipschitz map c_j is 2 in linf,
    sqrt(2) in l2 and 1 in l1; less where the network ends in a linear layer, by the dual norm of w_y - w_j.

    Args:
        network: L-Lipschitz in ``norm``, in evaluation mode.
        x: (B, ...) in the network's dtype.
        labels: (B,) integers.
        norm: default the network's, if it has one only.

    Returns:
        (B,) float32, rounded down.

    Raises:
        ValueError: as :func:`bound_output_error`, and for a network without a guarantee in the norm.
    """
    layers = known_layers(network)
    check_inputs(network, x)
    norm = _norm_of(network, norm)
    radii = []
    with torch.no_grad(), parametrize.cached():
        constants = None
        y = check_labels(labels, len(x)).to(x.device)
        for start in range(0, len(x), ROWS):
            part, own = x[start : start + ROWS], y[start : start + ROWS]
            logits = check_logits(_forward(layers, part))
            check_labels(own, *logits.shape)
            if constants is None:
                constants = _pair_constants(layers, norm, logits.shape[1]).to(x.device)
            reach = _radius(logits, torch.zeros_like(logits), own, constants)
            logits, error = _evaluate(layers, part, reach)
            radii.append(round_down(torch.minimum(reach, _radius(logits, 2 * error, own, constants))))
    return torch.cat(radii).cpu().numpy() if radii else np.zeros(0, np.float32)


def _radius(logits: Tensor, allowance: Tensor, labels: Tensor, constants: Tensor) -> Tensor:
    rows, f = labels[:, None], logits.double()
    gap = f.gather(1, rows) - f - (allowance.gather(1, rows) + allowance)
    ratios = (gap / constants[labels]).scatter(1, rows, torch.inf)
    return ratios.amin(1).clamp(min=0.0) * (1.0 - 2.0**-48)


def _pair_constants(layers: list[nn.Module], norm: str, classes: int) -> Tensor:
    """Return (C, C) Lipschitz constants of f_y - f_j; 1 on the diagonal, which is not used."""
    factor = {"l1": 1.0, "l2": math.sqrt(2.0), "linf": 2.0}[norm]
    whole = factor * math.prod(guarantee(layer)[1] for layer in layers)
    constants = torch.full((classes, classes), whole, dtype=torch.float64)
    body, final = split_final(layers)
    if final is not None:
        before = math.prod(guarantee(layer)[1] for layer in body)
        constants = constants.clamp(max=(before * final.pair_norms(norm)).cpu())
    # rows that are (almost) equal must not make radii so large that values overflow within them
    constants = constants.clamp(min=max(1e-3 * whole, 1e-30)) * (1.0 + (len(layers) + 8) * 2.0**-52)
    return constants.fill_diagonal_(1.0)


def _norm_of(network: nn.Module, norm: str | None) -> str:
    if not isinstance(network, LipschitzSequential):
        raise ValueError(
            "a radius needs a LipschitzSequential, which states its constant (of an nn.Sequential "
            "lablib.privacy.certifiable makes one); use that, or interval bounds"
        )
    if norm is None:
        if len(network.norms) != 1:
            raise ValueError(
                f"the network is Lipschitz in {', '.join(network.norms)}; say which norm is meant"
            )
        return network.norms[0]
    if check_norm(norm) not in network.norms:
        raise ValueError(f"the network is Lipschitz in {', '.join(network.norms)}, not in {norm}")
    return norm


@dataclasses.dataclass
class _State:
    """Behind a layer: the computed ``value``, its ``error`` elementwise, ``total`` (B,), a bound of its l2 norm,
    and ``reach`` (B,): how far the exact value moves for inputs within the radius."""

    value: Tensor
    error: Tensor
    total: Tensor
    reach: Tensor

    def size(self) -> Tensor:
        """|z| is at most this for every evaluation of every input within the radius."""
        return self.value.double().abs() + 2 * self.error + _rows(self.reach, self.value)


def _forward(layers: list[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = run(layer, x)
    return x


def _evaluate(layers: list[nn.Module], x: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (B, C) as computed here, and their errors (B, C) float64."""
    values, errors = [], []
    with torch.no_grad(), parametrize.cached():
        for start in range(0, max(len(x), 1), ROWS):
            part, far = x[start : start + ROWS], reach[start : start + ROWS]
            zero = torch.zeros_like(part, dtype=torch.float64)
            state = _State(part, zero, torch.zeros_like(far), far)
            state = _propagate(layers, state)
            values.append(state.value)
            errors.append(state.error * _EVALUATION)
    check_logits(values[0])
    return torch.cat(values), torch.cat(errors)


def _propagate(layers: list[nn.Module], state: _State) -> _State:
    for layer in layers:
        kind = plain_class(layer)
        if kind is ConvexResidual:
            state = _residual(layer, state)
        elif kind is Skip:
            state = _skip(layer, state)
        else:
            state = _layer(layer, state)
    return state


def _layer(layer: nn.Module, state: _State) -> _State:
    rule, form = RULES[plain_class(layer)], arithmetic(state.value.dtype)
    value = run(layer, state.value)
    reach = _moved(layer, state.reach)
    passed = rule.spread(layer, state.error)
    # |g| at any other evaluation: this one, and the way to that; what this one rounds is of size u |g|
    outputs = value.double().abs() + 2 * passed + _rows(reach, value)
    local = rule.local(layer, state.size(), outputs, form)
    if local is None:
        local = torch.zeros_like(passed)
    check_size(outputs, local, value.dtype)
    return _next(layer, value, passed, local, state.total, reach)


def _next(layer, value: Tensor, passed: Tensor, local: Tensor, total: Tensor, reach: Tensor) -> _State:
    error = passed + local
    constant = _l2_constant(layer)
    norm = _l2(error) if constant is None else torch.minimum(_l2(error), constant * total + _l2(local))
    return _State(value, torch.minimum(error, _rows(norm, error)), norm, reach)


def _residual(layer: ConvexResidual, state: _State) -> _State:
    """(1 - alpha) x + alpha branch(x): errors add in these shares; four roundings of the two terms."""
    alpha, form = layer.alpha.double(), arithmetic(state.value.dtype)
    inner = _propagate(known_layers(layer.branch), state)
    size = (1 - alpha) * state.size() + alpha * inner.size()
    value = run(layer, state.value)
    local = form.relative(4) * size + 8 * form.tiny
    check_size(size, local, value.dtype)
    passed = (1 - alpha) * state.error + alpha * inner.error
    total = (1 - alpha) * state.total + alpha * inner.total
    reach = torch.maximum(state.reach, _moved(layer, state.reach))
    error = passed + local
    norm = torch.minimum(_l2(error), total + _l2(local))
    return _State(value, torch.minimum(error, _rows(norm, error)), norm, reach)


def _skip(layer: Skip, state: _State) -> _State:
    """A linear layer of [inner(x), x]; without a constant stated, so only at the input itself (reach 0)."""
    inner = _propagate(known_layers(layer.inner), state)
    both = [torch.cat(parts, -1) for parts in ((inner.value, state.value), (inner.error, state.error))]
    return _layer(layer.join, _State(*both, _l2(both[1]), state.reach))


def _moved(layer: nn.Module, reach: Tensor) -> Tensor:
    return reach if not reach.any() else reach * guarantee(layer)[1] * (1.0 + 2.0**-48)


def _l2_constant(layer: nn.Module) -> float | None:
    try:
        norms, constant = guarantee(layer)
    except ValueError:  # torch's own linear layers state none
        return None
    return constant if "l2" in norms else None


def _l2(values: Tensor) -> Tensor:
    return values.flatten(1).square().sum(1).sqrt() + 1e-150  # squares below that underflow


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.dim() - 1))
