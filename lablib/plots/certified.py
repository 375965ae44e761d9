"""Certified accuracy between its brackets, and certified radii against the true ones."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lablib.plots.theme import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PAGE_WIDTH,
    PURPLE,
    RED,
    SKY,
    new_figure,
    theme,
)

FEW = 25  # up to so many radii are marked, each with the value that was measured there
# colour, dash and mark of each certificate: red and orange are the attack's, and two that coincide are both seen
CERTIFICATES = ((BLUE, "solid", "o"), (GREEN, "dotted", "s"), (PURPLE, "dashdot", "^"), (SKY, "dashed", "D"))


def draw_bracket(
    epsilons: np.ndarray,
    clean: float,
    attacked: np.ndarray | None,
    certified: Mapping[str, np.ndarray],
    *,
    title: str = "",
    norm: str = "linf",
) -> Figure:
    """Draw certified accuracy (one staircase per certificate) below what attacks leave, below clean accuracy.

    The true robust accuracy never grows with eps. So a share certified at one eps is proven for all smaller ones,
    and a share left by an attack bounds the truth at all larger ones: both are drawn as the staircases that follow,
    and the truth lies in the shaded band between them, also between the given eps.

    Args:
        epsilons: (E,) increasing, in units of raw pixels; up to ``FEW`` of them are marked.
        clean: accuracy without perturbation.
        attacked: (E,) accuracy under attack, or None.
        certified: name -> (E,).
        title: what to see.
        norm: named on the axis.

    Raises:
        ValueError: for no curves, shapes that do not match, or epsilons that do not increase.
    """
    eps = np.asarray(epsilons, dtype=float)
    curves = {name: np.asarray(curve, dtype=float) for name, curve in certified.items()}
    shapes = [curve.shape for curve in curves.values()] + ([] if attacked is None else [np.shape(attacked)])
    if eps.ndim != 1 or not eps.size or (np.diff(eps) <= 0).any():
        raise ValueError("give at least one eps, in increasing order")
    if not curves or any(shape != eps.shape for shape in shapes):
        raise ValueError(f"give curves with one value for each of the {eps.size} eps, got shapes {shapes}")
    marked = eps.size <= FEW
    with theme():
        figure = new_figure(PAGE_WIDTH, 3.6)
        axis = figure.subplots()
        axis.axhline(100 * clean, color=GREY, linewidth=1.2, label="clean")
        if attacked is not None:
            left = 100 * np.asarray(attacked, dtype=float)
            best = 100 * np.max(list(curves.values()), axis=0)
            ends, upper = np.repeat(eps, 2)[1:-1], np.repeat(left[:-1], 2)
            axis.fill_between(ends, np.repeat(best[1:], 2), upper, color=ORANGE, alpha=0.18, linewidth=0)
            style = {"color": RED, "linestyle": "dashed", "marker": "x" if marked else "", "markersize": 6}
            axis.step(eps, left, where="post", label="under attack", zorder=3, **style)
        for place, (name, curve) in enumerate(curves.items()):
            colour, dash, mark = CERTIFICATES[place % len(CERTIFICATES)]
            style = {"color": colour, "linestyle": dash, "marker": mark if marked else ""}
            label = f"certified, {name}"
            axis.step(eps, 100 * curve, where="pre", label=label, markersize=3.5, **style)
        axis.set(
            xlabel=f"{_NORMS.get(norm, norm)} radius (pixels in [0, 1])",
            ylabel="accuracy in %",
            xlim=(eps[0], eps[-1] if eps.size > 1 else eps[0] + 1),
            ylim=(0, 101),
            title=title or "True robust accuracy lies in the shaded band",
        )
        axis.legend()
    return figure


def draw_radii(
    exact: np.ndarray,
    certified: Mapping[str, np.ndarray],
    *,
    attacked: np.ndarray | None = None,
    network: str = "",
) -> Figure:
    """Draw certified radii against true ones, a dot per sample: on the diagonal the certificate is exact.

    Args:
        exact: (B,) true radii.
        certified: name -> (B,).
        attacked: (B,) distances of attacks, drawn above the diagonal; infinite ones are left out.
        network: what was certified, named in the title.

    Raises:
        ValueError: for no samples, or shapes that do not match.
    """
    true = np.asarray(exact, dtype=float)
    groups = {name: np.asarray(radii, dtype=float) for name, radii in certified.items()}
    if not true.size or true.ndim != 1 or not groups or any(r.shape != true.shape for r in groups.values()):
        raise ValueError("give true radii (B,), and at least one certificate with as many")
    if not np.isfinite(true).all() or (attacked is not None and np.shape(attacked) != true.shape):
        raise ValueError("true radii must be finite, and attacks as many")
    with theme():
        figure = new_figure(3.9, 3.7)
        axis = figure.subplots()
        end = 1.05 * max(true.max(), 1e-6)
        axis.plot([0, end], [0, end], color=GREY, linewidth=1.0, zorder=1)
        if attacked is not None:
            shown = np.isfinite(attacked)
            axis.plot(true[shown], np.asarray(attacked)[shown], "x", color=RED, markersize=5, label="attack")
        for place, (name, radii) in enumerate(groups.items()):
            axis.plot(
                true, radii, "os^D"[place % 4], color=COLOURS[place], markersize=4, alpha=0.8, label=name
            )
        axis.set(
            xlabel="true radius (exact search)",
            ylabel="certified radius" if attacked is None else "certified radius, distance of an attack",
            xlim=(0, end),
            ylim=(0, None),
            title=f"{network}: below the line, what is missed"
            if network
            else "Below the line: what is missed",
        )
        axis.legend()
    return figure


_NORMS = {"linf": "l∞", "l2": "l2", "l1": "l1"}
