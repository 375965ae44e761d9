"""Certified radii: by hand, attacked, and refused for bad input."""

import math

import numpy as np
import pytest
import torch

from lablib import layers as L
from lablib.certify.margins import bound_radius_logits, bound_radius_scalar, certified_accuracy


def test_scalar_by_hand():
    radii = bound_radius_scalar(torch.tensor([[0.5], [-0.5], [0.25]]), [1, 1, -1], lipschitz=2.0)
    assert radii.tolist() == [0.25, 0.0, 0.0]
    assert bound_radius_scalar([-0.5], [False], slack=0.1).tolist() == [0.4]


@pytest.mark.parametrize(
    ("norm", "each", "factor"),
    [
        ("linf", None, 2),
        ("linf", True, 2),
        ("l2", None, math.sqrt(2)),
        ("l2", True, 2),
        ("l1", None, 1),
        ("l1", True, 2),
    ],
)
def test_logits_by_hand(norm, each, factor):
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    assert np.allclose(bound_radius_logits(logits, [0, 1], norm, each=each), [2.0 / factor, 0.0])
    assert np.allclose(bound_radius_logits(logits, [0, 1], norm, 4.0, each), [0.5 / factor, 0.0])
    assert np.allclose(bound_radius_logits(logits, [0, 1], norm, each=each, slack=0.25), [1.5 / factor, 0.0])


@pytest.mark.parametrize(
    ("norm", "net"),
    [
        ("linf", L.LipschitzSequential(L.LInfLinear(4, 8), L.MaxMin(), L.LInfLinear(8, 3))),
        ("l2", L.LipschitzSequential(L.OrthonormalLinear(4, 8), L.MaxMin(), L.OrthonormalLinear(8, 3))),
        ("l1", L.LipschitzSequential(L.L1Linear(4, 8), L.MaxMin(), L.L1Linear(8, 3))),
    ],
)
def test_no_sample_inside_the_radius_changes_class(norm, net):
    net = net.double()
    x = 3 * torch.randn(40, 4, dtype=torch.float64)
    logits = net(x).detach()
    labels = logits.argmax(1)
    radii = torch.tensor(bound_radius_logits(logits, labels, norm))
    assert (radii > 0).all()
    order = {"l1": 1, "l2": 2, "linf": float("inf")}[norm]
    steps = torch.randn(500, 40, 4, dtype=torch.float64)
    steps[:250] = (
        steps[:250].sign()
        if norm == "linf"
        else torch.nn.functional.one_hot(torch.randint(4, (250, 40)), 4) * steps[:250].sign()
    )
    steps = steps / torch.linalg.vector_norm(steps, order, dim=-1, keepdim=True)
    moved = net((x + 0.9999 * radii[:, None] * steps).flatten(0, 1)).argmax(-1)
    assert (moved.reshape(500, 40) == labels).all()


def test_certified_accuracy_curve():
    radii = [0.0, 0.1, 0.2, 0.2]
    assert certified_accuracy(radii, [0.0, 0.1, 0.15, 0.2, 1.0]).tolist() == [0.75, 0.5, 0.5, 0.0, 0.0]
    assert certified_accuracy(radii, 0.05) == 0.75


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_any_float_dtype(dtype):
    outputs = torch.tensor([0.5, -1.0], dtype=dtype)
    for labels in ([1, -1], [1, 0], [True, False], torch.tensor([1, 0], dtype=dtype)):
        assert bound_radius_scalar(outputs, labels).tolist() == [0.5, 1.0]
    assert bound_radius_logits(outputs[None], torch.tensor([0]), "linf").tolist() == [0.75]


def test_empty_batches_have_no_radii():
    assert bound_radius_logits(np.zeros((0, 3)), np.zeros(0, dtype=int), "linf").shape == (0,)
    assert bound_radius_scalar(np.zeros(0), np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bound_radius_scalar([1.0, 2.0], [1]),
        lambda: bound_radius_scalar([float("nan")], [1]),
        lambda: bound_radius_scalar([float("inf")], [1]),
        lambda: bound_radius_scalar(torch.tensor([70000.0]).half(), [1]),
        lambda: bound_radius_scalar([1.0 + 2.0j], [1]),
        lambda: bound_radius_scalar([1.0, 1.0], [1, 2]),
        lambda: bound_radius_scalar([1.0, 1.0, 1.0], [-1, 0, 1]),
        lambda: bound_radius_scalar([1.0], [float("nan")]),
        lambda: bound_radius_scalar([1.0], [0.3]),
        lambda: bound_radius_scalar([1.0], [1j]),
        lambda: bound_radius_scalar([1.0], ["yes"]),
        lambda: bound_radius_logits([[float("inf"), 0.0]], [0], "l2"),
        lambda: bound_radius_scalar([1.0], [1], lipschitz=0.0),
        lambda: bound_radius_scalar([1.0], [1], lipschitz=float("inf")),
        lambda: bound_radius_scalar([1.0], [1], slack=-1.0),
        lambda: bound_radius_logits([[1.0]], [0], "l2"),
        lambda: bound_radius_logits([[1.0, 2.0]], [2], "l2"),
        lambda: bound_radius_logits([[1.0, 2.0]], [-1], "l2"),
        lambda: bound_radius_logits([[1.0, 2.0]], [0.0], "l2"),
        lambda: bound_radius_logits([[1.0, 2.0]], [0], "l7"),
        lambda: certified_accuracy([], [0.1]),
        lambda: certified_accuracy([-0.1], [0.1]),
        lambda: certified_accuracy([float("inf")], [0.1]),
        lambda: certified_accuracy([0.1], [-0.1]),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        call()
