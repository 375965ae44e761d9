"""Is a module still what its class says? Guarantees are about the forward of known classes, untouched."""

from torch import nn
from torch.nn.utils import parametrize

from lablib.layers.base import LipschitzLayer, layer_name


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of ``module``, without the one that torch puts in front for parametrizations."""
    return type(module).__mro__[1] if parametrize.is_parametrized(module) else type(module)


def check_intact(module: nn.Module) -> None:
    """Raise ValueError if ``module``, or a part of it, no longer computes what its class does.

    That is the case after a forward hook, a ``forward`` assigned to the object, or the removal of the
    parametrization that kept a weight of a :class:`LipschitzLayer` small.
    """
    for part in module.modules():
        if part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part):
            raise ValueError(
                f"{layer_name(part)} has a forward hook or a replaced forward, which may change what it computes; "
                "remove it before asking for a guarantee"
            )
        constraints = part._constraints if isinstance(part, LipschitzLayer) else {}
        for name, constraint in constraints.items():
            if not parametrize.is_parametrized(part, name) or (
                type(part.parametrizations[name][-1]) is not constraint
            ):
                raise ValueError(
                    f"{name} of {layer_name(part)} is no longer constrained by {constraint.__name__}; "
                    "do not remove or add parametrizations, make a new layer and assign its weights"
                )


def is_chain(module: nn.Module) -> bool:
    """Return whether ``module`` applies its parts one after the other, as ``nn.Sequential`` does."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
