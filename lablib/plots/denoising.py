"""Pictures of denoisers: quality by activation, one picture by every method, and the learned splines."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lablib.plots.theme import BLUE, COLOURS, DASHES, GREY, ORANGE, PAGE_WIDTH, new_figure, theme

METHODS = {"clean": "clean", "noisy": "noisy", "tv": "total variation"}


def draw_quality(
    rows: Sequence[Mapping[str, Any]], baselines: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> Figure:
    """Draw the PSNR of every trained denoiser, one panel per noise level, one point per seed.

    Args:
        rows: ``activation``, ``sigma``, ``target`` ("network" or "averaged"), ``psnr`` of each.
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
            axis.axvline(
                base["tv"]["psnr"], color=GREY, linestyle="dashed", linewidth=1.2, label="total variation"
            )
            axis.set(
                title=f"Noise {base['sigma']} of 255 (noisy: {base['noisy']['psnr']:.2f} dB)",
                xlabel="PSNR (dB)",
            )
        axes[0].set_yticks(range(len(used)), labels=[names[name] for name in used])
        axes[0].set_ylim(len(used) - 0.5, -0.6)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8.5)
    return figure


def _quality_panel(axis, rows: Sequence[Mapping[str, Any]], used: Sequence[str]) -> None:
    styles = (
        ("network", BLUE, "o", -0.12, "network N trained to denoise"),
        ("averaged", ORANGE, "D", 0.12, "firmly nonexpansive (I + N)/2 trained"),
    )
    for target, colour, marker, shift, label in styles:
        chosen = [row for row in rows if row["target"] == target]
        if chosen:
            places = [used.index(row["activation"]) + shift for row in chosen]
            axis.plot(
                [row["psnr"] for row in chosen],
                places,
                marker,
                color=colour,
                markersize=5.5,
                markerfacecolor="white" if target == "averaged" else colour,
                label=label,
            )
    axis.grid(axis="y", visible=False)


def draw_pictures(pictures: Mapping[str, np.ndarray], names: Mapping[str, str]) -> Figure:
    """Draw one picture by every method, each with its PSNR.

    Args:
        pictures: "clean", "noisy", "tv" and activations -> (H, W) uint8.
        names: activation -> label.
    """
    if "clean" not in pictures:
        raise ValueError("nothing to compare with; give the clean picture")
    labels = METHODS | dict(names)
    shown = [name for name in labels if name in pictures]
    columns = 3
    lines = -(-len(shown) // columns)
    clean = pictures["clean"].astype(float)
    with theme():
        figure = new_figure(PAGE_WIDTH, 2.35 * lines + 0.2)
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, name in zip(axes, shown):
            error = np.square(pictures[name] - clean).mean()
            worth = "" if name == "clean" else f"  {10 * np.log10(255**2 / error):.2f} dB"
            axis.imshow(pictures[name], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_title(f"{labels[name]}{worth}", fontsize=9)
    return figure


def draw_splines(
    splines: Mapping[int, tuple[np.ndarray, np.ndarray]], rows: Sequence[Mapping[str, Any]]
) -> Figure:
    """Draw learned splines of the first layer, one panel per noise level, with the knots that stay in the title.

    Args:
        splines: sigma -> (positions, values), each (channels, knots).
        rows: ``sigma``, ``active_knots`` (mean per spline) and ``knots`` of every trained network.
    """
    if not splines:
        raise ValueError("nothing to draw; give the splines of at least one noise level")
    with theme():
        figure = new_figure(PAGE_WIDTH, 3.0)
        axes = figure.subplots(1, len(splines), squeeze=False, sharey=True, sharex=True)[0]
        for axis, (sigma, (positions, values)) in zip(axes, splines.items(), strict=True):
            for number, (x, y) in enumerate(zip(positions, values)):
                middle = y - np.interp(0.0, x, y)
                style = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
                axis.plot(x, middle, linewidth=1.4, **style)
            here = [row for row in rows if row["sigma"] == sigma]
            kept = (
                f"{np.mean([row['active_knots'] for row in here]):.0f} of {here[0]['knots']}" if here else "?"
            )
            axis.set(title=f"Noise {sigma}: {kept} knots stay", xlabel="input of the activation")
        axes[0].set_ylabel("output, moved to 0 at 0")
    return figure
