"""Sorts and activations against plain Python."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lablib.ops.activations import householder, leaky
from lablib.ops.sorting import full_sort, group_sort, max_min


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
def test_group_sort_against_python(groups, size, batch):
    x = torch.randn(batch, groups * size)
    expected = [
        [v for g in range(groups) for v in sorted(row[g * size : (g + 1) * size])] for row in x.tolist()
    ]
    assert torch.equal(group_sort(x, size), torch.tensor(expected).reshape(x.shape))


@pytest.mark.parametrize("shape", [(8,), (3, 8), (3, 8, 2), (3, 8, 2, 2)])
def test_every_rank_sorts_the_channels(shape):
    x = torch.randn(shape)
    axis = min(1, len(shape) - 1)
    moved = x.movedim(axis, -1)
    for size in (1, 2, 4, 8):
        expected = moved.unflatten(-1, (-1, size)).sort(-1).values.flatten(-2).movedim(-1, axis)
        assert torch.equal(group_sort(x, size), expected)
        assert torch.equal(group_sort(x, size, dim=axis - len(shape)), expected)
    assert torch.equal(max_min(x), group_sort(x, 2))
    assert torch.equal(full_sort(x), group_sort(x, 8))


def test_nan_stays():
    x = torch.tensor([[1.0, float("nan"), 3.0, 2.0]])
    for size in (2, 4):
        assert group_sort(x, size).isnan().any()


@pytest.mark.parametrize(
    ("size", "message"), [(3, "does not divide"), (0, "does not divide"), (-2, "does not divide")]
)
def test_bad_sizes(size, message):
    with pytest.raises(ValueError, match=message):
        group_sort(torch.ones(2, 8), size)
    with pytest.raises(ValueError, match="scalar"):
        full_sort(torch.tensor(1.0))
    with pytest.raises(ValueError, match="not an axis"):
        full_sort(torch.ones(2), dim=3)


def test_householder_is_max_min_at_a_right_angle():
    x = torch.randn(5, 6)
    made = householder(x, torch.full((3,), math.pi / 2))
    expected = max_min(x).unflatten(1, (3, 2)).flip(2).flatten(1)
    assert torch.allclose(made, expected, atol=1e-6)


def test_householder_keeps_norms_and_is_continuous():
    angle = torch.rand(2, dtype=torch.float64) * 6
    x = torch.randn(200, 4, dtype=torch.float64)
    assert torch.allclose(householder(x, angle).norm(dim=1), x.norm(dim=1))
    on_line = torch.stack([(angle / 2).cos(), (angle / 2).sin()], 1).flatten()[None]
    near = on_line + 1e-9 * torch.randn(50, 4, dtype=torch.float64)
    assert (householder(near, angle) - householder(on_line, angle)).abs().max() < 1e-8


def test_householder_refuses_to_broadcast():
    with pytest.raises(ValueError, match="angles"):
        householder(torch.ones(2, 4), torch.ones(1))
    with pytest.raises(ValueError, match="angles"):
        householder(torch.ones(2, 5), torch.ones(2))


def test_householder_is_not_lipschitz_in_linf():
    """|cos t| + |sin t| = sqrt(2) at t = pi/4: the layer claims l2 only."""
    j = torch.func.jacrev(lambda v: householder(v, torch.tensor([math.pi / 4])))(torch.tensor([-1.0, 1.0]))
    assert abs(j.abs().sum(1).max().item() - math.sqrt(2)) < 1e-6


def test_leaky_per_channel():
    x = -torch.ones(2, 3, 2)
    assert torch.equal(leaky(x, torch.tensor([0.0, 0.5, -1.0]))[0, :, 0], torch.tensor([0.0, -0.5, 1.0]))
    with pytest.raises(ValueError, match="channels"):
        leaky(torch.ones(2, 4), torch.ones(3))
