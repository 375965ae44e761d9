"""Pictures of plug-and-play reconstruction: residuals against the guaranteed rate, PSNR, reconstructions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lablib.plots.theme import LOOKS, RED, new_figure, theme

TITLES = {"tomography": "sparse-view tomography", "mri": "subsampled Fourier (MRI)"}
STYLES = LOOKS  # method -> colour, dash, marker
START = r"start $A^T y$"
HIGHEST = 2.0  # relative change that is drawn: a step as large as the picture is 1
MARK_EVERY = 0.24  # of a line, in diagonals of the panel
Rows = Sequence[Mapping[str, Any]]


def draw_residuals(
    rows: Rows, arrays: Mapping[str, np.ndarray], rates: Mapping[str, np.ndarray], tolerance: float
) -> Figure:
    """Draw ||x_{k+1} - x_k|| / ||x_{k+1}|| of all networks at one setting over the iterations, per problem.

    Args:
        rows: of the result file ``plug_and_play``.
        arrays: ``PROBLEM/METHOD/common/residuals/0`` (K,).
        rates: problem -> what is guaranteed for every constrained method (K,).
        tolerance: the stopping rule.
    """
    problems = _problems(rows)
    with theme():
        figure = new_figure(7.0, 4.3)
        axes = figure.subplots(1, len(problems), sharey=True, squeeze=False)[0]
        for axis, problem in zip(axes, problems):
            shown = [row for row in rows if row["problem"] == problem and "common" in row]
            for number, row in enumerate(shown):
                look = STYLES[row["method"]]
                curve = arrays[f"{problem}/{row['method']}/common/residuals/0"]
                curve = np.where(curve > 0, curve, np.nan)  # overflow: nothing to draw
                axis.loglog(
                    np.arange(1, len(curve) + 1), curve, linewidth=1.3, label=row["label"], **look.line(),
                    marker=look.marker, markersize=4.5, markeredgewidth=0,
                    markevery=(MARK_EVERY * (number + 0.5) / len(shown), MARK_EVERY),  # side by side, not on top
                )  # fmt: skip
            if problem in rates:
                k = np.arange(1, len(rates[problem]) + 1)
                axis.loglog(
                    k, rates[problem], color="black", linewidth=1.2, label="guaranteed with constraint"
                )
            axis.axhline(
                tolerance, color="black", linewidth=0.8, linestyle=(0, (1, 2)), label="stopping rule"
            )
            axis.set(title=TITLES[problem], xlabel="iteration", ylim=(tolerance / 3, HIGHEST))
        axes[0].set(ylabel="relative change in one step")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, handlelength=3.2)
        figure.suptitle(
            "With a constrained denoiser the steps die out, as they must; without, they may not",
            x=0.01, ha="left", fontsize=10.5,
        )  # fmt: skip
    return figure


def draw_quality(rows: Rows, starts: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Draw the PSNR of every picture and their mean, methods from best to worst; crosses did not converge.

    Args:
        rows: of the result file.
        starts: problem -> quality of A^T y for each picture, as mappings with ``psnr``.
    """
    problems = _problems(rows)
    with theme():
        figure = new_figure(7.0, 3.6)
        axes = figure.subplots(1, len(problems), squeeze=False)[0]
        for axis, problem in zip(axes, problems):
            lines = [
                (row["label"], row["method"], row["chosen"]["runs"])
                for row in rows
                if row["problem"] == problem
            ]
            lines.append((START, None, [dict(run, reached=True) for run in starts[problem]]))
            lines.sort(key=lambda line: _mean(line[2]))
            for height, (_, method, runs) in enumerate(lines):
                colour = STYLES[method].colour if method else "black"
                for run in runs:
                    if run["psnr"] is not None:
                        marker, size = ("o", 4) if run["reached"] else ("x", 8)
                        axis.plot(run["psnr"], height, marker, color=colour, markersize=size, alpha=0.7)
                if np.isfinite(_mean(runs)):
                    axis.plot(_mean(runs), height, "|", color=colour, markersize=13, markeredgewidth=2)
            axis.set(
                title=TITLES[problem],
                xlabel="PSNR (dB)",
                yticks=range(len(lines)),
                yticklabels=[line[0] for line in lines],
            )
            axis.tick_params(axis="y", labelsize=8)
        figure.suptitle(
            "PSNR: pictures (dots; crosses: stopping rule not reached) and mean (bar)",
            x=0.01, ha="left", fontsize=10.5,
        )  # fmt: skip
    return figure


def draw_reconstructions(
    problem: str, rows: Rows, arrays: Mapping[str, np.ndarray], start: Mapping[str, float]
) -> Figure:
    """Draw the first picture, the start A^T y and the reconstruction of every method, with PSNR and SSIM.

    Args:
        problem: "tomography" or "mri".
        rows: those of this problem.
        arrays: ``clean/0``, ``PROBLEM/start/0`` and ``PROBLEM/METHOD/chosen/picture/0``, each (S, S) uint8.
        start: quality of the start, ``psnr`` and ``ssim``.
    """
    panels = [
        ("original", None, True, arrays["clean/0"]),
        (START, start, True, arrays[f"{problem}/start/0"]),
    ]
    for row in rows:
        run = row["chosen"]["runs"][0]
        panels.append(
            (row["label"], run, run["reached"], arrays[f"{problem}/{row['method']}/chosen/picture/0"])
        )
    lines = 2
    columns = -(-len(panels) // lines)
    with theme():
        figure = new_figure(7.0, 0.4 + 1.55 * lines)
        axes = figure.subplots(lines, columns, squeeze=False)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        for axis, (label, quality, reached, picture) in zip(axes.flat, panels):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
            numbers = "" if quality is None else _numbers(quality) + ("" if reached else "\nnot converged")
            axis.set_title(_wrap(label), fontsize=7.5, loc="center", color="black" if reached else RED)
            axis.set_xlabel(numbers, fontsize=7, labelpad=2, color="black" if reached else RED)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        figure.suptitle(
            f"One picture from {TITLES[problem]}; below each: PSNR in dB, SSIM",
            x=0.01,
            ha="left",
            fontsize=10.5,
        )
    return figure


def _problems(rows: Rows) -> list[str]:
    if not rows:
        raise ValueError("nothing to draw; give at least one row")
    return list(dict.fromkeys(row["problem"] for row in rows))


def _mean(runs: Sequence[Mapping[str, Any]]) -> float:
    values = [run["psnr"] for run in runs]
    return -np.inf if None in values else float(np.mean(values))


def _numbers(quality: Mapping[str, Any]) -> str:
    if quality["psnr"] is None:
        return "overflow"
    return f"{quality['psnr']:.1f}, {quality['ssim']:.2f}"


def _wrap(label: str) -> str:
    return label.replace(", ", ",\n")
