"""How much can one sample change a network's gradient? ``python -m lablib sensitivity MODEL [--loss ...]``.

MODEL is a name of ``--list``, or package.module:function for your own (a function without arguments that returns
the module). Prints the proven bounds layer by layer, what each layer adds to the noise, and with
--noise-multiplier and --batch how large the noise is; with --size and --epochs too, epsilon by each accountant.
Nothing is trained and no data are read.
"""

import argparse
import contextlib
import importlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from lablib.privacy import Sensitivity
    from lablib.privacy.loss_base import PerSampleLoss

HELP = "proven sensitivity of a private network, layer by layer, its noise and its epsilon"
LOSSES = {  # name -> class in lablib.privacy, and the settings it takes
    "cross-entropy": ("CrossEntropy", ("temperature",)),
    "binary-cross-entropy": ("BinaryCrossEntropy", ("temperature",)),
    "hinge": ("Hinge", ("margin",)),
    "kr": ("KR", ()),
    "hkr": ("HKR", ("alpha", "margin")),
    "mae": ("MAE", ()),
    "cosine": ("Cosine", ("min_norm",)),
}
SETTINGS = ("temperature", "margin", "alpha", "min_norm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lablib sensitivity``."""
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="a name of --list, or package.module:function"
    )
    parser.add_argument("--list", action="store_true", help="name the networks and stop")
    parser.add_argument("--shape", metavar="CxHxW", help="of one sample, with a module of your own: 1x28x28")
    parser.add_argument(
        "--input-bound",
        type=float,
        metavar="X",
        help="l2 norm: of the ClipNorm of a named network (1); taken on trust with your own",
    )
    parser.add_argument(
        "--constraint",
        choices=("orthonormal", "spectral", "frobenius", "none"),
        default="orthonormal",
        help="what the weights are projected to, here as after each step (orthonormal)",
    )
    parser.add_argument(
        "--loss", choices=tuple(LOSSES), default="cross-entropy", help="default cross-entropy"
    )
    parser.add_argument("--temperature", type=float, metavar="T", help="of a cross entropy (1)")
    parser.add_argument("--margin", type=float, metavar="M", help="of hinge and hkr (1)")
    parser.add_argument("--alpha", type=float, metavar="A", help="weight of the hinge in hkr (1)")
    parser.add_argument("--min-norm", type=float, metavar="K", help="of cosine (1)")
    parser.add_argument(
        "--loss-clip", type=float, metavar="C", help="clip the gradient of the loss to this norm"
    )
    parser.add_argument("--noise-multiplier", type=float, metavar="S", help="sigma: noise over sensitivity")
    parser.add_argument("--batch", type=float, metavar="B", help="expected size of a batch")
    parser.add_argument("--size", type=int, metavar="N", help="samples in the data set")
    parser.add_argument("--epochs", type=int, metavar="E", help="passes over the data set")
    parser.add_argument("--delta", type=float, metavar="D", default=1e-5, help="of (epsilon, delta) (1e-5)")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="write the figure to FILE.svg and FILE.png")


def main(args: argparse.Namespace) -> int:
    """Print the tables; write the figure if asked for."""
    if args.list:
        _print_list()
        return 0
    if args.model is None:
        raise ValueError("name a network, or package.module:function; --list names those there are")
    _check_run(args)
    _check_plot(args.plot)
    module, shape, norms, input_bound = _model(args)
    bounds, loss = _bounds(args, module, shape, norms, input_bound)
    sizes = {name: p.numel() for name, p in module.named_parameters() if p.requires_grad}
    print(f"{args.model}: samples of shape {shape}, {sum(sizes.values()):,} trained numbers")
    clipped = f", clipped to {args.loss_clip:g}" if args.loss_clip is not None else ""
    print(f"loss: {loss}, {loss.lipschitz:.6g}-Lipschitz{clipped}; weights: {args.constraint}\n")
    _print_layers(bounds, sizes)
    if args.noise_multiplier is not None:
        _print_noise(bounds, sizes, args.noise_multiplier, args.batch)
    if args.plot is not None:
        _plot(args.plot, args.model, bounds)
    if args.size is not None:  # last: it may lack its extra, and takes longest
        _print_epsilon(args)
    return 0


def _check_plot(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix not in ("", ".png", ".svg"):
        raise ValueError(f"--plot {path} must end in .png or .svg (both are written), or in neither")
    if not path.parent.is_dir():
        raise ValueError(f"--plot {path}: there is no folder {path.parent}; make it first")


def _print_list() -> None:
    from lablib.experiments.private_models import PRIVATE_MODELS

    for name, (make, shape) in PRIVATE_MODELS.items():
        count = sum(p.numel() for p in make().parameters())
        summary = (make.__doc__ or "").splitlines()[0]
        print(f"{name:14} {'x'.join(map(str, shape)):8} {count:9,} numbers  {summary}")


def _check_run(args: argparse.Namespace) -> None:
    """Refuse half of what the noise or epsilon needs, and numbers out of range."""
    noise = {"--noise-multiplier": args.noise_multiplier, "--batch": args.batch}
    run = {"--size": args.size, "--epochs": args.epochs}
    needed = noise | run if any(value is not None for value in run.values()) else noise
    missing = [name for name, value in needed.items() if value is None]
    if missing and len(missing) < len(needed):
        what = "epsilon" if needed is not noise else "the noise"
        raise ValueError(f"{what} needs {', '.join(needed)}; {missing[0]} is missing")
    for name, value in (noise | run | {"--delta": args.delta}).items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} {value:g} must be a positive number")
    if args.size is not None and args.batch > args.size:
        raise ValueError(f"--batch {args.batch:g} is more than the --size {args.size} of the data set")
    if not args.delta < 1:
        raise ValueError(f"--delta {args.delta:g} must be below 1, and well below 1 / size")
    _, takes = LOSSES[args.loss]
    for setting in SETTINGS:
        if getattr(args, setting) is not None and setting not in takes:
            raise ValueError(
                f"--{setting.replace('_', '-')} says nothing to --loss {args.loss}; leave it out"
            )


def _model(
    args: argparse.Namespace,
) -> tuple["nn.Module", tuple[int, ...], dict[str, float], float]:
    """Return the module with projected weights, the shape of a sample, proven norms, and the bound of inputs."""
    import torch

    from lablib.experiments.private_models import find_architecture
    from lablib.privacy import project

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same weights each time
        if ":" in args.model:
            if args.shape is None:
                raise ValueError("--shape is missing: the shape of one sample, such as 1x28x28")
            module, shape = _own_module(args.model), _shape(args.shape)
            bound = math.inf if args.input_bound is None else args.input_bound
        else:
            if args.shape is not None:
                raise ValueError(f"{args.model} has its own shape; leave out --shape")
            make, shape = find_architecture(args.model)
            module = make() if args.input_bound is None else make(args.input_bound)
            bound = math.inf
    norms = project(module, None if args.constraint == "none" else args.constraint)
    return module, shape, norms, bound


def _own_module(path: str) -> "nn.Module":
    """Import package.module:function and call it; every way in which that fails is one sentence."""
    from torch import nn

    name, _, attribute = path.partition(":")
    try:
        with _working_folder():
            function = getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be loaded: {error}") from None
    if not callable(function):
        raise ValueError(f"{path} is no function; give one without arguments that returns the module")
    try:
        module = function()
    except Exception as error:
        raise ValueError(f"{path} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"{path} returned {type(module).__name__}; it must return a torch module")
    return module


@contextlib.contextmanager
def _working_folder():
    """Let modules of the working folder be found, as ``python -m`` does; the ``lablib`` script does not."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.pop(0)


def _shape(word: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in word.lower().split("x"))
    except ValueError:
        raise ValueError(f"--shape {word!r} is no shape; write 1x28x28") from None


def _bounds(
    args: argparse.Namespace, module: "nn.Module", shape, norms, input_bound: float
) -> tuple["Sensitivity", "PerSampleLoss"]:
    """Return the sensitivity and the loss, made for as many outputs as the network has."""
    import torch

    from lablib import privacy

    def measure(limit: float) -> "Sensitivity":
        return privacy.sensitivity(module, shape, limit, input_bound=input_bound, norms=norms)

    measure(1.0)  # says what is wrong with the module or the shape before it is run
    kind = next((p.dtype for p in module.parameters()), torch.float32)
    with torch.no_grad():
        outputs = module(torch.zeros(1, *shape, dtype=kind))
    if outputs.dim() != 2:
        raise ValueError(f"the network gives {tuple(outputs.shape[1:])} per sample; end it with nn.Flatten()")
    name, takes = LOSSES[args.loss]
    if name == "CrossEntropy" and outputs.shape[1] < 2:
        raise ValueError("a cross entropy needs C >= 2 outputs; for one take --loss binary-cross-entropy")
    settings = {key: getattr(args, key) for key in takes if getattr(args, key) is not None}
    if name in ("BinaryCrossEntropy", "MAE", "HKR"):
        settings["outputs"] = outputs.shape[1]
    loss = getattr(privacy, name)(**settings)
    return measure(privacy.loss_lipschitz(loss, args.loss_clip)), loss


def _print_layers(bounds: "Sensitivity", sizes: dict[str, int]) -> None:
    """Print one line per layer, and one more for each further parameter of a layer."""
    total = bounds.total
    heads = (
        "layer",
        "kind",
        "features in",
        "out",
        "cotangent",
        "parameter",
        "numbers",
        "sensitivity",
        "share",
    )
    lines = [(*heads, "if frozen")]
    for row in bounds.rows:
        norms = tuple(f"{value:.4g}" for value in (row.input_norm, row.output_norm, row.cotangent_out))
        costs = []
        for name, value in row.parameters.items():
            share = min(1.0, (value / total) ** 2)
            saved = 100 * (1 - math.sqrt(1 - share))
            kind = name.rpartition(".")[2]
            costs.append(
                (kind, f"{sizes[name]:,}", f"{value:.4g}", f"{100 * share:.1f} %", f"-{saved:.1f} %")
            )
        first, *others = costs or [("", "", "", "", "")]
        lines.append((row.name, row.kind, *norms, *first))
        lines.extend(("", "", "", "", "", *other) for other in others)
    lines.append(("all", "", "", "", "", "", f"{sum(sizes.values()):,}", f"{total:.4g}", "100 %", ""))
    _print_table(lines, left=(0, 1, 5))
    print(
        "\nfeatures, cotangent: bounds of the l2 norm of one sample's, in front of a layer, behind it, and on the way"
        "\nback; sensitivity: of one sample's gradient, rounding included; share: of the variance of global"
        "\nnoise; if frozen: how much lower the noise on all others is when this one is not trained"
    )


def _print_table(lines: list[tuple[str, ...]], left: tuple[int, ...]) -> None:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = (
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


def _at_most(value: float) -> str:
    """Return ``value`` > 0 rounded up to four digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.ceil(value / unit) * unit:.4g}"


def _print_noise(bounds: "Sensitivity", sizes: dict[str, int], sigma: float, batch: float) -> None:
    from lablib.privacy.noise import NOISES, noise_scales

    print(f"\nnoise on the mean gradient: noise multiplier {sigma:g}, expected batch {batch:g}")
    lines = [("strategy", "sd of a number, least", "largest", "expected length")]
    for strategy in NOISES:
        deviations = noise_scales(bounds, sizes, sigma, strategy)
        values = [value / batch for value in deviations.values()]
        length = math.sqrt(sum(sizes[name] * value**2 for name, value in deviations.items())) / batch
        lines.append((strategy, f"{min(values):.4g}", f"{max(values):.4g}", f"{length:.4g}"))
    _print_table(lines, left=(0,))
    print(f"a batch of {batch:g} has a mean gradient of length at most {_at_most(bounds.total)}")


def _print_epsilon(args: argparse.Namespace) -> None:
    from lablib.privacy.accounting import ACCOUNTANTS, epsilon
    from lablib.privacy.loader import epoch_steps

    rate = args.batch / args.size
    steps = args.epochs * epoch_steps(rate)
    print(
        f"\nepsilon at delta {args.delta:g} after {steps:,} steps, each sample drawn with probability {rate:.4g}"
    )
    if args.delta >= 1 / args.size:
        print("(a delta of 1 / size or more also allows to publish one sample outright: take a smaller one)")
    for accountant in ACCOUNTANTS:
        try:
            found = epsilon((args.noise_multiplier, rate, steps), args.delta, accountant)
        except ImportError as error:  # of the libraries behind it; main knows modules that are missing
            raise ModuleNotFoundError(str(error)) from error
        print(f"{accountant:12} {found:.4f}")


def _plot(path: Path, name: str, bounds: "Sensitivity") -> None:
    from lablib.plots.sensitivity import sensitivity_figure
    from lablib.plots.theme import save_figure

    title = f"{name}: one sample moves the summed gradient by at most {_at_most(bounds.total)}"
    figure = sensitivity_figure(bounds.rows, bounds.loss_lipschitz, title)
    for written in save_figure(figure, path.with_suffix("") if path.suffix else path):
        print(f"written: {written}")
