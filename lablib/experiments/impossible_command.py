"""Which radius can no standard network certify on these classes? Prints R and writes the proof.

By its Lipschitz margins, no network of the kind certifies more than R on all points; half the l_inf separation,
beside it, is what a nearest-neighbour classifier reaches. The certificate file proves R, and is checked in exact
arithmetic. (A network's true robustness may be larger; no Lipschitz margin proves it.)
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from lablib.theory.impossibility import Certificate

HELP = "bound the certified radius on a data set, with a certificate; or check a certificate"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lablib impossible``."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="NAME", help="digits, mnist or cifar10: its training images")
    source.add_argument("--npz", metavar="FILE", help="your own: arrays x (points, ...) and y (labels)")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="two or more labels; default: all")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N points of each class")
    parser.add_argument(
        "--scale",
        type=int,
        help="with --npz of integers: the value that counts as 1.0 (255 for uint8, else 1)",
    )
    parser.add_argument("--depth", type=int, default=1, metavar="M", help="affine layers with sorts between")
    parser.add_argument("--group", type=int, default=2, metavar="G", help="neurons per sort (2 is MaxMin)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative gap to stop at (1e-4)")
    parser.add_argument(
        "--max-seconds", type=float, default=float("inf"), help="stop there with valid bounds"
    )
    parser.add_argument("--out", metavar="FILE", help="where to write the certificate")
    parser.add_argument("--check", metavar="FILE", help="only check this certificate against the data")


def main(args: argparse.Namespace) -> int:
    """Make or check one certificate; 1 if a certificate is refused."""
    from lablib.theory.impossibility import Certificate, CertificateError
    from lablib.theory.impossibility.check import check_form

    points, title, scale = _read(args)
    if args.check:
        if args.classes or args.limit or args.depth != 1:
            print(
                "--classes, --limit, --depth and --group say nothing to --check: the certificate has its own"
            )
        certificate = Certificate.load(args.check)
        try:
            check_form(certificate)
            classes = _named_in(certificate, points, args)
            _check(certificate, classes, scale)
        except CertificateError as error:
            print(error)
            return 1
        sides = [f"{name} (first {size:,})" for name, size in zip(certificate.names, certificate.sizes)]
        print(f"{args.check}: {' against '.join(sides)}, {_networks(certificate)}")
        _print_bounds(certificate)
        return 0
    if len(points) < 2:
        raise ValueError("give at least two classes")
    for name, part in points.items():
        print(f"{title}, class {name}: {len(part):,} points of {part[0].size} coordinates")
    certificate = _solve(points, scale, args)
    print(f"scale: coordinates are integers / {certificate.scale}")
    print(f"networks: {_networks(certificate)}")
    _print_bounds(certificate)
    run = certificate.run
    print(
        f"found in {run['seconds']:.1f} s, {run['rounds']} rounds; {len(certificate.pairs)} pairs are the proof"
    )
    stem = "_".join([title, *points]) if len(points) < 6 else f"{title}_{len(points)}_classes"
    stem += f"_first{args.limit}" if args.limit else ""
    stem += f"_depth{args.depth}_group{args.group}" if args.depth > 1 else ""
    path = certificate.save(args.out or f"impossible_{stem}.json")
    print(f"written: {path}")
    _check(certificate, list(points.values()), scale)
    return 0


def _read(args: argparse.Namespace) -> tuple[dict[str, "np.ndarray"], str, int | None]:
    """Return name -> points of the classes asked for (all of them for --check), a title, and the scale."""
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit {args.limit} must be at least 1")
    chosen = None if args.check else args.classes
    if args.npz:
        x, y = _read_npz(Path(args.npz))
        names = {str(label): label for label in sorted(set(y.tolist()))}
        title, scale = Path(args.npz).stem, args.scale
    else:
        from lablib.data import load

        if args.scale is not None:
            raise ValueError("--scale goes with --npz; the named data sets have their own")
        data = load(args.data)
        x, y, title, scale = data.x_train, data.y_train, data.name, data.scale
        names = {name: label for label, name in enumerate(data.class_names)}
    wanted = list(names) if chosen is None else [_name(word, names) for word in chosen]
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"--classes {' '.join(chosen)} names a class twice")
    limit = None if args.check else args.limit
    return {name: x[y == names[name]][:limit] for name in wanted}, title, scale


def _name(word: str, names: dict[str, Any]) -> str:
    """Return the class a word on the command line means: its name, or its number."""
    if word in names:
        return word
    by_number = {str(label): name for name, label in names.items()}
    if word in by_number:
        return by_number[word]
    raise ValueError(f"there is no class {word!r}; choose from: {', '.join(names)}")


def _read_npz(path: Path) -> tuple["np.ndarray", "np.ndarray"]:
    """Read arrays x and y; every way in which that fails is one sentence."""
    import zipfile
    import zlib

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            if not {"x", "y"} <= set(getattr(stored, "files", ())):
                raise ValueError("it needs arrays named x and y: numpy.savez(FILE, x=points, y=labels)")
            x, y = stored["x"], stored["y"]
        y = y.astype(str) if y.dtype.kind == "S" else y
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist; give the path of an .npz file with x and y"
        ) from None
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise ValueError(f"{path} cannot be used: {error}") from None
    if x.ndim < 2 or y.shape != x.shape[:1] or y.dtype.kind not in "iubUS" or not len(y):
        raise ValueError(
            f"{path} holds x {x.dtype} {x.shape} and y {y.dtype} {y.shape}; give x (points, ...) with one label, "
            "an integer or a string, per point in y (points,)"
        )
    return x, y


def _solve(points: dict[str, "np.ndarray"], scale: int | None, args: argparse.Namespace) -> "Certificate":
    from tqdm import tqdm

    from lablib.theory.impossibility import solve

    with tqdm(desc="searching", unit=" rounds", disable=None, leave=False) as bar:

        def progress(_: int, lower: float, upper: float) -> None:
            bar.set_postfix_str(f"R in {lower:.5f} .. {upper:.5f}")
            bar.update()

        return solve(
            list(points.values()),
            names=list(points),
            scale=scale,
            depth=args.depth,
            group=args.group,
            tolerance=args.tolerance,
            max_seconds=args.max_seconds,
            progress=progress,
        )


def _named_in(certificate: "Certificate", points: dict, args: argparse.Namespace) -> list["np.ndarray"]:
    """Return the points the certificate speaks of: its classes, the first so many of each."""
    if missing := [name for name in certificate.names if name not in points]:
        raise ValueError(f"{args.check} is about a class {missing[0]!r}, which these data do not have")
    return [points[name][:size] for name, size in zip(certificate.names, certificate.sizes)]


def _check(certificate: "Certificate", classes: list["np.ndarray"], scale: int | None) -> None:
    """Check exactly, every pair included, and say so."""
    from tqdm import tqdm

    from lablib.theory.impossibility import check

    began = time.perf_counter()
    with tqdm(desc="checking", unit=" pairs", unit_scale=True, disable=None, leave=False) as bar:

        def progress(seen: int, total: int) -> None:
            bar.total = total
            bar.update(seen - bar.n)

        checked = check(certificate, classes, scale=scale, progress=progress)
    seconds = time.perf_counter() - began
    print(f"checked in exact arithmetic: proof accepted, {checked.pairs:,} pairs looked at, {seconds:.1f} s")


def _networks(certificate: "Certificate") -> str:
    if certificate.depth == 1:
        return "standard l_inf-Lipschitz networks of any depth and width"
    depth, group = certificate.depth, certificate.group
    return f"{depth} affine layers with sorts of groups of {group} between them (budget {certificate.budget})"


def _print_bounds(certificate: "Certificate") -> None:
    from lablib.experiments.impossibility_study import decimal_down, decimal_up

    lower, upper = decimal_down(certificate.lower), decimal_up(certificate.upper)
    print(
        f"certified radius at most R: {upper:.6f}  (what this argument can prove: {lower:.6f} .. {upper:.6f})"
    )
    print(f"half the l_inf separation:  {float(certificate.half_separation):.6f}")
    if len(certificate.names) > 2:
        print("with more than two classes, for radius = (f_y - max f_j) / 2 and each logit 1-Lipschitz")
