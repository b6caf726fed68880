"""Hidden temporary files beside the images: whole or gone, also when a process is killed.

A temporary file is locked by the process that writes it. Whoever opens the folder later removes the ones nobody
holds, so that a killed worker leaves nothing behind for longer than until the next attempt.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A leftover is removed when no process of this machine holds it and nothing was written for so long.
QUIET_SECONDS: Final = 60.0
#: The same where the file system cannot lock (some NFS and FUSE mounts).
ABANDONED_SECONDS: Final = 3600.0
_NAME: Final = re.compile(r"\.[A-Za-z0-9_.-]+\.[0-9a-f]{16}\.part")


@dataclass(frozen=True)
class StagedFile:
    """An open temporary file: write to ``file``, read back from ``path``."""

    path: Path
    file: BinaryIO

    def sync(self) -> None:
        """Put everything written onto the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def size(self) -> int:
        """Return the bytes written so far."""
        self.file.flush()
        return os.fstat(self.file.fileno()).st_size


@contextlib.contextmanager
def stage(folder: Path, stem: str) -> Iterator[StagedFile]:
    """Create a hidden, locked temporary file in ``folder``; on leaving it is closed and removed unless moved away.

    Its permissions are those of any new file (``tempfile`` would keep the landed image from everyone else).

    :raises OSError: The file cannot be created.
    """
    path = folder / f".{stem}.{secrets.token_hex(8)}.part"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    file = os.fdopen(fd, "w+b")
    try:
        with contextlib.suppress(OSError):  # a file system without locks: its leftovers go by age
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield StagedFile(path, cast("BinaryIO", file))
    finally:
        path.unlink(missing_ok=True)
        # What mattered was flushed before; a full disk must not hide the error that is on its way.
        with contextlib.suppress(OSError):
            file.close()


def is_staged(name: str) -> bool:
    """Whether a name is that of a temporary file."""
    return name.startswith(".") and bool(_NAME.fullmatch(name))


def sweep(folder: Path, *, now: float | None = None) -> None:
    """Remove temporary files that a killed process left in ``folder``; what cannot be opened or removed stays.

    :param now: Seconds since the epoch, the current time when absent.
    :raises OSError: The folder cannot be listed.
    """
    with os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if is_staged(entry.name)]
    for path in found:
        with contextlib.suppress(OSError):
            _remove_abandoned(path, time.time() if now is None else now)


def _remove_abandoned(path: Path, now: float) -> None:
    """Remove a leftover unless somebody writes to it."""
    # Whoever may write into a shared folder may put anything there under such a name, such as a FIFO.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb"):
        found = os.fstat(fd)
        quiet = now - found.st_mtime
        if not stat.S_ISREG(found.st_mode) or quiet < QUIET_SECONDS:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            if quiet < ABANDONED_SECONDS:
                return
        path.unlink()
