"""How much noise each parameter gets, and where randomness comes from."""

import math

import numpy as np
import torch
from torch import Tensor

from lablib.privacy.sensitivity import Sensitivity

NOISES = ("global", "per-layer", "balanced")
SAMPLING, GAUSSIAN = 0, 1  # streams of randomness that never meet


def noise_scales(
    bounds: Sensitivity, sizes: dict[str, int], noise_multiplier: float, noise: str
) -> dict[str, float]:
    r"""Return the standard deviation of the noise of each parameter's summed gradient.

    Group l has sensitivity Delta_l and gets noise of standard deviation s_l = sigma_l Delta_l. All three keep
    (sum_l sigma_l^-2)^(-1/2) = sigma, so they cost the same epsilon (see
    :func:`~lablib.privacy.accounting.effective_noise`); they differ in where the noise goes:

    - ``"global"``: s = sigma (sum_l Delta_l^2)^(1/2) everywhere (Bethune et al., ICLR 2024, Section 3.1).
    - ``"per-layer"``: the D layers with trained parameters have the same sigma_l = sigma sqrt(D) (same place).
    - ``"balanced"``: each parameter tensor, of d_l entries, is a group of its own, and sigma_l^2 is proportional to
      1 / (Delta_l sqrt(d_l)). Of all choices it has the least expected squared noise: minimising
      sum_l d_l sigma_l^2 Delta_l^2 for a fixed sum of sigma_l^-2 gives sigma^2 (sum_l Delta_l sqrt(d_l))^2, at most
      the sigma^2 (sum_l d_l) (sum_l Delta_l^2) of ``"global"`` by Cauchy and Schwarz.

    Args:
        bounds: of the summed gradient for one sample more or less.
        sizes: entries d_l of each parameter, by full name.
        noise_multiplier: sigma.
        noise: one of :data:`NOISES`.
    """
    deltas = bounds.parameters
    if noise == "global":
        return dict.fromkeys(deltas, noise_multiplier * bounds.total)
    if noise == "balanced":
        share = {name: delta * math.sqrt(sizes[name]) for name, delta in deltas.items()}
        whole = math.fsum(share.values())
        return {
            name: noise_multiplier * math.sqrt(whole * delta / math.sqrt(sizes[name]))
            for name, delta in deltas.items()
        }
    layers = [row.parameters for row in bounds.rows if row.parameters]
    own = noise_multiplier * math.sqrt(len(layers))
    return {name: own * math.hypot(*layer.values()) for layer in layers for name in layer}


class Randomness:
    """A generator for each step and purpose: seeded by the system's entropy, or repeatable from a seed.

    Without a seed each generator starts from 128 fresh bits of the operating system, which nobody stores. Its
    numbers pass statistical tests, but it is no cryptographic generator, and floating-point Gaussians are not
    exactly Gaussian (Mironov, CCS 2012). With a seed, a run can be repeated by whoever knows it: to them nothing
    is private.
    """

    def __init__(self, seed: int | None) -> None:
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ValueError(
                f"a seed is a whole number from 0 on, or None for the system's entropy, not {seed!r}"
            )
        self.seed = seed

    def generator(self, stream: int, step: int) -> np.random.Generator:
        """Return the generator of ``stream`` at ``step``: the same again only if there is a seed."""
        entropy = None if self.seed is None else [self.seed, stream, step]
        return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(entropy)))


def gaussian(like: Tensor, scale: float, generator: np.random.Generator) -> Tensor:
    """Return Gaussian noise of standard deviation ``scale``, of the shape, dtype and device of ``like``."""
    if like.device.type == "cpu":  # torch seeds its CPU generator with 32 bits only, NumPy with all of them
        kind = np.float64 if like.dtype == torch.float64 else np.float32
        fresh = torch.from_numpy(generator.standard_normal(like.numel(), dtype=kind)).view(like.shape)
    else:
        own = torch.Generator(like.device).manual_seed(int(generator.integers(2**63)))
        fresh = torch.randn(like.shape, generator=own, dtype=like.dtype, device=like.device)
    return fresh.mul_(scale)
