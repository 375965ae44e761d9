"""Certified-accuracy curves between their brackets: what is proved, what an attack leaves, what is right at all."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from lablib.certify.margins import certified_accuracy


@dataclasses.dataclass(frozen=True)
class Bracket:
    """Shares of samples at each eps (E,). True robust accuracy lies between ``best`` and ``attacked``.

    Attributes:
        epsilons: (E,).
        clean: share classified right, for every eps.
        attacked: share that no attack found so far turns within eps.
        certified: name of the certificate -> share proved at eps.
        samples: how many they are shares of.
    """

    epsilons: np.ndarray
    clean: float
    attacked: np.ndarray
    certified: Mapping[str, np.ndarray]
    samples: int

    @property
    def best(self) -> np.ndarray:
        """The largest certified share at each eps."""
        return np.max(list(self.certified.values()), axis=0)


def bracket(epsilons, correct, attacked, certified: Mapping[str, np.ndarray]) -> Bracket:
    """Return the curves of one network on one set of samples.

    Args:
        epsilons: (E,), >= 0.
        correct: (B,) booleans, the class is right.
        attacked: (B,) distances of the closest wrong point known, infinity for none, 0 for wrong samples.
        certified: name -> radii (B,), 0 for wrong samples.

    Raises:
        ValueError: for shapes that do not match, NaN or negative numbers; and where an attack lies within a
            certified radius, which refutes the certificate: the message names the sample.
    """
    right, found = np.asarray(correct), np.asarray(attacked, dtype=np.float64)
    if (
        right.dtype != bool
        or right.ndim != 1
        or not right.size
        or found.shape != right.shape
        or not certified
    ):
        raise ValueError(
            "give correct (B,) booleans, attacked (B,) distances, and at least one certificate (B,)"
        )
    if not (found >= 0).all():
        raise ValueError("distances of attacks must be numbers of at least 0, or infinity")
    for name, radii in certified.items():
        check_uncontradicted(radii, np.where(right, found, 0.0), name)
    # the largest float64 stands for "none found": farther than any eps
    distances = np.minimum(np.where(right, found, 0.0), np.finfo(np.float64).max)
    curves = {name: certified_accuracy(radii, epsilons) for name, radii in certified.items()}
    return Bracket(
        np.asarray(epsilons, dtype=np.float64),
        float(right.mean()),
        certified_accuracy(distances, epsilons),
        curves,
        right.size,
    )


def check_uncontradicted(radii, attacked, name: str = "the certificate") -> None:
    """Raise ValueError if an attack lies within a certified radius; the message names the sample.

    Args:
        radii: (B,) certified: every point at most this far is safe.
        attacked: (B,) distances of wrong points, in exact arithmetic.
    """
    r, d = np.asarray(radii, dtype=np.float64), np.asarray(attacked, dtype=np.float64)
    if r.shape != d.shape or np.isnan(r).any() or np.isnan(d).any():
        raise ValueError(f"radii and distances must be numbers of one shape, got {r.shape} and {d.shape}")
    if ((r > 0) & (d <= r)).any():
        i = int(np.flatnonzero((r > 0) & (d <= r))[0])
        raise ValueError(
            f"{name} is refuted: sample {i} has the radius {r[i]:.9g} and a wrong point at {d[i]:.9g}; "
            "please report it"
        )
