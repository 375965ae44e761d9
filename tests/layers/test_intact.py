"""A guarantee is refused where the module is no longer what its class says."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lablib import layers as L

ALL = ("l1", "l2", "linf")


class Silent(L.LipschitzLayer):
    """States nothing."""

    def forward(self, x):
        return 7 * x


class Stated(Silent):
    """States its constant."""

    norms, lipschitz = ALL, 7.0


class Skip(L.LipschitzSequential):
    """No chain."""

    def forward(self, x):
        return x + super().forward(x)


class Named(L.LipschitzSequential):
    """A chain with a constructor of its own."""

    def __init__(self):
        super().__init__(L.LInfLinear(2, 2), L.Scale(3.0))


def test_only_own_statements_count():
    assert L.guarantee(Stated()) == (ALL, 7.0)
    assert L.guarantee(Named()) == (("linf",), 3.0)
    inherited = type("Tripled", (L.LInfLinear,), {"forward": lambda self, x: 3 * x})
    for layer in (Silent(), inherited(2, 2)):
        with pytest.raises(ValueError, match="does not state its norms"):
            L.guarantee(layer)
    with pytest.raises(ValueError, match="forward of its own"):
        Skip(L.LInfLinear(2, 2))


@pytest.mark.parametrize(("norms", "constant"), [((), 1.0), (("l3",), 1.0), (ALL, float("nan")), (ALL, -1.0)])
def test_statements_are_read_critically(norms, constant):
    layer = type("Odd", (Silent,), {"norms": norms, "lipschitz": constant})()
    with pytest.raises(ValueError, match="norm"):
        L.guarantee(layer)
    with pytest.raises(ValueError, match="constant"):
        L.guarantee(nn.LeakyReLU(float("nan")))


@pytest.mark.parametrize("attach", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_void_the_guarantee_until_removed(attach):
    net = L.LipschitzSequential(L.LInfLinear(2, 2), L.ConvexResidual(L.Abs()))
    for part in (net, net[0], net[1].branch, net[0].parametrizations.weight[0]):
        hook = getattr(part, attach)(lambda *args: None)
        with pytest.raises(ValueError, match="forward hook"):
            net.norms
        with pytest.raises(ValueError, match="forward hook"):
            net.lipschitz
        hook.remove()
    assert net.norms == ("linf",)
    net[0].forward = lambda x: 9 * x
    with pytest.raises(ValueError, match="replaced forward"):
        L.guarantee(net)


@pytest.mark.parametrize("kind", ["register_module_forward_hook", "register_module_forward_pre_hook"])
def test_global_hooks_void_every_guarantee(kind):
    net = L.LipschitzSequential(L.LInfLinear(2, 2))
    hook = getattr(nn.modules.module, kind)(lambda *args: None)
    try:
        with pytest.raises(ValueError, match="global forward hook"):
            L.guarantee(net)
    finally:
        hook.remove()
    assert L.guarantee(net) == (("linf",), 1.0)


def test_replaced_methods_void_the_guarantee():
    layer = L.LInfDistance(2, 2)
    layer.distance = lambda x: 9 * x
    with pytest.raises(ValueError, match="method distance of LInfDistance was replaced"):
        L.guarantee(L.ConvexResidual(layer))
    del layer.distance
    assert L.guarantee(layer) == (("linf",), 1.0)


@pytest.mark.parametrize(("name", "value"), [("norms", ("l2",)), ("lipschitz", 0.1)])
def test_statements_belong_to_the_class(name, value):
    for layer in (L.LInfLinear(2, 2), Stated()):
        setattr(layer, name, value)
        with pytest.raises(ValueError, match=f"{name} of .* was set on the object"):
            L.guarantee(layer)
        delattr(layer, name)
        L.guarantee(layer)


@pytest.mark.parametrize("kept", [True, False])
def test_a_removed_constraint_is_seen(kept):
    layer = pickle.loads(pickle.dumps(L.LInfLinear(3, 3)))
    assert L.guarantee(layer) == (("linf",), 1.0)
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=kept)
    for module in (layer, pickle.loads(pickle.dumps(layer))):
        with pytest.raises(ValueError, match="no longer constrained by ScaleGroups"):
            L.guarantee(module)


def test_an_added_parametrization_is_seen():
    layer = L.LInfLinear(3, 3)
    parametrize.register_parametrization(layer, "weight", nn.Identity())
    with pytest.raises(ValueError, match="no longer constrained"):
        L.guarantee(layer)


@pytest.mark.parametrize(
    ("layer", "weight", "name", "value"),
    [(L.LInfLinear(3, 3), "weight", "dim", 0), (L.L1Conv2d(1, 1, 3), "weight", "stride", 3)],
    ids=lambda value: str(value).split("(")[0],
)
def test_a_changed_constraint_is_seen(layer, weight, name, value):
    setattr(layer.parametrizations[weight][0], name, value)
    for module in (layer, pickle.loads(pickle.dumps(layer))):
        with pytest.raises(ValueError, match=f"of {weight} of .* was changed"):
            L.guarantee(module)


@pytest.mark.parametrize(
    ("layer", "name", "value"),
    [
        (L.LearnableSpline(2), "slopes", (-9.0, 9.0)),
        (L.LearnableSpline(2), "range", 0.5),
        (L.LearnableSpline(2).parametrizations["coefficients"][0], "slopes", (-9.0, 9.0)),
        (L.LeakyReLU(0.5), "slope", 9.0),
        (L.Scale(2.0), "constant", 9.0),
        (L.L1Conv2d(1, 1, 3, stride=2), "stride", 1),
        (L.SortNetLayer(3, 2, keep=0.5), "keep", 1.0),
    ],
    ids=lambda value: str(value).split("(")[0],
)
def test_what_the_guarantee_rests_on_is_fixed(layer, name, value):
    with pytest.raises(AttributeError, match="fixed"):
        setattr(layer, name, value)


@pytest.mark.parametrize(
    "layer", [nn.Flatten(0), nn.Flatten(-2), nn.Unflatten(0, (2, 3)), nn.Unflatten(-2, (2, 3))], ids=str
)
def test_layers_that_mix_samples_are_refused(layer):
    with pytest.raises(ValueError, match="batch"):
        L.guarantee(layer)


@pytest.mark.parametrize(
    "build",
    [lambda: L.GroupSort(2, dim=0), lambda: L.MaxMin(0), lambda: L.PReLU(2, dim=0), lambda: L.FullSort(0)],
)
def test_the_batch_is_no_channel_axis(build):
    with pytest.raises(ValueError, match="batch"):
        build()


def test_the_batch_is_no_channel_axis_counted_from_the_end():
    assert torch.equal(L.MaxMin(-1)(torch.tensor([2.0, 1.0])), torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="batch axis"):
        L.MaxMin(-2)(torch.ones(4, 2))


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (L.LInfLinear(3, 3), "weight"),
        (L.OrthonormalLinear(3, 2), "weight"),
        (L.SpectralConv2d(3, 3, 3), "weight"),
        (L.PReLU(3), "slope"),
        (L.LearnableSpline(3), "coefficients"),
        (L.LearnableSpline(3), "scale"),
        (L.ConvexResidual(L.Abs()), "alpha"),
        (L.ConvexResidual(L.Abs(), learnable=True), "alpha"),
    ],
    ids=lambda value: str(value).split("(")[0],
)
def test_assigned_weights_keep_their_shape(layer, name):
    with pytest.raises(ValueError, match="shape"):
        setattr(layer, name, torch.full((2,), 0.5))


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_orthonormal_layers_take_any_orthonormal_matrix(shape, dtype):
    """Reflections too, which the Cayley map alone cannot reach; others are made orthonormal."""
    layer = L.OrthonormalLinear(shape[1], shape[0], dtype=dtype)
    wanted = nn.init.orthogonal_(torch.empty(shape, dtype=torch.float64)).to(dtype)
    layer.weight = -wanted
    error = (layer.weight + wanted).abs().max()
    assert error <= min(0.1, 200 * torch.finfo(dtype).eps)
    assert layer.weight.dtype == dtype
    layer.weight = 9 * torch.randn(shape).to(dtype)
    values = torch.linalg.svdvals(layer.weight.detach().double())
    assert values.max() <= 1
    assert values.min() > 0.9


def test_orthonormal_layers_with_weights_too_large_say_so():
    layer = L.OrthonormalLinear(3, 3).double()
    with torch.no_grad():
        layer.parametrizations.weight.original.fill_(2.0**600)
    with pytest.raises(ValueError, match="not finite or too large"):
        layer(torch.ones(1, 3, dtype=torch.float64))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
def test_weights_that_are_not_numbers_are_named(value):
    for layer, shape in ((L.SpectralLinear(3, 3), (1, 3)), (L.SpectralConv2d(2, 2, 3), (1, 2, 5, 5))):
        layer.double()
        with torch.no_grad():
            layer.parametrizations.weight.original.fill_(value)
        with pytest.raises(ValueError, match="not finite or too large"):
            layer(torch.ones(shape, dtype=torch.float64))


def test_a_copy_within_cached_computes_with_its_own_weights():
    """Torch's own copy of a parametrized module would be given the weights cached for the original."""
    layer = L.LInfLinear(4, 4)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight = -torch.eye(4)
    with parametrize.cached():
        assert not torch.equal(layer.weight, other.weight)
        assert torch.allclose(other.weight, -torch.eye(4))
        assert torch.equal(copy.deepcopy(other).weight, other.weight)
