"""The live fit: it trains, shows what it trained, and forgets when the target changes."""

import numpy as np
import pytest

from lablib.experiments.live_fitting import fit
from lablib.explore.live_fit import AT, LiveFitExplorer
from lablib.theory.spline_targets import make_target

TARGETS = {name: make_target(name) for name in ("f1", "f3")}
ACTIVATIONS = {
    "abs": ("absolute value", ("l2", "linf")),
    "householder": ("Householder", ("l2",)),
    "spline": ("learned spline", ("l2", "linf")),
}


@pytest.fixture
def explorer():
    made = LiveFitExplorer(fit, TARGETS, ACTIVATIONS)
    made.steps.min, made.steps.value = 5, 5
    return made


def test_training_shows_fit_slopes_and_error(explorer):
    explorer.train()
    values, slopes = explorer.made.evaluate(AT)
    assert np.array_equal(explorer.figure.data[1].y, values)
    assert np.array_equal(explorer.figure.data[3].y, slopes)
    assert np.abs(slopes).max() <= 1 + 1e-9
    assert explorer.errors == {"learned spline": explorer.made.mse}
    assert "spline knots bend" in explorer.readout.value
    explorer.activation.value = "abs"
    explorer.norm.value = "linf"
    explorer.train()
    assert list(explorer.errors) == ["learned spline", "absolute value"]
    shown = dict(zip(explorer.figure.data[4].y, explorer.figure.data[4].x, strict=True))
    assert shown == {"Householder": None} | explorer.errors


def test_another_target_forgets(explorer):
    explorer.train()
    explorer.target.value = "f3"
    assert explorer.made is None
    assert explorer.errors == {}
    assert np.array_equal(explorer.figure.data[0].y, TARGETS["f3"](AT))


def test_norms_follow_the_activation(explorer):
    explorer.norm.value = "linf"
    explorer.activation.value = "householder"
    assert (explorer.norm.options, explorer.norm.value) == (("l2",), "l2")


def test_refusals_and_interrupts_are_told(explorer):
    def refuse(*_args, **_options):
        raise ValueError("no such thing; try another")

    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    explorer._fit = refuse
    explorer.train()
    assert explorer.status.value == "no such thing; try another"
    explorer._fit = interrupt
    explorer.train()
    assert explorer.status.value == "stopped"
    assert not explorer.button.disabled
    with pytest.raises(ValueError, match="at least one"):
        LiveFitExplorer(fit, {}, ACTIVATIONS)
