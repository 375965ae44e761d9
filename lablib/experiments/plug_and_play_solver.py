r"""Plug-and-play forward-backward splitting with a denoiser that is averaged, and the rate that is then guaranteed.

With f(x) = ||A x - y||^2 / 2 and a denoiser T the iteration is

    x_{k+1} = S(x_k),    S = T o G,    G = I - gamma grad f = I - gamma A^T (A . - y),    0 < gamma < 2 / ||A^T A||.

An operator is a-averaged if it is (1 - a) I + a N with N nonexpansive and 0 < a < 1.

1. G is a_G-averaged with a_G = gamma ||A^T A|| / 2 (Bauschke and Combettes, Convex Analysis and Monotone Operator
   Theory, 2nd ed., Proposition 4.39), and T is a_T-averaged by construction.
2. Then S is alpha-averaged with alpha = (a_T + a_G - 2 a_T a_G) / (1 - a_T a_G) (Combettes and Yamada, J. Math.
   Anal. Appl. 425, 2015, Proposition 2.4; in the book Proposition 4.44).
3. For every fixed point x* of S, with S x* = x* (Proposition 4.35 (iii) of the book):
   ||S x - x*||^2 <= ||x - x*||^2 - (1 - alpha)/alpha ||S x - x||^2.
4. Summed along the iterates:  sum_k ||x_{k+1} - x_k||^2  <=  alpha/(1 - alpha) ||x_0 - x*||^2.
5. S is nonexpansive, so the steps ||x_{k+1} - x_k|| never grow, and the last of k + 1 terms is at most their mean:

       ||x_{k+1} - x_k||  <=  sqrt( alpha / ((1 - alpha)(k + 1)) ) ||x_0 - x*||.

So steps decay as 1/sqrt(k) at least, and the iterates converge to a fixed point if there is one (in the book
Proposition 5.16). Nothing says that there is: a denoiser may push along a direction that A does not see. If there
is none, the iterates are unbounded. Without the constraint on T, none of this holds.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from lablib.experiments.deepinv_bridge import import_deepinv
from lablib.experiments.imaging_problems import Problem

TINY = 1e-12


def compose_averaged(first: float, second: float) -> float:
    """Return alpha of the composition of two averaged operators (point 2 above).

    Raises:
        ValueError: unless both lie strictly between 0 and 1.
    """
    if not (0.0 < first < 1.0 and 0.0 < second < 1.0):
        raise ValueError(
            f"averaged operators have constants strictly between 0 and 1, not {first} and {second}"
        )
    return (first + second - 2.0 * first * second) / (1.0 - first * second)


def guaranteed_steps(alpha: float, distance: float, count: int) -> np.ndarray:
    """Return the bound of point 5 for k = 0..count - 1, ``distance`` = ||x_0 - x*||: (count,)."""
    return distance * np.sqrt(alpha / ((1.0 - alpha) * np.arange(1, count + 1)))


@dataclasses.dataclass(frozen=True)
class Solution:
    """One run.

    Attributes:
        picture: last iterate (1, 1, S, S).
        reached: whether the stopping rule was reached at finite values.
        steps: (K,) ||x_{k+1} - x_k||.
        residuals: (K,) the same divided by ||x_{k+1}||, which the stopping rule reads.
        psnr: (K + 1,) in dB from the start on, as deepinv measures it (not clipped to [0, 1]).
        distance: ||x_0 - x_K||: estimates ||x_0 - x*|| once the rule is reached.
    """

    picture: Tensor
    reached: bool
    steps: np.ndarray
    residuals: np.ndarray
    psnr: np.ndarray
    distance: float


def solve(
    problem: Problem,
    measured: Tensor,
    prior: Any,
    *,
    clean: Tensor,
    step: float,
    strength: float = 1.0,
    tolerance: float,
    iterations: int,
) -> Solution:
    """Run deepinv's proximal gradient descent from A^T y until the residual is below ``tolerance``.

    Args:
        measured: y.
        prior: deepinv prior: ``PnP`` of a denoiser (whose ``strength`` argument it is), or one with a weight
            ``strength``.
        clean: the picture, only to report PSNR.
        step: gamma, times the proven upper bound of ||A^T A||: inside (0, 2).
        iterations: at most so many.

    Raises:
        ValueError: for a step outside (0, 2), a negative tolerance, or no iteration.
    """
    if not 0.0 < step < 2.0:
        raise ValueError(f"the step, times ||A^T A||, must lie strictly between 0 and 2, got {step}")
    if not tolerance >= 0.0 or iterations < 1:
        raise ValueError(
            f"give a tolerance of at least 0 and one iteration or more, got {tolerance} and {iterations}"
        )
    optim = import_deepinv().optim
    gamma = step / problem.square_norm[1]
    algorithm = optim.PGD(
        data_fidelity=optim.data_fidelity.L2(),
        prior=prior,
        stepsize=gamma,
        lambda_reg=strength,
        g_param=gamma * strength,
        max_iter=iterations,
        crit_conv="residual",
        thres_conv=tolerance,
        early_stop=True,
        custom_metrics={"step": lambda kept, before, after: float((after - before).norm())},
        verbose=False,
    )
    start = problem.physics.A_adjoint(measured)
    with torch.no_grad(), parametrize.cached():
        picture, metrics = algorithm(measured, problem.physics, init=start, x_gt=clean, compute_metrics=True)
    residuals = np.array(metrics["residual"][0])
    # Where an iterate overflows, ||x|| = inf makes the residual 0: deepinv takes that for convergence.
    finite = bool(picture.isfinite().all()) and bool(np.isfinite(residuals).all()) and residuals[-1] > 0.0
    return Solution(
        picture=picture,
        reached=finite and bool(algorithm.has_converged),
        steps=np.array(metrics["step"][0]),
        residuals=residuals,
        psnr=np.array(metrics["psnr"][0]),
        distance=float((start - picture).norm()),
    )


def rate_use(solution: Solution, alpha: float) -> float:
    """Return the largest step divided by what point 5 allows for it, over all iterations: at most 1."""
    allowed = guaranteed_steps(alpha, max(solution.distance, TINY), len(solution.steps))
    return float((solution.steps / allowed).max())


def averaged_prior(network: Callable[[Tensor], Tensor], share: float) -> Any:
    """Return deepinv's PnP prior of (1 - a) x + a network(x), with no claim about the network."""
    return import_deepinv().optim.prior.PnP(denoiser=lambda x, sigma: (1.0 - share) * x + share * network(x))
