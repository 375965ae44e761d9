"""Linear layers with a cap on an operator norm of choice: the names and kinds of monotone networks.

Source: Kitouni, Nolte, Williams, "Robust and Provably Monotonic Networks" (arXiv 2112.00038), section 2.
"""

import warnings

import torch
from torch import Tensor, nn

from lablib.layers.base import Constraint, Fixed, constrain, exact, layer_name
from lablib.layers.linear import _Linear
from lablib.layers.monotone_checks import check_dtype, check_settings
from lablib.ops.projections import KINDS, cap_norm, check_cap, check_kind

SAVED_CAP = "lipschitz_const"  # the name in state dicts, here and in the package monotonicnetworks
_SAVED_NORM = "norm"  # in torch's metadata of a state dict, so that its names stay those of that package


class CapNorm(Constraint):
    """Parametrization W / max(1, norm / cap): see :func:`lablib.ops.projections.cap_norm`."""

    def __init__(self, kind: str, cap: float, vectorwise: bool):
        super().__init__()
        self.kind, self.cap, self.vectorwise = kind, cap, vectorwise

    def forward(self, weight: Tensor) -> Tensor:
        return cap_norm(weight, self.kind, self.cap, self.vectorwise)


class LipschitzLinear(_Linear):
    """A linear layer x (..., I) -> (..., O) with ||W||_kind <= cap, exactly for the stored weights.

    =============  ==============  ========================
    ``kind``       bounded map     capped
    =============  ==============  ========================
    ``"one"``      l1 -> l1        columns, in l1
    ``"inf"``      linf -> linf    rows, in l1
    ``"two"``      l2 -> l2        the largest singular value
    ``"one-inf"``  l1 -> linf      entries
    ``"two-inf"``  l2 -> linf      rows, in l2
    =============  ==============  ========================

    The first three state their norm and constant, and chain. The last two map one norm to another: they state
    none, and are the *first* layer of a network whose later ones are ``"inf"`` (two ``"one-inf"`` layers do not
    chain: the second sees l_inf). :class:`~lablib.layers.MonotoneNetwork` puts them together.

    The free weights are ``parametrizations.weight.original``, the cap is saved beside them as
    ``lipschitz_const``. Loading a state of another cap is refused: with these weights the function would be another
    one. So is one of another ``kind`` or ``vectorwise``, as long as the state keeps torch's metadata (``dict(state)``
    loses it).

    Args:
        kind: the norm; there is no default, since none is right for every place.
        lipschitz_const: the cap, between 1e-30 and 1e30.
        vectorwise: cap each row, column or entry for itself, which leaves more freedom than scaling the whole
            matrix. ``"two"`` always scales the whole.

    Raises:
        ValueError: for an unknown kind, a cap that is not a positive number, or no inputs or outputs.
    """

    kind = Fixed()
    lipschitz_const = Fixed()
    vectorwise = Fixed()

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        kind: str | None = None,
        lipschitz_const: float = 1.0,
        vectorwise: bool = True,
        **kwargs,
    ):
        _check_told(kind)
        super().__init__(in_features, out_features, bias, **kwargs)
        _cap(self, kind, lipschitz_const, vectorwise)

    @exact
    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> x W^T + b (..., O)."""
        check_dtype(x, next(self.parameters()).dtype, self)
        return super().forward(x)

    @property
    def norms(self) -> tuple[str, ...]:
        """The norm from which and to which the layer is Lipschitz; none for ``"one-inf"`` and ``"two-inf"``."""
        start, end = KINDS[self.kind]
        return (start,) if start == end else ()

    @property
    def lipschitz(self) -> float:
        """The cap."""
        return self.lipschitz_const

    @property
    def stated_elsewhere(self) -> str:
        """Where the guarantee is to be found if there is none from a norm to itself."""
        if self.norms:
            return ""
        start, end = KINDS[self.kind]
        return (
            f"of kind {self.kind!r} bounds {start} -> {end}, not a norm to itself; put it first in a "
            "MonotoneNetwork, or ask lablib.certify.certify_slopes for the slopes of the chain"
        )

    def extra_repr(self) -> str:
        more = "" if self.vectorwise else ", vectorwise=False"
        return f"{super().extra_repr()}, kind={self.kind!r}, lipschitz_const={self.lipschitz_const:g}{more}"

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + SAVED_CAP] = torch.tensor(self.lipschitz_const, dtype=torch.float64)
        metadata = getattr(destination, "_metadata", {}).get(prefix[:-1])
        if metadata is not None:
            metadata[_SAVED_NORM] = self._norm_settings()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        check_settings(self, local_metadata.get(_SAVED_NORM, {}), self._norm_settings())
        check_saved_cap(self, self.lipschitz_const, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def _norm_settings(self) -> dict[str, str | bool]:
        return {"kind": self.kind, "vectorwise": self.vectorwise}


def direct_norm(
    layer: nn.Linear,
    kind: str | None = None,
    *,
    max_norm: float = 1.0,
    vectorwise: bool = True,
    always_norm: bool = False,
    parameter_name: str = "weight",
) -> LipschitzLinear:
    """Cap the norm of the weight of ``layer``, in place, and return it: it is a :class:`LipschitzLinear` from now on.

    As torch's own parametrizations do, this changes the class of the object, so that the cap is saved with it.
    Weights are never scaled up, and only ``weight`` is capped: of ``always_norm`` and ``parameter_name`` in
    monotonicnetworks, the defaults are taken.

    Raises:
        ValueError: for anything but an ``nn.Linear`` (exactly, without hooks or parametrizations), no or an unknown
            kind, a cap that is not a positive number, ``always_norm``, or another parameter.
    """
    if always_norm or parameter_name != "weight":
        raise ValueError(
            "direct_norm never scales weights up and caps the weight alone; leave out always_norm and parameter_name"
        )
    _check_told(kind)
    if type(layer) is not nn.Linear or layer._forward_hooks or layer._forward_pre_hooks:
        raise ValueError(
            f"direct_norm caps an nn.Linear as torch made it, got {layer_name(layer)}; apply it before anything else"
        )
    check_kind(kind)
    check_cap(max_norm)
    layer.__class__ = LipschitzLinear
    _cap(layer, kind, max_norm, vectorwise)
    return layer


def _check_told(kind: str | None) -> None:
    if kind is None:
        raise ValueError(
            "choose the kind of norm: kind='one-inf' for the first layer, kind='inf' for those after"
        )


def _cap(layer: LipschitzLinear, kind: str, cap: float, vectorwise: bool) -> None:
    layer.kind, layer.lipschitz_const = check_kind(kind), check_cap(cap)
    layer.vectorwise = bool(vectorwise)
    constrain(layer, "weight", CapNorm(layer.kind, layer.lipschitz_const, layer.vectorwise))


def check_saved_cap(module: nn.Module, cap: float, state_dict: dict[str, Tensor], prefix: str) -> None:
    """Take the cap out of ``state_dict`` and compare it with ``cap``, that of ``module``.

    Warns where the state holds none, as states of monotonicnetworks' ``direct_norm`` do.

    Raises:
        ValueError: if they differ by more than rounding to float32.
    """
    saved = state_dict.pop(prefix + SAVED_CAP, None)
    place = prefix.removesuffix(".")
    name = f"{place} ({layer_name(module)})" if place else layer_name(module)
    if saved is None:
        warnings.warn(
            f"the state of {name} does not say which cap its weights were trained with; "
            f"the cap {cap:g} of the module holds, so the function may be another one",
            stacklevel=2,
        )
        return
    if not isinstance(saved, Tensor) or saved.numel() != 1:
        raise ValueError(f"{SAVED_CAP} of {name} must be one number; the state is damaged")
    if not abs(float(saved) - cap) <= 1e-6 * cap:
        raise ValueError(
            f"the state of {name} was saved with the cap {float(saved):g}, this module has {cap:g}; "
            "make a module with the same cap and load into that"
        )
