"""Directions of monotone networks: +1 increasing, -1 decreasing, 0 free, per input or per output and input."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lablib.layers.base import Fixed, layer_name


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


class Directions(nn.Module):
    """Base of modules with a buffer ``directions``: +1, 0, -1 as they were given at construction, and no others."""

    signs = Fixed()
    # the buffer last compared, and its version: away from the CPU reading numbers waits for the device
    _seen: tuple[Tensor, int | None] | None = None

    def _keep_directions(self, signs: Tensor, like: Tensor) -> None:
        self.signs = tuple(tuple(int(sign) for sign in row) for row in signs.tolist())
        self.register_buffer("directions", signs.to(like), persistent=False)

    def check_directions(self) -> None:
        """Raise ValueError if the numbers in ``directions`` are no longer those given at construction."""
        own = self.directions
        if own.is_meta or type(own) is not Tensor or torch.jit.is_tracing():
            return  # no numbers to look at
        if torch._C._functorch.is_functorch_wrapped_tensor(own):
            return
        version = None if own.is_inference() else own._version
        before, then = self._seen or (None, None)
        if own is before and version == then:
            return
        if own.tolist() != [list(row) for row in self.signs]:
            raise ValueError(
                f"directions of {layer_name(self)} were changed after it was made; make a new one with the "
                "directions you want"
            )
        if own.device.type != "cpu":
            self._seen = own, version

    def _restore_directions(self, state_dict: dict[str, Tensor], prefix: str, assign: bool) -> None:
        """Set ``directions`` as given, where ``assign`` in the dtype and on the device of the weights to come."""
        weight = next((name for name, p in self.named_parameters() if p.is_floating_point()), None)
        like = state_dict.get(f"{prefix}{weight}")
        given = torch.tensor(self.signs)
        like = like if assign and isinstance(like, Tensor) else self.directions
        if like is self.directions and like.shape == given.shape:
            like.copy_(given)  # in place, as torch loads weights
        else:
            self.directions = given.to(like)

    def _written_directions(self) -> str:
        """Return '+0-' for one output or where all agree, else one such word per output."""
        rows = ["".join("-0+"[sign + 1] for sign in row) for row in self.signs]
        words = [row if len(row) <= 40 else f"{row[:37]}..." for row in rows[:4]]
        if len(set(rows)) == 1:
            return repr(words[0])
        return f"({', '.join(map(repr, words))}{', ...' if len(rows) > 4 else ''})"


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
