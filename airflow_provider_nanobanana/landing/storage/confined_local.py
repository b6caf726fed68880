"""``ConfinedLocalStorage``: a local folder as one reads it for others, which no link leads out of.

For the api-server, which may read more than whoever asks it: each file is opened part by part from the root of the file
system, and no part may be a link, also where it becomes one in between. Only reading is confined; the api-server writes
nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from airflow_provider_nanobanana.landing.storage.base import storage_failures
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.landing.storage.staging import is_staged

#: A folder is passed through without the right to list it, where the system knows how.
_THROUGH: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_THERE: Final = (FileNotFoundError, NotADirectoryError)


class ConfinedLocalStorage(LocalStorage):
    """A folder of this machine that is read without following links.

    :param folder: Its path, with links resolved.
    """

    def below(self, folder: str) -> ConfinedLocalStorage:
        return ConfinedLocalStorage(self.folder / folder, self)

    def read(self, name: str, most: int) -> bytes | None:
        with self._failures(name):
            try:
                with self._opened(name) as fd:
                    if not stat.S_ISREG(os.fstat(fd).st_mode):
                        raise OSError(errno.EINVAL, "is no file")
                    with os.fdopen(os.dup(fd), "rb") as file:
                        return file.read(most + 1)
            except _NOT_THERE:
                return None

    def modified(self, name: str) -> float | None:
        with self._failures(name):
            found = self._stat(name)
            return None if found is None else found.st_mtime

    def existing(self, stem: str, suffixes: tuple[str, ...]) -> list[str]:
        with self._failures(stem):
            found = {stem + suffix: self._stat(stem + suffix) for suffix in suffixes}
            return [name for name, seen in found.items() if seen is not None and stat.S_ISREG(seen.st_mode)]

    def _scan(self) -> Iterator[os.DirEntry[str]]:
        with self._failures(""):
            try:
                with self._opened("") as fd, os.scandir(fd) as entries:
                    yield from (entry for entry in entries if not is_staged(entry.name))
            except FileNotFoundError:
                return

    def _stat(self, name: str) -> os.stat_result | None:
        *above, last = self._parts(name)
        try:
            with _folder(above) as fd:
                return os.stat(last, dir_fd=fd, follow_symlinks=False)
        except _NOT_THERE:
            return None

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        *above, last = self._parts(name)
        with _folder(above) as folder:
            fd = os.open(last, _READ, dir_fd=folder)
            try:
                yield fd
            finally:
                os.close(fd)

    def _parts(self, name: str) -> list[str]:
        """Return the names on the way to a file below the folder, or to the folder itself."""
        parts = [*self.folder.parts[1:], *(name.split("/") if name else ())]
        if not parts or any(part in ("", ".", "..") for part in parts):
            raise FileNotFoundError(errno.ENOENT, "no name of a file below the folder")
        return parts

    def _failures(self, name: str) -> contextlib.AbstractContextManager[None]:
        return storage_failures(f"read {self.folder / name}", OSError, ValueError)


@contextlib.contextmanager
def _folder(parts: list[str]) -> Iterator[int]:
    """Open a folder of the file system, part by part."""
    fd = os.open("/", _THROUGH)
    try:
        for part in parts:
            above, fd = fd, os.open(part, _THROUGH, dir_fd=fd)
            os.close(above)
        yield fd
    finally:
        os.close(fd)
