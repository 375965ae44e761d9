"""MonotoneNetwork taken apart: what changes are seen, and the same function as plain data."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lablib import layers as L
from lablib.certify import certify_slopes
from lablib.theory.network import evaluate

MIXED = [[1, 0, -1], [-1, 1, 0]]


def network(**options):
    torch.manual_seed(0)
    return L.MonotoneNetwork(3, (8, 6), 2, 2.0, MIXED, **options)


def test_exchanged_parts_and_hooks_are_seen():
    for place, part in ((0, nn.Linear(3, 8)), (1, nn.ReLU()), (1, L.GroupSort(2, dim=1))):
        net = network()
        net.network[place] = part
        for use in (net.slope_bounds, lambda net=net: net(torch.zeros(1, 3))):
            with pytest.raises(ValueError, match=f"part {place} of the network"):
                use()
    net = network()
    net.register_forward_hook(lambda module, args, output: -output)  # called, so it does run
    with pytest.raises(ValueError, match="hook"):
        net.slope_bounds()
    net = network()
    net.network[0].parametrizations.weight[0].cap = 9.0
    with pytest.raises(ValueError, match="changed after"):
        net.slope_bounds()
    for name, value in (("lipschitz", 9.0), ("head", "sigmoid"), ("residual_kind", "lipschitz")):
        with pytest.raises(AttributeError, match="fixed"):
            setattr(network(), name, value)


def linear(i, o, **options):
    return L.LipschitzLinear(i, o, **({"kind": "inf", "lipschitz_const": 1.0} | options))


@pytest.mark.parametrize("residual", ["certified", "lipschitz"])
@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.__setitem__(0, linear(3, 8, kind="one-inf", lipschitz_const=100.0)),
        lambda net: net.__setitem__(2, linear(8, 6, kind="one-inf")),
        lambda net: net.append(L.GroupSort(2, dim=-1)),
        lambda net: parametrize.remove_parametrizations(net[2], "weight"),
        lambda net: parametrize.register_parametrization(
            net[4], "weight", nn.Threshold(0.0, -50.0), unsafe=True
        ),
    ],
    ids=["cap", "kind", "part", "constraint", "cover"],
)
def test_layers_that_the_residual_is_not_enough_for_are_refused(change, residual):
    """Each made a network decrease, with slope_bounds() saying that it does not."""
    net = network(residual=residual)
    change(net.network)
    for use in (net.slope_bounds, lambda: net(torch.zeros(1, 3)), net.residual, net.frozen):
        with pytest.raises(ValueError, match=r"make a new|no longer constrained"):
            use()


def test_a_cached_residual_is_that_of_the_weights_in_use():
    net, x = network().double(), torch.randn(9, 3, dtype=torch.float64)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.network[0].weight = -9.0 * torch.ones(8, 3, dtype=torch.float64)
    expected = other(x)
    with parametrize.cached():
        net(x)
        net.network[0] = other.network[0]
        assert torch.equal(net(x), expected)


def test_hooks_on_parts_do_not_run():
    net, x = network(), torch.randn(4, 3)
    expected = net(x)
    for part in net.network:
        part.register_forward_hook(lambda module, args, output: -9.0 * output)
    assert torch.equal(net(x), expected)


def test_a_subclass_with_another_forward_states_no_bounds():
    class Tilted(L.MonotoneNetwork):
        def forward(self, x):
            return super().forward(x) - 9.0 * x.sum(-1, keepdim=True)

    with pytest.raises(ValueError, match="Tilted overrides forward"):
        Tilted(3, (4,)).slope_bounds()


def test_a_frozen_copy_shares_nothing_and_is_certified_as_it_is():
    net = network(group_size=2).eval()
    frozen = net.frozen()
    net.train()
    slopes = certify_slopes(frozen)
    assert not any(part.training for part in frozen.modules())
    assert (slopes.increasing[0, 0], slopes.decreasing[0, 2]) == (True, True)
    with torch.no_grad():
        frozen.network[0].weight.mul_(9.0)
        frozen.skip.weight.zero_()
    changed = certify_slopes(frozen)
    assert not changed.increasing.any()
    assert (changed.largest > slopes.largest).all()


def test_groups_of_another_size_are_bounded_as_they_are():
    net = L.MonotoneNetwork(2, (8, 8), 1, 3.0, [1, -1]).double()
    for sort in net.network[1::2]:
        sort.size = 4
    low, high = net.slope_bounds()
    slopes = torch.vmap(torch.func.jacrev(net))(torch.randn(400, 2, dtype=torch.float64))
    assert (slopes >= low - 1e-12).all()
    assert (slopes <= high + 1e-12).all()


def test_guarantee_says_where_to_go():
    with pytest.raises(ValueError, match="slope_bounds"):
        L.guarantee(network())


@pytest.mark.parametrize(("hidden", "group_size"), [((), 2), ((8,), 2), ((12, 8), 4), ((8, 8, 8), 2)])
@pytest.mark.parametrize("head", [None, "softplus"])
def test_plain_data_evaluates_the_same(hidden, group_size, head):
    net = L.MonotoneNetwork(3, hidden, 2, 2.0, MIXED, group_size=group_size, head=head).double()
    x = torch.randn(40, 3, dtype=torch.float64)
    made = evaluate(L.describe(net), x.numpy())
    assert np.allclose(made, net(x).detach().numpy(), atol=1e-12)


def test_plain_data_of_a_chain_and_of_a_sigmoid():
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Flatten(), network(), nn.ReLU()).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    assert np.allclose(evaluate(L.describe(chain), x.numpy()), chain(x).detach().numpy())
    with pytest.raises(ValueError, match="without its head"):
        L.describe(network(head="sigmoid"))


def test_representation():
    assert repr(network()).startswith(
        "MonotoneNetwork(\n  3, 2, lipschitz=2, residual='certified', head=None, directions=('+0-', '-+0')"
    )
    assert "directions='+0-'" in repr(L.MonotoneNetwork(3, (), 2, directions=[1, 0, -1]))
    assert f"directions='{'+' * 37}...'" in repr(L.MonotoneNetwork(41, (), 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.directions.fill_(-1),
        lambda net: net.directions.mul_(0.5),
        lambda net: net.directions.data.neg_(),
        lambda net: setattr(net, "directions", torch.ones(1, 3)),
    ],
)
def test_changed_directions_are_refused(change):
    net = network().eval()
    net(torch.zeros(1, 3))
    change(net)
    for use in (lambda: net(torch.zeros(1, 3)), net.slope_bounds, net.frozen, lambda: certify_slopes(net)):
        with pytest.raises(ValueError, match="directions of MonotoneNetwork were changed"):
            use()
    net.load_state_dict(network().state_dict())  # makes them what they were
    net(torch.zeros(1, 3))


def test_directions_that_move_are_the_same():
    for made in (
        network().to(torch.bfloat16),
        copy.deepcopy(network()).double(),
        pickle.loads(pickle.dumps(network())),
    ):
        made(torch.zeros(1, 3, dtype=made.directions.dtype))
    with torch.inference_mode():
        net = network()
    with torch.no_grad():
        net(torch.zeros(1, 3))
    nets = [network().double(), network().double()]
    parameters, buffers = torch.func.stack_module_state(nets)
    x = torch.randn(4, 3).double()
    both = torch.vmap(lambda p, b: torch.func.functional_call(nets[0], (p, b), (x,)))(parameters, buffers)
    assert torch.allclose(both[1], nets[1](x))
