"""The optimizer of a private run: noise, the inner step and the projection in one ``step()``."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import LBFGS, Optimizer


class PrivateOptimizer(Optimizer):
    """An optimizer around the one given to the engine, for loops and learning-rate schedulers.

    ``step()`` on all but the last physical part of a batch only lets the engine go on collecting; on the last it
    adds the noise, hands the result to the inner optimizer as ``.grad``, projects the weights and counts the step.
    ``zero_grad()`` keeps what the engine collected. Parameter groups, state, hooks and ``state_dict()`` are those of
    the inner optimizer.

    Attributes:
        optimizer: the inner one.
    """

    def __init__(self, optimizer: Optimizer, release: Callable[[], None]) -> None:
        # the base class is for isinstance() only: it would make groups and a state of its own
        self.optimizer = optimizer
        self._release = release

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the inner optimizer, where schedulers change learning rates."""
        return self.optimizer.param_groups

    @property
    def state(self) -> dict[Any, Any]:
        """That of the inner optimizer."""
        return self.optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:
        """Those of the inner optimizer."""
        return self.optimizer.defaults

    def __getattr__(self, name: str) -> Any:  # the registries of hooks
        if name == "optimizer":
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    def __reduce_ex__(self, protocol: int) -> Any:
        raise ValueError("a private optimizer is bound to its engine; save its state_dict() instead")

    def __repr__(self) -> str:
        return f"Private{self.optimizer!r}"

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one private step, or only go on collecting; return what ``closure`` returned.

        Args:
            closure: called once, with gradients enabled: forward and backward pass of the batch.

        Raises:
            BudgetSpent: if the step would pass the target epsilon; nothing is changed or counted.
            ValueError: for a step without a batch, gradients from elsewhere, or weights changed since the
                forward pass.
        """
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        self._release()
        return value

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear ``.grad``; what the engine collected stays until the step."""
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the inner optimizer."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of the inner optimizer."""
        self.optimizer.load_state_dict(state_dict)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse: the sensitivity of other parameters is not known.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "all groups must be there when the run is made private; add them before make_private"
        )


def check_optimizer(optimizer: Optimizer, trained: dict[str, torch.nn.Parameter]) -> None:
    """Refuse an optimizer that does not hold exactly the trained parameters.

    Raises:
        ValueError: for no optimizer, a private one, LBFGS, parameters from elsewhere, or ones left out.
    """
    if not isinstance(optimizer, Optimizer) or isinstance(optimizer, PrivateOptimizer):
        raise ValueError(
            f"give a plain torch optimizer of the module's parameters, not {type(optimizer).__name__}"
        )
    if isinstance(optimizer, LBFGS):
        raise ValueError(
            "LBFGS evaluates its closure many times per step, each of which costs privacy; take another"
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    own = {id(p): name for name, p in trained.items()}
    if held - own.keys():
        raise ValueError(
            "the optimizer holds parameters that are not trained parameters of the module, whose gradients would get "
            "no noise; make it of the module's parameters alone"
        )
    missing = [name for key, name in own.items() if key not in held]
    if missing:
        raise ValueError(
            f"the optimizer leaves out {missing[0]}; hand it over, or call requires_grad_(False) on it so that "
            "no noise is added for it"
        )
