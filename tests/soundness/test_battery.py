"""Every guarantee in the library passes the battery; planted faults do not."""

import numpy as np
import pytest
import torch

from lablib import layers
from lablib.experiments.battery import claim_of, examine, refutes
from lablib.experiments.layer_cases import own_cases

CASES = own_cases()


def each_case(function):
    return pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))(function)


def built(case, seed=0):
    torch.manual_seed(seed)
    return case.build().eval()


@each_case
def test_no_measurement_refutes_the_claim(case):
    claim = claim_of(case, case.build())
    findings = examine(case)
    assert {finding.state for finding in findings} == set(case.states)
    for finding in findings:
        assert not finding.how.startswith("fails"), finding
        assert finding.how != "nan", finding
        assert not refutes(finding, claim), finding
        # Also a derivative that no pair bears out (at ties and kinks) must not exceed the claim.
        assert finding.value <= claim * (1 + 1e-8), finding


@each_case
def test_float32_agrees_with_float64(case):
    """Outputs to 1e-5 of their size; so pairs keep to the claim with that allowance."""
    module = built(case)
    for shape in case.shapes:
        x, y = torch.randn(2, 16, *shape, generator=torch.Generator().manual_seed(1))
        single = module.float()(x), module(y)
        double = module.double()(x.double()), module(y.double())
        for low, high in zip(single, double):
            assert low.dtype == torch.float32
            assert high.dtype == torch.float64
            assert torch.allclose(low.double(), high, rtol=1e-5, atol=1e-5)
        for norm in layers.guarantee(module)[0]:
            order = {"l1": 1, "l2": 2, "linf": np.inf}[norm]
            out, gap = (v.double().flatten(1).norm(p=order, dim=1) for v in (single[0] - single[1], x - y))
            rounding = 1e-6 * single[0].abs().double().flatten(1).sum(1)
            assert (out <= claim_of(case, module) * gap + rounding).all()


@each_case
def test_empty_batches_and_nan(case):
    module = built(case)
    for shape in case.shapes:
        whole = module(torch.zeros(2, *shape))
        assert module(torch.zeros(0, *shape)).shape == (0, *whole.shape[1:])
        poisoned = torch.zeros(2, *shape)
        poisoned[0].view(-1)[0] = float("nan")
        assert module(poisoned)[0].isnan().any(), "NaN was swallowed"
        assert not module(poisoned)[1].isnan().any(), "NaN leaked into another sample"


@each_case
def test_one_sample_alone(case):
    """Vectors, and images into convolutions, also go without a batch axis; jacrev and vmap enter every layer."""
    module = built(case)
    x = torch.randn(2, *case.shapes[0])
    whole = module(x)
    if len(case.shapes[0]) == 1 or "Conv2d" in case.name:
        assert torch.allclose(module(x[0]), whole[0], atol=1e-6)
    assert torch.allclose(torch.vmap(lambda v: module(v[None])[0])(x), whole, atol=1e-6)
    assert torch.func.jacrev(lambda v: module(v[None])[0])(x[0]).isfinite().all()


@each_case
def test_autocast_changes_nothing(case):
    module = built(case)
    x = torch.randn(3, *case.shapes[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(x), module(x.clone()))
        inside = module(x)
    assert torch.equal(inside, module(x))


def test_every_public_layer_is_in_the_list():
    known = {name for case in CASES for module in case.build().modules() for name in [type(module).__name__]}
    known = {name.removeprefix("Parametrized") for name in known}
    public = {
        name
        for name in layers.__all__
        if isinstance(getattr(layers, name), type) and issubclass(getattr(layers, name), torch.nn.Module)
    }
    assert public - known == {"LipschitzLayer"}


def test_the_battery_catches(planted_fault):
    claim = claim_of(planted_fault, planted_fault.build())
    assert any(refutes(finding, claim) for finding in examine(planted_fault))


def test_the_reshaped_convolution_has_norm_two(reshaped_convolution):
    """A published break: 4 x 4, stride 2, orthonormal only as a matrix."""
    fresh = [finding.value for finding in examine(reshaped_convolution) if finding.state == "fresh"]
    assert 1.8 < max(fresh) <= 2.0
