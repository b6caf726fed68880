"""``python -m airflow_provider_nanobanana <command>``: hands the command line to the command's module in ``cli``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

#: Each is a module of ``cli`` with ``PURPOSE`` (a line of help), ``add_arguments(parser)`` and ``run(options)``, which
#: returns the exit status. They import nothing heavy at their top: all of them are loaded for ``--help``.
COMMANDS: Final = ("check", "ledger", "reject", "spend")


def parser() -> argparse.ArgumentParser:
    """Return the command line of all commands."""
    line = argparse.ArgumentParser(
        prog="python -m airflow_provider_nanobanana",
        description="Commands of the Nano Banana provider that need no DAG.",
    )
    commands = line.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"airflow_provider_nanobanana.cli.{name}")
        command = commands.add_parser(name, help=module.PURPOSE, description=module.PURPOSE)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that a command line names; return its exit status."""
    options = parser().parse_args(arguments)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
