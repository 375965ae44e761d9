"""Networks as plain data: lablib.theory evaluates them to the same outputs."""

import numpy as np
import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.layers import describe
from lablib.theory.network import evaluate, is_lipschitz

NETWORKS = {
    "linf": (
        lambda: L.LipschitzSequential(
            L.LInfLinear(6, 8),
            L.MaxMin(),
            L.LInfLinear(8, 8, bias=False),
            L.GroupSort(4),
            L.Abs(),
            L.LInfLinear(8, 3),
        ),
        (6,),
    ),
    "distances": (
        lambda: L.LipschitzSequential(
            L.LInfDistance(6, 8, bias=True),
            L.MeanShift(8),
            L.SortNetLayer(8, 5, keep=0.6, top=3),
            L.FullSort(),
        ),
        (6,),
    ),
    "elementwise": (
        lambda: L.LipschitzSequential(
            nn.Flatten(),
            L.LInfLinear(6, 4),
            L.PReLU(4),
            L.LeakyReLU(-0.5),
            nn.LeakyReLU(0.2),
            nn.Tanh(),
            nn.Identity(),
            nn.ReLU6(),
            nn.Hardtanh(-0.3, 0.4),
            L.Scale(2.5),
            L.ConvexResidual(L.LInfLinear(4, 4), 0.3),
        ),
        (6,),
    ),
    "images": (
        lambda: L.LipschitzSequential(
            L.LInfConv2d(2, 4, 3, stride=2, padding=1),
            L.MeanShift(4),
            L.MaxMin(),
            L.PReLU(4),
            nn.AvgPool2d(2),
            nn.Flatten(),
            L.LInfLinear(16, 3),
        ),
        (2, 8, 8),
    ),
    "l2": (
        lambda: L.LipschitzSequential(
            L.OrthonormalConv2d(2, 4, 3, padding=1),
            L.FullSort(),
            L.SpectralConv2d(4, 3, 3),
            nn.Flatten(),
            L.OrthonormalLinear(108, 4),
        ),
        (2, 8, 8),
    ),
    "splines": (
        lambda: L.LipschitzSequential(
            L.LearnableSpline(2, knots=4, init="maxmin"),
            nn.Flatten(),
            L.LInfLinear(18, 4),
            L.LearnableSpline(4, knots=21, range=0.1, init="relu"),
            L.LearnableSpline(1, knots=2, scaling=False),
        ),
        (2, 3, 3),
    ),
    "torch": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.ReLU(),
            nn.Sequential(nn.AvgPool2d(2), nn.Flatten()),
            nn.Dropout(),
            nn.Linear(48, 5),
            nn.PReLU(),
        ),
        (2, 8, 8),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_theory_evaluates_the_same(name):
    build, shape = NETWORKS[name]
    net = build()
    net.train()(torch.randn(4, *shape)) if name in ("distances", "images") else None
    net = net.double().eval()
    x = torch.randn(7, *shape, dtype=torch.float64)
    layers = describe(net)
    assert np.allclose(evaluate(layers, x.numpy()), net(x).detach().numpy(), atol=1e-12)


def test_float32_weights_are_exactly_bounded():
    layers = describe(NETWORKS["linf"][0]())
    assert layers[0]["weight"].dtype == np.float32
    exact = [
        layer | {"weight": _fractions(layer["weight"])} if "weight" in layer else layer for layer in layers
    ]
    assert is_lipschitz(exact)


def _fractions(weight):
    from lablib.theory.network import fractions

    return fractions(weight)


def test_the_input_shape_is_asked_for_only_where_needed():
    with pytest.raises(ValueError, match="input_shape"):
        describe(L.FullSort())
    with pytest.raises(ValueError, match="input_shape"):
        describe(L.MeanShift(3).eval())
    assert describe(L.FullSort(), (5,)) == [{"op": "group_sort", "size": 5}]
    assert describe(L.MeanShift(3).eval(), (3, 4, 4))[0]["op"] == "conv2d"


def test_data_is_a_copy():
    layer = L.LInfDistance(2, 2)
    described = describe(layer)
    described[0]["weight"][:] = 0
    assert layer.weight.abs().max() > 0


@pytest.mark.parametrize(
    "module",
    [
        L.Householder(4),
        nn.BatchNorm1d(3),
        nn.Conv2d(2, 2, 3, groups=2),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(2, 2, 3, padding="same"),
        nn.Conv2d(2, 2, 3, dilation=2),
        L.OrthonormalConv2d(2, 2, 3, padding=1, padding_mode="circular"),
        nn.AvgPool2d(2, padding=1),
        nn.Flatten(0),
        nn.Softplus(),
        nn.Hardtanh(-1e20, 1e20),
        type("Doubled", (nn.Linear,), {"forward": lambda self, x: 2 * x})(2, 2),
        type("Doubled", (nn.Sequential,), {"forward": lambda self, x: 2 * x})(nn.ReLU()),
        type("Renamed", (L.LInfLinear,), {})(2, 2),
        nn.Dropout().train(),
        L.MeanShift(3).train(),
        L.GroupSort(2, dim=-1),
        L.LearnableSpline(2, dim=-1),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_has_no_form_is_refused(module):
    with pytest.raises(ValueError, match=r"\w+ \w+ \w+"):
        describe(module)


def test_hooks_are_refused():
    net = nn.Sequential(nn.Linear(2, 2))
    net[0].register_forward_hook(lambda module, args, output: 5 * output)
    with pytest.raises(ValueError, match="Linear has a forward hook"):
        describe(net)


def test_half_precision_weights_come_as_they_are_stored():
    for dtype, held in ((torch.bfloat16, np.float32), (torch.float16, np.float16)):
        layer = L.LInfLinear(3, 2).to(dtype)
        weight = describe(layer)[0]["weight"]
        assert weight.dtype == held
        assert (weight == layer.weight.detach().float().numpy()).all()


def test_a_branch_in_place_is_the_same_function():
    block = L.ConvexResidual(nn.ReLU(inplace=True), 0.5).double()
    x = torch.tensor([[-2.0, 3.0]], dtype=torch.float64)
    expected = evaluate(describe(block), x.numpy())
    assert expected.tolist() == [[-1.0, 3.0]]
    assert block(x).tolist() == expected.tolist()
