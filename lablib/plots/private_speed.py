"""Steps per second and peak memory of private training methods, over the batch size."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from lablib.plots.theme import BLUE, GREY, ORANGE, PAGE_WIDTH, RED, Look, new_figure, theme

METHOD_LOOKS = {
    "clipless": Look(BLUE, "solid", "o"),
    "plain SGD": Look(GREY, "dashed", "x"),
    "Opacus, ghost": Look(ORANGE, "dashdot", "^"),
    "Opacus, per sample": Look(RED, "dotted", "s"),
}


def draw_speed(
    times: Sequence[Mapping[str, Any]], memory: Sequence[Mapping[str, Any]], limit: int | None, where: str
) -> Figure:
    """Return one row per network: steps per second on the left, peak memory of a step on the right.

    Args:
        times: ``network``, ``batch``, ``seconds`` (method -> ``lower``, ``median``, ``upper``), ``over_plain`` and,
            where Opacus was there, ``per_sample_over``.
        memory: ``network``, ``method``, ``peaks`` (batch as a string -> bytes), ``largest`` (``fits``, or None).
        limit: bytes, of the largest batches; None if none were looked for.
        where: on what it was measured, in words.

    Raises:
        ValueError: if there are no times or no memory.
    """
    if not times or not memory:
        raise ValueError("there is nothing to draw; run the recipe private_speed first")
    networks = list(dict.fromkeys(row["network"] for row in times))
    with theme():
        figure = new_figure(PAGE_WIDTH, 2.75 * len(networks) + 0.9)
        grid = figure.subplots(len(networks), 2, squeeze=False, sharex=True)
        for (left, right), network in zip(grid, networks, strict=True):
            own = [row for row in times if row["network"] == network]
            _speeds(left, own)
            left.set_title(_title(network, own[-1]))
            _peaks(right, [row for row in memory if row["network"] == network], limit)
        for axis in grid[-1]:
            axis.set_xlabel("batch size")
        sizes = sorted({row["batch"] for row in times})
        grid[0, 0].set_xticks(sizes, [f"{size:,}" for size in sizes])
        grid[0, 0].xaxis.set_minor_locator(NullLocator())
        handles = grid[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper left", ncols=4)
        figure.supxlabel(where, fontsize=8.5, color=GREY)
    return figure


def _title(network: str, row: Mapping[str, Any]) -> str:
    text = (
        f"{network}, batch {row['batch']:,}:\nclipless takes {row['over_plain']:.2f} × the time of plain SGD"
    )
    if "per_sample_over" in row:
        text += f",\nOpacus per sample {row['per_sample_over']:.1f} × that of clipless"
    return text


def _speeds(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for method, look in METHOD_LOOKS.items():
        own = [(row["batch"], row["seconds"][method]) for row in rows if method in row["seconds"]]
        if not own:
            continue
        sizes = [size for size, _ in own]
        axis.plot(sizes, [1 / t["median"] for _, t in own], marker=look.marker, label=method, **look.line())
        slow, fast = ([1 / t[end] for _, t in own] for end in ("upper", "lower"))
        axis.fill_between(sizes, slow, fast, color=look.colour, alpha=0.15, linewidth=0)
    axis.set(xscale="log", yscale="log", ylabel="steps per second")
    _plain_ticks(axis)


def _peaks(axis: Axes, rows: Sequence[Mapping[str, Any]], limit: int | None) -> None:
    for row in rows:
        look = METHOD_LOOKS[row["method"]]
        peaks = {int(size): peak / 2**20 for size, peak in row["peaks"].items()}
        axis.plot(list(peaks), list(peaks.values()), marker=look.marker, **look.line())
    axis.set(xscale="log", yscale="log", ylabel="peak memory of a step [MiB]")
    _plain_ticks(axis)
    if limit is None:
        return
    found = {row["method"]: row["largest"]["fits"] for row in rows if row["largest"]["fits"]}
    lines = "\n".join(f"{method}: {found[method]:,}" for method in METHOD_LOOKS if method in found)
    axis.set_title(f"Largest batch in {limit / 2**30:g} GiB:\n{lines}", fontsize=8.5)


def _plain_ticks(axis: Axes) -> None:
    """Ticks at 1, 3, 10, 30, ..., in words as plain numbers."""
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
