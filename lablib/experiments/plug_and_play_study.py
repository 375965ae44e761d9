"""One cell of the plug-and-play study: choose a method's setting on validation pictures, solve the test pictures."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lablib.experiments.activation_zoo import ACTIVATIONS
from lablib.experiments.denoiser import SIGMAS
from lablib.experiments.imaging_problems import Problem, measure
from lablib.experiments.picture_quality import psnr, ssim
from lablib.experiments.plug_and_play_methods import CLASSICAL, UNCONSTRAINED, Method, Setting
from lablib.experiments.plug_and_play_solver import Solution, compose_averaged, rate_use, solve

VALIDATION_SEEDS = 1000  # noise of validation pictures from here on; test pictures from 0


@dataclasses.dataclass(frozen=True)
class Config:
    """One size of the study.

    Attributes:
        size: pixels a side of the pictures, cut from the middle.
        pictures, validation: test pictures that are reported, and validation pictures that choose the settings.
        angles, acceleration: views of the tomography; one of so many columns of the MRI is measured.
        noise: standard deviation of the noise on the measurements, for ||A|| = 1 and pictures in [0, 1].
        step: gamma ||A^T A||, the same for every method.
        tolerance: stopping rule: ||x_{k+1} - x_k|| < tolerance ||x_{k+1}||.
        iterations: at most so many where theory says that the iterates converge.
        free_iterations: at most so many with the denoiser that has no constraint.
        plain_steps: training steps of the network without constraint.
        activations, sigmas: of the constrained networks, and the noise (of 255) they were trained for.
        shares: of the network in T. The first, with the first sigma, is the setting that all networks have in common.
        tv, tgv: weights of the two classical methods; none leaves a method out.
    """

    mode: str
    size: int
    pictures: int
    validation: int
    angles: int
    iterations: int
    free_iterations: int
    plain_steps: int
    acceleration: int = 3
    noise: float = 0.02
    step: float = 1.0
    tolerance: float = 1e-5
    activations: tuple[str, ...] = tuple(ACTIVATIONS)
    sigmas: tuple[int, ...] = SIGMAS
    shares: tuple[float, ...] = (0.5, 0.15, 0.05)
    tv: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    tgv: tuple[float, ...] = (1e-2, 3e-2, 1e-1)

    @property
    def weights(self) -> dict[str, tuple[float, ...]]:
        """The weights of each classical method."""
        return {"tv": self.tv, "tgv": self.tgv}

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of all that is compared."""
        return (*self.activations, UNCONSTRAINED, *(name for name in CLASSICAL if self.weights[name]))


def crops(pictures: Sequence[np.ndarray], count: int, size: int) -> list[Tensor]:
    """Return the middle ``size`` x ``size`` pixels of ``count`` evenly spaced pictures: (1, 1, S, S) in [0, 1].

    Raises:
        ValueError: if there are fewer pictures, or one is smaller.
    """
    if not 1 <= count <= len(pictures):
        raise ValueError(
            f"there are {len(pictures)} pictures; ask for at least 1 and at most all, not {count}"
        )
    found = []
    for number in range(count):
        picture = pictures[(2 * number + 1) * len(pictures) // (2 * count)]
        height, width = picture.shape
        if min(height, width) < size:
            raise ValueError(
                f"a picture of {height} x {width} has no {size} x {size} pixels; use a smaller size"
            )
        top, left = (height - size) // 2, (width - size) // 2
        cut = np.ascontiguousarray(picture[top : top + size, left : left + size])
        found.append(torch.from_numpy(cut)[None, None].float() / 255.0)
    return found


def solve_method(
    method: Method, problem: Problem, tests: list[Tensor], choices: list[Tensor], config: Config
) -> dict[str, Any]:
    """Choose the setting on the validation pictures, then solve the test pictures with it: plain JSON.

    Returns:
        ``tried``: every setting, if there are several, with the mean PSNR on the validation pictures and whether
            each converged;
        ``chosen``: the best setting, its averagedness ``alpha`` and its ``runs`` on the test pictures;
        ``common``: the same for the setting that all networks have in common (networks only).
    """
    tried = []
    for setting in method.settings if len(method.settings) > 1 else ():
        solved = list(_solutions(method, setting, problem, choices, config, VALIDATION_SEEDS))
        scores = [quality(solution.picture, clean)["psnr"] for solution, clean in zip(solved, choices)]
        mean = None if None in scores else float(np.mean(scores))
        tried.append({"setting": setting, "reached": [solution.reached for solution in solved], "psnr": mean})
    best = max(tried, key=_preference)["setting"] if tried else method.settings[0]
    found = {"tried": tried, "chosen": _solve_tests(method, best, problem, tests, config)}
    if "share" in best:
        found["common"] = _solve_tests(method, method.settings[0], problem, tests, config)
    return found


def _solve_tests(
    method: Method, setting: Setting, problem: Problem, tests: list[Tensor], config: Config
) -> dict[str, Any]:
    share = method.averaged(setting)
    alpha = None if share is None else compose_averaged(share, config.step / 2)
    runs = [
        quality(solution.picture, clean) | _facts(solution, alpha)
        for solution, clean in zip(_solutions(method, setting, problem, tests, config, 0), tests)
    ]
    return {"setting": setting, "alpha": alpha, "runs": runs}


def _facts(solution: Solution, alpha: float | None) -> dict[str, Any]:
    return {
        "reached": solution.reached,
        "iterations": len(solution.steps),
        "psnr_best": _number(np.nanmax(solution.psnr)),
        "rate_use": None if alpha is None else rate_use(solution, alpha),
        "distance": _number(solution.distance),
        "norm": _number(float(solution.picture.norm())),
        "curve": [_number(residual) for residual in solution.residuals],
        "picture": picture_bytes(solution.picture).tolist(),
    }


def _preference(tried: dict[str, Any]) -> tuple[bool, float]:
    """Prefer settings that converge on every validation picture, then the best PSNR."""
    return all(tried["reached"]), -np.inf if tried["psnr"] is None else tried["psnr"]


def _solutions(
    method: Method,
    setting: Setting,
    problem: Problem,
    pictures: list[Tensor],
    config: Config,
    first_seed: int,
) -> Iterator[Solution]:
    for seed, clean in enumerate(pictures, first_seed):
        prior, weight = method.make(setting)
        yield solve(
            problem,
            measure(problem, clean, config.noise, seed),
            prior,
            clean=clean,
            step=config.step,
            strength=weight,
            tolerance=config.tolerance,
            iterations=config.iterations if method.converges else config.free_iterations,
        )


def quality(picture: Tensor, clean: Tensor) -> dict[str, float | None]:
    """Return PSNR (dB) and SSIM of a picture (1, 1, S, S) clipped to [0, 1], None where it is not finite."""
    if not bool(picture.isfinite().all()):
        return {"psnr": None, "ssim": None}
    return {"psnr": float(psnr(picture, clean)), "ssim": float(ssim(picture, clean))}


def picture_bytes(picture: Tensor) -> np.ndarray:
    """Return a picture clipped to [0, 1] as uint8 (S, S); what is not a number is black."""
    return (picture[0, 0].nan_to_num(0.0, 1.0, 0.0).clamp(0, 1) * 255).round().byte().numpy()


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
