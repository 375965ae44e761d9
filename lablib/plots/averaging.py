"""Why averaged operators converge: iterates in the plane, and a denoiser applied again and again."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lablib.plots.theme import COLOURS, DASHES, PAGE_WIDTH, new_figure, theme


def draw_paths(paths: Mapping[str, np.ndarray]) -> Figure:
    """Draw the iterates of operators of the plane with the fixed point 0, one panel each.

    Args:
        paths: label -> (K, 2).

    Raises:
        ValueError: for no paths, or one of another shape.
    """
    if not paths or any(np.ndim(path) != 2 or np.shape(path)[1] != 2 for path in paths.values()):
        raise ValueError("give at least one path; each is (K, 2), a point for every iterate")
    with theme():
        figure = new_figure(PAGE_WIDTH, PAGE_WIDTH / len(paths) + 0.3)
        axes = figure.subplots(1, len(paths), squeeze=False, sharex=True, sharey=True)[0]
        for axis, colour, (label, path) in zip(axes, COLOURS, paths.items()):
            axis.plot(*np.transpose(path), color=colour, marker=".", linewidth=1)
            axis.plot(*path[0], "o", color="black", markersize=5)
            axis.plot(0, 0, "+", color="black", markersize=9)
            axis.set(title=label, aspect="equal", xlabel="x₁")
        axes[0].set_ylabel("x₂")
    return figure


def draw_repeated(scores: Mapping[str, np.ndarray], changes: Mapping[str, np.ndarray]) -> Figure:
    """Draw what happens to a picture that is denoised again and again.

    Args:
        scores: label -> (n + 1,) PSNR in dB after 0, 1, ... n applications.
        changes: label -> (n,) l2 norm of each change.
    """
    with theme():
        figure = new_figure(PAGE_WIDTH, 2.9)
        left, right = figure.subplots(1, 2)
        for axis, lines, first in ((left, scores, 0), (right, changes, 1)):
            for place, (label, values) in enumerate(lines.items()):
                style = {
                    "color": COLOURS[place % len(COLOURS)],
                    "linestyle": DASHES[place % len(DASHES)],
                }
                axis.plot(range(first, first + len(values)), values, marker=".", label=label, **style)
            axis.set_xlabel("applications of T")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set(ylabel="PSNR (dB)", title="Quality of T applied again and again")
        right.set(
            ylabel="change of the picture, l2", yscale="log", title="No step is longer than the one before"
        )
        left.legend(fontsize=8)
    return figure
