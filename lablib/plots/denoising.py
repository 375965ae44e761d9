"""Pictures of denoisers: quality by activation, one picture by every method, and the learned splines."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lablib.plots.theme import BLUE, GREY, LOOKS, PAGE_WIDTH, activation_look, new_figure, theme

METHODS = {"clean": "clean", "noisy": "noisy", "tv": "total variation"}
TARGETS = {  # what was trained: text, marker, filled, place in the row
    "network": ("network N trained to denoise", "o", True, -0.14),
    "averaged": ("firmly nonexpansive (I + N)/2 trained", "D", False, 0.14),
}


def draw_quality(
    rows: Sequence[Mapping[str, Any]], baselines: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> Figure:
    """Draw the PSNR of every trained denoiser, one panel per noise level, one point per seed.

    Args:
        rows: ``activation``, ``sigma``, ``target`` ("network" or "averaged"), ``seed``, ``psnr`` of each.
        baselines: ``sigma``, and the ``psnr`` of ``noisy`` and ``tv``.
        names: activation -> label, in the order of drawing.
    """
    if not rows or not baselines:
        raise ValueError("nothing to draw; give at least one denoiser and one noise level")
    used = [name for name in names if any(row["activation"] == name for row in rows)]
    with theme():
        figure = new_figure(PAGE_WIDTH, 1.5 + 0.33 * len(used))
        axes = figure.subplots(1, len(baselines), squeeze=False, sharey=True)[0]
        for axis, base in zip(axes, baselines, strict=True):
            here = [row for row in rows if row["sigma"] == base["sigma"]]
            _quality_panel(axis, here, used)
            axis.axvline(base["tv"]["psnr"], linewidth=1.2, **LOOKS["tv"].line())
            axis.set(
                title=f"Noise {base['sigma']} of 255 (noisy: {base['noisy']['psnr']:.2f} dB)",
                xlabel="PSNR (dB)",
            )
        axes[0].set_yticks(range(len(used)), labels=[names[name] for name in used])
        axes[0].set_ylim(len(used) - 0.5, -0.6)
        marks = [_mark(rows, target) for target in TARGETS if any(row["target"] == target for row in rows)]
        marks.append(Line2D([], [], linewidth=1.2, label="total variation", **LOOKS["tv"].line()))
        figure.legend(handles=marks, loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def _mark(rows: Sequence[Mapping[str, Any]], target: str) -> Line2D:
    """Return the legend's mark of what was trained, with how many seeds there are."""
    text, marker, filled, _ = TARGETS[target]
    seeds = len({row["seed"] for row in rows if row["target"] == target})
    label = f"{text} ({'one seed' if seeds == 1 else f'{seeds} seeds, a mark each'})"
    face = "black" if filled else "white"
    return Line2D([], [], marker=marker, linestyle="none", color="black", markerfacecolor=face, label=label)


def _quality_panel(axis: Axes, rows: Sequence[Mapping[str, Any]], used: Sequence[str]) -> None:
    for row in rows:
        _, marker, filled, shift = TARGETS[row["target"]]
        colour = activation_look(row["activation"]).colour
        face = colour if filled else "white"
        place = used.index(row["activation"]) + shift
        axis.plot(row["psnr"], place, marker, color=colour, markersize=5.5, markerfacecolor=face)
    axis.grid(axis="y", visible=False)


def draw_pictures(
    pictures: Mapping[str, np.ndarray], names: Mapping[str, str], sigma: float | None = None
) -> Figure:
    """Draw one picture by every method, each with its PSNR.

    Args:
        pictures: "clean", "noisy", "tv" and activations -> (H, W) uint8.
        names: activation -> label.
        sigma: standard deviation of the noise, in levels of 255, written above.
    """
    if "clean" not in pictures:
        raise ValueError("nothing to compare with; give the clean picture")
    labels = METHODS | dict(names)
    shown = [name for name in labels if name in pictures]
    columns = 3
    lines = -(-len(shown) // columns)
    clean = pictures["clean"].astype(float)
    with theme():
        figure = new_figure(PAGE_WIDTH, 2.35 * lines + (0.2 if sigma is None else 0.4))
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, name in zip(axes, shown):
            error = np.square(pictures[name] - clean).mean()
            worth = "" if name == "clean" else f"  {10 * np.log10(255**2 / error):.2f} dB"
            axis.imshow(pictures[name], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_title(f"{labels[name]}{worth}", fontsize=9)
        if sigma is not None:
            title = f"Gaussian noise of standard deviation {sigma:g} of 255; PSNR of this picture"
            figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    return figure


def draw_splines(
    splines: Mapping[int, tuple[np.ndarray, np.ndarray]], rows: Sequence[Mapping[str, Any]]
) -> Figure:
    """Draw how learned splines of the first hidden layer differ from the identity: noise levels in rows.

    Args:
        splines: sigma -> (positions, values), each (channels, knots), of the network of seed 0.
        rows: ``sigma``, ``active_knots`` (mean per spline) and ``knots`` of every trained network.
    """
    if not splines:
        raise ValueError("nothing to draw; give the splines of at least one noise level")
    columns = max(len(positions) for positions, _ in splines.values())
    with theme():
        figure = new_figure(PAGE_WIDTH + 0.6, 1.5 * len(splines) + 0.7)
        panels = figure.subplots(len(splines), columns, squeeze=False, sharey=True, sharex=True)
        for line, (sigma, (positions, values)) in zip(panels, splines.items(), strict=True):
            for axis, x, y in zip(line, positions, values):
                axis.axhline(0.0, color=GREY, linewidth=1.0)
                axis.plot(x, y - x - np.interp(0.0, x, y), color=BLUE, linewidth=1.4)
                axis.tick_params(labelsize=7.5)
            for axis in line[len(positions) :]:
                axis.set_axis_off()
            line[0].set_ylabel(f"noise {sigma} of 255\ns(x) − x − s(0)", fontsize=8.5)
        for number, axis in enumerate(panels[0], start=1):
            axis.set_title(f"channel {number}", fontsize=8.5)
        figure.supxlabel("x, input of the activation", fontsize=9.5)
        figure.suptitle(
            f"Splines of the first hidden layer less the identity, first channels, seed 0\n{_kept(splines, rows)}",
            fontsize=10.5, x=0.01, ha="left",
        )  # fmt: skip
    return figure


def _kept(sigmas: Iterable[int], rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how many knots stay on average, over all splines of all networks of a noise level."""
    parts = []
    for sigma in sigmas:
        here = [row for row in rows if row["sigma"] == sigma]
        if here:
            mean = np.mean([row["active_knots"] for row in here])
            parts.append(f"{mean:.0f} of {here[0]['knots']} at noise {sigma}")
    return "Knots that stay, mean of all splines and networks: " + (", ".join(parts) or "unknown")
