"""Epsilon of a private run by three accountants, quickly enough to follow a slider.

PLD is asked on a coarser grid, as coarse as the answer allows: still an upper bound, and less than one percent
above the one on the finest grid. PRV, the slowest, is asked once for each run.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from lablib.privacy.accounting import COARSE, effective_noise, epsilon, epsilon_curve

POINTS = 6  # numbers of steps for which PLD answers, denser at the start, where the curve bends
DELTAS = tuple(10.0**-power for power in range(2, 12))
HOPELESS, SLOW = (
    40.0,
    10.0,
)  # where PLD, and PRV, are not asked: nobody wants decimals, and grids become large


@dataclasses.dataclass(frozen=True)
class EpsilonCurves:
    """Epsilon of one run.

    Attributes:
        curves: accountant -> (steps (K,), epsilon (K,)), both increasing.
        profile: accountant -> (epsilon (M,), delta (M,)) of the whole run: each pair is a true statement about it.
        final: accountant -> epsilon of the whole run at the delta asked for; those that were asked.
        effective: the noise multiplier that was accounted for, that of all releases of a step together.
    """

    curves: Mapping[str, tuple[np.ndarray, np.ndarray]]
    profile: Mapping[str, tuple[np.ndarray, np.ndarray]]
    final: Mapping[str, float]
    effective: float


def epsilon_curves(
    noise_multiplier: float, sample_rate: float, steps: int, delta: float, releases: int = 1
) -> EpsilonCurves:
    """Return what RDP, PRV and PLD say of a run, in about a tenth of a second.

    Args:
        noise_multiplier: sigma > 0, the standard deviation of the noise in units of the sensitivity.
        sample_rate: 0 < q <= 1, each sample's chance to be in a batch. ``steps``: at least 1. ``delta``: in (0, 1).
        releases: how many Gaussians of this noise multiplier each step publishes (one per layer, say); together they
            act as one of sigma / sqrt(releases).

    Raises:
        ValueError: if a number is out of its range.
        ImportError: without the extra ``private``.
    """
    if steps < 1 or releases < 1:
        raise ValueError("give at least one step and one release in each")
    effective = effective_noise([noise_multiplier] * releases)
    run = (effective, sample_rate)
    every = np.unique(np.geomspace(1, steps, 60).round().astype(int))
    curves = {"RDP": (every, epsilon_curve(*run, every, delta, "rdp"))}
    final = {"RDP": float(curves["RDP"][1][-1])}
    whole = [epsilon((*run, steps), each, "rdp") for each in DELTAS]
    profile = {"RDP": (np.array(whole), np.array(DELTAS))}
    if final["RDP"] <= SLOW:
        final["PRV"] = epsilon((*run, steps), delta, "prv")
    if final["RDP"] <= HOPELESS:
        grid = {"interval": max(COARSE, float(f"{final['RDP'] / 500:.1g}"))}
        counts = np.unique(np.ceil(steps * np.linspace(0, 1, POINTS + 1)[1:] ** 2).astype(int))
        curves["PLD"] = counts, epsilon_curve(*run, counts, delta, "pld", **grid)
        final["PLD"] = float(curves["PLD"][1][-1])
        few = np.array(DELTAS[::3])
        profile["PLD"] = np.array([epsilon((*run, steps), each, "pld", **grid) for each in few]), few
    return EpsilonCurves(curves, profile, final, effective)
