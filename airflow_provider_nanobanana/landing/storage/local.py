"""A folder of this machine as a place for images."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.landing.storage.base import Storage, storage_failures
from airflow_provider_nanobanana.landing.storage.exclusive import NotExclusive
from airflow_provider_nanobanana.landing.storage.staging import StagedFile, is_staged, stage, sweep
from airflow_provider_nanobanana.toapis.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What a file system raises; of a name that its encoding cannot hold, or with a NUL in it, the latter.
_FAILURES: Final = (OSError, ValueError)
#: What a file system without hard links says of one: FAT, some FUSE and SMB mounts.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})


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

    looks_for_free = True

    def __init__(self, folder: Path, above: LocalStorage | None = None) -> None:
        super().__init__(above)
        self.folder = folder
        self._top: Path = folder if above is None else above._top
        self._swept = False

    def uri(self, name: str) -> str:
        return f"file://{self.folder / name}"

    def below(self, folder: str) -> LocalStorage:
        return LocalStorage(self.folder / folder, self)

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
                self._make_folder()
                if not self._swept:
                    sweep(self.folder)
                    self._swept = True
                staged = stack.enter_context(stage(self.folder, stem))
            yield staged

    def publish(self, staged: StagedFile, name: str, mime_type: str, *, replace: bool = True) -> None:
        if not replace:
            # A disk that cannot tell replaces, as the method's contract says.
            with contextlib.suppress(NotExclusive):
                return self._link(staged, name)
        with self._appearing(staged, name):
            os.replace(staged.path, self.folder / name)

    def create(self, name: str, content: bytes) -> bool:
        # Whoever comes later need not write a file that cannot get its name.
        found = self.read(name, len(content))
        return super().create(name, content) if found is None else found == content

    def put_new(self, name: str, content: bytes) -> None:
        with self.stage(name) as staged:
            with storage_failures(f"write {self.folder / name}", *_FAILURES):
                staged.file.write(content)
            self._link(staged, name)

    def _link(self, staged: StagedFile, name: str) -> None:
        """Give the staged file its final name; the system refuses that where the name is taken, whoever asks."""
        taken = False
        with self._appearing(staged, name):
            try:
                os.link(staged.path, self.folder / name)
            except FileExistsError:
                taken = True
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise NotExclusive(f"the file system of {self.folder} has no hard links ({error.strerror})") from error
        if taken:
            raise FileExistsError(str(self.folder / name))

    @contextlib.contextmanager
    def _appearing(self, staged: StagedFile, name: str) -> Iterator[None]:
        """Put the content onto the disk before it gets its name, and the name afterwards.

        Also of a claim, for 0.1 ms here: it is written ahead of a purchase, and is what remembers it. A worker whose
        power fails would otherwise come back without the claim, and buy again, or with an empty one.
        """
        with storage_failures(f"write {self.folder / name}", *_FAILURES):
            staged.sync()
            self._make_folder()
            yield
            # Not every file system can do this; the file itself is on the disk already.
            with contextlib.suppress(OSError):
                _sync_folder(self.folder)

    def _make_folder(self) -> None:
        """Make this folder where it is missing; whoever may write into the destination may write below it, too.

        Otherwise the claims of one account would stand in a folder where another account cannot create any.
        """
        if self.folder.is_dir():
            return
        self._top.mkdir(parents=True, exist_ok=True)
        folder = self._top
        for part in self.folder.relative_to(self._top).parts:
            folder = folder / part
            if folder.is_dir():
                continue
            folder.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):  # another account made it meanwhile, or a disk without rights
                folder.chmod(stat.S_IMODE(self._top.stat().st_mode))

    def read(self, name: str, most: int) -> bytes | None:
        with storage_failures(f"read {self.folder / name}", *_FAILURES):
            try:
                # Whoever may write into a shared folder may put anything there under such a name, such as a FIFO.
                fd = os.open(self.folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                return None
            with os.fdopen(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise OSError(errno.EINVAL, "is no file")
                return file.read(most + 1)

    def modified(self, name: str) -> float | None:
        with storage_failures(f"look at {self.folder / name}", *_FAILURES):
            try:
                return (self.folder / name).stat().st_mtime
            except (FileNotFoundError, NotADirectoryError):
                return None

    def existing(self, stem: str, suffixes: tuple[str, ...]) -> list[str]:
        with storage_failures(f"read {self.folder}", *_FAILURES):
            return [stem + suffix for suffix in suffixes if _is_file(self.folder / (stem + suffix))]

    def names(self, prefix: str = "") -> Iterator[str]:
        yield from (entry.name for entry in self._scan() if entry.name.startswith(prefix))

    def entries(self, prefix: str = "") -> Iterator[tuple[str, float | None]]:
        with storage_failures(f"read {self.folder}", *_FAILURES):
            for entry in self._scan():
                if not entry.name.startswith(prefix):
                    continue
                with contextlib.suppress(FileNotFoundError):  # it is gone since
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        yield entry.name, found.st_mtime

    def _scan(self) -> Iterator[os.DirEntry[str]]:
        """Yield what is directly in the folder, without files that are being written."""
        with storage_failures(f"read {self.folder}", *_FAILURES):
            try:
                entries = os.scandir(self.folder)
            except FileNotFoundError:
                return
            with entries:
                yield from (entry for entry in entries if not is_staged(entry.name))

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
