"""The PTX of the high powers, run instruction by instruction in float32 here, where no device can run it."""

import itertools
import math
import re

import numpy as np
import pytest

from lablib.ops.linf_dist import triton_near

# a device computes also what the predicate then throws away, and says nothing about it
pytestmark = pytest.mark.filterwarnings(
    "ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning"
)
BINARY = {
    "add.f32": lambda a, b: a + b,
    "mul.f32": lambda a, b: a * b,
    "copysign.f32": lambda a, b: math.copysign(b, a),
    "setp.geu.f32": lambda a, b: not a < b,
}
UNARY = {
    "mov.f32": lambda a: a,
    "abs.f32": abs,
    "rcp.approx.ftz.f32": lambda a: np.float32(1) / a,
    "lg2.approx.ftz.f32": np.log2,
    "ex2.approx.ftz.f32": np.exp2,
}


def execute(code, operands, outputs):
    """Return the values of $0 ... after the code; a KeyError says that one is read before it is written."""
    values = {f"${outputs + n}": np.float32(value) for n, value in enumerate(operands)}
    lines = [line.strip() for line in code.strip().strip("{}").split("\n") if line.strip()]
    assert lines[0] == ".reg .pred any, near;"
    assert lines[1] == ".reg .f32 size, ratio;"
    assert lines[-1] == "skipped:"
    for line in lines[2:-1]:
        guard, operation, names = re.fullmatch(r"(?:@(!?\w+) )?(\S+) (.*);", line).groups()
        if guard and values[guard.strip("!")] == guard.startswith("!"):
            continue
        names = names.split(", ")
        if operation == "bra":
            assert names == ["skipped"]
            break
        read = [np.float32(0) if n == "0f00000000" else values[n] for n in names[1:]]
        if operation == "setp.geu.or.f32":
            made = bool(not read[0] < read[1] or read[2])
        else:
            made = (UNARY if len(read) == 1 else BINARY)[operation](*read)
        values[names[0]] = made if isinstance(made, bool | np.bool_) else np.float32(made)
    return np.array([values[f"${n}"] for n in range(outputs)])


def rows(function, *columns):
    return np.array([function(*row) for row in zip(*columns)])


@pytest.mark.parametrize("near", list(itertools.product([False, True], repeat=4)))
def test_both_codes(near):
    exponent, floor = 300.0, triton_near.floor_of(300.0)
    rng = np.random.default_rng(0)
    limit = rng.uniform(1, 2, 4) * floor
    ratio = np.where(near, rng.uniform(0.99, 1.0, 4), rng.uniform(0, floor, 4))
    d = ratio * limit / floor * np.array([1, -1, -1, 1])
    before, slope = rng.uniform(0, 2, 4), rng.normal(size=4)
    power = np.where(near, ratio**exponent, 0)
    scalars = [exponent] * 4 + [floor] * 4
    total = execute(triton_near._sum_code(), [*before, *d, *limit, *scalars], 4)
    assert np.allclose(total, before + power, atol=1e-4)
    made = execute(triton_near._gradient_code(), [*before, *d, *limit, *slope, *scalars], 8)
    c = slope * np.sign(d) * power
    assert np.allclose(made[:4], before + c, atol=1e-4)
    assert np.allclose(made[4:], c, atol=1e-4)


def test_nan_zero_and_infinite_limits():
    scalars = [300.0] * 4 + [triton_near.floor_of(300.0)] * 4
    d, limit = [math.nan, 0.0, 1.0, 0.0], [1.0, math.nan, math.inf, math.inf]
    total = execute(triton_near._sum_code(), [0.5] * 4 + d + limit + scalars, 4)
    assert np.isnan(total[:2]).all()
    assert total[2:].tolist() == [0.5, 0.5]
    made = execute(triton_near._gradient_code(), [0.5] * 4 + d + limit + [2.0] * 4 + scalars, 8)
    assert np.isnan(made[[0, 1, 4, 5]]).all()
    assert made[[2, 3, 6, 7]].tolist() == [0.5, 0.5, 0.0, 0.0]
