"""Learnable splines: the function, its bounds after any step, its plain form, and what training asks of a layer."""

import copy
import io
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lablib import layers as L
from lablib.theory.network import evaluate, fractions, is_lipschitz
from lablib.train.optimiser import set_rate

OPTIONS = {
    "odd": {"knots": 21},
    "even": {"knots": 20, "range": 0.3},
    "two": {"knots": 2, "range": 2.0},
    "wide": {"knots": 9, "slopes": (-0.5, 3.0)},
    "unscaled": {"knots": 6, "scaling": False},
}


def wiggly(channels=4, dtype=torch.float64, size=1.0, **options):
    """A spline whose slopes differ everywhere (many at their bounds), and whose scales are not 1."""
    layer = L.LearnableSpline(channels, **options).to(dtype)
    with torch.no_grad():
        layer.coefficients = size * torch.randn(channels, layer.knots).to(dtype)
        if layer.scale is not None:
            layer.scale = torch.randn(channels).mul(0.5).exp().to(dtype)
    return layer


def exact_slopes(layer):
    """All slopes (C, K - 1) of the stored coefficients as fractions."""
    spacing = 2 * Fraction(layer.range) / (layer.knots - 1)
    rows = fractions(layer.values.detach().double().numpy())
    return np.diff(rows, axis=1) / spacing


# --- the function


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("shape", "dim"), [((4,), None), ((5, 4), None), ((5, 4, 3, 2), 1), ((5, 3, 4), -1)])
def test_the_layer_is_its_plain_form(options, shape, dim):
    layer = wiggly(**options, dim=dim)
    x = 2 * torch.randn(shape, dtype=torch.float64)
    axis = len(shape) - 1 if dim == -1 else min(1, len(shape) - 1)
    functions = layer.export()
    expected = np.stack([f(part) for f, part in zip(functions, x.numpy().swapaxes(0, axis))])
    assert np.allclose(layer(x).detach().numpy(), expected.swapaxes(0, axis), atol=1e-12)
    for f in functions:
        assert len(f.positions) == len(f.values) == layer.knots
        assert f.slopes[0] == pytest.approx(np.diff(f.values[:2]).item() / np.diff(f.positions[:2]).item())


def test_theory_evaluates_the_same_in_fractions():
    layer = wiggly(3, knots=8, range=0.7)
    described = L.describe(layer)
    x = torch.randn(20, 3, dtype=torch.float64)
    exact = evaluate(described, fractions(x.numpy())).astype(float)
    assert np.allclose(layer(x).detach().numpy(), exact, rtol=1e-13, atol=1e-13)
    assert is_lipschitz(described)


def test_the_scale_moves_knots_and_changes_neither_slopes_nor_their_variation():
    layer = wiggly(5, knots=11)
    variation, slopes = (
        layer.second_variation(),
        [np.diff(f.values) / np.diff(f.positions) for f in layer.export()],
    )
    layer.scale = torch.tensor([0.1, 0.5, 1.0, 3.0, 60.0], dtype=torch.float64)
    assert torch.equal(layer.second_variation(), variation)
    for f, before, alpha, total in zip(layer.export(), slopes, layer.scale.tolist(), variation.tolist()):
        assert f.positions[-1] == pytest.approx(1 / alpha)
        assert np.allclose(np.diff(f.values) / np.diff(f.positions), before, atol=1e-12)
        assert np.abs(np.diff(np.diff(f.values) / np.diff(f.positions))).sum() == pytest.approx(total)


@pytest.mark.parametrize("knots", [2, 3, 20, 21, 50, 101])
@pytest.mark.parametrize(
    ("init", "function"),
    [
        ("identity", lambda t: t),
        ("zero", torch.zeros_like),
        ("relu", torch.relu),
        ("abs", torch.abs),
        (torch.tanh, torch.tanh),
        (lambda t: torch.stack([t, -t]), lambda t: torch.stack([t, -t])),
    ],
    ids=["identity", "zero", "relu", "abs", "callable", "one-each"],
)
def test_inits_are_right_at_every_knot(knots, init, function):
    """Grids of even size too: a published one is shifted there by half a spacing."""
    layer = L.LearnableSpline(2, knots=knots, range=0.4, init=init).double()
    t = layer.positions()
    assert torch.allclose(t, torch.linspace(-0.4, 0.4, knots, dtype=torch.float64))
    expected = function(t).expand(2, knots)
    assert torch.allclose(layer.values, expected, atol=1e-5)
    assert torch.allclose(layer(t[:, None].expand(-1, 2)), expected.T, atol=1e-5)
    if init in ("identity", "zero"):
        x = torch.linspace(-9, 9, 100, dtype=torch.float64)[:, None].expand(-1, 2)
        assert torch.allclose(layer(x), function(x), rtol=1e-5, atol=1e-5)


def test_init_by_values_and_maxmin():
    start = torch.tensor([[0.0, 0.5, 0.0], [0.25, 0.0, -0.25]])
    assert torch.allclose(L.LearnableSpline(2, knots=3, init=start).values, start, atol=1e-6)
    assert torch.allclose(L.LearnableSpline(2, knots=3, init=start[0]).values, start[[0, 0]], atol=1e-6)
    x = torch.randn(50, 4)
    y = L.LearnableSpline(4, init="maxmin")(x)
    assert torch.allclose(y, torch.where(torch.arange(4) % 2 == 0, x.abs(), x), atol=1e-4)
    steep = L.LearnableSpline(1, knots=5, init=lambda t: 7 * t)
    assert torch.allclose(steep.values[0].double(), steep.positions(), atol=1e-6)


def test_one_spline_for_all_channels():
    layer = wiggly(1, knots=7)
    x = torch.randn(6, 5, 2, dtype=torch.float64)
    assert torch.allclose(layer(x), torch.cat([layer(part) for part in x.split(1, 1)], 1))
    assert len(layer.export()) == 1


# --- bounds


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 1.0), (-0.3, 2.5), (0.0, 0.0)])
def test_slopes_hold_exactly_while_training_pushes_them_outward(dtype, bounds):
    layer = L.LearnableSpline(6, knots=12, range=0.3, init="maxmin", slopes=bounds).to(dtype)
    low, high = map(Fraction, bounds)
    assert layer.lipschitz == max(abs(low), abs(high))
    optimiser = torch.optim.SGD(layer.parameters(), lr=3.0)
    touched = []
    for _ in range(8):
        x = torch.randn(64, 6).to(dtype)
        loss = -((layer(x + 0.2 * torch.randn_like(x)) - layer(x)).float() ** 2).sum()
        loss = loss - 9 * (layer.parametrizations["coefficients"].original.float().diff(dim=1) ** 2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        slopes = exact_slopes(layer)
        assert ((slopes >= low) & (slopes <= high)).all()
        touched.append(float(abs(slopes).max()))
    assert layer.parametrizations["coefficients"].original.diff(dim=1).abs().max() > 1.0  # far outside
    assert max(touched) >= 0.9 * float(high) or dtype == torch.bfloat16


@settings(max_examples=40)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=14, max_size=14),
    st.floats(1e-3, 1e3),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_no_assigned_coefficients_leave_the_bounds(numbers, reach, dtype):
    layer = L.LearnableSpline(2, knots=7, range=reach).to(dtype)
    with torch.no_grad():
        layer.coefficients = torch.tensor(numbers, dtype=dtype).reshape(2, 7)
    slopes = exact_slopes(layer)
    assert (abs(slopes) <= 1).all()
    assert is_lipschitz(L.describe(layer))


@pytest.mark.parametrize("value", [-3.0, 0.0, 1e-9, 1 / 64, 0.3, 1.0, 64.0, 1e9])
def test_scales_stay_positive(value):
    layer = L.LearnableSpline(3).double()
    layer.scale = torch.full((3,), value, dtype=torch.float64)
    assert torch.allclose(layer.scale, torch.full_like(layer.scale, min(max(value, 1 / 64), 64.0)))
    with torch.no_grad():
        layer.parametrizations["scale"].original.copy_(torch.tensor([-1e6, 1e3, 77.0]))
    assert ((layer.scale >= 0.015) & (layer.scale <= 64.5)).all()


def test_the_scale_starts_at_one_with_slope_one():
    layer = L.LearnableSpline(3)
    free = layer.parametrizations["scale"].original
    assert torch.equal(layer.scale, torch.ones(3))
    assert torch.autograd.grad(layer.scale.sum(), free)[0].tolist() == [1.0] * 3


def test_loading_any_state_keeps_the_bounds():
    layer = L.LearnableSpline(3, knots=9)
    state = {name: 1e3 * torch.randn_like(value) for name, value in layer.state_dict().items()}
    layer.load_state_dict(state)
    assert (abs(exact_slopes(layer)) <= 1).all()
    assert ((layer.scale > 0.01) & (layer.scale < 65)).all()


# --- fewer knots, total variation


def test_simplified_is_the_same_function_with_fewer_knots():
    x = np.linspace(-4, 4, 1001)
    for init, count in (("identity", 2), ("relu", 3), ("abs", 3), ("zero", 2)):
        layer = L.LearnableSpline(2, knots=21, init=init)
        layer.scale = torch.tensor([0.7, 1.0])
        for f, plain in zip(layer.simplified(), layer.export()):
            assert len(f.positions) == count
            assert np.allclose(f(x), plain(x), atol=1e-12)
        assert layer.active_knots().tolist() == [count - 2] * 2
    noisy = wiggly(2, knots=41, size=0.02)
    for tolerance in (0.0, 1e-3, 1e-2):
        for f, plain, alpha in zip(noisy.simplified(tolerance), noisy.export(), noisy.scale.tolist()):
            assert np.abs(f(x) - plain(x)).max() <= tolerance / alpha + 1e-12
    assert len(noisy.simplified(1e-2)[0].positions) < 41


def test_total_variation_sums_over_the_splines_of_a_model():
    model = nn.Sequential(
        L.LearnableSpline(2, init="abs"), nn.Sequential(nn.Linear(2, 3), L.LearnableSpline(3, init="relu"))
    ).double()
    assert total(model) == pytest.approx(2 * 2 + 3 * 1, abs=1e-4)
    model.append(model[0])  # used twice, counted once
    assert total(model) == pytest.approx(7, abs=1e-4)
    assert total(nn.Linear(2, 2)) == 0
    spline = wiggly(3, knots=7, slopes=(-5.0, 5.0), size=0.1)
    torch.autograd.gradcheck(
        lambda free: torch.func.functional_call(
            Variation(spline), {"spline.parametrizations.coefficients.original": free}, ()
        ),
        spline.parametrizations["coefficients"].original.detach().clone().requires_grad_(),
    )


class Variation(nn.Module):
    def __init__(self, spline):
        super().__init__()
        self.spline = spline

    def forward(self):
        return L.total_variation(self)


def total(model):
    return L.total_variation(model).item()


def test_the_regulariser_removes_knots():
    layer = L.LearnableSpline(1, knots=21, init=lambda t: (9 * t).sin() / 9)
    before = layer.active_knots(0.1).item()
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-2)
    x = torch.linspace(-1, 1, 64)[:, None]
    for _ in range(150):
        loss = (layer(x) - x.relu()).square().mean() + 3e-3 * L.total_variation(layer)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert layer.active_knots(0.1).item() < before / 2
    assert (layer(x) - x.relu()).abs().max() < 0.1


# --- what training asks


def test_parameter_groups_hold_every_parameter_once_at_its_rate():
    spline = L.LearnableSpline(3)
    model = nn.Sequential(
        L.OrthonormalLinear(3, 3), spline, L.PReLU(3), L.LearnableSpline(3, scaling=False), spline
    )
    groups = L.spline_parameter_groups(model, 0.4)
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters())
    assert [(g["name"], len(g["params"]), g["lr"]) for g in groups] == [
        ("weights", 3, 0.4),
        ("scale", 1, pytest.approx(0.1)),
        ("coefficients", 2, pytest.approx(0.01)),
    ]
    optimiser = torch.optim.Adam(groups)
    set_rate(optimiser, 4.0)
    assert [group["lr"] for group in optimiser.param_groups] == [4.0, 1.0, pytest.approx(0.1)]
    assert [g["name"] for g in L.spline_parameter_groups(nn.Linear(2, 2), 0.1)] == ["weights"]
    for lr in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="learning rate"):
            L.spline_parameter_groups(model, lr)


def test_first_and_second_derivatives_through_scale_and_projection():
    torch.manual_seed(1)
    layer = wiggly(3, knots=6, slopes=(-2.0, 2.0), size=0.3)
    x = torch.randn(5, 3, 2, dtype=torch.float64, requires_grad=True)
    free = {name: p.detach().clone().requires_grad_() for name, p in layer.named_parameters()}

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(free, values)), (x,))

    assert torch.autograd.gradcheck(call, (x, *free.values()))
    assert torch.autograd.gradgradcheck(call, (x, *free.values()))


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"
)  # torch's own jacfwd
def test_torch_func_enters_the_layer():
    layer = wiggly(3, knots=6)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    slopes = torch.autograd.grad(layer(x).sum(), x)[0]
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(torch.vmap(transform(layer))(x), torch.diag_embed(slopes))
    assert torch.vmap(torch.func.hessian(lambda v: layer(v).sum()))(x).abs().max() == 0


def test_compiled_is_the_same():
    layer = wiggly(3, torch.float32, knots=6)
    x = torch.randn(4, 3, 5, requires_grad=True)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), layer(x), atol=1e-6)
    ours, theirs = (
        torch.autograd.grad(f(x).square().sum(), [x, *layer.parameters()]) for f in (layer, compiled)
    )
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours, theirs))


def test_copies_pickles_and_saved_states_compute_the_same():
    layer = wiggly(3, knots=6, slopes=(-0.5, 2.0))
    x = torch.randn(4, 3, dtype=torch.float64)
    stream = io.BytesIO()
    torch.save(layer, stream)
    stream.seek(0)
    fresh = L.LearnableSpline(3, knots=6, slopes=(-0.5, 2.0)).double()
    fresh.load_state_dict(layer.state_dict())
    for made in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(stream, weights_only=False),
        fresh,
    ):
        assert torch.equal(made(x), layer(x))
        assert (made.range, made.slopes, made.knots) == (layer.range, layer.slopes, layer.knots)
        assert L.guarantee(made) == (("l1", "l2", "linf"), 2.0)
        with torch.no_grad():
            made.coefficients = torch.zeros(3, 6, dtype=torch.float64)
    assert layer.values.abs().max() > 0


def test_dtype_and_device_follow_the_module():
    layer = wiggly(3, torch.float32, knots=6)
    x = torch.randn(4, 3)
    single = layer(x)
    assert torch.allclose(layer.double()(x.double()).float(), single, atol=1e-5)
    for dtype in (torch.bfloat16, torch.float16):
        made = layer.to(dtype)(x.to(dtype))
        assert made.dtype == dtype
        assert torch.allclose(made.float(), single, atol=0.1)
    meta = L.LearnableSpline(3).to("meta")
    assert {value.device.type for value in (meta.values, meta.scale)} == {"meta"}
    assert repr(L.LearnableSpline(3, scaling=False)).startswith("LearnableSpline(3, knots=21, range=1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels >= 1"),
        ({"channels": 2.0}, "whole numbers"),
        ({"knots": 1}, "knots >= 2"),
        ({"knots": 3.5}, "knots >= 2"),
        ({"range": 0.0}, "range"),
        ({"range": -1.0}, "range"),
        ({"range": math.inf}, "range"),
        ({"range": math.nan}, "range"),
        ({"slopes": (1.0, -1.0)}, "low <= high"),
        ({"slopes": (0.0, math.inf)}, "finite"),
        ({"slopes": (math.nan, 1.0)}, "finite"),
        ({"slopes": (1.0, 1.0)}, "widen the bounds"),
        ({"slopes": (1.0,)}, "bounds"),
        ({"init": "gelu"}, "choose from identity"),
        ({"init": lambda t: t / 0}, "NaN or infinity"),
        ({"init": lambda t: t[:3]}, "shape"),
        ({"init": torch.full((21,), math.nan)}, "NaN"),
        ({"channels": 1, "init": "maxmin"}, "two or more"),
        ({"init": None}, "not NoneType"),
        ({"init": lambda t: None}, "not NoneType"),
        ({"init": [["a"]]}, "not list"),
        ({"dim": 0}, "batch"),
        ({"dim": "x"}, "whole number"),
        ({"range": "wide"}, "range"),
        ({"range": 1e-30}, "range"),
        ({"slopes": 1.0}, "slopes"),
    ],
    ids=lambda value: str(value).split(" at 0x")[0],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        L.LearnableSpline(**({"channels": 2} | options))


def test_whole_numbers_of_numpy_are_whole_numbers():
    layer = L.LearnableSpline(np.int64(2), knots=np.int64(5))
    assert (type(layer.channels), type(layer.knots)) == (int, int)
    assert layer.values.shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("coefficients", torch.full((2, 21), math.nan), "NaN or infinite"),
        ("coefficients", torch.full((2, 21), -math.inf), "NaN or infinite"),
        ("scale", torch.tensor([1.0, math.nan]), "NaN"),
        ("scale", 2.0, "assign a tensor of shape"),
    ],
    ids=lambda value: str(value).split(" at 0x")[0],
)
def test_what_cannot_be_assigned_leaves_the_spline_as_it_was(name, value, message):
    layer = L.LearnableSpline(2, init="abs")
    before = getattr(layer, name).detach().clone()
    with pytest.raises(ValueError, match=message):
        setattr(layer, name, value)
    assert torch.equal(getattr(layer, name), before)


def test_a_spline_without_scale_takes_none():
    layer = L.LearnableSpline(2, scaling=False)
    with pytest.raises(AttributeError, match="scaling=True"):
        layer.scale = nn.Parameter(torch.zeros(2))


def test_wrong_channels_are_refused():
    layer = L.LearnableSpline(3)
    for shape in ((2,), (3, 2), (2, 4, 3), (), (1, 1)):
        with pytest.raises(ValueError, match=r"features|scalar"):
            layer(torch.zeros(shape))
    with pytest.raises(ValueError, match="shape"):
        layer.coefficients = torch.zeros(3, 5)
