"""What a recipe is, and the command that runs them: ``python -m lablib figures [NAME ...]``."""

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from lablib.experiments import RECIPES, load_recipe
from lablib.experiments.checkpoint import partial_file
from lablib.experiments.results import MODES, current_mode, figures_dir, read_result, write_result

HELP = "run recipes and redraw their figures (size by LABLIB_MODE or --mode)"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One experiment: its three sizes side by side, how it runs, and what is drawn from its result file.

    Attributes:
        name: module name, result file name and the word on the command line.
        question: one sentence, what a reader learns from it.
        sizes: mode -> config (a dataclass instance); ``quick``, ``standard`` and ``full``.
        run: config -> metrics, or config -> (metrics, arrays). Long runs keep their own checkpoints. Runs that
            are not on the CPU say so in ``metrics["device"]``.
        draw: record of the result file -> {figure name: matplotlib Figure}.
    """

    name: str
    question: str
    sizes: Mapping[str, Any]
    run: Callable[[Any], Any]
    draw: Callable[[dict[str, Any]], dict[str, Any]]

    def __post_init__(self) -> None:
        if set(self.sizes) != set(MODES):
            raise ValueError(f"recipe {self.name!r} must state all of {', '.join(MODES)}")

    def make(self, mode: str | None = None) -> dict[str, Any]:
        """Run at the size of ``mode`` (default ``LABLIB_MODE``), write the result file, return its record."""
        mode = mode or current_mode()
        config = self.sizes[mode]
        start = time.perf_counter()
        made = self.run(config)
        metrics, arrays = made if isinstance(made, tuple) else (made, None)
        write_result(
            self.name,
            mode=mode,
            config=dataclasses.asdict(config),
            metrics=metrics,
            arrays=arrays,
            seconds=time.perf_counter() - start,
            device=metrics.get("device", "cpu"),
        )
        partial_file(self.name, mode).unlink(missing_ok=True)  # only now: a result that fails keeps its parts
        return read_result(self.name, mode)

    def redraw(self, mode: str | None = None) -> list[str]:
        """Draw the figures from the result file, as SVG and PNG; return the file names."""
        from lablib.plots.theme import save_figure

        mode = mode or current_mode()
        folder = figures_dir(mode)
        figures = self.draw(read_result(self.name, mode))
        return [str(path) for name, figure in figures.items() for path in save_figure(figure, folder / name)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lablib figures``."""
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"recipes, default all: {', '.join(RECIPES)}"
    )
    parser.add_argument("--mode", choices=MODES, help="size of the run; default LABLIB_MODE, else standard")
    parser.add_argument("--redraw", action="store_true", help="only draw again from the result files")


def main(args: argparse.Namespace) -> int:
    """Run the recipes one after the other; a failure names its recipe and stops there."""
    mode = args.mode or current_mode()
    recipes = [load_recipe(name) for name in args.names or RECIPES]
    for recipe in recipes:
        print(f"{recipe.name} ({mode}): {recipe.question}", flush=True)
        if not args.redraw:
            print(f"  {recipe.make(mode)['seconds']:.1f} s", flush=True)
        for path in recipe.redraw(mode):
            print(f"  {path}", flush=True)
    return 0
