"""Networks that are increasing, decreasing or free in each input, whatever their weights: MonotoneNetwork.

A Lipschitz network g has slopes that are bounded from below; adding enough of an input makes them positive:

    f_o(x) = g_o(x) + sum_i s_oi r_oi x_i,    s_oi in {+1, 0, -1},  r_oi >= 0.

Source: Kitouni, Nolte, Williams, "Robust and Provably Monotonic Networks" (arXiv 2112.00038), section 2; Nolte,
Kitouni, Williams, "Expressive Monotonic Neural Networks" (ICLR 2023, arXiv 2307.07512), section 3.
"""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.layers.activations import GroupSort
from lablib.layers.base import Fixed, check_channels, exact, layer_name
from lablib.layers.directions import Directions, check_saved_directions, checked_directions
from lablib.layers.frozen import FrozenMonotone
from lablib.layers.intact import check_constrained, check_intact, plain_class
from lablib.layers.lipschitz_linear import SAVED_CAP, LipschitzLinear, check_saved_cap
from lablib.layers.monotone_checks import (
    SAVED_SETTINGS,
    check_dtype,
    check_saved_settings,
    settings_tensor,
)
from lablib.layers.monotone_options import checked_kinds, checked_widths
from lablib.ops.projections import check_cap
from lablib.ops.slopes import (
    add_slopes,
    intersect_slopes,
    slopes_of_weight,
    through_group_sort,
    through_linear,
)
from lablib.ops.sorting import group_sort

RESIDUALS = ("certified", "lipschitz")
# Of lambda: what is left between the slopes of g and r, so that bounds of the sum prove its sign in whatever order
# they are computed (they lose about 2^-52 per unit of width and layer).
_SLACK = 2.0**-40
_EXCHANGED = "; make a new MonotoneNetwork, or a MonotonicWrapper around a network of your own"


def _softplus(y: Tensor) -> Tensor:
    # torch's own returns y beyond a threshold, and jumps down there
    return torch.logaddexp(y, torch.zeros_like(y))


def _identity(y: Tensor) -> Tensor:
    return y


HEADS = {None: _identity, "sigmoid": torch.sigmoid, "softplus": _softplus}


class MonotoneNetwork(Directions):
    r"""x (..., I) -> (..., O), monotone in the inputs that ``directions`` names, for all weights.

        f = head(g(x) + sum_i s_oi r_oi x_i),    g = W_L sort W_{L-1} ... sort W_1 x with biases,

    where every \|dg_o/dx_i\| <= lambda, since layer l has ||W_l|| <= lambda^(1/L) in norms that chain. What is
    added, r, is what the slopes of g as bounded now (:func:`lablib.ops.slopes.through_linear`) ask for, to 1e-12:
    no slope is forced above 0, none can have the wrong sign. Gradients flow through r. With
    ``residual="lipschitz"`` r = lambda, as in the paper: cheaper, and slopes lie in [0, 2 lambda].

    Statements are about the real function that the stored weights define. Evaluated in floating point, two close
    points may come out the wrong way round by the rounding of the outputs. The parts of ``network`` are read rather
    than called, so that each weight is constrained once; forward hooks on them do not run. Directions, lambda and the
    options below are saved with the weights, and a state of others is refused: it would be another function.

    Args:
        in_features, out_features: I and O.
        hidden: widths of the hidden layers; none makes a linear function.
        lipschitz: lambda, the bound of the slopes of g, between 1e-30 and 1e30.
        directions: +1 increasing, -1 decreasing, 0 free; (I,) for all outputs or (O, I). Default all +1.
        kind: the norms that are capped. ``"one-inf"`` (the default), ``"two-inf"``: the first layer; ``"inf"`` in
            the others. ``"one"``, ``"inf"``, ``"two"``: all layers. Or one kind per layer, if they chain.
        group_size: how many units are sorted together; divides every width.
        residual: ``"certified"`` or ``"lipschitz"``.
        head: None, ``"sigmoid"`` or ``"softplus"``, applied at the end; both are increasing.

    Attributes:
        network: g.
        directions: s (O, I), a tensor in the dtype of the weights.
        lipschitz: lambda.

    Raises:
        ValueError: for fractional or NaN directions or ones of another shape, a lambda that is not a positive
            number, widths that ``group_size`` does not divide, unknown kinds or such that do not chain.

    >>> network = MonotoneNetwork(3, (16, 16), lipschitz=2.0, directions=(1, 0, -1))
    >>> low, high = network.slope_bounds()
    >>> bool(low[0, 0] >= 0), bool(high[0, 2] <= 0)
    (True, True)
    """

    in_features = Fixed()
    out_features = Fixed()
    lipschitz = Fixed()
    group_size = Fixed()
    residual_kind = Fixed()
    head = Fixed()
    stated_elsewhere = (
        "is bounded slope by slope; ask its slope_bounds(), or certify_slopes of lablib.certify for a chain"
    )

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int = 1,
        lipschitz: float = 1.0,
        directions: Sequence | Tensor | None = None,
        *,
        kind: str | Sequence[str] = "one-inf",
        group_size: int = 2,
        residual: str = "certified",
        head: str | None = None,
        device=None,
        dtype=None,
    ):
        super().__init__()
        widths = checked_widths(in_features, hidden, out_features, group_size)
        kinds = checked_kinds(kind, len(widths) - 1)
        if residual not in RESIDUALS:
            raise ValueError(f"residual is one of {', '.join(RESIDUALS)}, got {residual!r}")
        if head is not None and (not isinstance(head, str) or head not in HEADS):
            raise ValueError(f"head is one of {', '.join(map(repr, HEADS))}, got {head!r}")
        self.in_features, self.out_features, self.group_size = in_features, out_features, group_size
        self.lipschitz, self.residual_kind, self.head = check_cap(lipschitz), residual, head
        cap = root_below(self.lipschitz * (1.0 - _SLACK), len(kinds))
        self._linear = tuple((kind, cap) for kind in kinds)
        layers = []
        for place, (width, after) in enumerate(itertools.pairwise(widths)):
            layers += [GroupSort(group_size, dim=-1)] if place else []
            layers.append(
                LipschitzLinear(
                    width, after, kind=kinds[place], lipschitz_const=cap, device=device, dtype=dtype
                )
            )
        self.network = nn.Sequential(*layers)
        self._keep_directions(checked_directions(directions, out_features, in_features), layers[0].bias)

    @exact
    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (..., O)."""
        check_channels(x, self.in_features, -1, self)
        weights = self._weights()
        check_dtype(x, weights[0].dtype, self)
        y = x
        for place, (layer, weight) in enumerate(zip(self.network[::2], weights)):
            y = F.linear(
                group_sort(y, self.network[2 * place - 1].size, -1) if place else y, weight, layer.bias
            )
        return HEADS[self.head](y + F.linear(x, self.directions * self._residual(weights)))

    def residual(self) -> Tensor:
        """Return r (O, I) >= 0 as it is added now, in the dtype of the weights; 0 for free inputs."""
        return self._residual(self._weights())

    def frozen(self) -> FrozenMonotone:
        """Return a copy with plain weights and no gradients, several times faster: for use, not for training."""
        with torch.no_grad():
            return FrozenMonotone(self.network, self.directions * self.residual(), HEADS[self.head])

    def slope_bounds(self) -> tuple[Tensor, Tensor]:
        """Return (low, high), (O, I) float64: low_oi t <= f_o(x + t e_i) - f_o(x) <= high_oi t, for t >= 0.

        f before the head, which multiplies slopes by at most 1 (``"softplus"``) or 1/4 (``"sigmoid"``). Proven
        for the weights as stored, differentiable.

        Raises:
            ValueError: if a part of the network was exchanged, or hooks or changes make the statement void.
        """
        check_intact(self)
        changed = [name for name in vars(MonotoneNetwork) if _overridden(type(self), name)]
        if changed:
            raise ValueError(
                f"{layer_name(self)} overrides {changed[0]} of MonotoneNetwork and may compute something else; "
                "put what it does into a module around a MonotoneNetwork"
            )
        weights = self._weights()
        added = self.directions.double() * self._residual(weights).double()
        return add_slopes(*self._inner_slopes(weights), added, added)

    def _weights(self) -> list[Tensor]:
        """The weights as constrained now, read once for the value and for the residual."""
        if not torch.compiler.is_compiling():  # then the parts were as traced
            self._check_parts()
        return [layer.weight for layer in self.network[::2]]

    def _check_parts(self) -> None:
        """Raise ValueError unless directions and parts are those made at first: r is enough for no others."""
        self.check_directions()
        if len(self.network) != 2 * len(self._linear) - 1:
            raise ValueError(f"the network has {len(self.network)} parts{_EXCHANGED}")
        for place, layer in enumerate(self.network):
            if place % 2:
                same = plain_class(layer) is GroupSort and layer.dim == -1
            else:
                same = plain_class(layer) is LipschitzLinear and (
                    (layer.kind, layer.lipschitz_const) == self._linear[place // 2]
                )
            if not same:
                raise ValueError(
                    f"part {place} of the network was exchanged or changed ({layer_name(layer)}){_EXCHANGED}"
                )
            if place % 2 == 0:
                check_constrained(layer)

    def _inner_slopes(self, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Proven slopes of g (O, I): by intervals, and by the caps of its layers."""
        low, high = slopes_of_weight(weights[0])
        for sort, weight in zip(self.network[1::2], weights[1:]):
            low, high = through_linear(*through_group_sort(low, high, sort.size), weight)
        return intersect_slopes(low, high, low.new_full((self.in_features,), self.lipschitz))

    def _residual(self, weights: list[Tensor]) -> Tensor:
        """r, computed once within ``parametrize.cached()``, like the weights that it depends on."""
        if not parametrize._cache_enabled:
            return self._needed(weights)
        key = (id(self), "residual")
        # kept with what it was computed from: those objects stay alive, so that an id never stands for another
        owner, sources, needed = parametrize._cache.get(key, (None, (), None))
        if owner is not self or any(a is not b for a, b in itertools.zip_longest(sources, weights)):
            needed = self._needed(weights)
            parametrize._cache[key] = self, weights, needed
        return needed

    def _needed(self, weights: list[Tensor]) -> Tensor:
        signs = self.directions
        if self.residual_kind == "lipschitz":
            needed = signs.double().abs() * self.lipschitz
        else:
            low, high = self._inner_slopes(weights)
            against = torch.where(signs > 0, -low, torch.where(signs < 0, high, 0.0))
            needed = torch.where(against > 0, against + _SLACK * self.lipschitz, 0.0)
        return round_up(needed, signs.dtype)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + SAVED_CAP] = torch.tensor(self.lipschitz, dtype=torch.float64)
        destination[prefix + "directions"] = self.directions.detach().clone()
        destination[prefix + SAVED_SETTINGS] = settings_tensor(self._settings())

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        check_saved_settings(self, state_dict, prefix, self._settings())
        check_saved_cap(self, self.lipschitz, state_dict, prefix)
        check_saved_directions(self, state_dict, prefix + "directions", torch.tensor(self.signs))
        self._restore_directions(state_dict, prefix, local_metadata.get("assign_to_params_buffers", False))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def _settings(self) -> dict:
        """What the weights alone do not tell of the function; saved with them, compared when they are loaded."""
        return {
            "kind": [kind for kind, _ in self._linear],
            "group_size": [sort.size for sort in self.network[1::2]],
            "residual": self.residual_kind,
            "head": self.head,
        }

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.out_features}, lipschitz={self.lipschitz:g}, "
            f"residual={self.residual_kind!r}, head={self.head!r}, directions={self._written_directions()}"
        )


def root_below(value: float, degree: int) -> float:
    """Return the degree-th root of ``value``, rounded so that its degree-th power is at most ``value`` exactly."""
    root = value ** (1.0 / degree)
    while Fraction(root) ** degree > Fraction(value):
        root = math.nextafter(root, 0.0)
    return root


def round_up(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``value`` >= 0 (float64) in ``dtype``, rounded to nearest or, where that is less, a little up."""
    info = torch.finfo(dtype)
    nearest = value.to(dtype)
    raised = (value * (1.0 + info.eps) + info.smallest_normal * info.eps).to(dtype)
    return torch.where(nearest.double() < value, raised, nearest)


def _overridden(kind: type, name: str) -> bool:
    own = vars(MonotoneNetwork)[name]
    return callable(own) and name not in ("__init__", "extra_repr") and getattr(kind, name) is not own
