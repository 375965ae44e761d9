"""The reference forms of the l_inf-distance and SortNet neurons against what they say."""

import pytest
import torch

from lablib.ops.linf_dist import linf_distance
from lablib.ops.linf_dist import reference as linf_reference
from lablib.ops.sortnet import geometric_weights, sortnet
from lablib.ops.sortnet import reference as sortnet_reference


@pytest.mark.parametrize(("b", "i", "o"), [(0, 3, 2), (1, 1, 1), (5, 7, 3), (4, 33, 17)])
def test_linf_distance_forward_and_gradients(b, i, o):
    x = torch.randn(b, i, dtype=torch.float64, requires_grad=True)
    w = torch.randn(o, i, dtype=torch.float64, requires_grad=True)
    naive = (x[:, None] - w).abs().amax(-1)
    assert torch.equal(linf_distance(x, w), naive)
    slope = torch.randn(b, o, dtype=torch.float64)
    for made, expected in zip(
        torch.autograd.grad(linf_distance(x, w), (x, w), slope), torch.autograd.grad(naive, (x, w), slope)
    ):
        assert torch.allclose(made, expected)


def test_blocks_change_nothing(monkeypatch):
    x, w = torch.randn(6, 9), torch.randn(11, 9)
    whole = linf_distance(x, w), sortnet(x, w, geometric_weights(0.7, 4))
    monkeypatch.setattr(linf_reference, "BLOCK_ELEMENTS", 60)
    monkeypatch.setattr(sortnet_reference, "BLOCK_ELEMENTS", 60)
    assert torch.equal(linf_distance(x, w), whole[0])
    assert torch.equal(sortnet(x, w, geometric_weights(0.7, 4)), whole[1])


def test_ties_go_to_the_first():
    x = torch.tensor([[1.0, -1.0, 1.0]], requires_grad=True)
    linf_distance(x, torch.zeros(1, 3)).sum().backward()
    assert x.grad.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize(("b", "i", "o", "k"), [(0, 3, 2, 2), (3, 5, 4, 5), (2, 20, 7, 6)])
def test_sortnet_forward_and_gradients(b, i, o, k):
    x = torch.randn(b, i, dtype=torch.float64, requires_grad=True)
    c = torch.randn(o, i, dtype=torch.float64, requires_grad=True)
    for weight in (torch.rand(k, dtype=torch.float64), torch.rand(o, k, dtype=torch.float64)):
        naive = ((x[:, None] + c).abs().sort(-1, descending=True).values[..., :k] * weight).sum(-1)
        assert torch.allclose(sortnet(x, c, weight), naive)
        slope = torch.randn(b, o, dtype=torch.float64)
        for made, expected in zip(
            torch.autograd.grad(sortnet(x, c, weight), (x, c), slope),
            torch.autograd.grad(naive, (x, c), slope),
        ):
            assert torch.allclose(made, expected)


def test_sortnet_contains_the_others():
    x, w = torch.randn(4, 6), torch.randn(3, 6)
    assert torch.equal(sortnet(x, -w, torch.tensor([1.0])), linf_distance(x, w))
    assert torch.equal(sortnet(x, -w, geometric_weights(1.0, 6)), linf_distance(x, w))
    smallest = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    assert torch.equal(sortnet(x, -w, smallest), (x[:, None] - w).abs().amin(-1))


def test_leading_axes_and_nan():
    x, w = torch.randn(2, 3, 5), torch.randn(4, 5)
    assert torch.equal(linf_distance(x, w)[1], linf_distance(x[1], w))
    assert torch.equal(sortnet(x[0, 0], w, torch.ones(2)), sortnet(x, w, torch.ones(2))[0, 0])
    x[0, 0, 0] = float("nan")
    assert linf_distance(x, w)[0, 0].isnan().all()
    assert sortnet(x, w, torch.ones(2))[0, 0].isnan().all()
    assert linf_distance(x, w)[1].isfinite().all()


def test_geometric_weights():
    weights = geometric_weights(0.25, 10, torch.float64)
    assert torch.allclose(weights[1:] / weights[:-1], torch.full((9,), 0.75, dtype=torch.float64))
    assert 1 - 1e-12 < weights.sum() <= 1
    assert geometric_weights(1.0, 3).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: linf_distance(torch.ones(2, 3), torch.ones(2, 4)),
        lambda: linf_distance(torch.ones(2, 0), torch.ones(2, 0)),
        lambda: sortnet(torch.ones(2, 3), torch.ones(2, 4), torch.ones(2)),
        lambda: sortnet(torch.ones(2, 3), torch.ones(2, 3), torch.ones(4)),
        lambda: sortnet(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3, 2)),
        lambda: geometric_weights(0.0, 3),
        lambda: geometric_weights(0.5, 0),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        call()
