"""Clipping to a ball and centring, per sample: values, true norms, NaN, and what certificates know of them."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lablib import layers as L
from lablib.certify import bound_logits, bound_output_error
from lablib.certify.chain import in_float64


def true_norms(x: torch.Tensor) -> list[Fraction]:
    """The squares of the l2 norms of samples, exactly."""
    return [sum(Fraction(v) ** 2 for v in row) for row in x.flatten(1).tolist()]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1e-45, 1e-38, 1e-3, 1.0, 1e4, 1e30]),
    bound=st.sampled_from([1e-30, 0.3, 1.0, 7.0]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_the_true_norm_never_exceeds_the_bound(seed, size, bound, dtype):
    x = (size * torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(seed))).to(dtype)
    y = L.ClipNorm(bound).train()(x)
    assert y.dtype == dtype
    assert y.shape == x.shape
    assert all(norm <= Fraction(bound) ** 2 for norm in true_norms(y))


def test_samples_inside_stay_and_others_keep_their_direction():
    x = torch.tensor([[0.3, 0.4], [3.0, 4.0], [0.0, 0.0]])
    y = L.ClipNorm(1.0)(x)
    assert torch.equal(y[[0, 2]], x[[0, 2]])
    assert torch.allclose(y[1], torch.tensor([0.6, 0.8]), atol=1e-6)
    assert torch.equal(L.ClipNorm(1.0)(x[1]), y[1])


def test_in_training_nothing_leaves_the_ball():
    x = torch.ones(5, 4)
    x[0, 0], x[1, 1], x[2, 2], x[3] = torch.nan, torch.inf, -torch.inf, 3e38
    layer, weight = L.ClipNorm(2.0), nn.Linear(4, 1)
    y = layer.train()(x)
    assert torch.equal(y[:4], torch.zeros(4, 4))
    assert torch.equal(y[4], x[4] * y[4, 0])
    weight(y).sum().backward()
    assert weight.weight.grad.isfinite().all()
    assert layer.eval()(x)[:3].isnan().any(1).all()
    assert not layer(x)[3:].isnan().any()


def test_centring_takes_the_mean_of_the_sample_or_along_an_axis():
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    assert torch.allclose(L.CentreSample()(x), x - x.mean((1, 2), keepdim=True))
    assert torch.allclose(L.CentreSample(-1)(x), x - x.mean(2, keepdim=True))
    assert torch.equal(L.CentreSample()(x)[1], L.CentreSample()(x[1:2])[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L.ClipNorm(0.0), "between 1e-30 and 1e30"),
        (lambda: L.ClipNorm(float("nan")), "between 1e-30 and 1e30"),
        (lambda: L.ClipNorm(True), "between 1e-30 and 1e30"),
        (lambda: L.CentreSample(0), "samples must not mix"),
        (lambda: L.CentreSample(-2)(torch.ones(2, 3)), "the batch, or no axis"),
        (lambda: L.CentreSample(3)(torch.ones(2, 3)), "the batch, or no axis"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def clipped_first() -> nn.Module:
    return L.LipschitzSequential(L.ClipNorm(1.5), L.CentreSample(), nn.Flatten(), L.SpectralLinear(24, 5))


def clipped_last() -> nn.Module:
    return L.LipschitzSequential(L.CentreSample(1), nn.Flatten(), L.SpectralLinear(24, 6), L.ClipNorm(0.2))


@pytest.mark.parametrize("build", [clipped_first, clipped_last])
def test_certificates_know_both(build):
    torch.manual_seed(0)
    network = build().eval()
    x = torch.randn(16, 2, 3, 4) * torch.linspace(0.1, 3.0, 16)[:, None, None, None]
    accurate = in_float64(network)
    with torch.no_grad():
        error = bound_output_error(network, x)
        gap = (network(x).double() - accurate(x.double())).abs()
        assert (gap <= error).all()
        assert (error < 1e-4).all()
        for layer in (L.ClipNorm(1.5), L.CentreSample(), L.CentreSample(1)):
            box = (x - 0.2, x + 0.2)
            low, high = bound_logits(L.LipschitzSequential(layer, nn.Flatten()).eval(), *box)
            for _ in range(50):
                inside = torch.lerp(*box, torch.rand_like(x).round())
                y = layer(inside).flatten(1)
                assert ((low <= y) & (y <= high)).all()
