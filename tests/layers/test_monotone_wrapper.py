"""MonotonicWrapper: one's own network, made monotone if its constant is proven."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lablib import layers as L


def inner(cap=1.0, outputs=1):
    torch.manual_seed(0)
    return L.LipschitzSequential(
        L.LipschitzLinear(3, 8, kind="inf", lipschitz_const=cap),
        L.GroupSort(4, dim=-1),
        L.LipschitzLinear(8, outputs, kind="inf", lipschitz_const=cap),
    )


def test_the_formula():
    net = inner()
    x = torch.randn(4, 5, 3)
    for constraints, row in ((None, [1, 1, 1]), ([1, 0, -1], [1, 0, -1]), ([[1], [0], [-1]], [1, 0, -1])):
        wrapped = L.MonotonicWrapper(net, 1.0, constraints)
        expected = net(x) + (x @ torch.tensor(row, dtype=torch.float32))[..., None]
        assert torch.allclose(wrapped(x), expected, atol=1e-6)
        assert torch.allclose(wrapped(x[0, 0]), expected[0, 0], atol=1e-6)


def test_constraints_per_output_are_input_by_output():
    constraints = torch.tensor([[1, 0], [0, -1], [1, 1]])
    wrapped = L.MonotonicWrapper(inner(outputs=2), 1.0, constraints)
    assert torch.equal(wrapped.directions, constraints.T.float())
    slopes = torch.vmap(torch.func.jacrev(wrapped))(torch.randn(200, 3))
    assert (slopes * constraints.T >= -1e-6).all()


def test_a_constant_that_is_too_small_is_refused():
    """The product over the layers is asked for; per-layer values are a published mistake."""
    with pytest.raises(ValueError, match="slopes up to 4"):
        L.MonotonicWrapper(inner(cap=2.0), 2.0)
    assert L.MonotonicWrapper(inner(cap=2.0), 4.0).residual().tolist() == [[4.0] * 3]


def test_products_of_roots_pass_and_are_covered():
    cap = 3.0 ** (1 / 2)
    wrapped = L.MonotonicWrapper(inner(cap=cap), 3.0).double()
    assert wrapped.residual().min() >= L.bound_partials(wrapped.nn) >= 3.0


def test_unknown_modules_need_ones_word():
    net = nn.Sequential(nn.Linear(3, 1))
    with pytest.raises(ValueError, match="assume_lipschitz=True"):
        L.MonotonicWrapper(net, 1.0)
    assert L.MonotonicWrapper(net, 1.0, assume_lipschitz=True)(torch.zeros(2, 3)).shape == (2, 1)
    with pytest.raises(ValueError, match="needs increments"):
        L.MonotonicWrapper(nn.Sequential(*[L.LipschitzLinear(3, 3, kind="one-inf")] * 2))
    with pytest.raises(ValueError, match="how many inputs"):
        L.MonotonicWrapper(nn.Tanh(), 1.0)
    assert L.MonotonicWrapper(nn.Tanh(), 1.0, [1, 0]).directions.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("constraints", "message"),
    [([0.5, 0, 1], "nothing between"), ([[[1]]], "shape"), (1, "shape"), (["a", "b", "c"], "numbers")],
)
def test_bad_constraints(constraints, message):
    with pytest.raises(ValueError, match=message):
        L.MonotonicWrapper(inner(), 1.0, constraints)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="3 features"):
        L.MonotonicWrapper(inner(), 1.0, [1, 0, 0])(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="do not fit"):
        L.MonotonicWrapper(inner(outputs=2), 1.0, torch.ones(3, 3))(torch.zeros(2, 3))


def test_constraints_for_another_number_of_inputs_are_refused_at_once():
    for net in (inner(), nn.Sequential(nn.Sequential(nn.Linear(3, 1))), L.LipschitzLinear(3, 1, kind="inf")):
        with pytest.raises(ValueError, match="takes 3 inputs, and monotonic_constraints are for 2"):
            L.MonotonicWrapper(net, 1.0, [1, 0], assume_lipschitz=True)
    late = nn.Sequential(nn.AvgPool1d(2), nn.Linear(3, 1))  # the first part does not tell
    assert L.MonotonicWrapper(late, 1.0, [1] * 6, assume_lipschitz=True)(torch.zeros(2, 6)).shape == (2, 1)


def test_changed_directions_and_other_dtypes():
    wrapped, x = L.MonotonicWrapper(inner(), 1.0, [1, 0, -1]), torch.randn(4, 3)
    assert "monotonic_constraints='+0-'" in repr(wrapped)
    for other in (x.double(), torch.ones(4, 3, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"MonotonicWrapper in torch.float32; convert"):
            wrapped(other)
    fine = L.MonotonicWrapper(inner(), 1.0, [1, 0, -1]).double()
    wrapped.load_state_dict(fine.state_dict(), assign=True)
    assert torch.equal(wrapped(x.double()), fine(x.double()))
    wrapped.directions.neg_()
    with pytest.raises(ValueError, match="directions of MonotonicWrapper were changed"):
        wrapped(x.double())


def test_rows_do_not_mix():
    """A sort of axis 1 would take the events of a sequence for channels; what is added knows its own event only."""
    torch.manual_seed(1)
    parts = L.LipschitzLinear(3, 8, kind="one-inf"), L.GroupSort(2), L.LipschitzLinear(8, 1, kind="inf")
    with torch.no_grad():
        for layer in parts[::2]:
            layer.weight = 3.0 * torch.randn_like(layer.weight)
    wrapped = L.MonotonicWrapper(nn.Sequential(*parts), 1.0)
    x = torch.randn(5, 4, 3)
    assert torch.equal(wrapped(x), wrapped(x.flatten(0, 1)).unflatten(0, (5, 4)))
    assert wrapped(x[:0]).shape == (0, 4, 1)


def test_exchanged_parts_are_asked_again():
    net = nn.Sequential(*inner())
    wrapped, x = L.MonotonicWrapper(net, 1.0), torch.randn(4, 3)
    net[2] = L.LipschitzLinear(8, 1, kind="inf", lipschitz_const=0.5)
    wrapped(x)
    for part, message in (
        (nn.Linear(8, 1), "not bounded"),
        (L.LipschitzLinear(8, 1, kind="inf", lipschitz_const=5.0), "slopes up to 5"),
    ):
        net[2] = part
        with pytest.raises(ValueError, match=message):
            wrapped(x)
    with pytest.raises(ValueError, match="torch module"):
        L.MonotonicWrapper(torch.tanh, 1.0, [1])


def test_states_copies_and_tampering():
    wrapped = L.MonotonicWrapper(inner(), 1.0, [1, 0, -1])
    assert {"lipschitz_const", "monotonic_constraints", "nn.0.parametrizations.weight.original"} <= set(
        wrapped.state_dict()
    )
    x = torch.randn(4, 3)
    other = L.MonotonicWrapper(inner(), 1.0, [1, 0, -1])
    other.load_state_dict(wrapped.state_dict())
    for made in (other, copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert torch.equal(made(x), wrapped(x))
    with pytest.raises(ValueError, match="same directions"):
        L.MonotonicWrapper(inner(), 1.0, [1, 0, 1]).load_state_dict(wrapped.state_dict())
    with pytest.raises(ValueError, match="cap 1, this module has 2"):
        L.MonotonicWrapper(inner(), 2.0, [1, 0, -1]).load_state_dict(wrapped.state_dict())
    with pytest.raises(AttributeError, match="fixed"):
        wrapped.lipschitz = 5.0
    with pytest.raises(ValueError, match="certify_slopes"):
        L.guarantee(wrapped)
