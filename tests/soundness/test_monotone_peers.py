"""The published breaks of monotonicnetworks 1.5.1: it fails, and the layers here hold or refuse."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

pytest.importorskip("monotonicnetworks", exc_type=ImportError)

import monotonicnetworks as M

from lablib import layers as L
from lablib.certify import bound_step_back, certify_slopes
from lablib.experiments import peer_battery as peers

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


def peer(kinds, cap=1.0, constant=1.0):
    return peers._increasing(*kinds, cap=cap, lipschitz_const=constant)


def parts(kinds, cap=1.0):
    """The same layers as :func:`peer`, from here: eight groups of 16 are groups of size 2."""
    torch.manual_seed(0)
    first, middle, last = (
        L.LipschitzLinear(i, o, kind=kind, lipschitz_const=cap)
        for kind, (i, o) in zip(kinds, [(1, 16), (16, 16), (16, 1)])
    )
    return nn.Sequential(first, L.GroupSort(2), middle, L.GroupSort(2), last)


def ours(**options):
    torch.manual_seed(0)
    return L.MonotoneNetwork(1, (16, 16), 1, **options)


def test_the_default_kind_is_no_certificate():
    kinds = ("one-inf",) * 3
    default = inspect.signature(M.LipschitzLinear).parameters["kind"].default
    assert default == "one-inf"
    assert peers._slope(peers._fit_line(peer(kinds))) < -2.5
    net = peers._fit_line(ours())
    assert peers._slope(net.frozen()) >= -1e-9
    assert certify_slopes(net).increasing.all()
    with pytest.raises(ValueError, match="needs increments bounded in l1"):
        L.MonotonicWrapper(parts(kinds), 1.0, [1])
    with pytest.raises(ValueError, match="choose the kind"):
        L.LipschitzLinear(1, 16)


def test_a_state_of_another_cap():
    kinds = ("one-inf", "inf", "inf")
    narrow = peers._fit_line(peer(kinds))
    wide = peer(kinds, cap=3.0 ** (1 / 3), constant=3.0)
    wide.load_state_dict(narrow.state_dict())
    assert peers._slope(wide) < -1.0
    with pytest.raises(ValueError, match="cap 1, this module has 3"):
        ours(lipschitz=3.0).load_state_dict(ours().state_dict())
    with pytest.raises(ValueError, match="cap 1, this module has 3"):
        L.MonotonicWrapper(parts(kinds, 3.0 ** (1 / 3)), 3.0, [1]).load_state_dict(
            L.MonotonicWrapper(parts(kinds), 1.0, [1]).state_dict()
        )


def test_their_states_load_here_and_are_checked():
    """Same names; the caps that monotonicnetworks saves, though it does not heed them, are compared."""
    kinds, cap = ("one-inf", "inf", "inf"), 3.0 ** (1 / 3)
    theirs = peers._fit_line(peer(kinds, cap, 3.0))
    wrapped = L.MonotonicWrapper(parts(kinds, cap), 3.0, [1])
    wrapped.load_state_dict(theirs.state_dict())
    x = torch.linspace(-1, 1, 50)[:, None]
    assert torch.allclose(wrapped(x), theirs(x), atol=1e-5)
    with pytest.raises(ValueError, match="cap"):
        L.MonotonicWrapper(parts(kinds), 1.0, [1]).load_state_dict(theirs.state_dict())
    bare = M.direct_norm(nn.Linear(3, 2), kind="one", max_norm=2.0)
    with pytest.warns(UserWarning, match="does not say which cap"):
        L.LipschitzLinear(3, 2, kind="one", lipschitz_const=2.0).load_state_dict(bare.state_dict())


@pytest.mark.parametrize("cap", [0.0, -1.0])
def test_zero_and_negative_caps(cap):
    theirs = M.direct_norm(nn.Linear(6, 5), kind="one", max_norm=cap)
    with torch.no_grad():
        theirs.parametrizations.weight.original.fill_(7.0)
    assert float(theirs.weight.detach().abs().sum(0).max()) > max(cap, 0.0) + 0.5
    for refused in (
        lambda: L.direct_norm(nn.Linear(6, 5), "one", max_norm=cap),
        lambda: L.LipschitzLinear(6, 5, kind="one", lipschitz_const=cap),
        lambda: ours(lipschitz=cap),
        lambda: L.MonotonicWrapper(parts(("inf",) * 3), cap, [1]),
    ):
        with pytest.raises(ValueError, match="cap is a number above 0"):
            refused()


def test_the_value_of_one_layer_in_place_of_the_product():
    kinds, cap = ("one-inf", "inf", "inf"), 10.0
    theirs = peer(kinds, cap, constant=cap)
    x = torch.linspace(-1, 1, 101)[:, None]
    optimiser = torch.optim.Adam(theirs.parameters(), lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        (theirs(x) + 1000 * x).square().mean().backward()
        optimiser.step()
    assert peers._slope(theirs) < -300
    with pytest.raises(ValueError, match="slopes up to 1000"):
        L.MonotonicWrapper(parts(kinds, cap), cap, [1])


def test_fractions_as_constraints():
    kinds = ("one-inf", "inf", "inf")
    inner = peer(kinds).nn
    assert peers._slope(peers._fit_line(M.MonotonicWrapper(inner, 1.0, [0.5]))) < -0.4
    for refused in (lambda: ours(directions=[0.5]), lambda: L.MonotonicWrapper(parts(kinds), 1.0, [0.5])):
        with pytest.raises(ValueError, match="nothing between"):
            refused()


def test_group_sort_takes_a_size_and_sorts_along_its_axis():
    x = torch.randn(3, 4, 6)
    pairs = x.unflatten(1, (2, 2)).sort(2).values.flatten(1, 2)
    assert not torch.equal(M.GroupSort(2, -2)(x), pairs)
    assert torch.equal(L.GroupSort(2, dim=-2)(x), pairs)
    assert torch.equal(M.GroupSort(2)(x), L.GroupSort(3, dim=-1)(x))  # two groups are groups of three


@pytest.mark.parametrize("shape", [(2,), (4, 3, 2), (0, 2)], ids=str)
def test_any_number_of_axes(shape):
    theirs = M.MonotonicWrapper(M.LipschitzLinear(2, 1, kind="one"))
    mine = L.MonotonicWrapper(L.LipschitzLinear(2, 1, kind="one"))
    x = torch.ones(shape)
    if shape != (0, 2):
        with pytest.raises((IndexError, RuntimeError)):
            theirs(x)
    for module in (mine, L.MonotoneNetwork(2, (4,))):
        assert module(x).shape == (*shape[:-1], 1)


def test_whole_modules_are_saved():
    with pytest.raises((AttributeError, RuntimeError, pickle.PicklingError)):
        pickle.dumps(M.MonotonicWrapper(M.LipschitzLinear(2, 1, kind="one")))
    x = torch.randn(5, 1)
    for module in (ours(), L.MonotonicWrapper(parts(("inf",) * 3), 1.0, [1])):
        assert torch.equal(pickle.loads(pickle.dumps(module))(x), module(x))


def test_a_free_scale_is_not_taken_for_lipschitz():
    norm = M.RMSNorm(6)
    with torch.no_grad():
        norm.weight.fill_(5.0)
    x = 0.1 * torch.eye(6)[:2]
    assert float((norm(x[0]) - norm(x[1])).detach().norm() / (x[0] - x[1]).norm()) > 20
    with pytest.raises(ValueError, match="RMSNorm has no known Lipschitz constant"):
        L.MonotonicWrapper(nn.Sequential(L.LipschitzLinear(6, 6, kind="inf"), norm), 1.0)


def test_rounding_in_float32_is_allowed_for():
    """Both jitter by an ulp where the slope is 0; here the largest step back is proven."""
    theirs = peers._float32_steps(peers._fit_line(peer(("one-inf", "inf", "inf"))))
    assert theirs["smallest"] < 0
    net = peers._fit_line(ours())
    back = float(bound_step_back(net, torch.tensor([-1.0]), torch.tensor([1.0]))[0])
    assert -back <= peers._float32_steps(net)["smallest"]
    assert back < 1e-4
    fine = copy.deepcopy(net).double()
    finer = float(bound_step_back(fine, torch.tensor([-1.0]).double(), torch.tensor([1.0]).double())[0])
    assert finer < 1e-12
