"""Become an unprivileged user, then become another program: ``python -m tests.chaos.run_as USER FOLDER PROGRAM ...``.

PostgreSQL refuses to run as root. Started through this module it has a session of its own, which the guardian process
of ``dev.stack`` ends whatever happens to the campaign.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path

from dev.stack.processes import Command, child_environment

_CANDIDATES = ("postgres", "nobody")


def unprivileged() -> str:
    """Name the user that services run as; ours where we are not root.

    :raises LookupError: Neither ``postgres`` nor ``nobody`` exists.
    """
    if os.geteuid():
        return pwd.getpwuid(os.geteuid()).pw_name
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in _CANDIDATES:
        if name in known:
            return name
    raise LookupError(f"None of the users {', '.join(_CANDIDATES)} exists")


def give_to_service_user(path: Path) -> Path:
    """Change the owner of a file or folder to the user that services run as."""
    if not os.geteuid():
        user = pwd.getpwnam(unprivileged())
        os.chown(path, user.pw_uid, user.pw_gid)
    return path


def service(name: str, folder: Path, program: str, *arguments: str, log: Path) -> Command:
    """Return the command that runs a program as the unprivileged user in a folder."""
    words = ("-m", "tests.chaos.run_as", unprivileged(), str(folder), program, *arguments)
    return Command(name, words, child_environment(), log)


def main(words: Sequence[str]) -> None:
    """Change user and folder, then run the program in this process."""
    name, folder, program, *arguments = words
    if not os.geteuid():
        user = pwd.getpwnam(name)
        os.initgroups(name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    os.chdir(folder)
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
