"""Certified radii from Lipschitz margins, in float64.

Source: SortNet paper (arXiv 2210.01787), section 2; for l2 and logit maps, Tsuzuku, Sato, Sugiyama,
"Lipschitz-margin training" (NeurIPS 2018, arXiv 1802.04034), Prop. 1.
"""

import math

import numpy as np

from lablib.ops.norms import check_norm

# |(f_y - f_j)(x) - (f_y - f_j)(x')| <= c ||x - x'|| for a logit *map* that is 1-Lipschitz from l_p to l_p: c
# is the dual norm of e_y - e_j.
_MAP_FACTOR = {"l1": 1.0, "l2": math.sqrt(2.0), "linf": 2.0}


def bound_radius_scalar(outputs, labels, lipschitz: float = 1.0, slack: float = 0.0) -> np.ndarray:
    """Return the certified radius of a sign classifier: (|f| - slack) / L where the sign is right, else 0.

    Args:
        outputs: (B,) or (B, 1), f(x); arrays or tensors of any float dtype.
        labels: (B,), booleans or 0/1 or -1/+1; class "true" is f > 0.
        lipschitz: L of f in the norm of the radius.
        slack: a bound of the error of ``outputs``, such as rounding; the radius then holds in spite of it.

    Returns:
        (B,) float64, in the norm in which f is L-Lipschitz.

    Raises:
        ValueError: for shapes that do not match, other labels, outputs that are not finite, or a constant
            that is not positive.
    """
    f = _finite(outputs, "outputs")
    f = f.reshape(len(f)) if f.ndim == 2 and f.shape[1] == 1 else f
    positive = _positive(labels)
    if f.ndim != 1 or positive.shape != f.shape:
        raise ValueError(f"outputs (B,) and labels (B,) expected, got shapes {f.shape} and {positive.shape}")
    signed = np.where(positive, f, -f)
    return np.maximum(signed - slack, 0.0) / _check(lipschitz, slack)


def bound_radius_logits(
    logits, labels, norm: str, lipschitz: float = 1.0, each: bool | None = None, slack: float = 0.0
) -> np.ndarray:
    """Return the certified radius (f_y - max_j f_j) / (c L) where the class is right, else 0.

    Args:
        logits: (B, C), C >= 2; arrays or tensors of any float dtype.
        labels: (B,) integers in 0..C-1.
        norm: of the radius: "l1", "l2" or "linf".
        lipschitz: L.
        each: what is L-Lipschitz. True: each logit apart, c = 2. False: the map x -> logits, from the norm to
        the
            same norm, c = 1, sqrt(2), 2 for l1, l2, linf. Default: the map; in linf both say the same.
        slack: a bound of the error of each logit.

    Returns:
        (B,) float64.

    Raises:
        ValueError: for shapes that do not match, labels out of range, logits that are not finite, or a
            constant that is not positive.
    """
    check_norm(norm)
    f = _finite(logits, "logits")
    y = _real(labels, "labels")
    if f.ndim != 2 or f.shape[1] < 2 or y.shape != f.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"logits (B, C >= 2) and integer labels (B,) expected, got shapes {f.shape} and {y.shape}"
        )
    if y.size and not (y.min() >= 0 and y.max() < f.shape[1]):
        raise ValueError(f"labels must lie in 0..{f.shape[1] - 1}, got {y.min()}..{y.max()}")
    rows = np.arange(len(f))
    others = f.copy()
    others[rows, y] = -np.inf
    margin = f[rows, y] - others.max(1, initial=-np.inf)
    factor = 2.0 if each else _MAP_FACTOR[norm]
    return np.maximum(margin - 2.0 * slack, 0.0) / (factor * _check(lipschitz, slack))


def certified_accuracy(radii, epsilons) -> np.ndarray:
    """Return the share of samples with radius > eps for each eps: the certified-accuracy curve.

    A sample with radius r is safe for every perturbation *smaller* than r; at eps = 0 this is the share
    classified right with a positive margin.

    Args:
        radii: (B,), B >= 1, 0 for wrong ones.
        epsilons: (E,) or one number, >= 0.

    Raises:
        ValueError: for no samples, negative radii, or numbers that are not finite.
    """
    r = np.sort(_finite(radii, "radii").reshape(-1))
    eps = _finite(epsilons, "epsilons")
    if r.size == 0 or r[0] < 0 or (eps < 0).any():
        raise ValueError("at least one radius is needed, and radii and epsilons must not be negative")
    return (r.size - np.searchsorted(r, eps, side="right")) / r.size


def _check(lipschitz: float, slack: float) -> float:
    if not 0.0 < lipschitz < math.inf:
        raise ValueError(f"the Lipschitz constant must be positive and finite, got {lipschitz}")
    if not 0.0 <= slack < math.inf:
        raise ValueError(f"slack must be finite and not negative, got {slack}")
    return float(lipschitz)


def _real(values, name: str) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # NumPy knows no bfloat16; float64 holds every narrower float exactly.
        values = (values.double() if values.is_floating_point() else values).numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be real numbers, got {array.dtype}")
    return array


def _finite(values, name: str) -> np.ndarray:
    array = _real(values, name).astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contain NaN or infinity; look for the layer that made it before certifying")
    return array


def _positive(labels) -> np.ndarray:
    """Return which labels are the class f > 0."""
    y = _real(labels, "labels")
    if not (np.isin(y, (0, 1)).all() or np.isin(y, (-1, 1)).all()):
        raise ValueError("labels of a sign classifier are booleans, 0 and 1, or -1 and 1")
    return y > 0
