"""Figures of private training: what they draw is what they were given."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from lablib.experiments.live_epsilon import EpsilonCurves
from lablib.plots import private_training as plots


def test_the_shaded_area_is_delta():
    sigma, epsilon = 1.5, 0.8
    axes = plots.draw_mechanism(sigma, epsilon).axes[0]
    without, with_it, raised = (line.get_ydata() for line in axes.lines)
    at = axes.lines[0].get_xdata()
    assert np.allclose(raised, math.exp(epsilon) * without)
    shaded = np.trapezoid(np.maximum(with_it - raised, 0), at)
    mu = 1 / sigma  # Balle and Wang, ICML 2018, Theorem 8
    delta = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    assert shaded == pytest.approx(delta, abs=2e-3)


def test_epsilon_has_a_line_for_each_accountant_and_a_mark_for_prv():
    steps, values = np.array([1, 50, 100]), np.array([0.2, 0.9, 1.3])
    pairs = np.array([1.0, 1.3, 1.6]), np.array([1e-4, 1e-5, 1e-6])
    found = EpsilonCurves({"RDP": (steps, values)}, {"RDP": pairs}, {"RDP": 1.3, "PRV": 1.1}, 1.0)
    left, right = plots.draw_epsilon(found, 1e-5).axes
    assert np.array_equal(left.lines[0].get_ydata(), values)
    assert left.lines[1].get_xydata().tolist() == [[100, 1.1]]
    assert right.get_yscale() == "log"
    assert left.get_ylabel() == "ε at δ = 10⁻⁵"
    assert plots.power_of_ten(0.002) == "δ = 0.002"


def test_noise_is_stacked_in_percent_of_the_first():
    noise = {"global": {"a": 30.0, "b": 70.0}, "balanced": {"a": 20.0, "b": 20.0}}
    axes = plots.draw_noise(noise).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([30, 20, 70, 20])
    assert [text.get_text().strip() for text in axes.texts] == ["100 %", "40 %"]


def test_a_run_shows_its_target():
    history = [{"step": 10, "epsilon": 0.5, "accuracy": 0.4}, {"step": 20, "epsilon": 0.8, "accuracy": 0.6}]
    left, right = plots.draw_run(history, target=1.0).axes
    assert left.lines[0].get_ydata().tolist() == [40, 60]
    assert len(right.lines) == 2
    assert len(plots.draw_run(history).axes[1].lines) == 1


def test_refusals():
    with pytest.raises(ValueError, match="no strategy"):
        plots.draw_noise({})
    with pytest.raises(ValueError, match="not reported"):
        plots.draw_run([])
