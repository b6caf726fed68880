"""A few numbers that the processes of one machine share: a small file in a private folder, under a lock."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

#: What a file holds, padded: one write replaces it all, and a kill leaves no tail of what was longer.
_SIZE: Final = 512
#: The lock is held for microseconds; a holder that was stopped (a debugger, a frozen container) must not stop us.
_LOCK_TRIES: Final = 200
_LOCK_PAUSE: Final = 0.005
#: Where temporary files are when the environment names no place.
_TEMPORARY: Final = ("/tmp", "/var/tmp", "/usr/tmp")


class SharedState(Protocol):
    """Holds one small JSON value."""

    def update(self, change: Callable[[Any], Any]) -> None:
        """Replace the value by what ``change`` makes of it; None comes for "nothing yet" and means "leave it"."""
        ...


class ProcessState:
    """Known to this process alone, and to all of its threads."""

    def __init__(self) -> None:
        self._value: Any = None
        self._lock = threading.Lock()

    def update(self, change: Callable[[Any], Any]) -> None:
        """Replace the value by what ``change`` makes of it."""
        with self._lock:
            changed = change(self._value)
            self._value = self._value if changed is None else changed


class FileState:
    """Known to every process of this user on this machine; the kernel frees the lock of a process that is killed.

    :param folder: Created with mode 0700 where it is missing.
    :param name: The file's name in it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._name = name

    def update(self, change: Callable[[Any], Any]) -> None:
        """Replace the value by what ``change`` makes of it; what cannot be read counts as nothing.

        :raises OSError: The folder cannot be used, or is a link, somebody else's or open to others; or the lock is
            not to be had.
        :raises ImportError: This system knows no such locks.
        """
        import fcntl  # missing on Windows

        file = self._open()
        try:
            self._lock(file)
            changed = change(_parsed(os.pread(file, _SIZE + 1, 0)))
            if changed is not None:
                os.pwrite(file, json.dumps(changed).ljust(_SIZE).encode(), 0)
                os.ftruncate(file, _SIZE)
            # Closing would do, but for a child forked at this very moment, which holds the file open too.
            fcntl.flock(file, fcntl.LOCK_UN)
        finally:
            os.close(file)

    def _lock(self, file: int) -> None:
        import fcntl

        for _ in range(_LOCK_TRIES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(_LOCK_PAUSE)
        raise TimeoutError(f"{self.folder / self._name} is locked by a process that does not go on")

    def _open(self) -> int:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)
        # Opened first and judged then: what was judged is what is used, whoever swaps names meanwhile.
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            found = os.fstat(folder)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise PermissionError(f"{self.folder} is somebody else's or open to others")
            return os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        finally:
            os.close(folder)


def private_folder() -> Path:
    """Return the folder of this user's files; it need not exist.

    :raises OSError: There is no place for temporary files, or users have no numbers here (Windows).
    """
    if os.name != "posix":
        raise OSError("processes share no folder here")
    found = os.path.abspath(tempfile.gettempdir())
    named = [folder for name in ("TMPDIR", "TEMP", "TMP") if (folder := os.environ.get(name))]
    if found == os.getcwd() and found not in map(os.path.abspath, (*named, *_TEMPORARY)):
        # Python's last resort: no two processes have it in common, and it may be a checkout.
        raise OSError("there is no folder for temporary files")
    return Path(found) / f"nanobanana-{os.geteuid()}"


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text, parse_int=float)  # an integer of 300 digits would not turn into a float later
    except ValueError:
        return None
