"""Sensitivity: how much one sample can change the summed gradient of each parameter, proven.

    sensitivity(module, input_shape, loss_lipschitz).parameters["0.weight"]

bounds the l2 norm of the gradient of any sample's loss by that parameter, for every sample (its features clipped
to a ball, or known to lie in one) and every label. The gradient summed over a batch then moves by at most this
when one sample is added or removed, so Gaussian noise in proportion makes its release private, without
per-sample gradients (Bethune et al., ICLR 2024, arXiv 2305.16202).

One walk forward bounds the features, one backward the cotangents; what each layer does is in
:mod:`lablib.privacy.rules`. Bounds are read from the weights as they are now. These are public: each is the
output of an earlier private step.

Not covered: the rounding of the sum over the batch, the floating-point form of the noise (Mironov, "On
significance of the least significant bits for differential privacy", CCS 2012), and time.
"""

import dataclasses
import itertools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from lablib.certify.arithmetic import arithmetic, check_arithmetic
from lablib.layers.base import layer_name
from lablib.layers.intact import check_global_hooks, check_intact, plain_class
from lablib.layers.sequential import ConvexResidual, LipschitzSequential
from lablib.privacy.effects import FLOOR, SLACK, Arithmetics, Flow
from lablib.privacy.residual import Residual
from lablib.privacy.rules import REASONS, RULES

CHAINS = (nn.Sequential, LipschitzSequential)


@dataclasses.dataclass(frozen=True)
class LayerBound:
    """What is known of one layer.

    Attributes:
        name: its path in the module.
        kind: its class.
        input_norm, output_norm: bounds of the l2 norm of one sample's features.
        cotangent_out, cotangent_in: bounds of the l2 norm of one sample's cotangent, at output and input.
        parameters: the sensitivity of each trained parameter, by full name.
    """

    name: str
    kind: str
    input_norm: float
    output_norm: float
    cotangent_out: float
    cotangent_in: float
    parameters: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """The bounds of a module: ``rows``, first layer to last (a residual before its branch); ``loss_lipschitz``."""

    rows: tuple[LayerBound, ...]
    loss_lipschitz: float

    @property
    def parameters(self) -> dict[str, float]:
        """The sensitivity of each trained parameter, by full name."""
        return {name: value for row in self.rows for name, value in row.parameters.items()}

    @property
    def total(self) -> float:
        """The sensitivity of all parameters together: the root of the sum of squares."""
        return math.hypot(*self.parameters.values()) * (1.0 + SLACK)

    def table(self) -> str:
        """Return the rows as a table of plain text."""
        heads = ("layer", "kind", "input <=", "output <=", "cotangent <=", "sensitivity")
        lines = [heads]
        for row in self.rows:
            own = (f"{name.rpartition('.')[2]} {value:.4g}" for name, value in row.parameters.items())
            norms = (row.input_norm, row.output_norm, row.cotangent_out)
            lines.append((row.name, row.kind, *(f"{value:.4g}" for value in norms), ", ".join(own)))
        lines.append(("all", "", "", "", f"{self.loss_lipschitz:.4g}", f"{self.total:.4g}"))
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
        return "\n".join("  ".join(t.ljust(w) for t, w in zip(line, widths)).rstrip() for line in lines)


def sensitivity(
    module: nn.Module,
    input_shape: tuple[int, ...],
    loss_lipschitz: float,
    *,
    input_bound: float = math.inf,
    norms: Mapping[str, float] | None = None,
) -> Sensitivity:
    """Return proven sensitivities of all trained parameters of ``module``.

    Args:
        module: a chain (also of chains and residuals) of the layers in :data:`lablib.privacy.rules.RULES`, in
            float32 or float64.
        input_shape: of one sample, without batch axis.
        loss_lipschitz: L, the l2 Lipschitz constant of one sample's loss in its outputs.
        input_bound: of the l2 norm of any sample; not needed if the module begins with ``ClipNorm``.
        norms: proven operator norms of weights by full parameter name, as :func:`~lablib.privacy.project`
            returns them; the others are measured.

    Raises:
        ValueError: for a layer that is unknown or couples samples, hooks, weights that are reparametrised, shared or
            not finite, a trained layer whose input is unbounded, or arguments out of range.
    """
    limit = _positive(loss_lipschitz, "the Lipschitz constant of the loss")
    bound = _positive(input_bound, "the bound of the inputs", unbounded=True)
    shape = _shape(input_shape)
    _check_module(module)
    how = surroundings(module)
    known = _check_norms(norms or {}, module)
    with torch.no_grad():
        _, back = _walk(module, "", Flow(shape, max(bound, FLOOR)), how, known)
    _, rows = back(max(limit, FLOOR))
    made = Sensitivity(tuple(rows), limit)
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    missing = sorted(trained - made.parameters.keys())
    if missing:
        raise ValueError(
            f"no rule knows the trained parameter {missing[0]}; remove it, or call requires_grad_(False) on it"
        )
    return made


Back = Callable[
    [float], tuple[float, list[LayerBound]]
]  # cotangent bound at the output -> at the input, and rows


def _walk(
    module: nn.Module, name: str, flow: Flow, how: Arithmetics, known: Mapping[str, float]
) -> tuple[Flow, Back]:
    """Go forward through ``module``; return the flow behind it and the way back."""
    kind = plain_class(module)
    if kind in CHAINS:
        return _chain(module, name, flow, how, known)
    if kind in (ConvexResidual, Residual):
        return _residual(module, name, flow, how, known)
    if kind not in RULES:
        raise ValueError(f"{_label(module, name)} {_reason(module)}")

    def full(local: str) -> str:
        return f"{name}.{local}" if name else local

    try:
        effect = RULES[kind](module, flow, how, lambda local: known.get(full(local)))
    except ValueError as error:
        raise ValueError(f"{_label(module, name)}: {error}") from error
    if effect.parameters and math.isinf(flow.norm):  # a bias too: its input may be NaN
        raise ValueError(
            f"{_label(module, name)} is trained, but its input is unbounded; begin the module with ClipNorm (or "
            "give input_bound to sensitivity())"
        )

    def back(cotangent: float) -> tuple[float, list[LayerBound]]:
        below = max(min(effect.gain * cotangent, effect.cap), FLOOR)
        own = {full(local): share * cotangent for local, share in effect.parameters.items()}
        inner = cotangent * flow.norm if flow.norm < math.inf else 0.0  # <g, x>, which clipping computes
        _check_size(max(below, inner, *own.values()), module, name)
        return below, [LayerBound(name, kind.__name__, flow.norm, norm, cotangent, below, own)]

    norm = max(effect.norm, FLOOR)
    if norm < math.inf:
        _check_size(norm, module, name)
    return Flow(effect.shape, norm), back


def _chain(module, name, flow, how, known) -> tuple[Flow, Back]:
    ways = []
    for key, part in module._modules.items():  # not children(), which leaves out a part met before
        flow, way = _walk(part, f"{name}.{key}" if name else key, flow, how, known)
        ways.append(way)

    def back(cotangent: float) -> tuple[float, list[LayerBound]]:
        rows: list[LayerBound] = []
        for way in reversed(ways):
            cotangent, own = way(cotangent)
            rows = own + rows
        return cotangent, rows

    return flow, back


def _residual(module, name, flow, how, known) -> tuple[Flow, Back]:
    """(1 - a) x + a b(x): X' = (1 - a) X + a X_b. The branch gets the cotangent a g, and the input (1 - a) g plus
    what comes back from it."""
    share = module.share if isinstance(module, Residual) else float(module.alpha.detach())
    if any(p.requires_grad for key, p in module.named_parameters() if not key.startswith("branch.")):
        raise ValueError(f"{_label(module, name)} learns its share, which has no rule; use a fixed one")
    inner, way = _walk(module.branch, f"{name}.branch" if name else "branch", flow, how, known)
    if inner.shape != flow.shape:
        raise ValueError(
            f"{_label(module, name)} has a branch that changes the shape from {flow.shape} to {inner.shape}"
        )
    slack = 1.0 + how.sums(6) + SLACK
    norm = math.inf  # whatever the share: 0 times NaN is NaN
    if flow.norm < math.inf:
        norm = ((1.0 - share) * flow.norm + share * inner.norm) * slack
    out = Flow(flow.shape, max(norm, FLOOR))

    def back(cotangent: float) -> tuple[float, list[LayerBound]]:
        through, rows = way(max(share * cotangent * slack, FLOOR))
        below = max(((1.0 - share) * cotangent + through) * slack, FLOOR)
        kind = plain_class(module).__name__
        return below, [LayerBound(name, kind, flow.norm, out.norm, cotangent, below, {}), *rows]

    return out, back


def _check_size(bound: float, module: nn.Module, name: str) -> None:
    if not bound < 2.0**100:
        raise ValueError(
            f"{_label(module, name)} may make features or gradients grow beyond float32; use smaller weights, or a "
            "constraint"
        )


def _check_module(module: nn.Module) -> None:
    """Refuse what could make gradients others than those of the layers: hooks, shared or computed weights."""
    check_intact(module)
    for name, part in module.named_modules():
        if part.training != module.training:
            raise ValueError(
                f"{_label(part, name)} is not in the same mode, training or evaluation, as the module; call train()"
            )
        if part._backward_hooks or part._backward_pre_hooks:
            raise ValueError(
                f"{_label(part, name)} has a backward hook, which may change gradients; remove it"
            )
    spans = []
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            continue
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            raise ValueError(f"the parameter {name} has a hook, which may change its gradient; remove it")
        if parameter.numel():
            last = sum((n - 1) * step for n, step in zip(parameter.shape, parameter.stride()))
            start = parameter.data_ptr()
            spans.append((start, start + last * parameter.element_size(), name))
    spans.sort()
    for (_, end, name), (start, _, other) in itertools.pairwise(spans):
        if start <= end:
            raise ValueError(
                f"{other} shares numbers with {name}, so that their gradients add up; give each layer its own"
            )


def surroundings(module: nn.Module) -> Arithmetics:
    """Return in which arithmetic ``module`` computes, by torch's global settings now: bounds hold for no other.

    Raises:
        ValueError: for autocast, global hooks, and weights that are not all float32 or all float64.
    """
    check_global_hooks()
    registry = torch.nn.modules.module
    if registry._global_backward_hooks or registry._global_backward_pre_hooks:
        raise ValueError(
            "a global backward hook of torch is registered, which may change gradients; remove it"
        )
    tensors = [
        t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point() or t.is_complex()
    ]
    kinds = {t.dtype for t in tensors} or {torch.float32}
    if len(kinds) > 1 or not kinds <= {torch.float32, torch.float64}:
        names = ", ".join(sorted(map(str, kinds)))
        raise ValueError(
            f"the weights are in {names}; private training is for all float32 or all float64, convert them"
        )
    form = arithmetic(kinds.pop())
    convolves = any(isinstance(part, nn.Conv2d) for part in module.modules())
    devices = {t.device for t in tensors}
    return Arithmetics(form, max((_coarse(device, convolves) for device in devices), default=0.0))


def _coarse(device: torch.device, convolves: bool) -> float:
    """Return the relative error of products on ``device`` beyond rounding: see :class:`Arithmetics`.

    TF32 and bfloat16 keep 11 and 8 bits of each factor: 2 2^-11 and 2 2^-8 for a product. Winograd's and other
    fast convolutions have no proven bound for every size: they are *assumed* to be within 2^-13, and 2^-9 together
    with TF32.
    """
    if torch.is_autocast_enabled(device.type):
        raise ValueError("autocast lowers the precision of layers; train privately outside of it")
    try:
        check_arithmetic(device, True, False)
    except ValueError:
        return 2.0**-6
    try:
        check_arithmetic(device, True, convolves)
    except ValueError:
        return 2.0**-9 if device.type == "cuda" and torch.backends.cudnn.allow_tf32 else 2.0**-13
    return 0.0


def _check_norms(norms: Mapping[str, float], module: nn.Module) -> Mapping[str, float]:
    names = {name for name, _ in module.named_parameters()}
    for name, value in norms.items():
        if name not in names:
            raise ValueError(
                f"there is a norm for {name}, which is no parameter of the module; use its full names"
            )
        if not isinstance(value, numbers.Real) or not 0.0 <= value < math.inf:
            raise ValueError(f"the norm of {name} must be a finite number of at least 0, got {value!r}")
    return norms


def _positive(value: float, what: str, unbounded: bool = False) -> float:
    top = math.inf if unbounded else math.nextafter(math.inf, 0.0)
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0.0 < value <= top:
        raise ValueError(f"{what} must be a {'' if unbounded else 'finite '}number above 0, got {value!r}")
    return float(value)


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    whole = all(isinstance(n, numbers.Integral) and not isinstance(n, bool) and n > 0 for n in sizes)
    if not whole or not sizes:
        raise ValueError(
            f"the shape of one sample is a tuple of positive sizes, without batch axis, got {shape!r}"
        )
    return tuple(int(n) for n in sizes)


def _reason(module: nn.Module) -> str:
    reason = REASONS.get(plain_class(module).__name__)
    if reason:
        return reason
    known = ", ".join(sorted(_qualified(kind) for kind in (*RULES, *CHAINS, ConvexResidual, Residual)))
    if isinstance(module, (*RULES, *CHAINS)):
        return f"is a subclass, which may compute something else; use one of {known} itself"
    if type(module).__module__.startswith("torch.nn.modules.activation"):
        return f"has no known sensitivity; use MaxMin of lablib.layers, or one of {known}"
    return (
        "has no known sensitivity; write it as nn.Sequential, with lablib.privacy.Residual for skips, of "
        f"{known}"
    )


def _qualified(kind: type[nn.Module]) -> str:
    return f"nn.{kind.__name__}" if kind.__module__.startswith("torch.") else kind.__name__


def _label(module: nn.Module, name: str) -> str:
    return f"{layer_name(module)} {name!r}" if name else layer_name(module)
