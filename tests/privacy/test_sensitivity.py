"""The rules against written-out operators, the table, and everything that is refused with a reason."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lablib import layers as L
from lablib.privacy import ClipCotangent, Residual, project, sensitivity
from lablib.privacy.windows import Windows


def jacobian(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The Jacobian of ``layer`` at one sample, as a matrix."""
    y = torch.func.jacrev(lambda v: layer(v[None])[0].flatten())(x)
    return y.reshape(y.shape[0], -1)


def only(layer: nn.Module, shape: tuple[int, ...], **options):
    """The row of the one layer of a module."""
    return sensitivity(nn.Sequential(layer), shape, 1.0, input_bound=1.0, **options).rows[-1]


POOLS = [
    (nn.AvgPool2d(2), (1, 8, 6)),
    (nn.AvgPool2d(3, 2, padding=1), (1, 9, 7)),
    (nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), (1, 6, 6)),
    (nn.AvgPool2d(3, 2, ceil_mode=True), (1, 8, 8)),
    (nn.AvgPool2d((2, 3), (1, 2), padding=(1, 0), ceil_mode=True, count_include_pad=False), (2, 6, 7)),
    (nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), (1, 6, 9)),
    (nn.AvgPool2d(2, divisor_override=3), (1, 6, 6)),
]


@pytest.mark.parametrize("number", range(len(POOLS)))
def test_average_pooling_has_the_norm_of_its_matrix(number):
    pool, shape = POOLS[number]
    matrix = jacobian(pool, torch.zeros(shape, dtype=torch.float64))
    true = float(torch.linalg.matrix_norm(matrix, 2))
    row = only(pool, shape)
    assert true <= row.cotangent_in <= true * (1 + 1e-5)
    assert true <= row.output_norm <= true * (1 + 1e-5)


@pytest.mark.parametrize(
    ("pool", "shape", "count"),
    [
        (nn.MaxPool2d(2), (1, 6, 6), 1),
        (nn.MaxPool2d(3, 1), (1, 6, 6), 9),
        (nn.MaxPool2d(3, 2, padding=1), (1, 7, 7), 4),
        (nn.MaxPool2d(3, 2, ceil_mode=True), (1, 6, 6), 4),
        (nn.MaxPool2d(2, 1, dilation=2), (1, 5, 5), 4),
        (nn.MaxPool2d(3, 1), (1, 4, 3), 2),
    ],
    ids=range(6),
)
def test_a_pixel_is_the_maximum_of_as_many_windows_as_read_it(pool, shape, count):
    row = only(pool, shape)
    assert row.cotangent_in == pytest.approx(math.sqrt(count), rel=1e-5)
    best = 0
    for place in range(math.prod(shape)):
        x = torch.zeros(math.prod(shape))
        x[place] = 1.0
        y = pool(x.reshape(1, *shape))
        best = max(best, int(y.sum()))
        assert float(y.norm()) <= row.output_norm
        cotangent = torch.autograd.functional.vjp(
            lambda v: pool(v.reshape(1, *shape)), x, torch.ones_like(y)
        )[1]
        assert float(cotangent.norm()) <= row.cotangent_in * float(y.numel()) ** 0.5
    assert best == count


def test_windows_are_torch_s():
    for kernel, stride, padding, ceil_mode in (
        (2, 2, 0, False),
        (3, 2, 1, True),
        (3, 2, 0, True),
        (4, 3, 2, True),
    ):
        for size in range(3, 12):
            pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode)
            windows = Windows(size, kernel, stride, padding, padding, 1, ceil_mode)
            assert windows.count == pool(torch.zeros(1, 1, size, size)).shape[-1]


@pytest.mark.parametrize("padding", ["same", "valid", 0, (1, 2)])
def test_shapes_of_convolutions_are_torch_s(padding):
    conv = nn.Conv2d(2, 3, (3, 5), padding=padding)
    linear = nn.Linear(conv(torch.zeros(1, 2, 9, 8)).numel(), 1)
    assert sensitivity(nn.Sequential(conv, nn.Flatten(), linear), (2, 9, 8), 1.0, input_bound=1.0).total > 0


def test_formulas_of_dense_layers():
    torch.manual_seed(0)
    model = nn.Sequential(L.ClipNorm(2.0), nn.Linear(6, 4), L.Abs(), nn.Linear(4, 3))
    bounds = sensitivity(model, (6,), 0.5)
    first, second = (float(torch.linalg.matrix_norm(model[i].weight.detach().double(), 2)) for i in (1, 3))
    features = 2.0 * first + float(model[1].bias.detach().norm())
    expected = {
        "1.weight": 2.0 * 0.5 * second,
        "1.bias": 0.5 * second,
        "3.weight": 0.5 * features,
        "3.bias": 0.5,
    }
    assert bounds.parameters == pytest.approx(expected, rel=1e-4)
    assert bounds.total == pytest.approx(math.hypot(*expected.values()), rel=1e-4)
    assert bounds.total >= math.hypot(*bounds.parameters.values())
    assert [row.kind for row in bounds.rows] == ["ClipNorm", "Linear", "Abs", "Linear"]
    table = bounds.table()
    assert table.splitlines()[0].startswith("layer")
    assert all(word in table for word in ("3", "weight", "ClipNorm"))


def test_float32_needs_a_larger_bound_than_float64():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 40), nn.Linear(40, 3))
    low = sensitivity(model, (50,), 1.0, input_bound=1.0)
    high = sensitivity(model.double(), (50,), 1.0, input_bound=1.0)
    assert all(low.parameters[name] > high.parameters[name] for name in high.parameters)


def test_clipping_a_cotangent_caps_everything_below():
    linear = [nn.Linear(4, 4, bias=False) for _ in range(2)]
    model = nn.Sequential(L.ClipNorm(1.0), linear[0], ClipCotangent(0.01), L.Scale(50.0), linear[1])
    norms = project(model, "orthonormal")
    bounds = sensitivity(model, (4,), 1.0, norms=norms)
    assert bounds.parameters["1.weight"] == pytest.approx(0.01, rel=1e-3)
    x = torch.randn(3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        ClipCotangent(0.5)(x), x, torch.tensor([[9.0] * 4, [0.1] * 4, [torch.nan] * 4])
    )
    assert torch.allclose(gradient.norm(dim=1), torch.tensor([0.5, 0.2, 0.0]))


def test_residuals_split_cotangents():
    torch.manual_seed(0)
    block = Residual(nn.Linear(4, 4, bias=False), 0.25)
    model = nn.Sequential(L.ClipNorm(1.0), block, block.branch.__class__(4, 2, bias=False))
    bounds = sensitivity(model, (4,), 1.0, norms=project(model, "orthonormal"))
    assert bounds.parameters["1.branch.weight"] == pytest.approx(0.25, rel=1e-3)
    assert bounds.rows[1].cotangent_in == pytest.approx(1.0, rel=1e-3)
    x = torch.randn(5, 4)
    assert torch.allclose(block(x), 0.75 * x + 0.25 * block.branch(x))


def test_known_norms_are_taken_and_frozen_layers_have_no_sensitivity():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    doubled = sensitivity(model, (3,), 1.0, input_bound=1.0, norms={"2.weight": 7.0})
    assert doubled.parameters.keys() == {"2.weight", "2.bias"}
    assert doubled.rows[2].cotangent_in == pytest.approx(7.0, rel=1e-3)
    # a frozen first layer needs no bound if what follows is clipped
    model = nn.Sequential(nn.Linear(3, 3).requires_grad_(False), L.ClipNorm(1.0), nn.Linear(3, 2))
    assert sensitivity(model, (3,), 1.0).parameters.keys() == {"2.weight", "2.bias"}


class _Own(nn.Linear):
    def forward(self, x):
        return 5.0 * super().forward(x)


def _tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


def _twice() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


def _overlapping() -> nn.Module:
    shared, model = torch.randn(12), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].weight = nn.Parameter(shared[:9].view(3, 3))
    model[1].weight = nn.Parameter(shared[3:].view(3, 3))
    return model


def _hooked(register: str) -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3))
    if register == "parameter":
        model[0].weight.register_hook(lambda g: 9 * g)
    elif register == "accumulated":
        model[0].weight.register_post_accumulate_grad_hook(lambda p: None)
    else:
        getattr(model[0], register)(lambda *args: None)
    return model


def _filled(value: float) -> nn.Module:
    model = nn.Linear(3, 3)
    model.weight.data.fill_(value)
    return nn.Sequential(model)


def _replaced() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    model[1].forward = lambda x: 3 * x
    return model


def _extra() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3))
    model.register_parameter("spare", nn.Parameter(torch.ones(2)))
    return model


def _partly_eval() -> nn.Module:
    model = nn.Sequential(L.ClipNorm(1.0), nn.Linear(3, 3))
    model[0].eval()
    return model


REFUSED = {
    "unknown layer": (lambda: nn.Sequential(nn.GELU()), "GELU '0' has no known sensitivity"),
    "subclass": (lambda: nn.Sequential(_Own(3, 3)), "is a subclass"),
    "batch norm": (lambda: nn.Sequential(nn.BatchNorm1d(3)), "depend on one another"),
    "mean shift": (lambda: nn.Sequential(L.MeanShift(3)), "depend on one another"),
    "dropout": (lambda: nn.Sequential(nn.Dropout()), "at random"),
    "layer norm": (lambda: nn.Sequential(nn.LayerNorm(3)), "no bound"),
    "reparametrised": (lambda: nn.Sequential(L.OrthonormalLinear(3, 3)), "constraint"),
    "torch's own": (lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(3, 3))), "parametrization"),
    "weight norm": (lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3))), "parametrization"),
    "tied": (_tied, "shares numbers"),
    "twice": (_twice, "shares numbers"),
    "overlapping": (_overlapping, "shares numbers"),
    "forward hook": (lambda: _hooked("register_forward_hook"), "forward hook"),
    "backward hook": (lambda: _hooked("register_full_backward_hook"), "backward hook"),
    "backward pre-hook": (lambda: _hooked("register_full_backward_pre_hook"), "backward hook"),
    "parameter hook": (lambda: _hooked("parameter"), "has a hook"),
    "gradient hook": (lambda: _hooked("accumulated"), "has a hook"),
    "replaced forward": (_replaced, "replaced forward"),
    "spare parameter": (_extra, "no rule knows the trained parameter spare"),
    "one part in evaluation mode": (_partly_eval, "same mode"),
    "learned spline": (lambda: nn.Sequential(L.LearnableSpline(3)), "learned splines"),
    "learned slope": (lambda: nn.Sequential(L.PReLU(3)), "learns slopes"),
    "learned share": (
        lambda: nn.Sequential(L.ConvexResidual(L.Abs(), 0.5, learnable=True)),
        "learns its share",
    ),
    "NaN": (lambda: _filled(math.nan), "not finite"),
    "infinite": (lambda: _filled(math.inf), "not finite"),
    "half": (lambda: nn.Sequential(nn.Linear(3, 3)).half(), "float32 or all float64"),
    "mixed": (lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).double()), "float32 or all float64"),
    "complex": (lambda: nn.Sequential(nn.Linear(3, 3, dtype=torch.complex64)), "float32 or all float64"),
    "NaN slope": (lambda: nn.Sequential(nn.LeakyReLU(math.nan)), "not finite"),
    "overflow inside": (lambda: nn.Sequential(L.Scale(1e35), L.Scale(1e-35)), "grow beyond"),
    "sizes": (lambda: nn.Sequential(nn.Linear(4, 3)), "takes 4 features"),
    "images": (lambda: nn.Sequential(nn.Conv2d(1, 1, 3)), "takes images"),
    "batch axis": (lambda: nn.Sequential(nn.Flatten(0)), "may be the batch"),
    "growing branch": (lambda: nn.Sequential(Residual(nn.Linear(3, 4))), "changes the shape"),
    "overflow in the gradient of clipping": (
        lambda: nn.Sequential(*(L.Scale(1e25), L.ClipNorm(1.0)) * 2, nn.Linear(3, 3)),
        "grow beyond",
    ),
    "overflow": (lambda: nn.Sequential(*[L.Scale(1e30) for _ in range(4)]), "grow beyond"),
}


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: name.replace(" ", "-"))
def test_refused_with_a_reason(name):
    build, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        sensitivity(build(), (3,), 1.0, input_bound=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": ()}, "shape of one sample"),
        ({"input_shape": (0,)}, "shape of one sample"),
        ({"input_shape": (-3,)}, "shape of one sample"),
        ({"input_shape": 3}, "shape of one sample"),
        ({"loss_lipschitz": 0.0}, "Lipschitz constant of the loss"),
        ({"loss_lipschitz": math.inf}, "Lipschitz constant of the loss"),
        ({"loss_lipschitz": math.nan}, "Lipschitz constant of the loss"),
        ({"input_bound": -1.0}, "bound of the inputs"),
        ({"input_bound": math.inf}, "begin the module with ClipNorm"),
        ({"norms": {"weight": 1.0}}, "no parameter of the module"),
        ({"norms": {"0.weight": math.nan}}, "finite number"),
    ],
    ids=lambda value: None,
)
def test_bad_arguments_are_refused(options, message):
    arguments = {"input_shape": (3,), "loss_lipschitz": 1.0, "input_bound": 1.0, **options}
    shape, limit = arguments.pop("input_shape"), arguments.pop("loss_lipschitz")
    with pytest.raises(ValueError, match=message):
        sensitivity(nn.Sequential(nn.Linear(3, 3)), shape, limit, **arguments)


def test_images_that_do_not_fit_are_refused():
    for layer in (nn.Conv2d(1, 1, 5), nn.AvgPool2d(5)):
        with pytest.raises(ValueError, match="does not fit"):
            only(layer, (1, 3, 3))
    for options in ({"groups": 2}, {"dilation": 2}, {"padding_mode": "circular", "padding": 1}):
        with pytest.raises(ValueError, match="zero padding"):
            only(nn.Conv2d(2, 2, 3, **options), (2, 9, 9))
    with pytest.raises(ValueError, match="return_indices"):
        only(nn.MaxPool2d(2, return_indices=True), (1, 4, 4))
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        Residual(nn.Identity(), 1.5)
    with pytest.raises(ValueError, match="1e-30"):
        ClipCotangent(math.nan)


def test_nothing_but_clipping_bounds_an_unbounded_input():
    # tanh keeps NaN, and pooling may leave it out of the outputs, so that no loss would see it
    pooled = (nn.Conv2d(1, 2, 1), nn.AvgPool2d(1, stride=2), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="ClipNorm"):
        sensitivity(nn.Sequential(nn.Tanh(), *pooled), (1, 4, 4), 1.0)
    for share in (0.5, 1.0):  # the layer keeps share 0 of a NaN, which is NaN
        block = Residual(L.ClipNorm(1.0), share)
        with pytest.raises(ValueError, match="begin the module with ClipNorm"):
            sensitivity(nn.Sequential(block, nn.Linear(3, 3)), (3,), 1.0)
    bias = nn.Linear(3, 3)  # its gradient is that of what follows, and clipping NaN has none
    bias.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="begin the module with ClipNorm"):
        sensitivity(nn.Sequential(bias, L.ClipNorm(1.0), nn.Linear(3, 3)), (3,), 1.0)
    model = nn.Sequential(L.ClipNorm(9.0), nn.Tanh(), *pooled)
    assert sensitivity(model, (1, 4, 4), 1.0).rows[1].output_norm == pytest.approx(4.0, rel=1e-4)


def test_autocast_is_refused():
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="autocast"):
        only(nn.Linear(3, 3), (3,))


def test_a_layer_without_weights_may_come_twice():
    relu = nn.ReLU()
    model = nn.Sequential(L.ClipNorm(1.0), nn.Linear(3, 3), relu, nn.Linear(3, 3), relu)
    assert len(sensitivity(model, (3,), 1.0).rows) == 5
