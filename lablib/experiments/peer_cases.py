"""What three published packages claim, as cases of the battery.

Each layer is built as its documentation says, fed the shapes it documents, and held to the norm it names (l2
for deel-torchlip and orthogonium; per output where only each output is claimed). Options that the
documentation offers are cases of their own. Nothing here touches the network.
"""

import warnings
from collections.abc import Callable

import torch
from torch import nn

from lablib.experiments.battery import Case

IMAGE = (4, 7, 7)
EVEN = (4, 8, 8)
NOTES = {
    "power": "one power iteration per step lags behind a large step; evaluation mode uses the stale estimate",
    "padding": "this padding repeats border pixels, which the bound of the kernel does not count",
    "ignored": "the option is accepted and not used",
    "late": "set after the linear layers have fixed their factor; only the activations are scaled",
    "ceil": "incomplete windows at the border are scaled as if they were complete",
    "series": "the truncated series of the skew-orthogonal kernel is not orthogonal",
    "input_shape": "the factor for a given image size is above 1 / sqrt(windows per pixel)",
    "zero": "max_norm or 1: a cap of 0 means 1",
    "default": "the default kind is l1 -> linf in every layer, which does not chain",
    "free": "the scale is a free parameter; no constant is stated, 1 is what a capped network needs",
}


def deel_cases() -> list[Case]:
    """Return the cases of deel-torchlip: all its layers are claimed to be k_coef_lip-Lipschitz in l2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from deel import torchlip as T

    def case(
        name: str, build: Callable[[], nn.Module], *shapes, claim: float = 1.0, norm: str = "l2", **kwargs
    ) -> Case:
        return Case(name, build, shapes or (IMAGE,), (norm,), claim, **kwargs)

    def conv(**kwargs):
        return lambda: T.SpectralConv2d(4, 5, 3, **{"padding": 1} | kwargs)

    return [
        case("SpectralLinear", lambda: T.SpectralLinear(8, 6), (8,)),
        case(
            "SpectralLinear eps_bjorck=None",
            lambda: T.SpectralLinear(8, 6, eps_bjorck=None),
            (8,),
            note=NOTES["power"],
        ),
        case(
            "SpectralLinear k_coef_lip=0.5", lambda: T.SpectralLinear(8, 6, k_coef_lip=0.5), (8,), claim=0.5
        ),
        case("FrobeniusLinear, each neuron", lambda: T.FrobeniusLinear(8, 6), (8,), norm="l2->linf"),
        case("FrobeniusLinear joint", lambda: T.FrobeniusLinear(8, 6, disjoint_neurons=False), (8,)),
        case("SpectralConv1d", lambda: T.SpectralConv1d(4, 5, 3, padding=1), (4, 9)),
        case("SpectralConv2d", conv()),
        case("SpectralConv2d eps_bjorck=None", conv(eps_bjorck=None)),
        case("SpectralConv2d 4 x 4 stride 2", lambda: T.SpectralConv2d(4, 5, 4, stride=2, padding=1)),
        case("SpectralConv2d circular", conv(padding_mode="circular")),
        case("SpectralConv2d reflect", conv(padding_mode="reflect"), note=NOTES["padding"]),
        case("SpectralConv2d replicate", conv(padding_mode="replicate"), note=NOTES["padding"]),
        case("SpectralConv2d symmetric", conv(padding_mode="symmetric"), note=NOTES["padding"]),
        case("FrobeniusConv2d", lambda: T.FrobeniusConv2d(4, 1, 3, padding=1)),
        case("SpectralConvTranspose2d", lambda: T.SpectralConvTranspose2d(4, 5, 3, padding=1)),
        case(
            "SpectralConvTranspose2d stride 2",
            lambda: T.SpectralConvTranspose2d(4, 5, 4, stride=2, padding=1),
        ),
        case("MaxMin", T.MaxMin, (8,), (4, 3, 3)),
        case("GroupSort 4", lambda: T.GroupSort(4), (8,), (8, 3, 3)),
        case("GroupSort2", T.GroupSort2, (8,), (8, 3, 3)),
        case("FullSort", T.FullSort, (8,), (8, 3, 3)),
        case("LPReLU", lambda: T.LPReLU(4), (4,), IMAGE),
        case("HouseHolder", lambda: T.HouseHolder(4), (4,), IMAGE),
        case(
            "HouseHolder k_coef_lip=0.5",
            lambda: T.HouseHolder(4, k_coef_lip=0.5),
            (4,),
            claim=0.5,
            note=NOTES["ignored"],
        ),
        case("ScaledAvgPool2d", lambda: T.ScaledAvgPool2d(2), EVEN),
        case("ScaledAvgPool2d ceil_mode", lambda: T.ScaledAvgPool2d(2, ceil_mode=True), note=NOTES["ceil"]),
        case("ScaledAdaptiveAvgPool2d", lambda: T.ScaledAdaptiveAvgPool2d((1, 1))),
        case("ScaledL2NormPool2d", lambda: T.ScaledL2NormPool2d(2), EVEN),
        case(
            "ScaledL2NormPool2d ceil_mode",
            lambda: T.ScaledL2NormPool2d(2, ceil_mode=True),
            note=NOTES["ceil"],
        ),
        case("ScaledAdaptativeL2NormPool2d", lambda: T.ScaledAdaptativeL2NormPool2d((1, 1))),
        case("InvertibleDownSampling", lambda: T.InvertibleDownSampling(2), EVEN),
        case(
            "InvertibleDownSampling k_coef_lip=0.5",
            lambda: T.InvertibleDownSampling(2, k_coef_lip=0.5),
            EVEN,
            claim=0.5,
            note=NOTES["ignored"],
        ),
        case("InvertibleUpSampling", lambda: T.InvertibleUpSampling(2)),
        case("LayerCentering", lambda: T.LayerCentering(4)),
        case("BatchCentering", lambda: T.BatchCentering(4)),
        case(
            "Sequential",
            lambda: T.Sequential(T.SpectralLinear(8, 8), T.GroupSort2(), T.SpectralLinear(8, 4)),
            (8,),
        ),
        case(
            "Sequential k_coef_lip=0.25",
            lambda: T.Sequential(
                T.SpectralLinear(8, 8), T.GroupSort2(), T.SpectralLinear(8, 4), k_coef_lip=0.25
            ),
            (8,),
            claim=0.25,
            note=NOTES["late"],
        ),
        case(
            "lconv_norm with input_shape",
            lambda: _rko_with_input_shape(28),
            (1, 28, 28),
            states=("fresh",),
            note=NOTES["input_shape"],
        ),
    ]


def _rko_with_input_shape(size: int) -> nn.Module:
    """The RKO factor that depends on the image size, on a kernel whose reshaped matrix has norm 1."""
    from deel.torchlip.utils.lconv_norm import compute_lconv_coef

    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.fill_(compute_lconv_coef((3, 3), (1, size, size), (1, 1)) / 3.0)
    return conv


def orthogonium_cases() -> list[Case]:
    """Return the cases of orthogonium: layers claimed 1-Lipschitz (most of them orthogonal) in l2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from orthogonium import layers as T
        from orthogonium.layers.conv import SLL
        from orthogonium.layers.conv.adaptiveSOC import AdaptiveSOCConv2d
        from orthogonium.layers.conv.AOL import AOLConv2D, AOLConvTranspose2D
        from orthogonium.layers.custom_activations import SoftHuber
        from orthogonium.layers.residual import (
            AdditiveResidual,
            ConcatResidual,
            L2NormResidual,
            PrescaledAdditiveResidual,
        )

    def case(name: str, build: Callable[[], nn.Module], *shapes, norm: str = "l2", **kwargs) -> Case:
        return Case(name, build, shapes or (EVEN,), (norm,), 1.0, **kwargs)

    def aoc(o: int, k: int, s: int = 1, **kwargs):
        return lambda: T.AdaptiveOrthoConv2d(4, o, k, s, **kwargs)

    return [
        case("OrthoLinear", lambda: T.OrthoLinear(8, 6), (8,)),
        case("UnitNormLinear, each neuron", lambda: T.UnitNormLinear(8, 6), (8,), norm="l2->linf"),
        case("AdaptiveOrthoConv2d", aoc(4, 3)),
        case("AdaptiveOrthoConv2d zeros", aoc(4, 3, padding=1, padding_mode="zeros")),
        case("AdaptiveOrthoConv2d more outputs", aoc(6, 3)),
        case("AdaptiveOrthoConv2d 4 x 4 stride 2", aoc(8, 4, 2, padding=1)),
        case("AdaptiveOrthoConv2d 3 x 3 stride 2", aoc(8, 3, 2, padding=1)),
        case("AdaptiveOrthoConv2d 2 x 2 stride 2", aoc(8, 2, 2, padding=0)),
        case("AdaptiveOrthoConv2d groups", aoc(4, 3, groups=2)),
        case(
            "AdaptiveOrthoConv2d replicate",
            aoc(4, 3, padding=1, padding_mode="replicate"),
            note=NOTES["padding"],
        ),
        case(
            "AdaptiveOrthoConvTranspose2d stride 2",
            lambda: T.AdaptiveOrthoConvTranspose2d(4, 2, 4, 2, padding=1),
        ),
        case("AdaptiveSOCConv2d", lambda: AdaptiveSOCConv2d(4, 4, 3), note=NOTES["series"]),
        case("AOLConv2D", lambda: AOLConv2D(4, 4, 3, padding=1)),
        case("AOLConv2D more outputs", lambda: AOLConv2D(4, 6, 3, padding=1)),
        case("AOLConv2D stride 2", lambda: AOLConv2D(4, 4, 4, stride=2, padding=1)),
        case("AOLConvTranspose2D", lambda: AOLConvTranspose2D(4, 4, 3, padding=1)),
        case("SDPBasedLipschitzDense", lambda: SLL.SDPBasedLipschitzDense(8, 8, 8), (8,)),
        case("SDPBasedLipschitzResBlock", lambda: SLL.SDPBasedLipschitzResBlock(4, 2)),
        case("SLLxAOCLipschitzResBlock", lambda: SLL.SLLxAOCLipschitzResBlock(4, 8, 2)),
        case("AOCLipschitzResBlock", lambda: SLL.AOCLipschitzResBlock(4, 2, 3)),
        case("Abs", T.Abs, (8,), (4, 3, 3)),
        case("MaxMin", T.MaxMin, (8,), (4, 3, 3)),
        case("SoftHuber", SoftHuber, (8,)),
        case("HouseHolder", lambda: T.HouseHolder(4), (4, 3, 3)),
        case("HouseHolder_Order_2", lambda: T.HouseHolder_Order_2(4), (4, 3, 3)),
        case("ChannelShuffle", lambda: T.ChannelShuffle(2, 4), (8,), (8, 3, 3)),
        case("LayerCentering2D", lambda: T.LayerCentering2D(4)),
        case("BatchCentering2D", lambda: T.BatchCentering2D(4)),
        case("ConcatResidual", lambda: ConcatResidual(T.OrthoLinear(4, 4)), (8,)),
        case("L2NormResidual", lambda: L2NormResidual(T.OrthoLinear(8, 8)), (8,)),
        case("AdditiveResidual", lambda: AdditiveResidual(T.OrthoLinear(8, 8)), (8,)),
        case("PrescaledAdditiveResidual", lambda: PrescaledAdditiveResidual(T.OrthoLinear(8, 8)), (8,)),
    ]


def monotonic_cases() -> list[Case]:
    """Return the cases of monotonicnetworks: layers with the cap of their ``kind``, networks in l1."""
    import monotonicnetworks as T

    def case(
        name: str, build: Callable[[], nn.Module], *shapes, norm: str, claim: float = 1.0, **kwargs
    ) -> Case:
        return Case(name, build, shapes or ((6,),), (norm,), claim, **kwargs)

    def linear(kind: str, **kwargs):
        return lambda: T.LipschitzLinear(6, 5, kind=kind, **kwargs)

    def chain(*kinds: str):
        first, middle, last = kinds
        return lambda: nn.Sequential(
            T.LipschitzLinear(6, 8, kind=first),
            T.GroupSort(4),
            T.LipschitzLinear(8, 8, kind=middle),
            T.GroupSort(4),
            T.LipschitzLinear(8, 1, kind=last),
        )

    return [
        case("LipschitzLinear one", linear("one"), norm="l1"),
        case("LipschitzLinear inf", linear("inf"), norm="linf"),
        case("LipschitzLinear one-inf", linear("one-inf"), norm="l1->linf"),
        case("LipschitzLinear two-inf", linear("two-inf"), norm="l2->linf"),
        case(
            "LipschitzLinear one lipschitz_const=0",
            linear("one", lipschitz_const=0.0),
            norm="l1",
            claim=0.0,
            note=NOTES["zero"],
        ),
        case("direct_norm one", lambda: T.direct_norm(nn.Linear(6, 5), kind="one"), norm="l1"),
        case("project_norm one", lambda: T.project_norm(nn.Linear(6, 5), kind="one"), norm="l1"),
        case("3 layers, one", chain("one", "one", "one"), norm="l1"),
        case("3 layers, one-inf then inf", chain("one-inf", "inf", "inf"), norm="l1"),
        case(
            "3 layers, default kind", chain("one-inf", "one-inf", "one-inf"), norm="l1", note=NOTES["default"]
        ),
        case("GroupSort 2 groups", lambda: T.GroupSort(2), (6,), norm="l1"),
        case("RMSNorm", lambda: T.RMSNorm(6), (6,), norm="l2", note=NOTES["free"]),
        case("MonotonicLayer one-inf", lambda: T.MonotonicLayer(6, 5), norm="l1->linf"),
    ]
