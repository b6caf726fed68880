"""A folder of this machine as a place for images."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.landing.storage.base import Storage, storage_failures
from airflow_provider_nanobanana.landing.storage.staging import StagedFile, stage, sweep
from airflow_provider_nanobanana.toapis.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What a file system raises; of a name that its encoding cannot hold, or with a NUL in it, the latter.
_FAILURES: Final = (OSError, ValueError)


def local_path(uri: str) -> Path | None:
    """Return the path that a plain path or a ``file://`` URI names, None for a URI of another scheme.

    It is read as ``ObjectStoragePath`` reads it (no percent-decoding; a connection id means nothing here), but without
    that class: the one of Airflow 3.0 refuses every path when universal-pathlib is 0.3 or newer.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri)
    if scheme.lower() not in ("file", "local"):
        return None
    authority, slash, path = rest.partition("/")
    return Path(authority.rpartition("@")[2] + slash + path)


class LocalStorage(Storage):
    """A folder of this machine (or mounted on it)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._swept = False

    def uri(self, name: str) -> str:
        return f"file://{self.folder / name}"

    def below(self, folder: str) -> LocalStorage:
        return LocalStorage(self.folder / folder)

    def check(self) -> None:
        with storage_failures(f"look at {self.folder}", *_FAILURES):
            if self.folder.is_file():
                raise InvalidRequest(f"The destination {self.folder} is a file; give a folder.")
        with self.stage("check"):
            pass

    @contextlib.contextmanager
    def stage(self, stem: str) -> Iterator[StagedFile]:
        with contextlib.ExitStack() as stack:
            with storage_failures(f"write to {self.folder}", *_FAILURES):
                self.folder.mkdir(parents=True, exist_ok=True)
                if not self._swept:
                    sweep(self.folder)
                    self._swept = True
                staged = stack.enter_context(stage(self.folder, stem))
            yield staged

    def publish(self, staged: StagedFile, name: str, mime_type: str) -> None:
        with storage_failures(f"write {self.folder / name}", *_FAILURES):
            staged.sync()
            self.folder.mkdir(parents=True, exist_ok=True)
            os.replace(staged.path, self.folder / name)
            # Not every file system can do this; the file itself is on the disk already.
            with contextlib.suppress(OSError):
                _sync_folder(self.folder)

    def existing(self, stem: str, suffixes: tuple[str, ...]) -> list[str]:
        with storage_failures(f"read {self.folder}", *_FAILURES):
            return [stem + suffix for suffix in suffixes if _is_file(self.folder / (stem + suffix))]

    def names(self, prefix: str = "") -> Iterator[str]:
        with storage_failures(f"read {self.folder}", *_FAILURES):
            try:
                entries = os.scandir(self.folder)
            except FileNotFoundError:
                return
            with entries:
                yield from (entry.name for entry in entries if entry.name.startswith(prefix))

    @contextlib.contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        yield self.folder / name

    def delete(self, name: str) -> None:
        with storage_failures(f"delete {self.folder / name}", *_FAILURES):
            (self.folder / name).unlink(missing_ok=True)


def _is_file(path: Path) -> bool:
    """Ask ``stat``, because ``Path.is_file`` calls every failure "not there" on newer Pythons."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
