"""LipschitzLinear and direct_norm: kinds, caps that are saved, and what they refuse."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.ops.projections import KINDS, cap_norm


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectorwise", [True, False])
def test_weights_are_capped_when_read(kind, vectorwise):
    layer = L.LipschitzLinear(5, 4, kind=kind, lipschitz_const=0.7, vectorwise=vectorwise)
    layer.weight = 3 * torch.randn(4, 5)
    free = layer.parametrizations.weight.original
    assert torch.equal(layer.weight, cap_norm(free, kind, 0.7, vectorwise))
    x = torch.randn(2, 3, 5)
    assert torch.equal(layer(x), x @ layer.weight.T + layer.bias) or torch.allclose(
        layer(x), x @ layer.weight.T + layer.bias
    )


def test_names_in_the_state_are_those_of_monotonicnetworks():
    state = L.LipschitzLinear(5, 4, kind="inf", lipschitz_const=0.7).state_dict()
    assert set(state) == {"bias", "lipschitz_const", "parametrizations.weight.original"}
    assert state["lipschitz_const"].dtype == torch.float64


def test_statements():
    for kind, norm in (("one", "l1"), ("inf", "linf"), ("two", "l2")):
        assert L.guarantee(L.LipschitzLinear(3, 3, kind=kind, lipschitz_const=0.7)) == ((norm,), 0.7)
    chain = L.LipschitzSequential(
        L.LipschitzLinear(3, 4, kind="inf", lipschitz_const=2.0),
        L.MaxMin(),
        L.LipschitzLinear(4, 1, kind="inf"),
    )
    assert (chain.norms, chain.lipschitz) == (("linf",), 2.0)
    for kind in ("one-inf", "two-inf"):
        with pytest.raises(ValueError, match=r"MonotoneNetwork.*certify_slopes"):
            L.guarantee(L.LipschitzLinear(3, 3, kind=kind))
        with pytest.raises(ValueError, match="MonotoneNetwork"):
            L.LipschitzSequential(L.LipschitzLinear(3, 3, kind=kind))


def test_a_state_of_another_cap_is_refused():
    saved = L.LipschitzLinear(3, 3, kind="one").state_dict()
    with pytest.raises(ValueError, match="saved with the cap 1, this module has 3"):
        L.LipschitzLinear(3, 3, kind="one", lipschitz_const=3.0).load_state_dict(saved)
    chain = nn.Sequential(L.LipschitzLinear(3, 3, kind="one", lipschitz_const=3.0))
    with pytest.raises(ValueError, match="0 \\(LipschitzLinear\\) was saved with the cap 1"):
        chain.load_state_dict({f"0.{name}": value for name, value in saved.items()})
    damaged = saved | {"lipschitz_const": torch.ones(2)}
    with pytest.raises(ValueError, match="damaged"):
        L.LipschitzLinear(3, 3, kind="one").load_state_dict(damaged)
    with pytest.raises(ValueError, match="cap nan"):
        L.LipschitzLinear(3, 3, kind="one").load_state_dict(
            saved | {"lipschitz_const": torch.tensor(float("nan"))}
        )


def test_a_state_without_a_cap_loads_with_a_warning():
    layer = L.LipschitzLinear(3, 2, kind="one", lipschitz_const=0.5)
    state = layer.state_dict()
    del state["lipschitz_const"]
    other = L.LipschitzLinear(3, 2, kind="one", lipschitz_const=0.5)
    with pytest.warns(UserWarning, match="does not say which cap"):
        other.load_state_dict(state)
    assert torch.equal(other.weight, layer.weight)


def test_a_cap_rounded_to_float32_passes():
    """As states of monotonicnetworks hold it."""
    layer = L.LipschitzLinear(3, 2, kind="one", lipschitz_const=3 ** (1 / 3))
    layer.load_state_dict(layer.state_dict() | {"lipschitz_const": torch.tensor([3 ** (1 / 3)])})


def test_saved_copied_pickled_and_halved():
    layer = L.LipschitzLinear(3, 2, kind="two-inf", lipschitz_const=0.5)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other = L.LipschitzLinear(3, 2, kind="two-inf", lipschitz_const=0.5)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    for made in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(made.weight, layer.weight)
        assert (made.kind, made.lipschitz_const) == ("two-inf", 0.5)
    half = layer.half()
    assert half.weight.double().norm(dim=1).max() <= 0.5
    assert half.state_dict()["lipschitz_const"] == 0.5


def test_what_the_cap_rests_on_is_fixed():
    layer = L.LipschitzLinear(3, 3, kind="one")
    for name, value in (("kind", "inf"), ("lipschitz_const", 3.0), ("vectorwise", False)):
        with pytest.raises(AttributeError, match="fixed"):
            setattr(layer, name, value)
    layer.parametrizations.weight[0].cap = 3.0
    with pytest.raises(ValueError, match="changed after"):
        L.guarantee(layer)


@pytest.mark.parametrize("options", [{"kind": "max"}, {"kind": "one", "lipschitz_const": 0.0}])
def test_refusals(options):
    with pytest.raises(ValueError, match=r"unknown kind|cap is a number"):
        L.LipschitzLinear(3, 3, **options)
    with pytest.raises(ValueError, match="at least one input"):
        L.LipschitzLinear(0, 3, kind="one")
    for make in (lambda: L.LipschitzLinear(3, 3), lambda: L.direct_norm(nn.Linear(3, 3), max_norm=2.0)):
        with pytest.raises(ValueError, match="choose the kind of norm: kind='one-inf' for the first"):
            make()
    for option in ({"always_norm": True}, {"parameter_name": "bias"}):
        with pytest.raises(ValueError, match="leave out always_norm and parameter_name"):
            L.direct_norm(nn.Linear(3, 3), "one", **option)
    assert L.direct_norm(nn.Linear(3, 3), "one", always_norm=False, parameter_name="weight").kind == "one"
    with pytest.raises(ValueError, match=r"x is in torch.float64, LipschitzLinear in torch.float32"):
        L.LipschitzLinear(3, 3, kind="one")(torch.zeros(2, 3).double())


def test_a_state_of_another_kind_is_refused():
    layer = L.LipschitzLinear(3, 2, kind="inf")
    buffer = io.BytesIO()
    torch.save(nn.Sequential(layer).state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    nn.Sequential(L.LipschitzLinear(3, 2, kind="inf")).load_state_dict(state)
    for options, told in (({"kind": "one"}, "kind='inf'"), ({"vectorwise": False}, "vectorwise=True")):
        other = nn.Sequential(L.LipschitzLinear(3, 2, **{"kind": "inf"} | options))
        with pytest.raises(ValueError, match=f"saved with {told}, this one has"):
            other.load_state_dict(state)
        other.load_state_dict(dict(state))  # without torch's metadata nothing is known


def test_direct_norm_works_in_place_and_returned():
    plain = nn.Linear(4, 3)
    weight = plain.weight
    made = L.direct_norm(plain, "two", max_norm=0.5)
    assert made is plain
    assert isinstance(plain, L.LipschitzLinear)
    assert made.parametrizations.weight.original is weight
    assert float(torch.linalg.matrix_norm(made.weight.detach(), 2)) <= 0.5
    assert L.guarantee(made) == (("l2",), 0.5)
    assert made.state_dict()["lipschitz_const"] == 0.5
    copied = pickle.loads(pickle.dumps(made))
    assert torch.equal(copied(torch.ones(1, 4)), made(torch.ones(1, 4)))


def test_direct_norm_refuses_what_it_does_not_know():
    hooked = nn.Linear(3, 3)
    hooked.register_forward_hook(lambda module, args, output: 2 * output)
    capped = L.direct_norm(nn.Linear(3, 3), "one")
    for layer in (hooked, capped, nn.Conv2d(1, 1, 1), L.LInfLinear(2, 2)):
        with pytest.raises(ValueError, match="apply it before anything else"):
            L.direct_norm(layer, "one")
    untouched = nn.Linear(3, 3)
    for options in ({"kind": "max"}, {"kind": "one", "max_norm": 0.0}, {"kind": "one", "max_norm": -1.0}):
        with pytest.raises(ValueError, match=r"unknown kind|cap is a number"):
            L.direct_norm(untouched, **options)
    assert type(untouched) is nn.Linear


def test_partials_of_chains():
    inf, one, two = (
        L.LipschitzLinear(3, 3, kind=kind, lipschitz_const=2.0) for kind in ("inf", "one", "two")
    )
    first = L.LipschitzLinear(3, 3, kind="one-inf", lipschitz_const=0.5)
    assert L.bound_partials(
        nn.Sequential(first, L.MaxMin(), inf, nn.Sequential(nn.Tanh(), inf))
    ) == pytest.approx(2.0)
    assert L.bound_partials(nn.Sequential(one, two, inf, L.Scale(3.0))) == pytest.approx(24.0)
    assert L.bound_partials(nn.Sequential(one, one)) >= 4.0
    for parts in ([first, first], [inf, one], [two, one], [inf, L.Householder(4)]):
        with pytest.raises(ValueError, match="needs increments bounded in"):
            L.bound_partials(nn.Sequential(*parts))
    for unknown in (nn.Linear(3, 3), nn.Softplus(), nn.Sequential(nn.BatchNorm1d(3))):
        with pytest.raises(ValueError, match="no known Lipschitz constant"):
            L.bound_partials(unknown)
    with pytest.raises(ValueError, match="overflows"):
        L.bound_partials(nn.Sequential(*[L.LipschitzLinear(1, 1, kind="inf", lipschitz_const=1e30)] * 11))
