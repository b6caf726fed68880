"""Find or install the servers that a campaign needs: PostgreSQL and Redis."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_PACKAGES = {"postgres": "postgresql", "redis-server": "redis-server"}
_DEBIAN = Path("/usr/lib/postgresql")


class MissingProgram(RuntimeError):
    """A server is not installed; the message says how to get it."""


def find(program: str) -> str | None:
    """Return the path of a program, if it is installed; Debian keeps PostgreSQL's outside PATH."""
    versions = sorted(_DEBIAN.glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    for folder in versions:
        if (folder / program).exists():
            return str(folder / program)
    return shutil.which(program)


def require(program: str) -> str:
    """Return the path of a program.

    :raises MissingProgram: It is not there.
    """
    path = find(program)
    if path is None:
        package = _PACKAGES.get(program, "postgresql")
        raise MissingProgram(f"{program} is not installed. On Debian and Ubuntu: apt-get install {package}")
    return path


def install(*programs: str) -> None:
    """Install missing programs with apt-get, if it exists and we are root; never called by ``make test``.

    :raises MissingProgram: A program is still missing.
    """
    packages = [_PACKAGES[program] for program in programs if find(program) is None]
    if packages and not os.geteuid() and shutil.which("apt-get"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=env)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], check=True, env=env)
    for program in programs:
        require(program)
