"""The SortNet neuron: every implementation against sorting in float64 and exact fractions; the torch operator."""

import math
import os
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.ops import native
from lablib.ops.sortnet import (
    choice,
    compiled,
    geometric_weights,
    operator,
    reference,
    sortnet,
    sortnet_bounds,
)
from lablib.ops.sortnet.reference import ABS, HIGH, LOW

FORMS = (ABS, LOW, HIGH)
SHAPES = [
    (0, 3, 2, 2),
    (3, 4, 0, 2),
    (1, 1, 1, 1),
    (5, 7, 3, 3),
    (3, 16, 5, 16),
    (2, 17, 5, 12),
    (9, 130, 13, 10),
]


def _compiled_code():
    """The C++ kernels, if they can be built here."""
    try:
        native.library("sortnet")
    except native.BuildError as error:
        pytest.skip(str(error))
    from lablib.ops.sortnet import cpu

    return cpu


def _by_numba():
    pytest.importorskip("numba")
    return compiled


IMPLEMENTATIONS = {"native": _compiled_code, "numba": _by_numba, "reference": lambda: reference}


@pytest.fixture(params=IMPLEMENTATIONS)
def module(request, monkeypatch):
    """Each implementation in turn, which the public functions then use."""
    made = IMPLEMENTATIONS[request.param]()
    monkeypatch.setattr(choice, "_on_cpu", lambda kernels: made)
    return made


def drawn(b, i, o, k, dtype, tied=False):
    """A box (B, I), centers and weights; tied: small whole numbers."""
    scale = 2 if tied else 1
    x, r, c = torch.randn(b, i, dtype=dtype), torch.rand(b, i, dtype=dtype), torch.randn(o, i, dtype=dtype)
    if tied:
        x, r, c = (scale * t for t in (x, r, c))
        x, r, c = x.round(), r.round(), c.round()
    return x - r, x + r, c, torch.randn(o, k, dtype=dtype)


def sizes(lower, upper, center, form):
    """What is sorted, (B, O, I), in the way of a textbook."""
    first, last = lower[:, None] + center, upper[:, None] + center
    if form == ABS:
        return first.abs()
    if form == HIGH:
        return torch.maximum(first.abs(), last.abs())
    return torch.where((first <= 0) & (last >= 0), 0, torch.minimum(first.abs(), last.abs()))


@pytest.mark.parametrize("tied", [False, True], ids=["random", "tied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_places_and_gradients(module, dtype, tied):
    if module is compiled and dtype == torch.float64:
        pytest.skip("numba takes seconds to compile it; the code is that of float32")
    for shape in SHAPES:
        lower, upper, center, weight = drawn(*shape, dtype, tied)
        grad = torch.randn(shape[0], shape[2], dtype=dtype)
        for form in FORMS:
            u = lower if form == ABS else upper
            y, places = module.forward(lower, u, center, weight, form, True)
            ranked = sizes(lower, u, center, form).sort(dim=-1, descending=True, stable=True)
            expected = (ranked.values[..., : shape[3]].double() * weight.double()).sum(-1)
            bound = 1e-6 if dtype == torch.float32 else 1e-14
            assert torch.allclose(y.double(), expected, rtol=bound, atol=bound)
            assert torch.equal(places.long(), ranked.indices[..., : shape[3]]), (
                "of equals the first comes first"
            )
            plain = module.forward(lower, u, center, weight, form, False)
            assert torch.equal(plain[0], y)
            assert plain[1].shape == (0,)
            given = (grad, lower, u, center, weight, places, form, (True,) * 4)
            for made, slow in zip(module.backward(*given), reference.backward(*given)):
                assert torch.allclose(made, slow, rtol=1e-4, atol=1e-4 if dtype == torch.float32 else 1e-12)


def test_all_implementations_return_the_same_bits():
    lower, upper, center, weight = drawn(33, 300, 21, 10, torch.float32)
    for form in FORMS:
        expected = reference.forward(lower, upper, center, weight, form, False)[0]
        for find in IMPLEMENTATIONS.values():
            assert torch.equal(find().forward(lower, upper, center, weight, form, False)[0], expected)


def test_threads_change_nothing(module):
    lower, upper, center, weight = drawn(37, 200, 50, 10, torch.float32)
    grad, before = torch.randn(37, 50), torch.get_num_threads()
    made = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y, places = module.forward(lower, upper, center, weight, HIGH, True)
            made.append((y, *module.backward(grad, lower, upper, center, weight, places, HIGH, (True,) * 4)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*made))


@settings(max_examples=40)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=9),
    st.lists(st.floats(-8, 8, width=32), min_size=9, max_size=9),
    st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=3),
)
def test_rounding_stays_inside_the_proven_bound(x, center, weight):
    """In exact fractions: the error in float32, against gamma_{K+1} sum |w| |x + b| and the tighter bound."""
    y = float(sortnet(torch.tensor([x]), torch.tensor([center[: len(x)]]), torch.tensor(weight)))
    exact = sorted((abs(Fraction(a) + Fraction(b)) for a, b in zip(x, center)), reverse=True)
    true = sum(Fraction(w) * s for w, s in zip(weight, exact))
    mass = sum(abs(Fraction(w)) * s for w, s in zip(weight, exact))
    unit, tiny = Fraction(1, 2**24), Fraction(1, 2**149)
    n = len(weight) + 1
    assert abs(Fraction(y) - true) <= n * unit / (1 - n * unit) * mass + n * tiny
    assert abs(Fraction(y) - true) <= 2 * unit / (1 - unit) * mass + tiny


def test_bounds_hold_and_are_attained():
    lower, upper, center, weight = drawn(4, 12, 6, 5, torch.float64)
    low, high = sortnet_bounds(lower, upper, center, weight)
    for _ in range(200):
        share = torch.rand_like(lower).round() if _ % 2 else torch.rand_like(lower)
        y = sortnet(lower + share * (upper - lower), center, weight)
        assert (y >= low - 1e-12).all()
        assert (y <= high + 1e-12).all()
    low, high = sortnet_bounds(lower, upper, center, weight.abs())
    nearest = torch.stack([-c.clamp(-upper, -lower) for c in center], 1)  # (B, O, I)
    furthest = torch.where(
        (lower[:, None] + center).abs() > (upper[:, None] + center).abs(), lower[:, None], upper[:, None]
    )
    for made, points in ((low, nearest), (high, furthest)):
        attained = torch.stack([sortnet(points[:, k], center, weight.abs())[:, k] for k in range(6)], 1)
        assert torch.allclose(made, attained)
    point = sortnet_bounds(lower, lower, center, weight)
    assert all(torch.allclose(side, sortnet(lower, center, weight)) for side in point)


@pytest.mark.parametrize("kept", [2**28, 100], ids=["places kept", "searched again"])
def test_gradcheck(monkeypatch, kept):
    monkeypatch.setattr(operator, "KEPT_BYTES", kept)
    lower, upper, center, weight = (t.requires_grad_() for t in drawn(4, 9, 5, 3, torch.float64))
    assert torch.autograd.gradcheck(sortnet, (lower, center, weight))
    assert torch.autograd.gradgradcheck(sortnet, (lower, center, weight))
    assert torch.autograd.gradcheck(sortnet, (lower, center, weight[0]))
    assert torch.autograd.gradcheck(sortnet_bounds, (lower, upper, center, weight))
    assert torch.autograd.gradcheck(sortnet_bounds, (lower, upper, center, weight.abs()))


def test_ties_go_to_the_lowest_input_and_zero_has_no_slope(module):
    x = torch.tensor([[1.0, -1.0, 1.0, 0.0]], requires_grad=True)
    sortnet(x, torch.zeros(1, 4), torch.tensor([0.5, 0.25, 0.125, 1.0])).sum().backward()
    assert x.grad.tolist() == [[0.5, -0.25, 0.125, 0.0]]


@pytest.mark.parametrize("bad", [math.nan, -math.nan])
def test_nan_reaches_its_row_only(module, bad):
    lower, upper, center, weight = drawn(3, 40, 4, 3, torch.float32)
    upper[1, 33] = lower[1, 33] = bad
    for y in (sortnet(lower, center, weight), *sortnet_bounds(lower, upper, center, weight)):
        assert y.isnan().tolist() == [[False] * 4, [True] * 4, [False] * 4]
    center[2, 0] = bad
    for y in (sortnet(lower, center, weight), *sortnet_bounds(lower, upper, center, weight)):
        assert y[:, 2].isnan().all()
        assert y[0].isnan().sum() == 1
    x = torch.tensor([[math.inf, 1.0, -2.0]])
    assert sortnet(x, torch.zeros(1, 3), torch.tensor([1.0, 0.5])).item() == math.inf


def test_any_number_of_ranks():
    lower, _, center, _ = drawn(3, 60, 4, 1, torch.float64)
    for top in (16, 17, 60):
        weight = torch.randn(top, dtype=torch.float64)
        x, c = (t.clone().requires_grad_() for t in (lower, center))
        expected = (sizes(x, x, c, ABS).sort(descending=True).values[..., :top] * weight).sum(-1)
        y = sortnet(x, c, weight)
        assert torch.allclose(y, expected)
        for made, slow in zip(
            torch.autograd.grad(y.sum(), (x, c)), torch.autograd.grad(expected.sum(), (x, c))
        ):
            assert torch.allclose(made, slow)


def test_strides_and_dtypes():
    x, c, weight = torch.randn(30, 6).T, torch.randn(30, 5).T, torch.rand(8).expand(5, 8)
    expected = sortnet(x.contiguous(), c.contiguous(), weight.contiguous())
    assert torch.equal(sortnet(x, c, weight), expected)
    assert torch.equal(sortnet(x, c, torch.rand(8, 5).T.copy_(weight)), expected)
    assert torch.equal(sortnet(x.unflatten(0, (2, 3)), c, weight[0]), expected.unflatten(0, (2, 3)))
    for half in (torch.float16, torch.bfloat16):
        given = [t.to(half) for t in (x, c, weight)]
        made = sortnet(*given)
        assert made.dtype == half
        assert torch.equal(made, sortnet(*(t.float() for t in given)).to(half))
    assert sortnet(x.bfloat16(), c, weight).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sortnet(x, c, weight), expected)


def test_operator_is_registered_whole():
    lower, upper, center, weight = (t.requires_grad_() for t in drawn(4, 20, 5, 3, torch.float64))
    torch.library.opcheck(torch.ops.lablib.sortnet, (lower, None, center, weight, ABS, True))
    torch.library.opcheck(torch.ops.lablib.sortnet, (lower, upper, center, weight, LOW, False))
    sides = [t.detach() for t in (lower, upper, center, weight)]
    places = torch.ops.lablib.sortnet(*sides, HIGH, True)[1]
    grad = torch.randn(4, 5, dtype=torch.float64)
    for needs in ([True] * 4, [True, False, True, False]):
        torch.library.opcheck(torch.ops.lablib.sortnet_backward, (grad, *sides, places, HIGH, needs))


def test_compile_without_a_break():
    lower, upper, center, weight = drawn(4, 20, 5, 3, torch.float32)
    x = lower.requires_grad_()

    def loss(x):
        low, high = sortnet_bounds(x, upper, center, weight)
        return (sortnet(x, center, weight) + low * high).sum()

    whole = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert torch.allclose(whole(x), loss(x))
    assert torch.allclose(torch.autograd.grad(whole(x), x)[0], torch.autograd.grad(loss(x), x)[0])


def test_transforms_of_functions():
    lower, _, center, weight = (t.requires_grad_() for t in drawn(3, 9, 5, 3, torch.float64))

    def neuron(v):
        return sortnet(v[None], center, weight)[0]

    assert torch.allclose(torch.vmap(neuron)(lower), sortnet(lower, center, weight))
    one = lower[0].detach()
    jacobian = torch.autograd.functional.jacobian(neuron, one)
    assert torch.equal(torch.func.jacrev(neuron)(one), jacobian)
    assert torch.equal(torch.autograd.functional.jacobian(neuron, one, vectorize=True), jacobian)


def test_masks_are_the_dense_form_on_what_they_keep():
    x, center, weight = torch.randn(7, 10), torch.randn(8, 10, requires_grad=True), torch.rand(8, 3)
    inputs = torch.stack([torch.randperm(10)[:6].sort().values for _ in range(3)])
    outputs = torch.stack([torch.randperm(8)[:5].sort().values for _ in range(3)])
    part = torch.cat([rows[:, kept] for rows, kept in zip(x.split(3), inputs)])
    y = sortnet(part, center, weight, inputs=inputs, outputs=outputs, rows=3)
    for s, rows in enumerate(part.split(3)):
        dense = sortnet(rows, center[outputs[s]][:, inputs[s]], weight[outputs[s]])
        assert torch.equal(y[3 * s : 3 * s + 3], dense)
    y.sum().backward()
    assert center.grad.shape == center.shape
    assert torch.equal(
        sortnet(x, center, weight, outputs=outputs, rows=3)[0], sortnet(x, center, weight)[0, outputs[0]]
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda x, c, w: sortnet(x.int(), c.int(), w.int()),
        lambda x, c, w: sortnet(x[:, :5], c, w),
        lambda x, c, w: sortnet(x, c, w[:2]),
        lambda x, c, w: sortnet(x, c, w.new_ones(7)),
        lambda x, c, w: sortnet(x, c.to("meta"), w),
        lambda x, c, w: sortnet_bounds(x, x[:1], c, w),
        lambda x, c, w: sortnet(x[None], c, w, inputs=torch.zeros(1, 6, dtype=torch.int64)),
        lambda x, c, w: sortnet(x, c, w, outputs=torch.zeros(3, 2, dtype=torch.int64)),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        call(torch.ones(4, 6), torch.ones(3, 6), torch.ones(3, 2))


def test_memory_stays_below_the_broadcast_form():
    """A fresh process: 512 x 1000 x 784 numbers would be 1.6 GB."""
    script = (
        "import resource, torch\n"
        "from lablib.ops.sortnet import sortnet\n"
        "x, c = torch.rand(512, 784, requires_grad=True), torch.rand(1000, 784, requires_grad=True)\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "sortnet(x[:2], c, torch.ones(3)).sum().backward(); before = used()\n"
        "sortnet(x, c, torch.ones(10)).sum().backward(); print(used() - before)"
    )
    if native.kernels() == "reference":
        pytest.skip("plain torch works in blocks of 32 MiB, sorted with 64-bit places")
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, check=True
    )
    assert float(run.stdout) < 150


def test_geometric_weights_make_it_one_lipschitz():
    weights = geometric_weights(0.7, 10)
    x, center = torch.randn(20, 50, dtype=torch.float64), torch.randn(30, 50, dtype=torch.float64)
    moved = x + 0.1 * torch.randn_like(x).sign()
    gap = sortnet(x, center, weights.double()) - sortnet(moved, center, weights.double())
    assert gap.abs().max() <= (moved - x).abs().max()
