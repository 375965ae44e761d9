"""The command line: ``python -m lablib COMMAND`` (also ``lablib COMMAND``).

A command is a module with ``HELP``, ``add_arguments(parser)`` and ``main(args) -> exit status``.
"""

import argparse
import importlib
import sys

COMMANDS = {
    "doctor": "lablib.doctor",
    "data": "lablib.data.command",
    "impossible": "lablib.experiments.impossible_command",
    "figures": "lablib.experiments.recipe",
    "bench": "lablib.experiments.bench",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; return 0, 2 for bad input (one clear sentence on stderr) or 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="lablib", description="The lab's command line")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = {name: importlib.import_module(module) for name, module in COMMANDS.items()}
    for name, module in modules.items():
        module.add_arguments(commands.add_parser(name, help=module.HELP, description=module.__doc__))
    args = parser.parse_args(argv)
    try:
        return modules[args.command].main(args)
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept: run the same command to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
