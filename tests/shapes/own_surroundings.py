"""Become a program with an empty /tmp of its own: ``python -m tests.shapes.own_surroundings PROGRAM ...``.

As a container has one: what other processes write to /tmp is not there, and they see nothing that is written here.
It takes root and util-linux' ``unshare``; :func:`why_not` says what is missing.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

_SCRIPT = 'mount -t tmpfs tmpfs "$0" && exec "$@"'


def temporary_folder() -> Path:
    """Return the folder for temporary files that is replaced."""
    return Path(tempfile.gettempdir()).resolve()


def why_not(needed: Iterable[Path]) -> str | None:
    """Say why no process can have a /tmp of its own here; None where one can.

    :param needed: Folders that it must still see.
    """
    if sys.platform != "linux" or os.geteuid():
        return "a mount namespace takes root on Linux"
    if shutil.which("unshare") is None:
        return "unshare is not installed (apt-get install util-linux)"
    hidden = [str(path) for path in needed if path.resolve().is_relative_to(temporary_folder())]
    return f"{', '.join(hidden)} would be hidden: it is in {temporary_folder()}" if hidden else None


def main(program: Sequence[str]) -> None:
    """Leave the others' /tmp, then run the program in this process."""
    words = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, str(temporary_folder()), *program)
    os.execvp(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1:])
