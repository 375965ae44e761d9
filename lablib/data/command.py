"""The data sets: what is at hand, and fetching what is not."""

import argparse

HELP = "list the data sets, or fetch one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lablib data``."""
    parser.set_defaults(action="list")
    actions = parser.add_subparsers(dest="action", metavar="{list,fetch}")
    actions.add_parser("list", help="say where each data set stands (the default)")
    fetch = actions.add_parser("fetch", help="download a data set into the cache and check its content")
    fetch.add_argument("names", nargs="+", metavar="NAME", help="as listed, such as mnist or compas")


def main(args: argparse.Namespace) -> int:
    """List the data sets or fetch some; a failure is one sentence (see ``lablib.data.load``)."""
    from lablib.data.registry import NAMES, available

    if args.action == "fetch":
        for name in args.names:
            print(f"{name}: {_fetch(name)}", flush=True)
        return 0
    for name in NAMES:
        status = available(name)
        line = f"{name:<13}  {status.state:<10}  {status.place}"
        print(f"{line}  ->  {status.advice}" if status.advice else line)
    return 0


def _fetch(name: str) -> str:
    """Load a data set and say in one line what it holds."""
    from lablib.data.registry import PICTURES, TABLES, load, load_pictures, load_table

    if name in PICTURES:
        data = load_pictures(name)
        return f"{len(data.train)} + {len(data.val)} + {len(data.test)} grey pictures; {data.source}"
    if name in TABLES:
        table = load_table(name)
        rows, features = table.features.shape
        return f"{rows:,} rows of {features} features for {table.task}; {table.source}\n  {table.notes}"
    data = load(name)
    shape = " x ".join(str(size) for size in data.x_train.shape[1:])
    rows = f"{len(data.x_train):,} + {len(data.x_test):,} images of {shape}"
    return f"{rows}, {len(data.class_names)} classes; {data.source}"
