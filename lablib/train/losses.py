"""Losses on logits (B, C) or scalar outputs (B,): functions, mean over the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor


def multi_margin(logits: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Return mean_b max(0, margin - (f_y - max_{j != y} f_j)) / margin: 0 from the margin on.

    With logits that are 1-Lipschitz in linf, margin = 2 eps asks for a certified radius of eps. Source: hinge
    form of arXiv 2102.05363, section 5.1.

    Raises:
        ValueError: for a margin that is not positive, or shapes that do not match.
    """
    _check_positive(margin, "margin")
    _check_logits(logits, labels)
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], float("-inf")).amax(1, keepdim=True)
    return F.relu(margin - (own - others)).mean() / margin


def hinge(outputs: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Return mean_b max(0, margin - t f) / margin for scalar outputs (B,) or (B, 1), targets -1 or +1 (B,).

    Raises:
        ValueError: for a margin that is not positive, or shapes that do not match.
    """
    _check_positive(margin, "margin")
    f = outputs.squeeze(-1) if outputs.dim() == 2 else outputs
    if f.shape != targets.shape:
        raise ValueError(
            f"outputs and targets must have one shape, got {tuple(f.shape)} and {tuple(targets.shape)}"
        )
    return F.relu(margin - targets * f).mean() / margin


def cross_entropy(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """Return CE(tau f, y) / tau: sqrt(2)-Lipschitz in the logits (l2) for every temperature tau.

    A larger tau asks for less margin. Source: arXiv 2305.16202, section 3.

    Raises:
        ValueError: for a temperature that is not positive, or shapes that do not match.
    """
    _check_positive(temperature, "temperature")
    _check_logits(logits, labels)
    return F.cross_entropy(temperature * logits, labels) / temperature


def _check_positive(value: float, name: str) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")


def _check_logits(logits: Tensor, labels: Tensor) -> None:
    if (
        logits.dim() != 2
        or logits.shape[1] < 2
        or labels.shape != logits.shape[:1]
        or labels.dtype != torch.int64
    ):
        raise ValueError(
            f"logits (B, C >= 2) and int64 labels (B,) expected, "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)} of {labels.dtype}"
        )
