"""Whether a module is still what it was when its weights were measured."""

from typing import Any

import torch
from torch import Tensor, nn


class Watch:
    """A copy of all numbers of a module, and a note of how it is built, to hold against the module later.

    Version counters would be cheaper, but changes through ``.data`` leave them as they are.
    """

    def __init__(self, module: nn.Module) -> None:
        self._numbers = [tensor.detach().clone() for tensor in _tensors(module)]
        self._built = _built(module)
        self._parts = list(
            module.modules()
        )  # kept, so that no other part can have the identity of one of them

    def sees_change(self, module: nn.Module) -> bool:
        """Return whether any number, setting, hook or part differs from then."""
        return self._built != _built(module) or not all(
            then.device == now.device and then.dtype == now.dtype and torch.equal(then, now)
            for then, now in zip(self._numbers, _tensors(module))
        )


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _built(module: nn.Module) -> list[tuple[Any, ...]]:
    return [
        (name, type(part), id(part), *(_note(key, value) for key, value in vars(part).items()))
        for name, part in module.named_modules(remove_duplicate=False)
    ]


def _note(key: str, value: Any) -> tuple[Any, ...]:
    """Plain settings by value, everything else by identity; of dicts (parameters, parts, hooks) their members."""
    if isinstance(value, dict):
        return (key, *((name, id(member)) for name, member in value.items()))
    if value is None or isinstance(value, bool | int | float | str | tuple):
        return (key, value)
    return (key, id(value))
