"""Directions of monotone networks: +1 increasing, -1 decreasing, 0 free, per input or per output and input."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lablib.layers.base import layer_name


def checked_directions(directions: Sequence | Tensor | None, outputs: int, inputs: int) -> Tensor:
    """Return ``directions`` as a float64 tensor (outputs, inputs) of +1, 0 and -1; None is +1 everywhere.

    Raises:
        ValueError: for another shape, or numbers other than +1, 0, -1.
    """
    if directions is None:
        return torch.ones(outputs, inputs, dtype=torch.float64)
    signs = as_numbers(directions).detach().cpu().double()
    if signs.shape not in ((inputs,), (outputs, inputs)):
        raise ValueError(
            f"directions have shape ({inputs},) or ({outputs}, {inputs}): one per input, or per output and input; "
            f"got {tuple(signs.shape)}"
        )
    if not ((signs == 1) | (signs == 0) | (signs == -1)).all():
        raise ValueError(f"directions are +1, 0 or -1 and nothing between, got {signs.tolist()}")
    return signs.expand(outputs, inputs).clone()


def as_numbers(directions: Sequence | Tensor) -> Tensor:
    """Return ``directions`` as a tensor.

    Raises:
        ValueError: if they are no numbers.
    """
    try:
        return torch.as_tensor(directions)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"directions are numbers +1, 0 or -1, got {directions!r}") from error


def check_saved_directions(module: nn.Module, state_dict: dict[str, Tensor], key: str, own: Tensor) -> None:
    """Take ``key`` out of ``state_dict`` and compare it with the directions ``own``; none saved passes.

    Raises:
        ValueError: if they differ.
    """
    saved = state_dict.pop(key, None)
    if saved is None:
        return
    if not isinstance(saved, Tensor):
        raise ValueError(f"{key} of the state must be a tensor, got {saved!r}; the state is damaged")
    if saved.shape != own.shape or not torch.equal(saved.double().cpu(), own.double().cpu()):
        raise ValueError(
            f"{key} of the state are {saved.tolist()}, those of this {layer_name(module)} {own.tolist()}; "
            "make a module with the same directions and load into that"
        )
