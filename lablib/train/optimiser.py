"""AdamW as the SortNet recipe sets it."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch


def adamw(
    groups: Iterable[Mapping[str, Any]],
    lr: float = 0.02,
    decay: float = 0.02,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-10,
) -> torch.optim.AdamW:
    """Return AdamW over parameter groups; source: public code of SortNet (arXiv 2210.01787).

    Each group gives ``params``, ``decay`` (False: no weight decay) and, for a linear layer, ``fan_in`` = n: the
    public code trains W sqrt(n) and multiplies by it less, and Adam on W is the same with lr / sqrt(n),
    decay sqrt(n) and eps sqrt(n), exactly. A group's ``factor`` is what schedules multiply their rate with.

    Args:
        groups: as a model's ``groups()`` returns them.
        lr: learning rate, positive.
        decay: decoupled weight decay, where a group asks for it.
        betas, eps: of Adam.

    Raises:
        ValueError: for a rate that is not positive.
    """
    if not lr > 0.0:
        raise ValueError(f"the learning rate must be positive, got {lr}")
    ready = []
    for group in groups:
        factor = group.get("fan_in", 1) ** -0.5
        settings = {"lr": lr * factor, "eps": eps / factor, "factor": factor}
        settings["weight_decay"] = decay / factor if group["decay"] else 0.0
        ready.append({"params": list(group["params"])} | settings)
    # Moments of weights that get no gradient end as denormals: the loop of torch is 9 times slower then on a CPU
    return torch.optim.AdamW(ready, betas=betas, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group, times its ``factor``."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group.get("factor", 1.0)
