"""MonotoneNetwork taken apart: what changes are seen, and the same function as plain data."""

import numpy as np
import pytest
import torch
from torch import nn

from lablib import layers as L
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
    net.register_forward_hook(lambda module, args, output: -output)
    with pytest.raises(ValueError, match="hook"):
        net.slope_bounds()
    net = network()
    net.network[0].parametrizations.weight[0].cap = 9.0
    with pytest.raises(ValueError, match="changed after"):
        net.slope_bounds()
    for name, value in (("lipschitz", 9.0), ("head", "sigmoid"), ("residual_kind", "lipschitz")):
        with pytest.raises(AttributeError, match="fixed"):
            setattr(network(), name, value)


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
        "MonotoneNetwork(\n  3, 2, lipschitz=2, residual='certified', head=None"
    )
