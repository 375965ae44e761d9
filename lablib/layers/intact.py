"""Is a module still what its class says? Guarantees are about the forward of known classes, untouched."""

from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize

from lablib.layers.base import LipschitzLayer, layer_name, settings


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of ``module``, without the one that torch puts in front for parametrizations."""
    return type(module).__mro__[1] if parametrize.is_parametrized(module) else type(module)


def check_intact(module: nn.Module) -> None:
    """Raise ValueError if ``module``, or a part of it, no longer computes what its class does.

    That is the case after a forward hook (also torch's global ones), a ``forward`` or another method assigned
    to the object, ``norms`` or ``lipschitz`` assigned to a :class:`LipschitzLayer` (they belong to the class, as
    attributes or properties), or the removal or change of the parametrization that kept one of its weights small.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"a torch module is needed, got {type(module).__name__}; wrap a function in a module"
        )
    check_global_hooks()
    for part in module.modules():
        if part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part):
            raise ValueError(
                f"{layer_name(part)} has a forward hook or a replaced forward, which may change what it computes; "
                "remove it before asking for a guarantee"
            )
        replaced = _replaced_method(part)
        if replaced:
            raise ValueError(
                f"the method {replaced} of {layer_name(part)} was replaced on the object, which may change what "
                "it computes; delete it before asking for a guarantee"
            )
        stated = (
            sorted({"norms", "lipschitz"} & vars(part).keys()) if isinstance(part, LipschitzLayer) else []
        )
        if stated:
            raise ValueError(
                f"{stated[0]} of {layer_name(part)} was set on the object; a class states it for all its objects, "
                "as an attribute or a property, if it can be proven"
            )
        if isinstance(part, LipschitzLayer):
            check_constrained(part)


def check_global_hooks() -> None:
    """Raise ValueError if torch has forward hooks for all modules."""
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        raise ValueError(
            "a global forward hook of torch is registered, which may change what layers compute; remove it before "
            "asking for a guarantee"
        )


def check_constrained(part: LipschitzLayer) -> None:
    """Raise ValueError if a parametrization that keeps a weight of ``part`` small was removed, covered or changed."""
    for name, (constraint, told) in part._constraints.items():
        if not parametrize.is_parametrized(part, name) or (
            type(part.parametrizations[name][-1]) is not constraint
        ):
            raise ValueError(
                f"{name} of {layer_name(part)} is no longer constrained by {constraint.__name__}; "
                "do not remove or add parametrizations, make a new layer and assign its weights"
            )
        if settings(part.parametrizations[name][-1]) != told:
            raise ValueError(
                f"{constraint.__name__} of {name} of {layer_name(part)} was changed after the layer was made; "
                "make a new layer and assign its weights"
            )


def _replaced_method(part: nn.Module) -> str | None:
    """Return the name of a method of the class that an attribute of the object hides, None if there is none."""
    kind = type(part)
    return next(
        (
            name
            for name, value in vars(part).items()
            if callable(value) and callable(getattr(kind, name, None))
        ),
        None,
    )


def is_chain(module: nn.Module) -> bool:
    """Return whether ``module`` applies its parts one after the other, as ``nn.Sequential`` does."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
