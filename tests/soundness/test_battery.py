"""Every guarantee in the library passes the battery; planted faults do not."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from lablib import layers
from lablib.certify.norms import bound_operator_norm
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


def unfrozen(case):
    """The case with every parameter trained, also those that the layer itself holds still."""
    return dataclasses.replace(
        case, build=lambda: case.build().requires_grad_(True), states=("fresh", "trained")
    )


def overwritten(case):
    """The case after a state of large random numbers was loaded into it."""

    def build():
        module = case.build()
        module.load_state_dict(
            {
                # another cap is refused
                name: value if name.endswith("lipschitz_const") else 30 * torch.randn_like(value)
                for name, value in module.state_dict().items()
            }
        )
        return module

    return dataclasses.replace(case, build=build, states=("fresh",))


# Large biases cost the pairs digits.
HARSH = 1e-6


@each_case
@pytest.mark.parametrize("treat", [unfrozen, overwritten])
def test_no_weights_refute_the_claim(case, treat):
    claim = claim_of(case, case.build())
    for finding in examine(treat(case)):
        assert not finding.how.startswith("fails"), finding
        assert finding.how != "nan", finding
        assert finding.value <= claim * (1 + HARSH), finding


@each_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_stay_bounded(case, dtype):
    """Measured from the weights as stored: outputs in half precision are too coarse to tell."""
    module = built(case).to(dtype)
    for size in (0.0, 3.0):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(size * torch.randn_like(parameter))
        for shape in case.shapes:
            made = module(torch.randn(2, *shape).to(dtype))
            assert made.dtype == dtype
            assert made.isfinite().all()
        norms, claim = layers.guarantee(module)
        for norm in norms:
            # The grid of the l2 bound of convolutions alone is 6e-4 above the norm.
            assert bound_operator_norm(module, norm, grid=128) <= claim * (1 + 1e-3)


@each_case
def test_the_guarantee_is_void_once_tampered_with(case):
    assert layers.guarantee(case.build()) == (tuple(case.build().norms), case.build().lipschitz)
    for part in case.build().modules():
        if parametrize.is_parametrized(part):
            assert set(part.parametrizations) == set(part._constraints)
    hooked, renamed, freed = case.build(), case.build(), case.build()
    hooked.register_forward_hook(lambda module, args, output: 5 * output)
    kind = type(renamed)
    renamed.__class__ = type("Other", (kind,), {"forward": lambda self, x: 5 * kind.forward(self, x)})
    tampered = [hooked, renamed]
    for part in list(freed.modules()):
        if parametrize.is_parametrized(part):
            for name in list(part.parametrizations):
                parametrize.remove_parametrizations(part, name)
            tampered = [hooked, renamed, freed]
    for module in tampered:
        with pytest.raises(ValueError, match=r"\w+ \w+"):
            layers.guarantee(module)


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
    """Vectors also go without a batch axis, images do not; jacrev and vmap enter every layer."""
    module = built(case)
    x = torch.randn(2, *case.shapes[0])
    whole = module(x)
    if "Conv2d" in case.name:
        with pytest.raises(ValueError, match=r"image\[None\]"):
            module(x[0])
    if len(case.shapes[0]) == 1:
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
    # models claim nothing themselves: their network() is a chain of layers that are in the list
    models = {"SortConv", "SortHybrid", "SortMLP"}
    # claim signs of slopes: tests/soundness/test_monotone.py
    monotone = {"MonotoneNetwork", "MonotonicWrapper", "FrozenMonotone"}
    assert public - known == {"LipschitzLayer"} | models | monotone


def test_the_battery_catches(planted_fault):
    claim = claim_of(planted_fault, planted_fault.build())
    assert any(refutes(finding, claim) for finding in examine(planted_fault))


@pytest.mark.parametrize("treat", [unfrozen, overwritten])
def test_harsh_treatment_catches_a_loose_share(loose_share, treat):
    """Trained as built it holds: the share is not among the trained parameters."""
    claim = claim_of(loose_share, loose_share.build())
    assert not any(refutes(finding, claim) for finding in examine(loose_share))
    assert any(refutes(finding, claim, HARSH) for finding in examine(treat(loose_share)))


def test_the_reshaped_convolution_has_norm_two(reshaped_convolution):
    """A published break: 4 x 4, stride 2, orthonormal only as a matrix."""
    fresh = [finding.value for finding in examine(reshaped_convolution) if finding.state == "fresh"]
    assert 1.8 < max(fresh) <= 2.0
