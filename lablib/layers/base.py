"""What every Lipschitz layer states and shares: norms, constant, exact arithmetic under autocast, pickling.

A layer is ``lipschitz``-Lipschitz from l_p to l_p, per sample, for each p in ``norms``. The statement is
about the real function that the stored weights define; what rounding adds when that function is evaluated is
not part of it. :func:`lablib.layers.guarantee` reads the statement and checks that it still applies.
"""

import copy
import functools
import numbers
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

ALL_NORMS = ("l1", "l2", "linf")


class LipschitzLayer(nn.Module):
    """Base of all layers here. Subclasses inherit no guarantee: each class states its own ``norms``.

    Attributes:
        norms: the norms for which the guarantee holds, a tuple of "l1", "l2", "linf".
        lipschitz: the constant in these norms, 1.0 unless said otherwise.
    """

    norms: tuple[str, ...]
    lipschitz: float = 1.0
    # of each constrained weight the class of its constraint and its settings, for check_intact
    _constraints: Mapping[str, tuple[type[nn.Module], dict[str, Any]]] = MappingProxyType({})

    def __reduce_ex__(self, protocol):
        # torch gives a module with parametrizations a class of its own that pickle cannot name, and refuses.
        # The same class is made again by registering placeholders, which the pickled state then replaces.
        if not parametrize.is_parametrized(self):
            return super().__reduce_ex__(protocol)
        original = type(self).__mro__[1]
        return _rebuild, (original, tuple(self.parametrizations)), self.__dict__.copy()

    def __deepcopy__(self, memo):
        # torch's own copies share that class, which knows the original: within parametrize.cached() they would
        # compute with its weights.
        make, arguments, state = self.__reduce_ex__(4)[:3]
        memo[id(self)] = copied = make(*arguments)
        copied.__setstate__(copy.deepcopy(state, memo))
        return copied

    def __repr__(self) -> str:
        # Parametrizations are how a constraint is kept, not parts a reader looks for.
        if set(self._modules) <= {"parametrizations"}:
            return f"{layer_name(self)}({self.extra_repr()})"
        return super().__repr__()

    def _get_name(self) -> str:
        return layer_name(self)


def layer_name(layer: nn.Module) -> str:
    """Return the name of the layer's class, without the prefix that torch adds to parametrized ones."""
    return type(layer).__name__.removeprefix("Parametrized")


def _rebuild(cls: type, names: tuple[str, ...]) -> nn.Module:
    module = cls.__new__(cls)
    nn.Module.__init__(module)
    for name in names:
        module.register_parameter(name, nn.Parameter(torch.empty(0)))
        parametrize.register_parametrization(module, name, nn.Identity())
    return module


class Constraint(nn.Module):
    """Base of parametrizations that take any weights: assigned ones are stored, and constrained when read."""

    shape: torch.Size | None = None

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return what to store for an assigned ``weight``.

        Raises:
            ValueError: if it is no tensor of the shape of the weight it replaces.
        """
        self.check_shape(weight)
        return weight

    def check_shape(self, weight: Tensor) -> None:
        """Raise ValueError unless ``weight`` is a tensor of the shape of the weight it replaces."""
        if not isinstance(weight, Tensor):
            raise ValueError(
                f"assign a tensor of shape {tuple(self.shape)}, not {type(weight).__name__}; use torch.as_tensor"
            )
        if weight.shape != self.shape:
            raise ValueError(
                f"the weights have shape {tuple(self.shape)}, got {tuple(weight.shape)}; make a new layer "
                "for another shape"
            )


def constrain(layer: LipschitzLayer, name: str, constraint: nn.Module) -> None:
    """Register ``constraint`` as the parametrization of ``layer.name``, a parameter or a buffer."""
    if isinstance(constraint, Constraint):
        constraint.shape = getattr(layer, name).shape
    parametrize.register_parametrization(layer, name, constraint, unsafe=True)
    layer._constraints = {**layer._constraints, name: (type(constraint), settings(constraint))}


def settings(constraint: nn.Module) -> dict[str, Any]:
    """Return the plain attributes of a constraint: what it was told when it was made."""
    own = {name: value for name, value in vars(constraint).items() if not name.startswith("_")}
    return {name: value for name, value in own.items() if name != "training"}


class Fixed:
    """An attribute that a guarantee rests on: set once, at construction."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: nn.Module | None, owner: type | None = None):
        if layer is None:
            return self
        if self.name not in vars(layer):
            raise AttributeError(self.name)
        return vars(layer)[self.name]

    def __set__(self, layer: nn.Module, value) -> None:
        if self.name in vars(layer):
            raise AttributeError(
                f"{self.name} of {layer_name(layer)} is part of its guarantee and fixed; make a new layer"
            )
        vars(layer)[self.name] = value


def exact(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run ``forward`` in the dtype of the layer's own weights, also inside ``torch.autocast``.

    Autocast would round constrained weights to half precision, and their norm with them: rows of l1 norm 1
    come out up to 1.004. So a layer with weights ignores autocast, and takes the half-precision input others
    made.
    """

    @functools.wraps(forward)
    def inner(self: nn.Module, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise ValueError(
                f"{layer_name(self)} takes a torch tensor, not {type(x).__name__}; use torch.as_tensor"
            )
        kind = x.device.type
        if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
            return forward(self, x)
        with torch.autocast(kind, enabled=False):
            own = next((p.dtype for p in self.parameters()), x.dtype)
            return forward(self, x.to(own))

    return inner


def check_channels(x: Tensor, channels: int, axis: int, layer: nn.Module) -> None:
    """Raise ValueError unless ``x`` has ``channels`` entries on ``axis``: never a silent broadcast."""
    if x.dim() < 1 or not -x.dim() <= axis < x.dim() or x.shape[axis] != channels:
        raise ValueError(
            f"{layer_name(layer)} needs {channels} features on axis {axis}, "
            f"got a tensor of shape {tuple(x.shape)}"
        )


def check_dim(dim: int | None) -> int | None:
    """Return the channel axis ``dim`` as given; raise ValueError where it is the batch or no whole number."""
    if dim is not None and (not isinstance(dim, numbers.Integral) or isinstance(dim, bool)):
        raise ValueError(f"dim is a whole number, the channel axis, or None, got {dim!r}")
    if dim == 0:
        raise ValueError("dim=0 is the batch, and samples must not mix; use dim=1, or None for vectors too")
    return dim
