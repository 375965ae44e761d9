"""No sample's gradient, as computed in float32, exceeds the sensitivity: attacked, on one list of models.

The attack climbs on the norm of one parameter's gradient, in the input and in the cotangent in turn: power iteration
for a network that is linear around the sample. It knows nothing of the rules.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from lablib import layers as L
from lablib.privacy import ClipCotangent, Residual, project, sensitivity

CHAIN = nn.Sequential


def _fixed(layer: nn.Module) -> nn.Module:
    return layer.requires_grad_(False)


def _bumped() -> nn.Module:
    """A fixed spline with s(0) = 0.5."""
    return _fixed(L.LearnableSpline(8, init=lambda t: 0.5 + (3 * t).sin() / 3))


# name: (constraint, shape of a sample, Lipschitz constant of the loss, layers)
CASES = {
    "mlp orthonormal": (
        "orthonormal",
        (12,),
        math.sqrt(2.0),
        lambda: CHAIN(
            L.ClipNorm(3.0), nn.Linear(12, 16), L.MaxMin(), nn.Linear(16, 8), L.Abs(), nn.Linear(8, 5)
        ),
    ),
    "mlp spectral": (
        "spectral",
        (12,),
        1.0,
        lambda: CHAIN(
            L.ClipNorm(1.0), nn.Linear(12, 16), nn.ReLU(inplace=True), nn.Linear(16, 5, bias=False)
        ),
    ),
    "mlp frobenius": (
        "frobenius",
        (12,),
        1.0,
        lambda: CHAIN(L.ClipNorm(1.0), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 5)),
    ),
    "mlp unconstrained": (
        None,
        (12,),
        1.0,
        lambda: CHAIN(L.ClipNorm(1.0), nn.Linear(12, 16), nn.LeakyReLU(1.7), nn.Linear(16, 5)),
    ),
    "sequence": (
        "orthonormal",
        (4, 6),
        1.0,
        lambda: CHAIN(L.ClipNorm(2.0), nn.Linear(6, 6), L.FullSort(), nn.Flatten(), nn.Linear(24, 3)),
    ),
    "convolutions": (
        "orthonormal",
        (2, 8, 8),
        math.sqrt(2.0),
        lambda: CHAIN(
            L.ClipNorm(1.0),
            nn.Conv2d(2, 6, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
            L.MaxMin(),
            nn.Flatten(),
            nn.Linear(32, 4),
        ),
    ),
    "odd convolutions": (
        "spectral",
        (2, 7, 9),
        1.0,
        lambda: CHAIN(
            L.ClipNorm(1.0),
            nn.Conv2d(2, 4, (2, 5), stride=(1, 3), padding=(0, 2)),
            L.GroupSort(4),
            nn.Conv2d(4, 4, (3, 5), padding="same"),
            nn.Flatten(),
            nn.Linear(72, 3),
        ),
    ),
    "patches": (
        "orthonormal",
        (1, 8, 8),
        1.0,
        lambda: CHAIN(
            L.ClipNorm(1.0),
            nn.Conv2d(1, 4, 2, stride=2),
            L.GroupSort(4),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 3),
        ),
    ),
    "overlapping pools": (
        "spectral",
        (2, 9, 9),
        1.0,
        lambda: CHAIN(
            L.ClipNorm(1.0),
            nn.Conv2d(2, 4, 3, padding=1),
            nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False),
            nn.MaxPool2d(3, 1, padding=1),
            nn.Flatten(),
            nn.Linear(100, 3),
        ),
    ),
    "residual": (
        "orthonormal",
        (10,),
        1.0,
        lambda: CHAIN(
            L.ClipNorm(1.0),
            L.CentreSample(),
            Residual(CHAIN(nn.Linear(10, 10), L.Abs(), nn.Linear(10, 10)), 0.3),
            L.ConvexResidual(L.MaxMin(), 0.5),
            nn.Linear(10, 4),
        ),
    ),
    "splines and reflections": (
        "orthonormal",
        (8,),
        1.0,
        lambda: CHAIN(
            L.ClipNorm(1.0),
            nn.Linear(8, 8),
            _bumped(),
            nn.Linear(8, 8),
            L.Householder(8),
            L.Scale(-2.0),
            nn.Linear(8, 3),
        ),
    ),
    "clipped cotangents": (
        "orthonormal",
        (1, 6, 6),
        1.0,
        lambda: CHAIN(
            L.ClipNorm(1.0),
            nn.Conv2d(1, 4, 3),
            L.MaxMin(),
            ClipCotangent(0.1),
            nn.Flatten(),
            nn.Linear(64, 8),
            ClipCotangent(0.7),
            nn.Linear(8, 3),
        ),
    ),
    "normalised, one layer frozen": (
        "orthonormal",
        (3, 6, 6),
        1.0,
        lambda: CHAIN(
            L.Normalise([0.4, 0.5, 0.6], 0.3),
            L.ClipNorm(1.0),
            _fixed(nn.Conv2d(3, 4, 3)),
            L.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(64, 3),
        ),
    ),
}


INSIDE = 1.0 - 1e-6  # of a ball, so that nothing is clipped


def radius(model: nn.Module) -> float:
    """How long inputs may be: up to the first clipping, or far beyond where they are normalised before."""
    return model[0].bound if isinstance(model[0], L.ClipNorm) else 10.0


def built(name: str, steps: int = 0) -> tuple[nn.Module, dict[str, float]]:
    """The model of a case, projected, after ``steps`` noisy steps on random labels; and the proven norms."""
    constraint, shape, _, build = CASES[name]
    torch.manual_seed(0)
    model = build()
    norms = project(model, constraint)
    trained = [p for p in model.parameters() if p.requires_grad]
    for _ in range(steps):
        x = torch.randn(8, *shape)
        outputs = model(x)
        loss = nn.functional.cross_entropy(outputs, torch.randint(outputs.shape[1], (8,)))
        for p, gradient in zip(trained, torch.autograd.grad(loss, trained)):
            p.data -= 0.5 * gradient + 0.05 * torch.randn_like(p)
        norms = project(model, constraint)
    return model, norms


def worst_gradients(
    model: nn.Module, shape: tuple[int, ...], cotangent: float, size: float, steps: int
) -> dict:
    """The largest l2 norm found of each trained parameter's gradient, for inputs of norm ``size``.

    What climbs is the sum of the norms: at the top of one layer the others are high too.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = dict.fromkeys(trained, 0.0)
    generator = torch.Generator().manual_seed(1)
    x = torch.ones(1, *shape) + 0.3 * torch.randn(1, *shape, generator=generator)
    g = torch.randn(model(x).shape, generator=generator)
    for step in range(steps):
        x, g = (size * x / x.norm()).requires_grad_(), (cotangent * g / g.norm()).requires_grad_()
        gradients = torch.autograd.grad(model(x), trained.values(), g, create_graph=True)
        for name, gradient in zip(trained, gradients):
            found[name] = max(found[name], float(gradient.detach().double().norm()))
        mover = x if step % 3 == 2 else g
        (slope,) = torch.autograd.grad(sum(gradient.norm() for gradient in gradients), mover)
        x, g = (slope, g.detach()) if mover is x else (x.detach(), slope)
    return found


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "-"))
def test_no_gradient_found_exceeds_the_sensitivity(name, steps):
    _, shape, lipschitz, _ = CASES[name]
    model, norms = built(name, steps)
    bounds = sensitivity(model, shape, lipschitz, norms=norms)
    assert bounds.parameters.keys() == {key for key, p in model.named_parameters() if p.requires_grad}
    measured = sensitivity(model, shape, lipschitz).parameters
    found = worst_gradients(model, shape, lipschitz * INSIDE, radius(model) * INSIDE, steps=9 - 2 * steps)
    for key, bound in bounds.parameters.items():
        assert 0.0 < found[key] <= bound, key
        assert found[key] <= measured[key] <= bound * (1 + 1e-3) or not norms, key
    assert bounds.total >= math.hypot(*bounds.parameters.values())


def test_the_attack_reaches_the_bound_where_it_is_attained():
    """Dense layers with orthonormal weights and patches: 99 %; the first layer of a stride-1 convolution: 90 %."""
    dense = CHAIN(L.ClipNorm(2.0), nn.Linear(12, 12, bias=False), L.MaxMin(), nn.Linear(12, 12))
    patches = CHAIN(
        L.ClipNorm(1.0), nn.Conv2d(1, 4, 2, stride=2, bias=False), nn.Flatten(), nn.Linear(64, 64)
    )
    wide = CHAIN(L.ClipNorm(1.0), nn.Conv2d(1, 1, 3, padding=1), nn.Flatten())
    for model, shape, share in ((dense, (12,), 0.99), (patches, (1, 8, 8), 0.99), (wide, (1, 24, 24), 0.9)):
        torch.manual_seed(0)
        for part in model:
            if getattr(part, "bias", None) is not None:
                nn.init.zeros_(part.bias)
        bounds = sensitivity(model, shape, 1.0, norms=project(model, "orthonormal")).parameters
        found = worst_gradients(model, shape, INSIDE, radius(model) * INSIDE, steps=60)
        for key, bound in bounds.items():
            assert share * bound <= found[key] <= bound, key


def operator_matrix(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The Jacobian of a linear layer as a matrix in float64."""
    basis = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    layer = layer.double()
    with torch.no_grad():
        return (layer(basis) - layer(torch.zeros_like(basis[:1]))).flatten(1).mT


def test_scaling_a_kernel_does_not_scale_its_gradient():
    """A published bound shrinks with the factor by which the kernel is scaled: 1.476, where 3.9 is found."""
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.constant_(layer.weight, 1e-3)
    model = CHAIN(L.ClipNorm(1.0), layer, nn.Flatten())
    bound = sensitivity(model, (1, 16, 16), math.sqrt(2.0)).parameters["1.weight"]
    found = worst_gradients(model, (1, 16, 16), math.sqrt(2.0) * INSIDE, INSIDE, steps=30)["1.weight"]
    assert 3.9 < found <= bound < 1.001 * 3.0 * math.sqrt(2.0)


def test_reshaped_kernels_have_no_factor_that_certifies():
    """RKO: an orthonormal row of 9 taps, over the mean number of patches of a pixel. Its norm is above 1."""
    height, half = 16, 1
    factor = height / (3 * height - half * (half + 1))
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.constant_(layer.weight, factor / 3)
    true = float(torch.linalg.matrix_norm(operator_matrix(layer, (1, height, height)), 2))
    assert true == pytest.approx(1.020, abs=1e-3)
    layer = layer.float()
    rows = sensitivity(CHAIN(layer), (1, height, height), 1.0, input_bound=1.0).rows
    assert rows[0].cotangent_in >= true
    project(layer, "orthonormal")
    assert 0.9 < float(torch.linalg.matrix_norm(operator_matrix(layer, (1, height, height)), 2)) <= 1.0


def test_the_bias_of_a_feature_map_is_added_at_every_pixel():
    """Published as 1.414 whatever the size; sqrt(4 8) sqrt(2) = 8.0 is attained on 4 x 8 pixels."""
    model = CHAIN(L.ClipNorm(1.0), nn.Conv2d(1, 1, 1), nn.Flatten())
    bound = sensitivity(model, (1, 4, 8), math.sqrt(2.0)).parameters["1.bias"]
    cotangent = torch.full((1, 32), math.sqrt(2.0 / 32.0))
    (gradient,) = torch.autograd.grad(model(torch.zeros(1, 1, 4, 8)), model[1].bias, cotangent)
    assert float(gradient) == pytest.approx(8.0)
    assert float(gradient) <= bound < 8.01


def test_centring_over_the_batch_couples_samples_and_over_the_sample_does_not():
    torch.manual_seed(0)
    x, other, linear = torch.randn(2, 6), torch.randn(2, 6), nn.Linear(6, 3)
    other[0] = x[0]
    for centre, coupled in ((L.MeanShift(6), True), (nn.BatchNorm1d(6), True), (L.CentreSample(), False)):
        gradients = []
        for batch in (x, other):
            outputs = linear(centre(batch))
            gradients.append(torch.autograd.grad(outputs[0].sum(), linear.weight)[0])
        assert torch.equal(*gradients) != coupled
        model = CHAIN(L.ClipNorm(1.0), centre, linear)
        if coupled:
            with pytest.raises(ValueError, match="depend on one another"):
                sensitivity(model, (6,), 1.0)
        else:
            assert sensitivity(model, (6,), 1.0).parameters
