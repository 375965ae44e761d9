"""The one list of our own layers that the soundness battery walks: each at its documented shapes."""

from torch import nn

from lablib import layers as L
from lablib.experiments.battery import Case


def own_cases() -> list[Case]:
    """Return the battery's list: every public layer of :mod:`lablib.layers` at its documented shapes."""
    images = ((4, 6, 6), (4, 7, 5))
    features = ((8,), (3, 8), (2, 3, 8))
    anywhere = ((8,), (8, 3), (8, 3, 3))
    return [
        Case("LInfLinear", lambda: L.LInfLinear(8, 6), features),
        Case("LInfLinear project", lambda: L.LInfLinear(8, 6, constraint="project"), features),
        Case("L1Linear", lambda: L.L1Linear(8, 6), features),
        Case("SpectralLinear", lambda: L.SpectralLinear(8, 6), features),
        Case("OrthonormalLinear wide", lambda: L.OrthonormalLinear(8, 6), features),
        Case("OrthonormalLinear tall", lambda: L.OrthonormalLinear(8, 10), features),
        Case("OrthonormalLinear square", lambda: L.OrthonormalLinear(8, 8), features),
        *_capped_cases(),
        Case("LInfConv2d", lambda: L.LInfConv2d(4, 5, 3, padding=1), images),
        Case("LInfConv2d stride 2", lambda: L.LInfConv2d(4, 5, 4, stride=2, padding=1), images),
        Case("L1Conv2d", lambda: L.L1Conv2d(4, 5, 3, padding=1), images),
        Case("L1Conv2d stride 2", lambda: L.L1Conv2d(4, 5, 3, stride=2, padding=2), images),
        Case("SpectralConv2d", lambda: L.SpectralConv2d(4, 5, 3, padding=1), images),
        Case("SpectralConv2d stride 2", lambda: L.SpectralConv2d(4, 5, 4, stride=2, padding=1), images),
        Case(
            "SpectralConv2d circular",
            lambda: L.SpectralConv2d(4, 5, 3, padding=1, padding_mode="circular"),
            images,
        ),
        Case("OrthonormalConv2d", lambda: L.OrthonormalConv2d(4, 5, 3, padding=1), images),
        Case(
            "OrthonormalConv2d 4 x 4 stride 2",
            lambda: L.OrthonormalConv2d(4, 5, 4, stride=2, padding=1),
            images,
        ),
        Case("OrthonormalConv2d patches", lambda: L.OrthonormalConv2d(4, 16, 2, stride=2), images),
        Case(
            "OrthonormalConv2d circular",
            lambda: L.OrthonormalConv2d(4, 4, 3, padding=1, padding_mode="circular"),
            images,
        ),
        Case("Abs", L.Abs, anywhere),
        Case("LeakyReLU", lambda: L.LeakyReLU(-0.7), anywhere),
        Case("PReLU", lambda: L.PReLU(8), anywhere),
        Case("PReLU shared", lambda: L.PReLU(), anywhere),
        Case("GroupSort 4", lambda: L.GroupSort(4), anywhere),
        Case("MaxMin", L.MaxMin, anywhere),
        Case("FullSort", L.FullSort, anywhere),
        Case("Householder", lambda: L.Householder(8), anywhere),
        *_spline_cases(anywhere),
        Case("LInfDistance", lambda: L.LInfDistance(8, 6, bias=True), features),
        Case("SortNetLayer", lambda: L.SortNetLayer(8, 6, keep=0.7, top=5), features),
        Case("SortNetLayer keep 1", lambda: L.SortNetLayer(8, 6, keep=1.0), features),
        Case("LInfDistanceConv2d", lambda: L.LInfDistanceConv2d(4, 5, 3, padding=1, bias=True), images),
        Case(
            "SortNetConv2d stride 2",
            lambda: L.SortNetConv2d(4, 5, 3, stride=2, padding=1, keep=0.7, top=6),
            images,
        ),
        Case("MeanShift", lambda: L.MeanShift(8), anywhere),
        Case("Normalise", lambda: L.Normalise([0.1 * i for i in range(8)], 0.3081), anywhere),
        Case("Normalise, one mean", lambda: L.Normalise(0.1307, 2.0), anywhere),
        Case("CentreSample", L.CentreSample, anywhere),
        Case("CentreSample dim 1", lambda: L.CentreSample(1), anywhere),
        Case("ClipNorm 2", lambda: L.ClipNorm(2.0), anywhere),
        Case("ClipNorm 0.01", lambda: L.ClipNorm(0.01), anywhere),
        Case("Scale", lambda: L.Scale(-2.5), anywhere),
        Case(
            "ConvexResidual", lambda: L.ConvexResidual(L.SpectralLinear(8, 8), 0.3, learnable=True), features
        ),
        Case(
            "LipschitzSequential linf",
            lambda: L.LipschitzSequential(
                L.LInfLinear(8, 8), L.MaxMin(-1), L.LInfDistance(8, 4), L.Scale(3.0)
            ),
            features,
        ),
        Case(
            "LipschitzSequential l2 images",
            lambda: L.LipschitzSequential(
                L.OrthonormalConv2d(4, 6, 3, padding=1),
                L.Householder(6),
                nn.AvgPool2d(2),
                nn.Flatten(),
                L.OrthonormalLinear(54, 3),
            ),
            ((4, 6, 6),),
        ),
    ]


def _capped_cases() -> list[Case]:
    """Linear layers with a cap, where it bounds a norm by itself; the others are for MonotoneNetwork."""
    linear = L.LipschitzLinear
    cases = {
        "one cap 0.3": lambda: linear(8, 6, kind="one", lipschitz_const=0.3),
        "inf cap 3, whole": lambda: linear(8, 6, kind="inf", lipschitz_const=3.0, vectorwise=False),
        "two cap 2.5": lambda: linear(8, 6, kind="two", lipschitz_const=2.5),
    }
    return [Case(f"LipschitzLinear {name}", build, ((3, 8),)) for name, build in cases.items()]


def _spline_cases(anywhere: tuple[tuple[int, ...], ...]) -> list[Case]:
    """Learnable splines: every start, even and odd grids, other bounds; training steps drive all slopes out."""
    spline, vectors, images = L.LearnableSpline, ((8,),), ((8, 3, 3),)
    cases = {
        "identity": (lambda: spline(8), anywhere),
        "zero": (
            lambda: L.ConvexResidual(spline(8, knots=20, init="zero")),
            vectors,
        ),  # alone no step moves it
        "relu": (lambda: spline(8, knots=101, range=0.5, init="relu"), images),
        "abs": (lambda: spline(8, knots=21, range=0.15, init="abs"), anywhere),
        "maxmin": (lambda: spline(8, knots=51, range=0.1, init="maxmin"), vectors),
        "callable": (lambda: spline(8, knots=32, range=3.0, init=lambda t: (4 * t).sin()), images),
        "two knots": (lambda: spline(8, knots=2), vectors),
        "monotone": (lambda: spline(8, slopes=(0.0, 1.0), init="abs"), vectors),
        "wider bounds": (lambda: spline(8, slopes=(-0.5, 2.5), init="relu"), vectors),
        "no scaling": (lambda: spline(8, knots=20, init="relu", scaling=False), anywhere),
        "shared": (lambda: spline(1, init="abs"), anywhere),
        "last axis": (lambda: spline(8, init="maxmin", dim=-1), ((8,), (3, 8))),
    }
    return [Case(f"LearnableSpline {name}", build, shapes) for name, (build, shapes) in cases.items()]
