"""Arithmetic outside the model is refused; what overflows or is flushed to zero is not called exact."""

import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.certify import bound_logits, bound_margins, bound_output_error, bound_radius, bound_radius_box

Chain = L.LipschitzSequential


def test_a_scale_that_overflows_is_refused():
    network, x, y = (
        Chain(L.Scale(2.0**127)).eval(),
        torch.tensor([[3.0, 1.0]]),
        torch.zeros(1, dtype=torch.long),
    )
    for call in (
        lambda: bound_radius(network, x, y, "linf"),
        lambda: bound_output_error(network, x),
        lambda: bound_logits(network, x, x),
        lambda: bound_margins(network, x, x, y),
    ):
        with pytest.raises(ValueError, match="overflow"):
            call()


@pytest.mark.parametrize("scale", [None, 2.0**127])
def test_a_last_linear_layer_that_overflows_is_refused(scale):
    linear = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[3e38, 3e38], [1.0, 0.0]]) if scale is None else torch.eye(2))
    network = nn.Sequential(linear, *([] if scale is None else [L.Scale(scale)])).eval()
    x, y = torch.tensor([[3.0, 1.0]]), torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match="overflow"):
        bound_margins(network, x, x, y)
    with pytest.raises(ValueError, match="overflow"):
        bound_radius_box(network, x, y, 0.0, 3.0, margins=False)


@pytest.mark.parametrize(
    "layer",
    [
        L.Scale(2.0),
        L.Scale(-4.0),
        nn.ReLU(),
        L.Abs(),
        L.MaxMin(),
        L.LeakyReLU(0.5),
        L.PReLU(2, 0.5),
        L.Scale(1e-40),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [1e-38, 1e30])
def test_flushed_operands_are_covered(layer, size):
    """Subnormal inputs that a processor takes for 0; constants likewise."""
    network = Chain(layer).eval()
    x = size * torch.tensor([[0.9, 0.3]])
    exact = network.double()(x.double()).detach()
    network.float()
    bound, (low, high) = bound_output_error(network, x), bound_logits(network, x, x)
    assert torch.set_flush_denormal(True)
    try:
        computed = network(x).detach().double()
    finally:
        torch.set_flush_denormal(False)
    assert (bound > 0).all()
    assert ((computed - exact).abs() <= bound).all()
    assert ((low.double() <= computed) & (computed <= high.double())).all()
    assert ((low.double() <= exact) & (exact <= high.double())).all()


def convolution():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()).eval(), torch.rand(2, 1, 4, 4)


def test_convolutions_by_winograd_are_refused(monkeypatch):
    network, x = convolution()
    bound_output_error(network, x)
    monkeypatch.setattr(torch.backends.nnpack, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with torch.backends.nnpack.flags(enabled=True), pytest.raises(ValueError, match="NNPACK"):
        bound_output_error(network, x)
    with torch.backends.nnpack.flags(enabled=False):
        bound_output_error(network, x)
    bound_output_error(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval(), x)


@pytest.mark.parametrize("name", ["conv", "matmul"])
@pytest.mark.parametrize("value", ["bf16", "tf32"])
def test_lower_precision_by_backend_is_refused(name, value):
    settings = getattr(torch.backends.mkldnn, name, None)
    if not hasattr(settings, "fp32_precision"):
        pytest.skip("this torch has no precision by backend")
    network, x = convolution()
    before = settings.fp32_precision
    try:
        settings.fp32_precision = value
        with pytest.raises(ValueError, match=f"{name}.fp32_precision is '{value}'"):
            bound_output_error(network, x)
        settings.fp32_precision = "ieee"
        bound_output_error(network, x)
    finally:
        settings.fp32_precision = before
