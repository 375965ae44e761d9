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


def mixture(logits: Tensor, labels: Tensor, eps: float, lam: float, scale: Tensor | float = 1.0) -> Tensor:
    """Return mean_b max_{j != y} clip(1 + (f_j - f_y) / (2 eps), 0, 1) + lam CE(s f, y).

    The first term is the share of samples that are not certified at ``eps``, with a ramp of width 2 eps in place
    of the step; it is for logits that are 1-Lipschitz each. Source: SortNet paper (arXiv 2210.01787), section 5
    and its public code.

    Args:
        logits: (B, C), f.
        labels: (B,) int64.
        eps: radius asked for, in units of the logits (raw radius times the network's constant), positive.
        lam: weight of the cross entropy, not negative.
        scale: s, a learned factor.

    Raises:
        ValueError: for numbers out of range or shapes that do not match.
    """
    _check_positive(eps, "eps")
    _check_logits(logits, labels)
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], float("-inf")).amax(1, keepdim=True)
    ramp = (1.0 + (others - own) / (2.0 * eps)).clamp(0.0, 1.0)
    return ramp.mean() + _weight(lam) * F.cross_entropy(scale * logits, labels)


def ce_hinge(
    logits: Tensor, worst: Tensor, labels: Tensor, lam: float, scale: Tensor | float = 1.0
) -> Tensor:
    """Return mean_b [right] max(0, 1 + max_{j != y} u_j) + lam CE(s f, y), u the worst differences.

    Wrongly classified samples count as 0 in the first term (the mean is still over all B, as in the public code
    of SortNet, arXiv 2210.01787): they are left to the cross entropy.

    Args:
        logits: (B, C), f.
        worst: (B, C), upper bounds of f_j - f_y around each sample; column y is ignored.
        labels: (B,) int64.
        lam, scale: as in :func:`mixture`.

    Raises:
        ValueError: for a negative weight or shapes that do not match.
    """
    _check_logits(logits, labels)
    _check_worst(logits, worst)
    hinge_ = F.relu(1.0 + worst.scatter(1, labels[:, None], float("-inf")).amax(1))
    right = logits.argmax(1) == labels
    return (right * hinge_).mean() + _weight(lam) * F.cross_entropy(scale * logits, labels)


def worst_case(logits: Tensor, worst: Tensor, labels: Tensor, share: float) -> Tensor:
    """Return (1 - share) CE(f, y) + share CE(u, y), u_j the worst f_j - f_y (u_y = 0): interval bound training.

    Source: Gowal et al. (arXiv 1810.12715), equation (12).

    Raises:
        ValueError: for a share outside [0, 1] or shapes that do not match.
    """
    _check_logits(logits, labels)
    _check_worst(logits, worst)
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    return (1.0 - share) * F.cross_entropy(logits, labels) + share * F.cross_entropy(worst, labels)


def _weight(lam: float) -> float:
    if not lam >= 0.0:
        raise ValueError(f"the weight of the cross entropy must not be negative, got {lam}")
    return lam


def _check_worst(logits: Tensor, worst: Tensor) -> None:
    if worst.shape != logits.shape:
        raise ValueError(
            f"worst differences come in the shape of the logits, got {tuple(worst.shape)} and {tuple(logits.shape)}"
        )


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
