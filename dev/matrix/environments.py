"""Which Airflows and Pythons there are to try, and the interpreters for them on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dev.stack.airflow_venv import REPO, make_venv

HOME: Final = REPO / ".matrix"
#: The Airflow that ``make test`` and CI have in full.
NEWEST_RELEASED: Final = "3.3.2"
#: The declared lower bounds of everything else, with the oldest Airflow.
LOWEST: Final = "lowest"


@dataclass(frozen=True)
class Environment:
    """One row of the table.

    :param airflow: A version, or ``lowest``: what ``constraints/constraints-<it>.txt`` pins.
    :param python: ``3.11``.
    :param is_main: Whether it is this Airflow's first row; of a further Python less is run.
    """

    airflow: str
    python: str
    is_main: bool = True

    @property
    def folder(self) -> Path:
        """Where its environment and what its tests write are kept."""
        return HOME / f"{self.airflow}-py{self.python}"


#: All rows; ``is_main`` once for each Airflow.
ENVIRONMENTS: Final = (
    Environment("3.0.6", "3.11"),
    Environment("3.0.6", "3.12", is_main=False),
    Environment("3.1.8", "3.11"),
    Environment("3.1.8", "3.13", is_main=False),
    Environment("3.2.2", "3.11"),
    Environment("3.3.2", "3.11"),
    Environment("3.3.2", "3.12", is_main=False),
    Environment("3.3.2", "3.13", is_main=False),
    Environment("3.4.0b2", "3.11"),
    Environment("3.4.0b2", "3.13", is_main=False),
    Environment(LOWEST, "3.11"),
)


def chosen(version: str | None, interpreter: str | None) -> list[tuple[Environment, str | None]]:
    """List what is to be run, each with the path of its interpreter, or None where this machine has none.

    :param version: None for all.
    :param interpreter: Name or path of the Python to use; None for those of :data:`ENVIRONMENTS`.
    """
    rows = [row for row in ENVIRONMENTS if version in (None, row.airflow) and (version is None or row.is_main)]
    if interpreter is None:
        return [(row, find_python(f"python{row.python}", row.python)) for row in rows]
    python = version_of(interpreter)
    if python is None:
        return [(Environment(row.airflow, interpreter, row.is_main), None) for row in rows if row.is_main]
    return [(Environment(row.airflow, python, row.python == python), interpreter) for row in rows if row.is_main]


def find_python(name: str, wanted: str) -> str | None:
    """Return an interpreter of that version: the one that runs this, or one on the PATH that answers."""
    if version_of(sys.executable) == wanted:
        return sys.executable
    return name if version_of(name) == wanted else None


def version_of(interpreter: str) -> str | None:
    """Return ``3.12`` of an interpreter; None where it is none, as a shim that leads nowhere."""
    if shutil.which(interpreter) is None:
        return None
    command = [interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def install(environment: Environment, interpreter: str, say: Callable[[str], None]) -> Path:
    """Make the virtual environment of a row, or make it again where its pins have changed.

    :return: Its Python.
    :raises subprocess.CalledProcessError: It could not be installed.
    """
    return make_venv(environment.airflow, say, interpreter=interpreter, folder=environment.folder)
