"""Plug-and-play: operators against their matrices, averagedness, the rate, deepinv's iterates, resuming."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from lablib.experiments import imaging_problems, plug_and_play, plug_and_play_methods, unconstrained_denoiser
from lablib.experiments.deepinv_bridge import LipschitzDenoiser, import_deepinv
from lablib.experiments.denoiser import Architecture, build_denoiser
from lablib.experiments.plug_and_play_solver import (
    averaged_prior,
    compose_averaged,
    guaranteed_steps,
    rate_use,
    solve,
)
from lablib.experiments.plug_and_play_study import Config, crops, quality
from lablib.experiments.results import read_result
from lablib.layers import LipschitzSequential, MaxMin, OrthonormalConv2d

SIZE = 16
TINY = Config(
    "quick", SIZE, pictures=1, validation=1, angles=6, iterations=3000, free_iterations=5, plain_steps=1,
    activations=("relu", "spline"), sigmas=(5,), shares=(0.5, 0.2), tolerance=1e-3, tv=(1e-2,), tgv=(1e-1,),
)  # fmt: skip


@pytest.fixture(scope="module")
def problems():
    return {"tomography": imaging_problems.tomography(SIZE, 6), "mri": imaging_problems.mri(SIZE, 3)}


@pytest.fixture(scope="module")
def picture():
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    return torch.from_numpy((rows > columns) * 0.5 + 0.3 * rows).float()[None, None]


def _matrix(apply, shape):
    """The matrix of a linear map of (1, 1, S, S) or measurements, by columns."""
    columns = torch.eye(int(np.prod(shape))).reshape(-1, *shape)
    return torch.stack([apply(column[None])[0].flatten() for column in columns], 1).double()


def _network(channels=4):
    return LipschitzSequential(
        OrthonormalConv2d(1, channels, 3, padding=1), MaxMin(), OrthonormalConv2d(channels, 1, 3, padding=1)
    )


@pytest.mark.parametrize("name", ["tomography", "mri"])
def test_adjoint_and_norm_against_the_matrix(problems, picture, name):
    problem = problems[name]
    matrix = _matrix(problem.physics.A, (1, SIZE, SIZE))
    measured = problem.physics.A(picture)
    adjoint = _matrix(problem.physics.A_adjoint, measured.shape[1:])
    torch.testing.assert_close(adjoint, matrix.T, rtol=0, atol=1e-6)
    norm = float(torch.linalg.matrix_norm(matrix, 2)) ** 2
    lower, upper = problem.square_norm
    assert lower <= norm * (1 + 1e-6)
    assert norm <= upper * (1 + 1e-6)
    assert upper - lower < 0.01
    if name == "tomography":
        assert bool((matrix >= 0).all())  # what the bound rests on


def test_only_the_exact_adjoint_is_adjoint(problems):
    facts = problems["tomography"].facts
    assert facts["adjoint_error"] < 1e-5
    assert problems["mri"].facts["adjoint_error"] < 1e-5
    assert facts["fast_adjoint_error"] > 1e-3


def test_problems_refuse_sizes_that_mean_nothing():
    with pytest.raises(ValueError, match="one angle"):
        imaging_problems.tomography(16, 0)
    with pytest.raises(ValueError, match="smaller acceleration or a larger picture"):
        imaging_problems.mri(16, 16)
    with pytest.raises(ValueError, match="smaller acceleration or a larger picture"):
        imaging_problems.mri(8, 2)

    class Negative:
        @staticmethod
        def A(x):
            return -x

        @staticmethod
        def A_adjoint(y):
            return y

    with pytest.raises(ValueError, match="every pixel must be seen"):
        imaging_problems.bound_square_norm(Negative, 4)


def test_composition_of_averaged_operators():
    assert compose_averaged(0.5, 0.5) == pytest.approx(2 / 3)
    generator = torch.Generator().manual_seed(0)
    for first, second in ((0.5, 0.5), (0.2, 0.95), (0.9, 0.7)):
        alpha = compose_averaged(first, second)
        assert alpha == compose_averaged(second, first)
        assert max(first, second) < alpha < 1
        eye = torch.eye(6, dtype=torch.float64)
        for _ in range(20):
            turns = torch.linalg.qr(torch.randn(2, 6, 6, generator=generator, dtype=torch.float64))[0]
            both = ((1 - first) * eye + first * turns[0]) @ ((1 - second) * eye + second * turns[1])
            assert torch.linalg.matrix_norm((both - (1 - alpha) * eye) / alpha, 2) <= 1 + 1e-12
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        compose_averaged(0.5, 1.0)


@pytest.mark.parametrize("name", ["tomography", "mri"])
@pytest.mark.parametrize("step", [1.0, 1.9])
def test_constrained_runs_keep_the_guaranteed_rate(problems, picture, name, step):
    problem, share = problems[name], 0.5
    measured = imaging_problems.measure(problem, picture, 0.02, 0)
    prior = import_deepinv().optim.prior.PnP(denoiser=LipschitzDenoiser(_network(), share))
    solution = solve(problem, measured, prior, clean=picture, step=step, tolerance=1e-5, iterations=5000)
    assert solution.reached
    assert solution.residuals[-1] < 1e-5 <= solution.residuals[-2]
    alpha = compose_averaged(share, step / 2)
    assert np.all(np.diff(solution.steps) <= 1e-5)  # nonexpansive, up to float32
    assert 0 < rate_use(solution, alpha) <= 1
    assert (solution.steps**2).sum() <= alpha / (1 - alpha) * solution.distance**2


def test_guaranteed_steps_bound_their_own_sum():
    bound = guaranteed_steps(2 / 3, 3.0, 4)
    assert bound == pytest.approx(3.0 * np.sqrt(2 / np.array([1, 2, 3, 4])))


def test_deepinv_iterates_are_those_of_the_formula(problems, picture):
    problem, denoiser = problems["tomography"], LipschitzDenoiser(_network(), 0.3)
    measured = imaging_problems.measure(problem, picture, 0.02, 0)
    prior = import_deepinv().optim.prior.PnP(denoiser=denoiser)
    solution = solve(problem, measured, prior, clean=picture, step=1.5, tolerance=0.0, iterations=12)
    physics, gamma = problem.physics, 1.5 / problem.square_norm[1]
    x, steps = physics.A_adjoint(measured), []
    with torch.no_grad():
        for _ in range(12):
            before = x
            x = denoiser(x - gamma * physics.A_adjoint(physics.A(x) - measured))
            steps.append(float((x - before).norm()))
    torch.testing.assert_close(solution.picture, x)
    np.testing.assert_allclose(solution.steps, steps, rtol=1e-4)
    assert not solution.reached
    assert solution.distance == pytest.approx(float((x - physics.A_adjoint(measured)).norm()), rel=1e-5)


def test_overflow_is_no_convergence(problems, picture):
    measured = imaging_problems.measure(problems["mri"], picture, 0.0, 0)
    prior = averaged_prior(lambda x: 1e6 * x, 0.5)
    solution = solve(problems["mri"], measured, prior, clean=picture, step=1.0, tolerance=1e-5, iterations=30)
    assert not solution.reached
    assert quality(solution.picture, picture) == {"psnr": None, "ssim": None}


def test_steps_outside_the_range_are_refused(problems, picture):
    for step in (0.0, 2.0, float("nan")):
        with pytest.raises(ValueError, match="strictly between 0 and 2"):
            solve(
                problems["mri"], picture, None, clean=picture, step=step, tolerance=1e-5, iterations=1
            )  # fmt: skip


@pytest.mark.parametrize(
    "options", [{"iterations": 0}, {"tolerance": -1.0}, {"tolerance": float("nan")}], ids=str
)
def test_rules_that_cannot_stop_a_run_are_refused(problems, picture, options):
    rules = {"tolerance": 1e-5, "iterations": 1} | options
    with pytest.raises(ValueError, match="one iteration or more"):
        solve(problems["mri"], picture, None, clean=picture, step=1.0, **rules)


def test_crops_are_evenly_spaced_and_central():
    pictures = [np.full((20 + i, 30), i, np.uint8) for i in range(6)]
    assert [int(255 * crop.mean() + 0.5) for crop in crops(pictures, 3, 16)] == [1, 3, 5]
    centre = np.zeros((8, 9), np.uint8)
    centre[3:5, 3:5] = 255
    assert float(crops([centre], 1, 2)[0].min()) == 1.0
    with pytest.raises(ValueError, match="smaller size"):
        crops(pictures, 1, 64)
    with pytest.raises(ValueError, match="there are 6 pictures"):
        crops(pictures, 7, 16)


def test_plain_network_is_trained_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LABLIB_RUNS", str(tmp_path))
    monkeypatch.delenv("LABLIB_DATA", raising=False)
    monkeypatch.setenv("LABLIB_CACHE", str(tmp_path / "cache"))
    training = unconstrained_denoiser.Training(channels=4, hidden=2, steps=3, sigma=15, batch=2, patch=16)
    first = unconstrained_denoiser.load_plain(training, "quick")
    assert sum(isinstance(layer, nn.Conv2d) for layer in first) == 3
    monkeypatch.setattr(unconstrained_denoiser, "train_plain", lambda *args: pytest.fail("trained again"))
    again = unconstrained_denoiser.load_plain(training, "quick")
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(again(x), first(x))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        unconstrained_denoiser.load_plain(dataclasses.replace(training, steps=4), "quick")


def test_classical_methods_are_named():
    with pytest.raises(ValueError, match="tv, tgv"):
        plug_and_play_methods.classical("wavelet", (0.1,))


def test_recipe_resumes_and_draws(tmp_path, monkeypatch):
    for name in ("LABLIB_RUNS", "LABLIB_FIGURES", "LABLIB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("LABLIB_DATA", raising=False)

    def stub(activation, sigma, mode=None):
        torch.manual_seed(sigma)
        return build_denoiser(Architecture(activation, 4, 1)).eval()

    monkeypatch.setattr(plug_and_play, "load_denoiser", stub)
    monkeypatch.setattr(plug_and_play_methods, "load_denoiser", stub)
    real, done = plug_and_play.solve_method, []

    def stopping(method, problem, *args):
        if len(done) == 4:
            done.append("stop")
            raise KeyboardInterrupt
        done.append(f"{problem.name}/{method.name}")
        return real(method, problem, *args)

    monkeypatch.setattr(plug_and_play, "solve_method", stopping)
    recipe = dataclasses.replace(plug_and_play.RECIPE, sizes=dict.fromkeys(plug_and_play.RECIPE.sizes, TINY))
    with pytest.raises(KeyboardInterrupt):
        recipe.make("quick")
    recipe.make("quick")
    assert len(done) == len(set(done)) == 2 * len(TINY.methods) + 1  # nothing twice
    record = read_result("plug_and_play", "quick")
    for row in record["metrics"]["rows"]:
        kinds = ("chosen", "common") if row["method"] in (*TINY.activations, "unconstrained") else ("chosen",)
        assert {"chosen", "common"} & row.keys() == set(kinds)
        for kind in kinds:
            run = row[kind]["runs"][0]
            curve = record["arrays"][f"{row['problem']}/{row['method']}/{kind}/residuals/0"]
            assert len(curve) == run["iterations"]
            if row["method"] in TINY.activations:
                assert run["reached"]
                assert run["rate_use"] <= 1
    names = {
        "plug_and_play_residuals",
        "plug_and_play_quality",
        "plug_and_play_tomography",
        "plug_and_play_mri",
    }
    assert set(recipe.draw(record)) == names
