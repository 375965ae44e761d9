"""Rows of l1 norm at most 1, in exact arithmetic, for the weights as stored."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lablib.ops.projections import project_rows_l1, scale_groups

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def exact_rows(weight):
    return [sum(abs(Fraction(v)) for v in row) for row in weight.double().tolist()]


def adversarial(columns):
    """Rows that rounding treats badly: equal entries, thirds, just above 1, huge, tiny and mixed
    magnitudes.
    """
    spread = torch.logspace(-30, 30, columns)
    return torch.stack(
        [
            torch.full((columns,), 1.0 / columns),
            torch.full((columns,), 1.0 / 3.0),
            torch.nextafter(torch.full((columns,), 1.0 / columns), torch.tensor(1.0)),
            torch.randn(columns),
            torch.randn(columns) * 3e37,
            torch.full((columns,), 1e-40),
            spread,
            -spread.flip(0),
            torch.rand(columns) / columns * 2.0000001,
        ]
    )


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 100, 784, 4096])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("project", [lambda w: scale_groups(w, 1), project_rows_l1], ids=["scale", "project"])
def test_exact_row_sums_are_at_most_one(columns, dtype, project):
    weight = adversarial(columns).to(dtype)
    weight = weight[weight.isfinite().all(1)]
    made = project(weight)
    assert made.dtype == dtype
    assert max(exact_rows(made)) <= 1
    # ... and not much below where the row was outside: the margin is a few roundings.
    outside = [i for i, total in enumerate(exact_rows(weight)) if total > 2]
    assert all(
        exact_rows(made)[i] > 1 - 4 * (columns + 10) * Fraction(torch.finfo(dtype).eps) for i in outside
    )


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=40))
def test_any_float32_row(row):
    assert exact_rows(scale_groups(torch.tensor([row]), 1))[0] <= 1
    assert exact_rows(project_rows_l1(torch.tensor([row])))[0] <= 1


def test_rows_inside_are_left_alone():
    weight = torch.tensor([[0.25, -0.5], [0.0, 0.0]])
    assert torch.equal(scale_groups(weight, 1), weight)
    assert torch.equal(project_rows_l1(weight), weight)


def slow_projection(v):
    """Bisection on theta, in float64."""
    low, high = 0.0, v.abs().max().item()
    if v.abs().sum() <= 1:
        return v
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (v.abs() - middle).clamp(min=0).sum() > 1 else (low, middle)
    return v.sign() * (v.abs() - high).clamp(min=0)


def test_projection_is_the_nearest_point():
    for columns in (1, 2, 5, 50):
        weight = torch.randn(20, columns, dtype=torch.float64) * torch.rand(20, 1, dtype=torch.float64) * 4
        expected = torch.stack([slow_projection(row) for row in weight])
        assert torch.allclose(project_rows_l1(weight), expected, atol=1e-12)


def test_gradients_are_finite_and_right():
    for project in (lambda w: scale_groups(w, 1), project_rows_l1):
        weight = torch.zeros(2, 3, requires_grad=True)
        project(weight).sum().backward()
        assert weight.grad.isfinite().all()
        inner = torch.tensor([[2.0, -0.7, 0.1], [0.1, 0.2, 0.3]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(project, inner)


def test_columns_and_kernels_and_nan():
    weight = torch.randn(6, 4) * 3
    assert max(exact_rows(scale_groups(weight, 0).T)) <= 1
    kernel = scale_groups(torch.randn(3, 2, 3, 3), (1, 2, 3))
    assert max(exact_rows(kernel.flatten(1))) <= 1
    poisoned = torch.ones(2, 3)
    poisoned[0, 1] = float("nan")
    assert scale_groups(poisoned, 1)[0].isnan().all()
    assert scale_groups(poisoned, 1)[1].isfinite().all()
    assert project_rows_l1(torch.zeros(0, 3)).shape == (0, 3)
