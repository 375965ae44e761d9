"""Targets of one-dimensional fitting: slopes, means, and broken lines."""

import numpy as np
import pytest

from lablib.theory.spline_targets import TARGETS, BrokenLine, make_target, random_broken_line, sample


@pytest.mark.parametrize("name", TARGETS)
def test_targets_have_mean_zero_and_slopes_of_at_most_one(name):
    target = make_target(name)
    x = np.linspace(-1, 1, 20_001)
    y = target(x)
    assert np.abs(np.diff(y) / np.diff(x)).max() <= 1 + 1e-9
    assert abs((y[1:] + y[:-1]).mean()) < 1e-4


def test_slopes_are_those_asked_for_and_switch_every_time():
    for name, allowed in (("f1", {-1.0, 1.0}), ("f2", {-1.0, 0.0, 1.0})):
        for seed in range(20):
            slopes = np.round(make_target(name, switches=9, seed=seed).slopes, 9)
            assert len(slopes) == 10
            assert set(slopes) <= allowed
            assert (np.diff(slopes) != 0).all()


def test_a_broken_line_interpolates_and_goes_on_outside():
    line = BrokenLine([0.0, 1.0, 3.0], [0.0, 2.0, 1.0])
    assert line(np.array([-1.0, 0.5, 1.0, 2.0, 5.0])).tolist() == [-2.0, 1.0, 2.0, 1.5, 0.0]
    assert line.second_variation == 2.5


def test_samples_are_sorted_and_noisy_as_asked():
    rng = np.random.default_rng(0)
    x, y = sample(make_target("f3"), 4000, rng, noise=0.1)
    assert (np.diff(x) >= 0).all()
    assert np.std(y - make_target("f3")(x)) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    "call",
    [
        lambda: make_target("f4"),
        lambda: BrokenLine([0.0, 0.0], [1.0, 1.0]),
        lambda: BrokenLine([0.0, np.nan], [1.0, 1.0]),
        lambda: BrokenLine([0.0], [1.0]),
        lambda: random_broken_line((1.0,), 3, np.random.default_rng(0)),
        lambda: random_broken_line((), 0, np.random.default_rng(0)),
        lambda: sample(make_target("f3"), 0, np.random.default_rng(0)),
        lambda: sample(make_target("f3"), 3, np.random.default_rng(0), noise=-1.0),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError, match=r"[a-z]"):
        call()
