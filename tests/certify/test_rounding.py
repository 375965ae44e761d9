"""Error bounds of float32 against float64 and exact fractions, on weights made to hurt."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lablib import layers as L
from lablib.certify import bound_output_error, bound_radius, bound_radius_logits
from lablib.certify.arithmetic import Arithmetic, arithmetic, outward, round_down
from lablib.certify.chain import in_float64
from lablib.theory.network import evaluate, fractions

Chain = L.LipschitzSequential


def exact_error(network, x):
    """|computed - exact| as float64, rounded from the exact difference; exact arithmetic in fractions."""
    with torch.no_grad():
        computed = fractions(network(x).numpy())
    exact = evaluate(L.describe(network, tuple(x.shape[1:])), fractions(x.numpy()))
    return np.abs(computed - exact).astype(float)


def test_every_chain_in_float32_stays_within_the_bound_of_float64(chain, images):
    error = bound_output_error(chain, images)
    with torch.no_grad():
        computed, accurate = chain(images).double(), in_float64(chain)(images.double())
    assert error.dtype == torch.float64
    assert (error > 0).all()
    assert ((computed - accurate).abs() <= error).all()
    assert error.max() < 1e-3 * max(1.0, computed.abs().max())
    # another order of evaluation: one sample at a time
    alone = torch.cat([chain(image[None]).detach() for image in images]).double()
    assert ((alone - accurate).abs() <= error).all()


@pytest.mark.parametrize("radius", [0.01, 0.3])
def test_the_bound_holds_in_the_whole_ball(chain, images, radius):
    if not isinstance(chain, Chain):
        with pytest.raises(ValueError, match="LipschitzSequential"):
            bound_output_error(chain, images, radius)
        return
    norm = chain.norms[0]
    error = bound_output_error(chain, images, radius, norm)
    assert (error >= bound_output_error(chain, images)).all()
    accurate = in_float64(chain)
    for seed in range(5):
        move = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
        size = move.flatten(1).norm(p={"linf": np.inf, "l2": 2, "l1": 1}[norm], dim=1)
        near = images + 0.999 * radius * move / size[:, None, None, None]
        with torch.no_grad():
            assert ((chain(near).double() - accurate(near.double())).abs() <= error).all()


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1.0, 1e6, 1e20])
@pytest.mark.parametrize("top", [1, 3, 6])
def test_sort_neurons_against_fractions(size, top):
    layer = L.SortNetLayer(6, 4, keep=0.6, top=top, bias=True)
    network = Chain(layer, L.MeanShift(4), L.LInfDistance(4, 3, bias=True), L.Scale(-0.3)).eval()
    with torch.no_grad():
        network[0].weight.mul_(size)
        network[0].bias.normal_(std=size)
        network[1].running_mean.normal_(std=size)
        network[2].weight.mul_(size)
    x = torch.cat(
        [torch.randn(6, 6), size * torch.randn(6, 6), network[0].weight.detach()[:1], torch.zeros(1, 6)]
    )
    actual, bound = exact_error(network, x), bound_output_error(network, x).numpy()
    assert (actual <= bound).all()
    assert (bound < 1e-5 * (size + 4)).all()


def linear_net(rows, bias):
    layer = nn.Linear(rows.shape[1], len(rows))
    with torch.no_grad():
        layer.weight.copy_(rows)
        layer.bias.copy_(bias)
    return nn.Sequential(layer, nn.ReLU(), nn.Linear(len(rows), 2)).eval()


NUMBERS = (
    st.floats(-1e8, 1e8, width=32)
    | st.floats(-(2.0**-100), 2.0**-100, width=32)
    | st.sampled_from([0.0, 1.0, -1.0])
)


@settings(max_examples=40)
@given(st.lists(NUMBERS, min_size=30, max_size=30))
def test_cancelling_sums_against_fractions(numbers):
    values = torch.tensor(numbers)
    network = linear_net(values[:20].reshape(4, 5), values[20:24])
    x = torch.stack([values[24:29], torch.ones(5), torch.full((5,), 1e-38)])
    assert (exact_error(network, x) <= bound_output_error(network, x).numpy()).all()


@settings(max_examples=30)
@given(st.lists(NUMBERS, min_size=24, max_size=24), st.booleans())
def test_distances_with_ties_and_extremes_against_fractions(numbers, sort):
    values = torch.tensor(numbers)
    first = L.SortNetLayer(4, 4, keep=0.5, top=3) if sort else L.LInfDistance(4, 4)
    network = Chain(first, L.MaxMin(), L.LInfLinear(4, 2)).eval()
    with torch.no_grad():
        network[0].weight.copy_(values[:16].reshape(4, 4))
    x = torch.stack([values[16:20], values[20:24], values[:4]])
    assert (exact_error(network, x) <= bound_output_error(network, x).numpy()).all()


def test_flushed_denormals_are_covered():
    network = nn.Sequential(nn.Linear(3, 2)).eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1e6, 1e-39, 1e-20], [1e-39, 1e-39, -1e-25]]))
        network[0].bias.zero_()
    x = torch.tensor([[1e-39, 1e3, 1e-20], [3e-39, 1.0, 1e-15]])
    exact = evaluate(L.describe(network, (3,)), fractions(x.numpy()))
    bound = bound_output_error(network, x).numpy()
    flushed = torch.set_flush_denormal(True)
    try:
        with torch.no_grad():
            computed = network(x)
    finally:
        torch.set_flush_denormal(False)
    assert flushed
    computed = fractions(computed.numpy())
    assert (np.abs(computed - exact).astype(float) <= bound).all()


def test_float64_networks_have_tiny_errors(chain, images):
    error = bound_output_error(chain.double(), images.double())
    assert (error > 0).all()
    assert error.max() < 1e-12


def test_errors_of_1_lipschitz_layers_add():
    """Polynomial in the depth (values grow along), with no factor per layer."""
    bounds = []
    for depth in (4, 8, 16):
        torch.manual_seed(0)
        parts = [L.SortNetLayer(64, 64) for _ in range(depth)]
        network = Chain(*(part for layer in parts for part in (layer, L.MeanShift(64)))).eval()
        bounds.append(float(bound_output_error(network, torch.rand(4, 64)).max()))
    assert bounds[1] < 4 * bounds[0]
    assert bounds[2] < 4 * bounds[1]


def test_orthonormal_chains_are_followed_in_l2():
    torch.manual_seed(0)
    network = Chain(*(part for _ in range(6) for part in (L.OrthonormalLinear(64, 64), L.MaxMin()))).eval()
    bound = float(bound_output_error(network, torch.rand(3, 64)).max())
    # by row sums the first layer's error alone would grow by sqrt(64 * 2 / pi) at each of 5 layers
    assert bound < 6 * 64 * 2.0**-24 * 64 * 8


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_radii_are_the_plain_ones_less_rounding(norm):
    torch.manual_seed(0)
    width = L.LInfLinear if norm == "linf" else L.OrthonormalLinear
    network = Chain(width(16, 16), L.MaxMin(), width(16, 16), L.MaxMin(), L.MeanShift(16)).eval()
    x = torch.rand(40, 16)
    with torch.no_grad():
        logits = network(x)
    y = logits.argmax(1)
    plain = bound_radius_logits(logits, y, norm)
    radii = bound_radius(network, x, y)
    assert radii.dtype == np.float32
    assert (radii < plain).all()
    assert (radii > plain - 1e-4).all()
    assert (bound_radius(network, x, (y + 1) % 16) == 0).all()


def test_the_last_linear_layer_is_read_pair_by_pair():
    torch.manual_seed(0)
    network = Chain(L.LInfLinear(8, 8), L.MaxMin(), L.LInfLinear(8, 3), L.Scale(-2.0)).eval()
    with torch.no_grad():
        network[2].weight = network[2].weight * 0.25  # a constant of 0.5 rather than 2
    x = torch.rand(20, 8)
    logits = network(x).detach()
    y = logits.argmax(1)
    radii, plain = bound_radius(network, x, y), bound_radius_logits(logits, y, "linf", 2.0)
    assert (radii > 3.9 * plain - 1e-4).all()


def test_constant_networks_have_finite_radii():
    network = Chain(L.LInfLinear(4, 2)).eval()
    with torch.no_grad():
        network[0].weight = torch.zeros(2, 4)
        network[0].bias.copy_(torch.tensor([1.0, 0.0]))
    radii = bound_radius(network, torch.rand(3, 4), torch.zeros(3, dtype=torch.long))
    assert (radii > 100).all()
    assert np.isfinite(radii).all()


def test_refusals(images):
    good = Chain(nn.Flatten(), L.LInfLinear(16, 3))
    with pytest.raises(ValueError, match=r"eval\(\)"):
        bound_output_error(good, images)
    good.eval()
    good[1].train()
    with pytest.raises(ValueError, match="a part of it"):
        bound_output_error(good, images)
    good.eval()
    bad = images.clone()
    bad[0, 0, 0, 0] = torch.nan
    for x, message in (
        (bad, "NaN"),
        (images.double(), "convert"),
        (images.half(), "float32"),
        (images[0, 0, 0], "batch axis"),
    ):
        with pytest.raises(ValueError, match=message):
            bound_output_error(good, x)
    for network, message in (
        (nn.Sequential(nn.Flatten(), nn.Softplus()), "Softplus"),
        (nn.Sequential(nn.Flatten(), nn.Dropout()), "Dropout"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")), "reflect"),
        (nn.Sequential(nn.Flatten(0)), "Flatten"),
        (Chain(L.MaxMin()), "Flatten"),
    ):
        with pytest.raises(ValueError, match=message):
            bound_output_error(
                network.eval(), images[:, :, :, :].expand(-1, 2, -1, -1) if message == "Flatten" else images
            )
    hooked = Chain(nn.Flatten(), L.LInfLinear(16, 3)).eval()
    hooked[1].register_forward_hook(lambda module, args, output: 5 * output)
    with pytest.raises(ValueError, match="hook"):
        bound_output_error(hooked, images)
    with pytest.raises(ValueError, match="Flatten"):
        bound_radius(Chain(nn.ReLU()).eval(), images, torch.zeros(24, dtype=torch.long), "linf")
    with pytest.raises(ValueError, match="return_indices"):
        bound_output_error(nn.Sequential(nn.MaxPool2d(2, return_indices=True)).eval(), images)
    with pytest.raises(ValueError, match="negative"):
        bound_output_error(good, images, -0.1)
    with pytest.raises(ValueError, match="not in l2"):
        bound_radius(good, images, torch.zeros(24, dtype=torch.long), "l2")
    with pytest.raises(ValueError, match="labels"):
        bound_radius(good, images, torch.full((24,), 3))
    with pytest.raises(ValueError, match="labels"):
        bound_radius(good, images, torch.zeros(24))
    huge = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        huge[1].weight.fill_(3e38)
    with pytest.raises(ValueError, match="overflow"):
        bound_output_error(huge, images)
    assert bound_radius(good, images[:0], torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_lower_precision_products_are_refused(images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with pytest.raises(ValueError, match="TF32"):
            bound_output_error(network, images)
    finally:
        torch.set_float32_matmul_precision(before)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="autocast"):
        bound_output_error(network, images)


@given(st.floats(0, 1e30), st.sampled_from([torch.float32, torch.float64]))
def test_rounding_outward(value, dtype):
    exact = torch.tensor([value], dtype=torch.float64)
    low, high = outward(exact, exact, torch.zeros(1, dtype=torch.float64), dtype)
    assert low.double() < exact < high.double()
    assert 0 <= round_down(exact).double() <= exact


def test_the_model_of_arithmetic():
    form = arithmetic(torch.float32)
    assert form == Arithmetic(2.0**-24, 2.0**-126)
    gamma = 10 * form.unit / (1 - 10 * form.unit)
    assert form.relative(10) >= gamma / (1 - gamma)
    with pytest.raises(ValueError, match="float64"):
        form.relative(10**7)
    with pytest.raises(ValueError, match="bfloat16"):
        arithmetic(torch.bfloat16)
