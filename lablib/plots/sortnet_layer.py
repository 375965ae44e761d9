"""Pictures of one SortNet neuron: weights of the ranks, dropout, level sets, the way from l_p to l_inf, masks."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lablib.plots.theme import (
    BLUE,
    COLOURS,
    DASHES,
    GREEN,
    GREY,
    ORANGE,
    PAGE_WIDTH,
    RED,
    SEQUENTIAL,
    new_figure,
    theme,
)

RANKS_SHOWN = 16
BAND_SIGMAS = 2.576  # 99 % of a normal distribution


def running_mean(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return draws, running mean and half-width of its 99 % band at up to 60 points of the samples (N,)."""
    counts = np.unique(np.geomspace(min(20, len(samples)), len(samples), 60).astype(int))
    mean = np.cumsum(samples)[counts - 1] / counts
    spread = np.sqrt(np.maximum(np.cumsum(samples**2)[counts - 1] / counts - mean**2, 0.0))
    return counts, mean, BAND_SIGMAS * spread / np.sqrt(counts)


def rank_shares(winners: np.ndarray, count: int) -> np.ndarray:
    """Return the share of draws that each of the first ``RANKS_SHOWN`` of ``count`` ranks has won."""
    shares = np.bincount(winners, minlength=count + 1)[:count] / max(len(winners), 1)
    return _shown(shares)


def draw_rank_weights(weights: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the weights of the ranks, one line per name."""
    if not weights:
        raise ValueError("nothing to draw; give at least one list of weights")
    with theme():
        figure = new_figure(PAGE_WIDTH, 2.9)
        axis = figure.add_subplot()
        for number, (name, values) in enumerate(weights.items()):
            style = {
                "color": COLOURS[number % len(COLOURS)],
                "linestyle": DASHES[number % len(DASHES)],
                "marker": "osD^v"[number % 5],
                "markersize": 4,
            }
            axis.plot(np.arange(1, len(values) + 1), values, label=name, **style)
        longest = max(len(values) for values in weights.values())
        axis.set(xlabel="rank (1 is the largest)", ylabel="weight", ylim=(-0.02, 1.05))
        axis.set(title="Few ranks carry the weight", xticks=range(1, longest + 1))
        axis.legend()
    return figure


def draw_dropout(
    values: np.ndarray, formula: np.ndarray, shares: np.ndarray, maxima: np.ndarray, exact: float
) -> Figure:
    """Draw how often each rank is the largest kept one, beside the formula, and the mean of the maxima.

    Args:
        values: (d,) descending; ``formula``, ``shares``: (R,), the first ranks.
        maxima: (N,) one maximum per draw.
        exact: what their mean should be.
    """
    counts, mean, band = running_mean(maxima)
    ranks = np.arange(1, len(shares) + 1)
    with theme():
        figure = new_figure(8.4, 2.9)
        left, middle, right = figure.subplots(1, 3)
        left.bar(np.arange(1, min(len(values), RANKS_SHOWN) + 1), values[:RANKS_SHOWN], color="#B9B9B9")
        left.set(title="Inputs, largest first", xlabel="rank", ylabel="|x − c|")
        middle.bar(ranks, shares, color=BLUE, label="draws")
        middle.plot(ranks, formula, "o", color=ORANGE, markersize=4, label="q (1−q)^(rank−1)")
        middle.set(title="Who is the largest kept one?", xlabel="rank", ylabel="share of draws")
        middle.legend()
        right.fill_between(counts, mean - band, mean + band, color="#BFD9EA", label="99 % band")
        right.plot(counts, mean, color=BLUE, label="mean of the maxima")
        right.axhline(exact, color=RED, linestyle="dashed", label="ranked sum")
        right.set(title="The mean is the ranked sum", xlabel="draws", ylabel="value", xscale="log")
        right.legend()
    return figure


def draw_level_sets(at: np.ndarray, fields: Mapping[str, np.ndarray], centre: Sequence[float]) -> Figure:
    """Draw level sets of neurons of two inputs, each field (side, side) over ``at`` x ``at``."""
    if not fields:
        raise ValueError("nothing to draw; give at least one field")
    with theme():
        figure = new_figure(2.15 * len(fields), 2.5)
        axes = figure.subplots(1, len(fields), squeeze=False)[0]
        for axis, (name, field) in zip(axes, fields.items(), strict=True):
            axis.contourf(at, at, field, levels=12, cmap=SEQUENTIAL)
            axis.contour(at, at, field, levels=12, colors="white", linewidths=0.5)
            axis.plot(*centre, "+", color="white", markersize=8)
            axis.set_title(name, fontsize=9.5)
            axis.set(aspect="equal", xlabel="x₁")
            axis.grid(False)
        axes[0].set_ylabel("x₂")
    return figure


def draw_lp(
    powers: np.ndarray, values: np.ndarray, largest: float, count: int, gradients: Mapping[str, np.ndarray]
) -> Figure:
    """Draw the value of an l_p neuron against p between its bounds, and shares of gradient by rank.

    Args:
        powers, values: (P,); ``largest`` is max_i |d_i|, ``count`` the number n of inputs.
        gradients: name -> |gradient| (n,), largest first.
    """
    with theme():
        figure = new_figure(8.4, 3.1)
        left, right = figure.subplots(1, 2)
        left.fill_between(
            powers, largest, largest * count ** (1 / powers), color="#E4E4E4", label="m … n^(1/p) m"
        )
        left.plot(powers, values, color=BLUE, label="‖d‖ₚ")
        left.axhline(largest, color=RED, linestyle="dashed", label="m = ‖d‖∞")
        left.set(title=f"From p = 8 to the maximum, {count} inputs", xlabel="p", ylabel="value")
        left.set(xscale="log", yscale="log")
        left.legend()
        for number, (name, gradient) in enumerate(gradients.items()):
            share = np.cumsum(gradient) / max(gradient.sum(), np.finfo(float).tiny)
            style = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
            right.plot(np.arange(1, len(share) + 1), share, label=name, **style)
        right.set(title="How many inputs learn", xlabel="inputs, largest |d| first", xscale="log")
        right.set(ylabel="share of the gradient", ylim=(0, 1.04))
        right.legend()
    return figure


def mask_picture(kept_inputs: np.ndarray, kept_outputs: np.ndarray) -> np.ndarray:
    """Return (O, I): 1 where |x_i - c_ki| is computed, from the masks (I,) and (O,)."""
    return np.outer(kept_outputs, kept_inputs).astype(float)


def draw_masks(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Draw which of the (outputs, inputs) of each layer are computed in one step, 1, and which are dropped, 0."""
    if not pictures:
        raise ValueError("nothing to draw; give at least one layer")
    with theme():
        figure = new_figure(max(2.5 * len(pictures), 3.4), 2.9)
        axes = figure.subplots(1, len(pictures), squeeze=False)[0]
        for axis, (name, picture) in zip(axes, pictures.items(), strict=True):
            axis.imshow(picture, vmin=0, vmax=1, cmap=SEQUENTIAL, aspect="auto", interpolation="nearest")
            axis.set_title(f"{name}: {picture.mean():.0%}")
            axis.set(xlabel="inputs", xticks=[], yticks=[])
            axis.grid(False)
        axes[0].set_ylabel("neurons")
        dropped, computed = (mpl.colormaps[SEQUENTIAL](end) for end in (0.0, 1.0))
        patches = [Patch(color=computed, label="computed"), Patch(color=dropped, label="dropped")]
        figure.legend(handles=patches, loc="outside lower center", ncols=2)
    return figure


def draw_slopes(powers: np.ndarray, slopes: np.ndarray, count: int) -> Figure:
    """Draw the l_1 norm of the gradient (the l_inf-Lipschitz constant there) of l_p neurons against p.

    Args:
        powers: (P,).
        slopes: (P, N), N random points.
        count: the number n of inputs.
    """
    with theme():
        figure = new_figure(PAGE_WIDTH, 2.8)
        axis = figure.add_subplot()
        axis.plot(powers, slopes.max(axis=1), color=BLUE, label=f"largest of {slopes.shape[1]} random points")
        axis.plot(powers, count ** (1 / powers), color=GREY, linestyle="dashed", label="bound n^(1/p)")
        axis.axhline(1.0, color=GREEN, linestyle="dotted", label="p = ∞: exactly 1")
        axis.set(title="Only p = ∞ gives a certificate", xlabel="p", xscale="log", yscale="log")
        axis.set_ylabel("ℓ1 norm of the gradient")
        axis.legend()
    return figure


def _shown(values: np.ndarray) -> np.ndarray:
    """Return exactly ``RANKS_SHOWN`` values: cut, or filled up with zeros."""
    return np.pad(values[:RANKS_SHOWN], (0, max(0, RANKS_SHOWN - len(values))))
