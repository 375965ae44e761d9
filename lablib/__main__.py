"""The command line: ``python -m lablib COMMAND`` (also ``lablib COMMAND``).

A command is a module with ``HELP``, ``add_arguments(parser)`` and ``main(args) -> exit status``.
"""

import argparse
import importlib
import sys

COMMANDS = {
    "doctor": "lablib.doctor",
    "data": "lablib.data.command",
    "train": "lablib.experiments.train_command",
    "certify": "lablib.experiments.certify_command",
    "impossible": "lablib.experiments.impossible_command",
    "sensitivity": "lablib.experiments.sensitivity_command",
    "figures": "lablib.experiments.recipe",
    "claims": "lablib.experiments.claims_command",
    "bench": "lablib.experiments.bench",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; return 0, 2 for bad input (one clear sentence on stderr) or 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="lablib", description="The lab's command line")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    argv = sys.argv[1:] if argv is None else argv
    # only the general help needs every command, so the others start without what it would load
    asked = argv[:1] if argv[:1] and argv[0] in COMMANDS else COMMANDS
    modules = {name: importlib.import_module(COMMANDS[name]) for name in asked}
    for name, module in modules.items():
        module.add_arguments(commands.add_parser(name, help=module.HELP, description=module.__doc__))
    args, rest = parser.parse_known_args(argv)
    # argparse ends a list of words at the first option; KEY=VALUE settings may stand behind options too
    settings = [word for word in rest if not word.startswith("-") and hasattr(args, "settings")]
    if len(settings) < len(rest):
        parser.error(f"unrecognized arguments: {' '.join(word for word in rest if word not in settings)}")
    if settings:
        args.settings = [*args.settings, *settings]  # what is no KEY=VALUE the command refuses
    try:
        return modules[args.command].main(args)
    except KeyboardInterrupt as stop:
        kept = f": {stop}" if str(stop) else ""
        print(f"\nstopped{kept}; the same command goes on with what is not finished", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
