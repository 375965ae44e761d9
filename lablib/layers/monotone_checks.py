"""What monotone modules compare: dtypes of inputs, and the settings that a saved state was trained with."""

import json
from typing import Any

import torch
from torch import Tensor, nn

from lablib.layers.base import layer_name

SAVED_SETTINGS = "settings"  # in state dicts: JSON as bytes (uint8), which files of weights alone can hold


def check_dtype(x: Tensor, own: torch.dtype, layer: nn.Module) -> None:
    """Raise ValueError unless ``x`` is in the dtype ``own`` of the weights, or autocast converts it."""
    if x.dtype == own or (
        torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type)
    ):
        return
    raise ValueError(
        f"x is in {x.dtype}, {layer_name(layer)} in {own}; convert one of them, as in x.to({own})"
    )


def settings_tensor(settings: dict[str, Any]) -> Tensor:
    """Return ``settings``, plain data, as uint8 on the CPU."""
    return torch.tensor(list(json.dumps(settings, sort_keys=True).encode()), dtype=torch.uint8)


def check_saved_settings(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, own: dict[str, Any]
) -> None:
    """Take the settings out of ``state_dict`` and compare them with ``own``; none saved passes.

    Raises:
        ValueError: if they differ, or cannot be read.
    """
    saved = state_dict.pop(prefix + SAVED_SETTINGS, None)
    if saved is None:
        return
    try:
        told = json.loads(bytes(saved.tolist()).decode())
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{SAVED_SETTINGS} of the state of {layer_name(module)} cannot be read; the state is damaged"
        ) from error
    check_settings(module, told, own)


def check_settings(module: nn.Module, told: Any, own: dict[str, Any]) -> None:
    """Raise ValueError unless ``told``, with which a state was saved, says the same as ``own``."""
    if not isinstance(told, dict):
        raise ValueError(f"the settings saved with a {layer_name(module)} are {told!r}; the state is damaged")
    for name, value in own.items():
        if name in told and told[name] != value:
            raise ValueError(
                f"the state of {layer_name(module)} was saved with {name}={told[name]!r}, this one has {value!r}, "
                f"which is another function; make a module with the same {name} and load into that"
            )
