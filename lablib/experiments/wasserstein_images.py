"""Image clouds: a data set against a changed copy of itself, or against samples of a simple generator."""

import dataclasses
import sys
from collections.abc import Callable

import numpy as np

from lablib.data import Dataset, MissingDataError, load
from lablib.experiments.wasserstein_clouds import Clouds

BRIGHTER = 0.1  # added to every pixel by "offset"
FITTED = 10_000  # images the generator is fitted to, at most


@dataclasses.dataclass(frozen=True)
class Images:
    """Grey images of one data set.

    Attributes:
        data: its name.
        pixels: (N, side, side) float64 in [0, 1].
    """

    data: str
    pixels: np.ndarray

    @property
    def side(self) -> int:
        """Rows of an image."""
        return self.pixels.shape[1]


@dataclasses.dataclass(frozen=True)
class Generator:
    """A Gaussian in the span of the first principal components, clipped to [0, 1]: x = clip(m + V (s * z)).

    z is standard normal. Fitted in closed form, and crude on purpose: the distance to its samples must stand out
    from the distance between two samples of the images themselves (a mixture with one Gaussian per class
    does not, at a thousand points).

    Attributes:
        mean: m (D,).
        basis: V (D, k), orthonormal columns.
        spread: s (k,), standard deviations of the components, largest first.
    """

    mean: np.ndarray
    basis: np.ndarray
    spread: np.ndarray

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return ``count`` samples, (count, D) in [0, 1]."""
        z = rng.standard_normal((count, len(self.spread)))
        return np.clip(self.mean + (self.spread * z) @ self.basis.T, 0.0, 1.0)


def fit_generator(rows: np.ndarray, components: int) -> Generator:
    """Fit a :class:`Generator` with ``components`` principal components to rows (N, D).

    Raises:
        ValueError: for fewer than two rows, or more components than columns.
    """
    if len(rows) < 2 or not 1 <= components <= rows.shape[1]:
        raise ValueError(f"give two rows or more and 1 to {rows.shape[1]} components, not {components}")
    variances, directions = np.linalg.eigh(np.cov(rows, rowvar=False))
    kept = slice(None, -components - 1, -1)
    return Generator(rows.mean(axis=0), directions[:, kept], np.sqrt(variances[kept].clip(min=0.0)))


def load_images(data: str, pool: int = 1) -> Images:
    """Return the training images of ``data``, averaged over squares of ``pool`` pixels a side.

    Where the files are not at hand the bundled digits stand in (as they are), and a line on stderr says so.

    Raises:
        ValueError: for an unknown data set, colour images, or a side that ``pool`` does not divide.
        DataFolderError: if LABLIB_DATA names no folder.
    """
    try:
        loaded = load(data)
    except MissingDataError as error:
        print(f"{error}; the bundled digits stand in", file=sys.stderr)
        loaded, pool = load("digits"), 1
    return _grey(loaded, pool)


def _grey(loaded: Dataset, pool: int) -> Images:
    count, channels, height, width = loaded.x_train.shape
    if channels != 1 or height != width:
        raise ValueError(f"{loaded.name} is not made of square grey images; use mnist or digits")
    if pool < 1 or height % pool:
        raise ValueError(f"squares of {pool} pixels do not tile {height} rows; choose a divisor")
    side = height // pool
    pixels = loaded.x_train.reshape(count, side, pool, side, pool).mean(axis=(2, 4)) / loaded.scale
    return Images(loaded.name, pixels)


def move_right(pixels: np.ndarray, by: int) -> np.ndarray:
    """Move the content of images (N, H, W) by ``by`` pixels to the right; black comes in, the rest leaves."""
    moved = np.zeros_like(pixels)
    moved[:, :, by:] = pixels[:, :, : pixels.shape[2] - by]
    return moved


def blur(pixels: np.ndarray) -> np.ndarray:
    """Convolve images (N, H, W) with (1, 2, 1)/4 along both axes, black outside."""
    for axis in (1, 2):
        pad = [(0, 0)] * 3
        pad[axis] = (1, 1)
        wide, length = np.pad(pixels, pad), pixels.shape[axis]
        before, middle, after = (wide.take(range(k, k + length), axis=axis) for k in range(3))
        pixels = (before + 2 * middle + after) / 4
    return pixels


def _rows(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1)


def _offset(images: Images, chosen: np.ndarray, rng: np.random.Generator) -> Clouds:
    first = _rows(images.pixels[chosen])
    known = BRIGHTER * np.sqrt(first.shape[1])
    return Clouds("brighter copy", first, first + BRIGHTER, float(known), paired=True)


def _shift(images: Images, chosen: np.ndarray, rng: np.random.Generator) -> Clouds:
    pixels = images.pixels[chosen]
    moved = move_right(pixels, max(1, images.side // 14))
    return Clouds("shifted copy", _rows(pixels), _rows(moved), paired=True)


def _blur(images: Images, chosen: np.ndarray, rng: np.random.Generator) -> Clouds:
    pixels = images.pixels[chosen]
    return Clouds("blurred copy", _rows(pixels), _rows(blur(pixels)), paired=True)


def _generator(images: Images, chosen: np.ndarray, rng: np.random.Generator) -> Clouds:
    rows = _rows(images.pixels)
    generator = fit_generator(rows[:FITTED], components=min(32, rows.shape[1] // 4))
    return Clouds("generator", rows[chosen], generator.sample(len(chosen), rng))


def _halves(images: Images, chosen: np.ndarray, rng: np.random.Generator) -> Clouds:
    """Two disjoint samples of the data set itself: what the distance is when nothing differs but chance."""
    others = np.setdiff1d(np.arange(len(images.pixels)), chosen)
    if len(others) < len(chosen):
        raise ValueError(f"{len(chosen)} images leave only {len(others)} others; take at most half of them")
    other = rng.choice(others, size=len(chosen), replace=False)
    return Clouds("another sample", _rows(images.pixels[chosen]), _rows(images.pixels[other]))


PROBLEMS: dict[str, Callable[[Images, np.ndarray, np.random.Generator], Clouds]] = {
    "offset": _offset,
    "shift": _shift,
    "blur": _blur,
    "generator": _generator,
    "halves": _halves,
}


def image_clouds(problem: str, images: Images, points: int, seed: int = 0) -> Clouds:
    """Return ``points`` images (drawn without repetition) against their counterpart.

    Args:
        problem: ``offset`` (every pixel brighter by 0.1: the distance is 0.1 sqrt(D) exactly), ``shift`` (content
            moved right by 1/14 of the side, at least a pixel), ``blur``, ``generator`` (independent samples of a
            fitted :class:`Generator`), ``halves`` (as many other images of the same data set).
        images: where they come from.
        points: N.
        seed: of the choice and of the samples.

    Raises:
        ValueError: for an unknown problem, or more points than images.
    """
    if problem not in PROBLEMS:
        raise ValueError(f"no problem {problem!r}; choose from {', '.join(PROBLEMS)}")
    if not 1 <= points <= len(images.pixels):
        raise ValueError(f"choose 1 to {len(images.pixels)} images, not {points}")
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(images.pixels), size=points, replace=False)
    return PROBLEMS[problem](images, chosen, rng)
