"""Train a network by a named recipe and certify it: ``python -m lablib train NAME [section.name=value ...]``.

Also under torchrun: ``torchrun --nproc-per-node 2 -m lablib train NAME``. A run keeps checkpoints in
``runs/<name>-<mode>-seed<N>`` and goes on from there with --resume.
"""

import argparse
import contextlib
import sys
from pathlib import Path

HELP = "train a network by a recipe, resumably, and certify it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lablib train``."""
    from lablib.experiments.results import MODES
    from lablib.experiments.training_recipes import RECIPES

    parser.add_argument("name", metavar="NAME", help=f"recipe: {', '.join(RECIPES)}")
    parser.add_argument(
        "settings",
        nargs="*",
        default=[],  # argparse calls them required otherwise
        metavar="KEY=VALUE",
        help="changed settings, such as model.width=256 optim.lr=0.01",
    )
    parser.add_argument("--mode", choices=MODES, help="size of the run; default LABLIB_MODE, else standard")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order, augmentation and masks")
    parser.add_argument("--folder", type=Path, help="of checkpoints; default runs/NAME-MODE-seedN")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    again.add_argument(
        "--fresh", action="store_true", help="delete the files of an earlier run and start anew"
    )
    parser.add_argument("--seconds", type=float, help="stop after so many seconds of training, to be resumed")
    parser.add_argument("--save-steps", type=int, default=0, metavar="N", help="checkpoint every N steps")
    parser.add_argument(
        "--save-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="checkpoint every S seconds (default 60)",
    )
    parser.add_argument("--no-bar", action="store_true", help="no progress bar")
    parser.add_argument("--show", action="store_true", help="print the settings and stop")


def main(args: argparse.Namespace) -> int:
    """Train, certify, write the result; 0 also for a run that --seconds stopped, 128 + N after a signal."""
    from lablib.experiments.results import current_mode
    from lablib.experiments.threads import one_thread
    from lablib.experiments.training import runs_dir
    from lablib.experiments.training_config import override
    from lablib.experiments.training_recipes import recipe_config
    from lablib.train.distributed import ranks
    from lablib.train.run import flatten

    mode = args.mode or current_mode()
    config = override(recipe_config(args.name, mode), args.settings)
    if args.show:
        import dataclasses

        for name, value in flatten(dataclasses.asdict(config)).items():
            print(f"{name}={value}")
        return 0
    if args.seconds is not None and not args.seconds > 0:
        raise ValueError(f"--seconds must be positive, got {args.seconds}")
    if args.seed < 0 or args.save_steps < 0 or not args.save_seconds > 0:
        raise ValueError("--seed and --save-steps must not be negative, and --save-seconds must be positive")
    folder = args.folder or runs_dir() / f"{args.name}-{mode}-seed{args.seed}"
    with ranks(args.device) as here, one_thread() if mode == "quick" else contextlib.nullcontext():
        return _train(args, mode, config, folder, here)


def _train(args: argparse.Namespace, mode: str, config, folder: Path, here) -> int:
    from lablib.experiments.results import results_dir
    from lablib.experiments.training import MODEL_FILE, Training

    training = Training(
        args.name, mode, config, args.seed, here, folder, progress=not args.no_bar,
        save_steps=args.save_steps, save_seconds=args.save_seconds,
    )  # fmt: skip
    run, say = training.run, print if here.first else _silent
    _begin(args, run, folder, here)
    signal = run.go(args.seconds)
    if not run.finished:
        why = "stopped by a signal" if signal else f"paused after {args.seconds:g} s"
        say(f"{why} at step {run.step} of {run.plan.steps}; --resume goes on from {folder}", flush=True)
        return 128 + signal if signal else 0

    from lablib.experiments.training_result import describe_metrics, finish

    name = result_name(args.name, args.seed, args.settings)
    path = finish(training, name)
    if path is not None:
        from lablib.experiments.results import read_result

        say(f"{args.name} ({mode}, seed {args.seed}): {describe_metrics(read_result(name, mode)['metrics'])}")
        say(
            f"trained in {run.seconds:.1f} s; model {folder / MODEL_FILE}, result {results_dir(mode) / path.name}"
        )
    return 0


def result_name(recipe: str, seed: int, settings: list[str]) -> str:
    """Return the name of the result file: changed settings are part of it, so they never replace the recipe's."""
    parts = [f"train_{recipe}", *([f"seed{seed}"] if seed else []), *sorted(settings)]
    return "_".join(parts).replace("/", "-")


def _begin(args: argparse.Namespace, run, folder: Path, here) -> None:
    """Resume, or see to it that no earlier run is lost."""
    from lablib.experiments.training import MODEL_FILE
    from lablib.train.checkpoint import NEWEST, PREVIOUS, clean, remove
    from lablib.train.progress import remove_logs

    there = (folder / NEWEST).exists() or (folder / PREVIOUS).exists()
    if args.resume:
        if here.first:
            clean(folder, (MODEL_FILE,))
        if run.resume() and here.first:
            print(f"resumed at step {run.step} of {run.plan.steps}", file=sys.stderr, flush=True)
    elif there and not args.fresh:
        raise ValueError(
            f"{folder} holds a run already; go on with it by --resume, replace it by --fresh, or give another "
            "--folder"
        )
    elif args.fresh and here.first:
        remove(folder, (MODEL_FILE,))
        remove_logs(folder)


def _silent(*args, **kwargs) -> None:
    """What other ranks than the first print."""
