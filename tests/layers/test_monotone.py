"""MonotoneNetwork: what it computes, what it refuses, and that it goes wherever a module goes."""

import copy
import datetime
import io
import pickle
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lablib import layers as L
from lablib.layers.monotone import root_below, round_up

KINDS = ("one-inf", "two-inf", "one", "inf", "two")
MIXED = [[1, 0, -1], [-1, 1, 0]]


def network(**options):
    torch.manual_seed(0)
    return L.MonotoneNetwork(3, (8, 6), 2, 2.0, MIXED, **options)


def slow_slopes(net):
    """The interval of each slope of g, entry by entry in exact arithmetic."""
    low = high = [[Fraction(v) for v in row] for row in net.network[0].weight.tolist()]
    for sort, layer in zip(net.network[1::2], net.network[2::2]):
        groups = range(0, len(low), sort.size)
        low, high = (
            [
                [pick(rows[g + k][i] for k in range(sort.size)) for i in range(len(rows[0]))]
                for g in groups
                for _ in range(sort.size)
            ]
            for rows, pick in ((low, min), (high, max))
        )
        weights = [[Fraction(v) for v in row] for row in layer.weight.tolist()]
        ends = [
            [
                [sum(w * (a if w > 0 else b)[u][i] for u, w in enumerate(row)) for i in range(len(low[0]))]
                for row in weights
            ]
            for a, b in ((low, high), (high, low))
        ]
        low, high = ends
    return low, high


@pytest.mark.parametrize("kind", KINDS)
def test_the_formula(kind):
    net = network(kind=kind)
    x = torch.randn(50, 3)
    added = x @ (torch.tensor(MIXED) * net.residual()).T
    assert torch.allclose(net(x), net.network(x) + added, atol=1e-6)
    low, high = slow_slopes(net)
    needed = [
        [
            max(-low[o][i] if s > 0 else high[o][i], Fraction(0)) if s else Fraction(0)
            for i, s in enumerate(row)
        ]
        for o, row in enumerate(MIXED)
    ]
    for made, least in zip(net.residual().flatten().tolist(), [v for row in needed for v in row]):
        assert least <= Fraction(made)
        assert made <= float(least) * (1 + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("residual", ["certified", "lipschitz"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_slope_bounds_have_the_right_sign(kind, residual, dtype):
    net = network(kind=kind, residual=residual).to(dtype)
    for size in (0.0, 1.0, 1000.0):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(size * torch.randn_like(parameter))
        low, high = net.slope_bounds()
        assert low.dtype == torch.float64
        assert (low <= high).all()
        signs = torch.tensor(MIXED)
        assert (low[signs > 0] >= 0).all()
        assert (high[signs < 0] <= 0).all()
        assert (torch.maximum(-low, high) <= 4.0 * (1 + 2 * torch.finfo(dtype).eps)).all()
        assert (torch.maximum(-low, high)[signs == 0] <= 2.0).all()


def test_no_slope_is_forced():
    """Where g already rises, nothing is added; the paper's form adds lambda always."""
    net = L.MonotoneNetwork(2, (4,), 1, 1.0)
    with torch.no_grad():
        for layer in net.network[::2]:
            layer.weight = layer.parametrizations.weight.original.abs()
    assert torch.equal(net.residual(), torch.zeros(1, 2))
    assert torch.equal(network(residual="lipschitz").residual(), 2.0 * torch.tensor(MIXED).abs())


def test_gradients_flow_through_the_residual():
    net = network().double()
    weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    names = list(weights)
    x = torch.randn(4, 3, dtype=torch.float64)

    def value(*values):
        return torch.func.functional_call(net, dict(zip(names, values)), x).square().mean()

    assert torch.autograd.gradcheck(value, tuple(weights.values()), atol=1e-6)
    low, _ = net.slope_bounds()
    assert torch.autograd.grad(low.sum(), list(net.parameters()), allow_unused=True)[1].abs().sum() > 0


@pytest.mark.parametrize("shape", [(), (5,), (0,), (4, 5), (2, 3, 4)], ids=str)
def test_any_leading_axes(shape):
    net = network()
    x = torch.randn(*shape, 3)
    assert net(x).shape == (*shape, 2)
    assert torch.allclose(net(x).reshape(-1, 2), net(x.reshape(-1, 3)), atol=1e-6)
    assert L.MonotoneNetwork(3, (4,))(x).shape == (*shape, 1)


def test_heads():
    torch.manual_seed(0)
    y = torch.linspace(-60, 60, 4001)[:, None]
    for head, expected in (("sigmoid", torch.sigmoid), ("softplus", nn.functional.softplus)):
        net = L.MonotoneNetwork(1, (), head=head, residual="lipschitz")
        with torch.no_grad():
            net.network[0].weight, net.network[0].bias[:] = torch.zeros(1, 1), 0.0
        assert torch.allclose(net(y), expected(y), rtol=1e-6)
        assert (net(y).diff(dim=0) >= 0).all()


def test_linear_networks_and_groups():
    net = L.MonotoneNetwork(2, (), 1, 0.5, [1, -1])
    low, high = net.slope_bounds()
    assert low[0, 0] >= 0 >= high[0, 1]
    wide = L.MonotoneNetwork(2, (12, 8), group_size=4)
    x = torch.randn(6, 2)
    assert torch.equal(
        wide.network[1](wide.network[0](x)), wide.network[0](x).unflatten(1, (3, 4)).sort(2)[0].flatten(1)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": [0.5, 1, 0]}, "nothing between"),
        ({"directions": [float("nan"), 1, 0]}, "nothing between"),
        ({"directions": [2, 1, 0]}, "nothing between"),
        ({"directions": [1, 1]}, "shape"),
        ({"directions": 1}, "shape"),
        ({"directions": [[1, 0, 0]] * 3}, "shape"),
        ({"directions": ["up", 1, 0]}, "numbers"),
        ({"lipschitz": 0.0}, "cap"),
        ({"lipschitz": -1.0}, "cap"),
        ({"lipschitz": float("nan")}, "cap"),
        ({"lipschitz": float("inf")}, "cap"),
        ({"hidden": (8, 7)}, "divide the width 7"),
        ({"hidden": 8}, "sequence of widths"),
        ({"hidden": (8, 0)}, "sequence of widths"),
        ({"hidden": (8.0,)}, "sequence of widths"),
        ({"group_size": 1}, "at least 2"),
        ({"group_size": 2.0}, "at least 2"),
        ({"kind": "max"}, "unknown kind"),
        ({"kind": ("one-inf", "one-inf", "one-inf")}, "do not chain"),
        ({"kind": ("inf", "two", "inf")}, "do not chain"),
        ({"kind": ("two-inf", "inf")}, "3 linear layers"),
        ({"residual": "none"}, "residual is one of"),
        ({"head": "relu"}, "head is one of"),
        ({"in_features": 0, "directions": None}, "in_features is an integer"),
        ({"hidden": (w for w in (8, 6))}, "sequence of widths"),
        ({"kind": None}, "one name per linear layer"),
        ({"out_features": 0, "directions": None}, "out_features is an integer"),
    ],
    ids=lambda value: str(value).split(" at 0x")[0],
)
def test_refusals(options, message):
    wanted = {"in_features": 3, "hidden": (8, 6), "directions": [1, 0, -1]} | options
    with pytest.raises(ValueError, match=message):
        L.MonotoneNetwork(**wanted)


def test_kinds_that_chain_are_taken():
    L.MonotoneNetwork(3, (8, 6), kind=("one", "two", "inf"))
    L.MonotoneNetwork(3, (8, 6), kind=("two", "two-inf", "inf"))


def test_inputs_that_do_not_fit_are_refused():
    for x in (torch.zeros(5, 2), torch.zeros(3, 5), torch.zeros(1), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="3 features on axis -1"):
            network()(x)


@pytest.mark.parametrize(
    ("value", "degree"), [(3.0, 3), (2.0, 2), (1.3, 7), (1e-9, 5), (1e29, 4), (1.0, 6), (0.1, 1)]
)
def test_root_below(value, degree):
    root = root_below(value, degree)
    assert Fraction(root) ** degree <= Fraction(value)
    assert root**degree == pytest.approx(value, rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_round_up(dtype):
    value = torch.cat([torch.rand(200), torch.tensor([0.0, 1.0, 2.0, 1 / 3, 1e-7, 6e-8])]).double() * 1.1
    made = round_up(value, dtype)
    assert (made.double() >= value).all()
    assert (made.double() <= value * (1 + 2 * torch.finfo(dtype).eps) + 1.2e-7).all()
    assert (made[value == 0] == 0).all()


# --- saving, copying, moving


def test_states_go_through_a_file_and_hold_the_cap():
    net, other = network(), network()
    with torch.no_grad():
        other.network[0].parametrizations.weight.original.zero_()
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    assert {"network.0.parametrizations.weight.original", "network.0.bias", "directions"} <= set(state)
    assert state["lipschitz_const"] == 2.0
    other.load_state_dict(state)
    x = torch.randn(9, 3)
    assert torch.equal(other(x), net(x))
    assert torch.equal(network().half().double()(x.double()), network().half().double()(x.double()))
    network().half().load_state_dict(net.half().state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lipschitz": 3.0}, "cap 2, this module has 3"),
        ({"directions": [[1, 0, 1], [-1, 1, 0]]}, "directions"),
        ({"directions": [1, 0, -1]}, "directions"),
    ],
    ids=lambda value: str(value).split(" at 0x")[0],
)
def test_a_state_of_another_cap_or_direction_is_refused(change, message):
    options = {"in_features": 3, "hidden": (8, 6), "out_features": 2, "lipschitz": 2.0, "directions": MIXED}
    target = L.MonotoneNetwork(**(options | change))
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(ValueError, match=message):
        target.load_state_dict(network().state_dict())
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "inf"}, "kind"),
        ({"kind": ("one-inf", "inf", "inf")}, None),
        ({"residual": "lipschitz"}, "residual='certified'"),
        ({"head": "sigmoid"}, "head=None"),
    ],
    ids=str,
)
def test_a_state_of_another_function_is_refused(change, message):
    buffer = io.BytesIO()
    torch.save(nn.Sequential(network()).state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    target = nn.Sequential(network(**change))
    if message is None:
        target.load_state_dict(state)
        return
    for form in (state, dict(state)):
        with pytest.raises(ValueError, match=f"saved with {message}.*make a module with the same"):
            target.load_state_dict(form)


def test_a_state_of_another_group_size_is_refused():
    four = L.MonotoneNetwork(3, (8,), group_size=4)
    with pytest.raises(ValueError, match=r"group_size=\[4\], this one has \[2\]"):
        L.MonotoneNetwork(3, (8,)).load_state_dict(four.state_dict())
    for damage in (
        torch.zeros(3, dtype=torch.uint8),
        torch.tensor([52], dtype=torch.uint8),
        "kind",
        torch.ones(2),
    ):
        with pytest.raises(ValueError, match="damaged"):
            four.load_state_dict(four.state_dict() | {"settings": damage})
    state = four.state_dict()
    del state["settings"]
    four.load_state_dict(state)


def test_assigned_states_bring_their_dtype_and_device():
    fine, x = network().double(), torch.randn(4, 3).double()
    for target in (network(), network(device="meta")):
        target.load_state_dict(fine.state_dict(), assign=True)
        assert torch.equal(target(x), fine(x))
        assert target.directions.dtype == torch.float64
    empty = network(device="meta").to_empty(device="cpu")
    empty.load_state_dict(network().state_dict())
    assert torch.equal(empty(x.float()), network()(x.float()))


def test_inputs_of_another_dtype_are_said():
    for made in (network(), network().frozen()):
        for x in (torch.zeros(2, 3).double(), torch.zeros(2, 3, dtype=torch.long)):
            with pytest.raises(
                ValueError, match=f"x is in {x.dtype}, {type(made).__name__} in torch.float32; convert"
            ):
                made(x)


def test_copies_and_pickles():
    net, x = network(head="sigmoid"), torch.randn(5, 3)
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), torch.load(buffer, weights_only=False)):
        assert torch.equal(made(x), net(x))
        assert (made.lipschitz, made.head, made.residual_kind) == (2.0, "sigmoid", "certified")
        with torch.no_grad():
            made.network[0].parametrizations.weight.original.add_(3.0)
        assert not torch.equal(made(x), net(x))
        assert made.slope_bounds()[0][0, 0] >= 0


def test_dtypes_devices_and_autocast():
    net, x = network(), torch.randn(5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net(x), network()(x))
        assert net(x.bfloat16()).dtype == torch.float32
        assert net.residual().dtype == torch.float32
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert network(dtype=dtype).directions.dtype == dtype
        made = network().to(dtype)
        assert made(x.to(dtype)).dtype == dtype
        assert torch.allclose(made(x.to(dtype)).float(), net(x), atol=0.1)
    assert network(device="meta")(torch.empty(5, 3, device="meta")).shape == (5, 2)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, in jacfwd
def test_transforms_and_compile():
    net, x = network(), torch.randn(5, 3)
    assert torch.allclose(torch.vmap(net)(x), net(x), atol=1e-6)
    jacobians = torch.vmap(torch.func.jacrev(net))(x)
    low, high = net.slope_bounds()
    assert (jacobians >= low - 1e-6).all()
    assert (jacobians <= high + 1e-6).all()
    assert torch.allclose(torch.func.jacfwd(net)(x[0]), jacobians[0], atol=1e-6)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), net(x), atol=1e-6)
    compiled(x).sum().backward()
    own = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net(x).sum().backward()
    assert all(torch.allclose(a, p.grad, atol=1e-5) for a, p in zip(own, net.parameters()))


def test_distributed(tmp_path):
    """Nothing in the forward pass is state: replicas stay equal, every parameter gets its gradient."""
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{tmp_path / 'store'}",
        rank=0,
        world_size=1,
        timeout=datetime.timedelta(seconds=30),
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(network())
        wrapped(torch.randn(5, 3)).sum().backward()
        assert all(p.grad is not None for p in wrapped.parameters())
        assert not list(network().named_buffers()) or dict(network().named_buffers()).keys() == {"directions"}
    finally:
        torch.distributed.destroy_process_group()


def test_cached_weights_cache_the_residual_too():
    net, x = network(), torch.randn(5, 3)
    with parametrize.cached(), torch.no_grad():
        first = net(x)
        assert net.residual() is net.residual()
        assert torch.equal(net(x), first)
    with torch.no_grad():
        net.network[0].parametrizations.weight.original.add_(1.0)
    with parametrize.cached(), torch.no_grad():
        assert not torch.equal(net(x), first)
    assert net.residual() is not net.residual()


@pytest.mark.parametrize("head", [None, "sigmoid", "softplus"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_frozen_is_the_same_function(head, dtype):
    net = network(head=head).to(dtype)
    x = torch.randn(7, 3, dtype=dtype)
    frozen = pickle.loads(pickle.dumps(net.frozen()))
    assert torch.equal(frozen(x), net(x))
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not any(parametrize.is_parametrized(part) for part in frozen.modules())
    with torch.no_grad():
        frozen.network[0].weight.zero_()
    assert not torch.equal(frozen(x), net(x))  # a copy
