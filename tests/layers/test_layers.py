"""What layers promise beyond the constant: saving, errors, ranks, autocast, exact weights."""

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lablib import layers as L
from lablib.certify.norms import bound_operator_norm


def step_away(layer, size=5.0):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(size * torch.randn_like(parameter))


def exact_sums(rows):
    return max(sum(abs(Fraction(v)) for v in row) for row in rows.double().tolist())


@pytest.mark.parametrize("constraint", ["scale", "project"])
def test_linf_rows_are_exact_after_any_step(constraint):
    layer = L.LInfLinear(784, 16, constraint=constraint)
    for size in (0.0, 1.0, 1e4):
        step_away(layer, size)
        assert exact_sums(layer.weight.detach()) <= 1


def test_l1_columns_and_kernels_are_exact():
    layer, conv = L.L1Linear(16, 300), L.LInfConv2d(4, 3, 5)
    strided = L.L1Conv2d(3, 8, 3, stride=2)
    for module in (layer, conv, strided):
        step_away(module)
    assert exact_sums(layer.weight.detach().T) <= 1
    assert exact_sums(conv.weight.detach().flatten(1)) <= 1
    kernel = strided.weight.detach()
    for row in (0, 1):
        for column in (0, 1):
            phase = kernel[:, :, row::2, column::2].transpose(0, 1).flatten(1)
            assert exact_sums(phase) <= 1


@pytest.mark.parametrize(
    ("layer", "norm"),
    [
        (L.SpectralLinear(70, 50), "l2"),
        (L.OrthonormalLinear(70, 50), "l2"),
        (L.OrthonormalLinear(50, 70), "l2"),
        (L.SpectralConv2d(4, 6, 3), "l2"),
        (L.SpectralConv2d(4, 6, 5, stride=2), "l2"),
        (L.LInfLinear(30, 20), "linf"),
        (L.L1Conv2d(4, 6, 3), "l1"),
    ],
    ids=str,
)
def test_float32_weights_themselves_are_bounded(layer, norm):
    """The weights as rounded to float32, measured in float64."""
    step_away(layer)
    # The grid of the measurement is finer than that of the constraint, so the bound may only come out lower.
    assert bound_operator_norm(layer, norm, grid=64) <= 1.0 + (2e-5 if "Orthonormal" in str(layer) else 1e-9)
    if isinstance(layer, L.SpectralLinear | L.OrthonormalLinear):
        assert torch.linalg.svdvals(layer.weight.detach().double())[0] <= 1.0


def test_orthonormal_layers_keep_norms():
    layer = L.OrthonormalLinear(20, 30, bias=False)
    conv = L.OrthonormalConv2d(3, 5, 3, padding=1, padding_mode="circular", bias=False)
    patches = L.OrthonormalConv2d(2, 8, 2, stride=2, bias=False)
    for module, shape in ((layer, (20,)), (conv, (3, 8, 8)), (patches, (2, 8, 8))):
        step_away(module, 0.5)
        x = torch.randn(10, *shape)
        ratio = module(x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
        assert ((ratio > 1 - 1e-4) & (ratio < 1 + 1e-6)).all()


def test_assigned_weights_are_constrained():
    layer = L.LInfLinear(3, 2, bias=False)
    layer.weight = torch.tensor([[0.25, 0.5, 0.0], [5.0, 0.0, 0.0]])
    assert torch.allclose(layer.weight, torch.tensor([[0.25, 0.5, 0.0], [1.0, 0.0, 0.0]]), atol=1e-6)
    assert "parametrizations.weight.original" in layer.state_dict()


def test_saved_whole_and_reloaded_after_pickling():
    layer = L.LipschitzSequential(L.LInfLinear(4, 4), L.MaxMin(), L.PReLU(4), nn.ReLU())
    x = torch.randn(3, 4)
    layer.custom = "kept"
    layer[0].weight.requires_grad_()
    twin = pickle.loads(pickle.dumps(layer))
    assert twin.custom == "kept"
    assert torch.equal(twin(x), layer(x))
    assert parametrize.is_parametrized(twin[0])
    step_away(twin)
    assert not torch.equal(twin(x), layer(x))
    assert exact_sums(twin[0].weight.detach()) <= 1
    assert torch.equal(copy.deepcopy(twin)(x), twin(x))
    assert torch.equal(pickle.loads(pickle.dumps(twin))(x), twin(x))


def test_repr_is_short():
    assert repr(L.LInfLinear(3, 2)) == "LInfLinear(3, 2, bias=True, constraint='scale')"
    assert repr(L.GroupSort(4)) == "GroupSort(size=4)"
    assert "Parametrized" not in repr(L.LipschitzSequential(L.LInfLinear(3, 2)))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.LInfLinear(4, 3), (2, 5)),
        (L.LInfLinear(4, 3), ()),
        (L.OrthonormalLinear(4, 3), (4, 2)),
        (L.LInfConv2d(3, 2, 3), (1, 2, 8, 8)),
        (L.LInfConv2d(3, 2, 3), (3, 8)),
        (L.LInfConv2d(3, 2, 3), (3, 8, 8)),
        (L.LInfConv2d(3, 2, 3), (1, 3, 2, 2)),
        (L.OrthonormalConv2d(3, 3, 3, padding=1, padding_mode="circular"), (1, 3, 2, 2)),
        (L.GroupSort(3), (2, 4)),
        (L.MaxMin(), (2, 3)),
        (L.PReLU(3), (2, 4)),
        (L.Householder(4), (2, 6)),
        (L.Householder(4), (2, 1)),
        (L.LInfDistance(4, 2), (3, 1)),
        (L.SortNetLayer(4, 2), (3, 5)),
        (L.MeanShift(4), (2, 1)),
        (L.FullSort(), ()),
        (L.ConvexResidual(L.LInfLinear(4, 3)), (2, 4)),
    ],
    ids=lambda value: str(value).split("(")[0] if isinstance(value, nn.Module) else None,
)
def test_wrong_shapes_raise(layer, shape):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        layer.eval()(torch.ones(shape)) if shape else layer.eval()(torch.tensor(1.0))


@pytest.mark.parametrize(
    "build",
    [
        lambda: L.LInfLinear(0, 3),
        lambda: L.LInfLinear(3, 2, constraint="clip"),
        lambda: L.LInfConv2d(3, 2, 0),
        lambda: L.LInfConv2d(3, 2, 3, padding=-1),
        lambda: L.LInfConv2d(3, 2, 3, padding_mode="reflect"),
        lambda: L.SpectralConv2d(3, 2, 3, padding=2, padding_mode="circular"),
        lambda: L.SpectralConv2d(3, 2, 3, stride=2, padding=1, padding_mode="circular"),
        lambda: L.OrthonormalConv2d(3, 2, 3, stride=2),
        lambda: L.GroupSort(0),
        lambda: L.GroupSort(2.0),
        lambda: L.Householder(3),
        lambda: L.LeakyReLU(1.5),
        lambda: L.PReLU(0),
        lambda: L.PReLU(2, init=-1.01),
        lambda: L.LInfDistance(0, 2),
        lambda: L.SortNetLayer(3, 2, keep=0.0),
        lambda: L.SortNetLayer(3, 2, top=0),
        lambda: L.MeanShift(3, momentum=0.0),
        lambda: L.Scale(float("nan")),
        lambda: L.ConvexResidual(L.Abs(), 1.2),
        lambda: L.ConvexResidual(L.Abs(), 1.0, learnable=True),
        lambda: L.ConvexResidual(nn.Linear(2, 2)),
    ],
)
def test_bad_arguments_raise(build):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        build()


@pytest.mark.parametrize(
    "layer",
    [L.LInfLinear(3, 3), L.LearnableSpline(3), L.MaxMin(), L.LInfDistance(3, 3), L.MonotoneNetwork(3, (4,))],
)
def test_input_that_is_no_tensor_is_refused(layer):
    for x in (np.ones((2, 3), np.float32), [[1.0, 2.0, 3.0]], None):
        with pytest.raises(ValueError, match=f"takes a torch tensor, not {type(x).__name__}"):
            layer(x)


@pytest.mark.parametrize("make", [L.MaxMin, L.FullSort, lambda dim: L.LearnableSpline(2, dim=dim)])
def test_a_channel_axis_is_a_whole_number(make):
    for dim in ("x", 1.0, True):
        with pytest.raises(ValueError, match="dim is a whole number"):
            make(dim=dim)


def test_assigned_weights_are_tensors():
    for layer, name in ((L.L1Linear(2, 2), "weight"), (L.LearnableSpline(2), "scale")):
        with pytest.raises(ValueError, match=r"assign a tensor of shape .* not float"):
            setattr(layer, name, 2.0)


def test_autocast_would_break_the_rows_and_is_ignored():
    layer = L.LInfLinear(300, 4)
    step_away(layer)
    assert exact_sums(layer.weight.detach().bfloat16()) > 1
    x = torch.randn(2, 300)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.float32
        assert torch.equal(layer(x.bfloat16()), layer(x.bfloat16().float()))


def test_half_precision_layers_stay_bounded():
    layer = L.LInfLinear(300, 4).bfloat16()
    assert exact_sums(layer.weight.detach()) <= 1


def test_half_precision_sortnet_weights_stay_bounded():
    for keep in (0.1, 0.3, 0.7, 0.9, 1.0):
        for dtype in (torch.bfloat16, torch.float16, torch.float64):
            weights = L.SortNetLayer(20, 3, keep=keep).to(dtype).rank_weight
            assert exact_sums(weights[None]) <= 1


def test_prelu_slopes_stay_inside():
    layer = L.PReLU(5, init=-1.0)
    assert torch.allclose(layer.slope, torch.tensor(-1.0))
    step_away(layer, 100.0)
    assert layer.slope.abs().max() <= 1


def test_mean_shift_trains_and_centres():
    layer = L.MeanShift(3, momentum=0.5)
    x = torch.randn(200, 3) + torch.tensor([1.0, 2.0, 3.0])
    for _ in range(20):
        made = layer(x)
    assert made.mean(0).abs().max() < 1e-5
    assert torch.allclose(layer.running_mean, x.mean(0), atol=1e-4)
    assert torch.allclose(layer.eval()(x), x - layer.running_mean)
    assert layer.train()(torch.zeros(0, 3)).shape == (0, 3)
    images = L.MeanShift(3)(torch.ones(2, 3, 4, 4))
    assert images.abs().max() == 0


def test_sortnet_with_keep_one_is_the_distance():
    near, far = L.LInfDistance(6, 4), L.SortNetLayer(6, 4, keep=1.0)
    far.load_state_dict(near.state_dict())
    x = torch.randn(5, 6)
    assert torch.equal(near(x), far(x))


def test_double_backward_and_vmap():
    net = L.LipschitzSequential(
        L.OrthonormalLinear(4, 6), L.MaxMin(), L.Householder(6), L.SpectralLinear(6, 1)
    )
    x = torch.randn(3, 4, requires_grad=True)
    slope = torch.autograd.grad(net(x).sum(), x, create_graph=True)[0]
    slope.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert torch.allclose(torch.vmap(net)(x.detach()), net(x).detach(), atol=1e-6)


def test_gradients_reach_every_weight():
    for layer, x in [
        (L.LInfLinear(4, 3), torch.randn(8, 4)),
        (L.OrthonormalConv2d(2, 3, 3), torch.randn(2, 2, 6, 6)),
        (L.SpectralConv2d(2, 3, 3), torch.randn(2, 2, 6, 6)),
        (L.SortNetLayer(4, 3), torch.randn(8, 4)),
        (L.Householder(4), torch.randn(8, 4)),
    ]:
        layer(x).square().sum().backward()
        assert all(
            p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters() if p.requires_grad
        )
