"""Activations by name: the functions they start as, options that only one of them takes, refusals."""

import pytest
import torch

from lablib.experiments.activation_zoo import ACTIVATIONS, make_activation
from lablib.layers import LearnableSpline, guarantee


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_1_lipschitz_in_l2_for_one_call(name):
    layer = make_activation(name, 10, group_size=5, knots=101, range=0.5, init="relu")
    norms, constant = guarantee(layer)
    assert "l2" in norms
    assert constant == 1.0
    for shape in ((3, 10), (3, 10, 4, 4)):
        x = torch.randn(shape)
        y = layer(x)
        assert y.shape == shape
        if name in ("relu", "spline"):
            assert torch.allclose(y, x.relu(), atol=1e-3)
        if name == "abs":
            assert torch.equal(y, x.abs())
        if name == "groupsort":
            assert torch.equal(y, x.unflatten(1, (2, 5)).sort(2).values.flatten(1, 2))


def test_options_reach_the_layers():
    layer = make_activation("spline", 4, knots=51, range=0.1, slopes=(0.0, 1.0), scaling=False, dim=-1)
    assert isinstance(layer, LearnableSpline)
    assert (layer.knots, layer.range, layer.slopes, layer.scaling, layer.dim) == (
        51,
        0.1,
        (0.0, 1.0),
        False,
        -1,
    )
    assert make_activation("prelu", 4).slope.shape == (4,)
    assert make_activation("groupsort", 4).size == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gelu", 4, {}), "choose from relu"),
        (("relu", 4, {"knobs": 5}), "no option knobs; a spline takes init, knots"),
        (("groupsort", 4, {"group_size": 3}), "does not divide"),
        (("householder", 3, {}), "even"),
        (("spline", 3, {"knots": 1}), "knots >= 2"),
    ],
    ids=str,
)
def test_refusals(arguments, message):
    name, channels, options = arguments
    with pytest.raises(ValueError, match=message):
        make_activation(name, channels, **options)
