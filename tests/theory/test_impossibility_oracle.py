"""The oracle against brute force: compiled and NumPy, float32 and int64, ties, limits and odd sizes."""

import numpy as np
import pytest

from lablib.theory.impossibility.oracle import nearest, nearest_linf, weigh


@pytest.fixture(params=[False, True], ids=["numpy", "numba"])
def compiled(request):
    if request.param:
        pytest.importorskip("numba")
    return request.param


def brute(a, b):
    return np.abs(a[:, None, :].astype(np.float64) - b[None].astype(np.float64))


@pytest.mark.parametrize(("m", "n", "d"), [(1, 1, 1), (3, 70, 5), (70, 3, 16), (65, 129, 33), (300, 400, 40)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_nearest(compiled, m, n, d, dtype):
    random = np.random.default_rng(m + n)
    x, y = random.integers(0, 256, (m, d)), random.integers(0, 256, (n, d))
    weights = (random.integers(0, 5, d) * (random.random(d) < 0.7)).astype(dtype)
    order = np.flatnonzero(weights)
    a, b = weigh(x, weights, order), weigh(y, weights, order)
    assert a.dtype == dtype
    assert a.shape[1] % 16 == 0
    distance = (brute(x, y) * weights).sum(axis=2)
    far = distance.max() + 1
    a_value, a_index, b_value, b_index = nearest(a, b, far, compiled=compiled)
    assert np.array_equal(a_value, distance.min(axis=1))  # integers: exact in float32 as well
    assert np.array_equal(b_value, distance.min(axis=0))
    assert np.array_equal(distance[np.arange(m), a_index], a_value)
    assert np.array_equal(distance[b_index, np.arange(n)], b_value)
    limit = np.quantile(distance, 0.3).astype(int)
    a_value, a_index, b_value, b_index = nearest(a, b, limit, compiled=compiled)
    assert np.array_equal(a_index >= 0, distance.min(axis=1) < limit)
    assert np.array_equal(b_index >= 0, distance.min(axis=0) < limit)
    assert np.array_equal(a_value, np.minimum(distance.min(axis=1), limit))
    assert np.array_equal(b_value, np.minimum(distance.min(axis=0), limit))


@pytest.mark.parametrize(("m", "n", "d"), [(1, 1, 1), (5, 130, 7), (200, 90, 40)])
def test_nearest_linf(compiled, m, n, d):
    random = np.random.default_rng(m)
    x, y = random.integers(0, 1 << 24, (m, d)), random.integers(0, 1 << 24, (n, d))
    ones, order = np.ones(d, dtype=np.float32), np.arange(d)[::-1]
    value, i, k = nearest_linf(weigh(x, ones, order), weigh(y, ones, order), compiled=compiled)
    distance = brute(x, y).max(axis=2)
    assert value == distance.min() == distance[i, k]


def test_the_two_ways_agree_on_real_weights():
    pytest.importorskip("numba")
    random = np.random.default_rng(0)
    a, b = (random.random((500, 48)).astype(np.float32) for _ in range(2))
    fast, slow = (nearest(a, b, 1e30, compiled=flag) for flag in (True, False))
    np.testing.assert_allclose(fast[0], slow[0], rtol=1e-5)
    np.testing.assert_allclose(fast[2], slow[2], rtol=1e-5)


def test_no_coordinate_with_budget():
    a = weigh(np.ones((3, 4)), np.zeros(4, dtype=np.float32), np.arange(0))
    assert nearest(a, a, 1.0)[0].tolist() == [0, 0, 0]
