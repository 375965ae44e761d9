"""Pictures of impossibility certificates: R between classes, budgets and proofs as images, R against depth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lablib.plots.theme import COLOURS, DASHES, GREY, SEQUENTIAL, new_figure, theme


def study_figures(record: Mapping[str, Any]) -> dict[str, Figure]:
    """Return every figure of a result file of ``impossibility_mnist`` or ``impossibility_cifar10``."""
    name, metrics, arrays = record["name"], record["metrics"], record["arrays"]
    names, rows = metrics["class_names"], metrics["pairs"]
    figures = {
        f"{name}_map": pair_map(names, rows),
        f"{name}_budgets": budget_gallery(arrays["lambdas"], [_against(row, names) for row in rows]),
        f"{name}_depth": depth_curves(metrics["depth_curves"], names),
    }
    places = {tuple(row["classes"]): number for number, row in enumerate(rows)}
    for a, b in record["config"]["shown"]:
        budget = arrays["lambdas"][places[a, b]]
        images, shares = arrays[f"pairs_{a}_{b}"], arrays[f"shares_{a}_{b}"]
        upper = rows[places[a, b]]["upper"]
        figures[f"{name}_proof_{a}_{b}"] = proof(budget, images, shares, (names[a], names[b]), upper)
    return figures


def pair_map(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw R (lower triangle) and half the l_inf separation (upper triangle) for every two classes.

    Args:
        names: class names.
        rows: per pair ``classes`` (a, b), ``upper`` and ``half_separation``.
    """
    used = sorted({label for row in rows for label in row["classes"]})
    place = {label: number for number, label in enumerate(used)}
    values = np.full((len(used), len(used)), np.nan)
    for row in rows:
        low, high = sorted(place[label] for label in row["classes"])
        values[high, low], values[low, high] = row["upper"], row["half_separation"]
    with theme():
        figure = new_figure(7.0, max(4.0, 1.4 + 0.46 * len(used)))
        axis = figure.add_subplot()
        image = axis.imshow(values, vmin=0, vmax=np.nanmax(values))
        for (i, k), value in np.ndenumerate(values):
            if i != k:
                ink = "white" if value < 0.6 * np.nanmax(values) else "black"
                axis.text(k, i, f"{value:.3f}"[1:], ha="center", va="center", color=ink, fontsize=8)
        labels = [names[label] for label in used]
        turned = {"rotation": 45, "ha": "right"} if max(map(len, labels)) > 2 else {}
        axis.set_xticks(range(len(used)), labels, **turned)
        axis.set_yticks(range(len(used)), labels)
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
        largest, least = max(row["upper"] for row in rows), min(row["half_separation"] for row in rows)
        figure.suptitle(
            f"Certified radius: at most {largest:.3f} for a standard network (below the diagonal),\n"
            f"at least {least:.3f} for the nearest neighbour (above it)",
            fontsize=10.5, x=0.01, ha="left",
        )  # fmt: skip
        axis.set(xlabel="class", ylabel="class")
        figure.colorbar(image, ax=axis, label="radius in $\\ell_\\infty$ (pixels in [0, 1])", shrink=0.8)
    return figure


def budget_gallery(budgets: np.ndarray, titles: Sequence[str], columns: int = 9) -> Figure:
    """Draw the best budgets lambda (n, C, H, W) as images, channels added up, each on its own scale."""
    columns = min(columns, len(budgets))
    lines = -(-len(budgets) // columns)
    if max(map(len, titles)) > 10:  # names as well as digits fit above their picture
        titles = [title.replace("–", "–\n") for title in titles]
    with theme():
        figure = new_figure(7.0, 0.6 + lines * (7.0 / columns + 0.3))
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for axis, budget, title in zip(axes, budgets, titles):
            axis.imshow(budget.sum(axis=0), cmap=SEQUENTIAL, vmin=0)
            axis.set_title(title, fontsize=7, loc="center", pad=2)
        for axis in axes:
            axis.axis("off")
        figure.suptitle(
            "Where the best budget $\\lambda$ lies for each pair of classes (yellow: most)",
            fontsize=10.5, x=0.01, ha="left",
        )  # fmt: skip
    return figure


def proof(
    budget: np.ndarray, images: np.ndarray, shares: np.ndarray, names: tuple[str, str], upper: float
) -> Figure:
    """Draw lambda and the heaviest pairs of the dual: together they are the proof that R <= ``upper``.

    Args:
        budget: lambda (C, H, W).
        images: (n, 2, C, H, W) uint8 or float: the pairs.
        shares: (n,) their weights mu.
        names: of the two classes.
    """
    count = len(images)
    with theme():
        figure = new_figure(7.0, 3.0)
        grid = figure.add_gridspec(3, count + 3)
        left = figure.add_subplot(grid[:, :3])
        left.imshow(budget.sum(axis=0), cmap=SEQUENTIAL, vmin=0)
        left.set_title("best budget $\\lambda$", fontsize=9, loc="center")
        left.axis("off")
        for column, (pair, share) in enumerate(zip(images, shares)):
            apart = np.abs(pair[0].astype(float) - pair[1].astype(float)).sum(axis=0)
            shown = (_picture(pair[0]), _picture(pair[1]), apart)
            for line, (what, label) in enumerate(zip(shown, (names[0], names[1], "|a − b|"))):
                axis = figure.add_subplot(grid[line, 3 + column])
                axis.imshow(what, cmap="gray" if line < 2 else SEQUENTIAL)
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                if column == 0:
                    axis.set_ylabel(label, fontsize=8)
                if line == 0:
                    axis.set_title(f"{100 * share:.1f}%", fontsize=8, loc="center")
        figure.suptitle(
            f"{names[0]} against {names[1]}: pairs like these, weighed as written, prove R ≤ {upper:.4f}",
            fontsize=10.5, x=0.01, ha="left",
        )  # fmt: skip
    return figure


def depth_curves(curves: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Draw R_M against the number M of affine layers, one panel per group size.

    Args:
        curves: per pair of classes and group size ``classes``, ``group``, ``half_separation`` and ``points`` with
            ``depth`` and ``upper``.
        names: class names.
    """
    groups = sorted({curve["group"] for curve in curves})
    most = max(point["depth"] for curve in curves for point in curve["points"])
    with theme():
        figure = new_figure(7.0, 3.2)
        axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axis, group in zip(axes, groups):
            here = [curve for curve in curves if curve["group"] == group]
            for number, (curve, colour) in enumerate(zip(here, COLOURS)):
                depths = [point["depth"] for point in curve["points"]]
                bounds = [point["upper"] for point in curve["points"]]
                line = DASHES[number % len(DASHES)]
                axis.plot(depths, bounds, color=colour, ls=line, marker="o", label=_against(curve, names))
                axis.plot(
                    [1, most + 0.3], [curve["half_separation"]] * 2, color=colour, ls=line, lw=0.9, alpha=0.6
                )
            kind = "MaxMin" if group == 2 else "GroupSort"
            axis.set_title(f"{kind}, groups of {group}")
            axis.set(xlabel="affine layers M (M − 1 sorts)", xticks=range(1, most + 1), ylim=(0, None))
        axes[0].set_ylabel("radius")
        axes[0].legend(title="$R_M$; thin: half separation", title_fontsize=8, loc="lower right")
        figure.suptitle(
            "Each sort of G neurons multiplies the bound by G, until half the separation (thin) caps it",
            fontsize=10.5, x=0.01, ha="left",
        )  # fmt: skip
        for axis in axes:
            axis.axhline(0, color=GREY, lw=0.6)
    return figure


def _against(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return "–".join(names[label] for label in row["classes"])


def _picture(image: np.ndarray) -> np.ndarray:
    """Return (H, W) for one channel, (H, W, C) for three."""
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
