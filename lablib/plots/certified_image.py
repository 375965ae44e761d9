"""One image and its certificate: the picture, the worst one found nearby, and the bounds of the logits."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, DIVERGING, GREEN, ORANGE, RED, new_figure, theme

VERDICTS = {
    "proved": "proved: no image within this radius is classified otherwise",
    "broken": "broken: an image within this radius is classified otherwise",
    "open": "open: neither proved nor broken",
    "wrong": "wrong: the image itself is misclassified",
}


def verdict(label: int, clean: np.ndarray, found: np.ndarray, radius: float, eps: float) -> str:
    """Return a key of ``VERDICTS``: what is known of an image at ``eps``.

    Args:
        label: the true class.
        clean, found: (C,) logits of the image and of the worst one found within eps.
        radius: proven radius of the image, 0 or less where it is misclassified.
    """
    if _loses(clean, label):
        return "wrong"
    if eps <= radius:
        return "proved"
    return "broken" if _loses(found, label) else "open"


def _loses(logits: np.ndarray, label: int) -> bool:
    """Whether another class is at least as large: a tie is no classification."""
    return bool(np.delete(logits, label).max() >= logits[label])


def draw_image_certificate(view: Any) -> Figure:
    """Draw one image, the worst found within eps, what changed, and the interval of each logit.

    Args:
        view: ``label``, ``eps``, ``radius``, ``image`` and ``worst`` (H, W) in [0, 1], ``clean``, ``found``,
            ``lower``, ``upper`` (C,), and ``verdict``, as ``lablib.explore.certified.View``.
    """
    with theme():
        figure = new_figure(9.2, 2.9)
        left, right = figure.subfigures(1, 2, width_ratios=(3, 2.4))
        axes, wide, span = left.subplots(1, 3), right.subplots(), max(view.eps, 1e-6)
        grey, signed = (
            {"cmap": "gray", "vmin": 0, "vmax": 1},
            {"cmap": DIVERGING, "vmin": -span, "vmax": span},
        )
        pictures = (
            (view.image, f"image: a {view.label}", "pixel", grey),
            (view.worst, f"worst found: {int(view.found.argmax())}", "pixel", grey),
            (view.worst - view.image, "change", "blue darker, red brighter", signed),
        )
        for axis, (picture, title, scale, style) in zip(axes, pictures, strict=True):
            shown = axis.imshow(picture, interpolation="nearest", **style)
            axis.set(title=title, xticks=[], yticks=[])
            axis.grid(False)
            bar = left.colorbar(
                shown, ax=axis, orientation="horizontal", ticks=shown.get_clim(), format="%.3g"
            )
            bar.ax.tick_params(labelsize=8)
            bar.set_label(scale, fontsize=8)
        _draw_logits(wide, view)
    return figure


def _draw_logits(axis: Axes, view: Any) -> None:
    classes = np.arange(len(view.clean))
    colours = [GREEN if k == view.label else BLUE for k in classes]
    axis.vlines(classes, view.lower, view.upper, colors=colours, linewidth=5, alpha=0.35)
    axis.plot(classes, view.clean, "o", color="black", markersize=4, label="image")
    axis.plot(classes, view.found, "D", color=RED, markersize=5, label="worst found")
    axis.axhline(view.lower[view.label], color=ORANGE, linestyle="dashed", label="low end of the truth")
    axis.set(title=f"ε = {view.eps:.3f}: {view.verdict}", xlabel="class", ylabel="logit", xticks=classes)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3)
