r"""Two imaging problems y = A x + noise on deepinv's physics, scaled so that ||A|| <= 1 is proven.

Sparse-view tomography
    deepinv's parallel-beam Radon transform: sums of bilinear interpolations, so a matrix with entries >= 0. For
    such a matrix and any vector v > 0 (Collatz-Wielandt; Horn and Johnson, Matrix Analysis, 2nd ed., Theorem
    8.1.26, applied to the symmetric nonnegative A^T A)

        min_i (A^T A v)_i / v_i  <=  ||A^T A||  <=  max_i (A^T A v)_i / v_i :

    a dozen power steps from v = 1 give both ends, where a plain power iteration only estimates from below.
    The adjoint is the exact one, by automatic differentiation; the faster one that deepinv offers (smeared back by
    its own interpolation) is not A^T, and no convergence proof holds with it.
Subsampled Fourier (MRI)
    Columns of the orthonormal discrete Fourier transform of a real picture, chosen by a random mask: A is a part
    of an isometry, so ||A|| <= 1, and ||A|| = 1 as the mask keeps the mean. Its adjoint takes the real part.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from lablib.experiments.deepinv_bridge import import_deepinv

POWER_STEPS = 30
CENTRE = 0.08  # share of the columns around frequency 0 that the MRI mask always keeps


@dataclasses.dataclass(frozen=True)
class Problem:
    """A linear inverse problem for pictures (1, 1, S, S).

    Attributes:
        name: "tomography" or "mri".
        physics: deepinv ``LinearPhysics`` with ``A`` and ``A_adjoint``.
        square_norm: (lower, upper) proven bounds of ||A^T A||; the upper one is at most 1.
        facts: what the result file says about it.
    """

    name: str
    physics: Any
    square_norm: tuple[float, float]
    facts: dict[str, float]


def tomography(size: int, angles: int) -> Problem:
    """Return parallel-beam tomography of ``size`` x ``size`` pictures from ``angles`` views over 180 degrees.

    Raises:
        ValueError: for fewer than 2 pixels a side or no angle.
    """
    if size < 2 or angles < 1:
        raise ValueError(f"tomography needs 2 pixels a side and one angle, got {size} and {angles}")
    exact = _radon(size, angles, exact_adjoint=True)
    lower, upper = bound_square_norm(exact, size)
    scale = upper**-0.5
    physics = import_deepinv().physics.LinearPhysics(
        A=lambda x, **kwargs: scale * exact.A(x), A_adjoint=lambda y, **kwargs: scale * exact.A_adjoint(y)
    )
    facts = {
        "angles": angles,
        "square_norm_unscaled": upper,
        "adjoint_error": adjoint_error(physics, size),
        "fast_adjoint_error": adjoint_error(_radon(size, angles, exact_adjoint=False), size),
    }
    return Problem("tomography", physics, (lower / upper, 1.0), facts)


def _radon(size: int, angles: int, *, exact_adjoint: bool):
    return import_deepinv().physics.Tomography(
        angles=angles,
        img_width=size,
        circle=False,
        parallel_computation=True,
        adjoint_via_backprop=exact_adjoint,
        normalize=False,  # deepinv's own scaling is an estimate by power iteration
        device="cpu",
    )


@torch.no_grad()
def bound_square_norm(physics: Any, size: int) -> tuple[float, float]:
    """Return proven bounds (lower, upper) of ||A^T A|| for an A with entries >= 0 and its exact adjoint.

    Sums of n nonnegative products come out of floating point within a factor 1 -+ n eps; that is part of the
    bounds, with n as large as all of a picture's or a view's entries together could make it.

    Raises:
        ValueError: if A^T A 1 is not positive everywhere: then some pixel is seen by no ray, or an entry is
            negative.
    """
    v = torch.ones(1, 1, size, size)
    for _ in range(POWER_STEPS):
        product = physics.A_adjoint(physics.A(v))
        if not bool((product > 0).all()):
            raise ValueError("every pixel must be seen, with weights >= 0; give more angles")
        ratio = product.double() / v.double()
        v = product / product.max()
    terms = 8 * (2 * size + physics.A(v).numel())
    rounding = terms * torch.finfo(v.dtype).eps
    return float(ratio.min()) * (1.0 - rounding), float(ratio.max()) * (1.0 + rounding)


def mri(size: int, acceleration: int, seed: int = 0) -> Problem:
    """Return subsampled Fourier measurements of real pictures: one of ``acceleration`` columns, at random.

    Raises:
        ValueError: for sizes that leave no column in the centre, or none beside it.
    """
    physics = import_deepinv().physics
    centre = int(CENTRE * size)
    if centre < 1 or acceleration < 1 or size // acceleration <= centre:
        raise ValueError(
            f"one of {acceleration} columns of {size} is no mask with {centre} in the centre and some beside it; "
            "use a smaller acceleration or a larger picture"
        )
    generator = physics.generator.RandomMaskGenerator(
        (2, size, size), acceleration=acceleration, center_fraction=CENTRE, device="cpu"
    )
    mask = generator.step(batch_size=1, seed=seed)["mask"]
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("the mask must hold zeros and ones")
    fourier = physics.MRI(mask=mask, device="cpu")
    real = physics.LinearPhysics(
        A=lambda x, **kwargs: fourier.A(torch.cat([x, torch.zeros_like(x)], 1)),
        A_adjoint=lambda y, **kwargs: fourier.A_adjoint(y)[:, :1],
    )
    facts = {
        "acceleration": acceleration,
        "columns": int(mask[0, 0, 0].sum()),
        "adjoint_error": adjoint_error(real, size),
    }
    return Problem("mri", real, (1.0, 1.0), facts)


def measure(problem: Problem, picture: Tensor, noise: float, seed: int) -> Tensor:
    """Return A x + Gaussian noise of standard deviation ``noise`` on every entry.

    The columns that an MRI does not measure get noise too, which A^T leaves out again.
    """
    clean = problem.physics.A(picture)
    return clean + noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))


def adjoint_error(physics: Any, size: int, samples: int = 10) -> float:
    """Return deepinv's estimate of ||A - B^T||_F / ||A||_F, B the ``A_adjoint`` it was given; 0 is exact."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return float(physics.adjointness_test(img_size=(1, size, size), num_samples=samples, device="cpu"))
