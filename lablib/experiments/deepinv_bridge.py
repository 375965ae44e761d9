"""deepinv where it is installed: its import, and a network with a proven constant as one of its denoisers.

    from lablib.experiments.deepinv_bridge import LipschitzDenoiser, import_deepinv
    dinv = import_deepinv()
    prior = dinv.optim.prior.PnP(denoiser=LipschitzDenoiser(network))

deepinv is optional (``pip install -e '.[imaging]'``) and loads on first use, ``LipschitzDenoiser`` included.
"""

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from lablib.certify.norms import bound_operator_norm
from lablib.layers.sequential import ConvexResidual, guarantee

# What torchvision's Python files register details of while they load; its compiled part declares them.
_SCHEMAS = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",)
_SCHEMAS += (_SCHEMAS[0].replace("nms", "qnms"),)


@functools.cache
def import_deepinv() -> ModuleType:
    """Return the package deepinv.

    deepinv imports torchvision, whose compiled operators only load beside the torch they were built for (not
    beside a CPU torch, in the usual wheels); without them even ``import torchvision`` fails. Nothing used here
    needs these operators, so where they cannot be loaded their two schemas are declared first: the import then
    works, and a call of such an operator still fails.

    Raises:
        ModuleNotFoundError: if deepinv or torchvision is not installed; the message says how to install it.
    """
    try:
        if "torchvision" not in sys.modules and not _torchvision_operators_load():
            _declare_operators()
        return importlib.import_module("deepinv")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed, which the imaging experiments need; "
            "install it: pip install -e '.[imaging]'",
            name=error.name,
        ) from None


def _torchvision_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name="torchvision")
    libraries = sorted(Path(spec.origin).parent.glob("_C.*"))
    try:
        for library in libraries:
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return bool(libraries)


@functools.cache
def _declare_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    return library  # the cache keeps it: the schemas go when it does


def bound_constant(network: nn.Module) -> float:
    """Return a proven l2 Lipschitz constant of ``network``: what it states, or else what its weights give.

    Raises:
        ValueError: if neither :func:`lablib.layers.guarantee` nor :func:`bound_operator_norm` knows one.
    """
    try:
        norms, constant = guarantee(network)
    except ValueError as error:
        unknown = str(error)
    else:
        if "l2" in norms:
            return constant
        unknown = f"it is Lipschitz in {', '.join(norms)}"
    try:
        return bound_operator_norm(network, "l2")
    except ValueError:
        raise ValueError(f"this network has no proven Lipschitz constant in l2: {unknown}") from None


@functools.cache
def _denoiser_class() -> type:
    """Make the class: its base exists only once deepinv is imported."""

    class LipschitzDenoiser(import_deepinv().models.Denoiser):
        """T(x) = (1 - a) x + a N(x) for a 1-Lipschitz network N and 0 < a < 1: an a-averaged operator.

        With a <= 1/2 it is firmly nonexpansive (Bauschke and Combettes, Convex Analysis and Monotone Operator
        Theory, 2nd ed., Remark 4.34). The noise level is the one N was trained for: ``sigma`` of deepinv's
        call is taken and not used.

        Args:
            network: N, from (B, C, H, W) to the same shape, with a proven l2 constant of at most 1.
            share: a.

        Attributes:
            share: a, the averagedness of T.

        Raises:
            ValueError: if the constant of the network is unknown or above 1, it is averaged already (then a would
                not be the averagedness), or the share is not inside (0, 1).
        """

        norms = ("l2",)

        def __init__(self, network: nn.Module, share: float = 0.5):
            super().__init__()
            if not 0.0 < share < 1.0:
                raise ValueError(f"the share of the network must lie strictly between 0 and 1, got {share}")
            if isinstance(network, ConvexResidual):
                raise ValueError(
                    "a ConvexResidual, which load_denoiser returns, is averaged already; give its branch, the "
                    "network N, and its alpha (of load_denoiser 0.5) as the share"
                )
            self.network, self._share = network, float(share)
            self.lipschitz  # noqa: B018 - refuses a bad network now

        @property
        def share(self) -> float:
            return self._share

        @property
        def lipschitz(self) -> float:
            """The constant of T, 1.0, after a fresh look at the network."""
            constant = bound_constant(self.network)
            if constant > 1.0:
                raise ValueError(
                    f"the network is only known to be {constant:g}-Lipschitz in l2, and averaging needs 1; build it "
                    "of layers of lablib.layers, or divide its output by the constant"
                )
            return 1.0

        def forward(self, x: Tensor, sigma: float | Tensor | None = None, **kwargs) -> Tensor:
            kept = (1.0 - self._share) * x  # first: a network that works in place overwrites x
            y = self.network(x)
            if y.shape != x.shape:
                raise ValueError(
                    f"a denoiser must keep the shape, got {tuple(x.shape)} -> {tuple(y.shape)}; "
                    "give the network padding and as many channels out as in"
                )
            return kept + self._share * y

    LipschitzDenoiser.__qualname__ = "LipschitzDenoiser"  # pickle finds it through __getattr__
    return LipschitzDenoiser


def __getattr__(name: str):
    if name == "LipschitzDenoiser":
        return _denoiser_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
