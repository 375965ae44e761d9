"""What is plugged in: denoisers with a proven constant, one without, and deepinv's TV and TGV beside them.

Every method has a few settings, of which validation pictures choose one. For a network N they are the noise it was
trained for and the share a in T = (1 - a) x + a N(x): a smaller share denoises less, and takes the place of a
weight. deepinv's wavelet and BM3D denoisers need further packages, DRUNet and its kin weights from the network.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from lablib.experiments import deepinv_bridge
from lablib.experiments.activation_zoo import ACTIVATIONS
from lablib.experiments.deepinv_bridge import import_deepinv
from lablib.experiments.denoiser import load_denoiser
from lablib.experiments.plug_and_play_solver import averaged_prior

UNCONSTRAINED = "unconstrained"
CLASSICAL = {"tv": "TV", "tgv": "TGV"}
LABELS = ACTIVATIONS | CLASSICAL | {UNCONSTRAINED: "no constraint"}
INNER = 100  # steps inside the proximity operators of TV and TGV, which go on where the last call stopped

Setting = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Method:
    """A named prior with its settings.

    Attributes:
        settings: those that validation chooses from, as plain JSON.
        make: setting -> (deepinv prior, weight); a fresh one each time, for warm starts belong to a run.
        averaged: setting -> proven averagedness of the denoiser, or None.
        converges: whether the iterates must converge, to a fixed point if there is one.
    """

    name: str
    settings: Sequence[Setting]
    make: Callable[[Setting], tuple[Any, float]]
    averaged: Callable[[Setting], float | None]
    converges: bool = True


def network_settings(sigmas: Sequence[int], shares: Sequence[float]) -> list[Setting]:
    """Return every pair of a noise level and a share."""
    return [{"sigma": sigma, "share": share} for sigma, share in itertools.product(sigmas, shares)]


def constrained(activation: str, settings: Sequence[Setting], mode: str) -> Method:
    """Return the method of the 1-Lipschitz networks with this activation; each is checked when it is made."""

    def make(setting: Setting) -> tuple[Any, float]:
        network = load_denoiser(activation, int(setting["sigma"]), mode).branch
        denoiser = deepinv_bridge.LipschitzDenoiser(network, setting["share"])
        return import_deepinv().optim.prior.PnP(denoiser=denoiser), 1.0

    return Method(activation, settings, make, lambda setting: setting["share"])


def unconstrained(settings: Sequence[Setting], networks: dict[int, nn.Module]) -> Method:
    """Return the method of plain ``networks`` by noise level."""

    def make(setting: Setting) -> tuple[Any, float]:
        return averaged_prior(networks[int(setting["sigma"])], setting["share"]), 1.0

    return Method(UNCONSTRAINED, settings, make, lambda setting: None, converges=False)


def classical(name: str, weights: Sequence[float]) -> Method:
    """Return deepinv's TV ("tv") or second-order total generalised variation ("tgv") with these weights.

    Their proximity operators are iterative and stop early: firmly nonexpansive up to that error only.
    """
    if name not in CLASSICAL:
        raise ValueError(f"the classical methods are {', '.join(CLASSICAL)}, not {name!r}")

    def make(setting: Setting) -> tuple[Any, float]:
        dinv = import_deepinv()
        if name == "tv":
            return dinv.optim.prior.TVPrior(def_crit=1e-6, n_it_max=INNER), setting["weight"]
        denoiser = dinv.models.TGVDenoiser(crit=1e-6, n_it_max=INNER)
        return dinv.optim.prior.PnP(denoiser=denoiser), setting["weight"]

    return Method(name, [{"weight": weight} for weight in weights], make, lambda setting: None)
