"""Small live fits: what they promise about slopes, knots and penalties."""

import numpy as np
import pytest

from lablib.experiments.live_fitting import build, fit
from lablib.layers import total_variation
from lablib.theory.spline_targets import make_target


@pytest.mark.parametrize(
    ("activation", "norm"), [("spline", "linf"), ("groupsort", "l2"), ("householder", "l2")]
)
def test_a_fit_learns_and_keeps_its_constant(activation, norm):
    target = make_target("f1")
    before, after = (fit(target, activation=activation, norm=norm, steps=steps) for steps in (1, 40))
    assert after.mse < before.mse
    assert after.lipschitz == 1.0
    assert after.step == 40
    at = np.linspace(-1, 1, 301)
    values, slopes = after.evaluate(at)
    assert np.abs(slopes).max() <= 1 + 1e-9
    assert np.abs(np.diff(values)).max() <= (at[1] - at[0]) * (1 + 1e-9)
    assert (after.knots is None) == (activation != "spline")


def test_the_price_lowers_the_variation():
    free, priced = (
        fit(make_target("f2"), activation="spline", steps=30, weight=weight) for weight in (0.0, 1e-3)
    )
    assert total_variation(priced.model) < total_variation(free.model)


def test_interrupts():
    def stop(_made):
        raise KeyboardInterrupt

    options = {"activation": "abs", "steps": 100_000, "on_progress": stop}
    assert 0 < fit(make_target("f3"), keep_on_interrupt=True, **options).step < 100_000
    with pytest.raises(KeyboardInterrupt):
        fit(make_target("f3"), **options)


def test_refusals():
    with pytest.raises(ValueError, match="no norm"):
        build("abs", "l1")
    with pytest.raises(ValueError, match="at least 0"):
        fit(make_target("f1"), activation="abs", weight=-1.0)
