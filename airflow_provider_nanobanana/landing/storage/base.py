"""What a place for images must do."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.landing.storage.client_errors import lacks_rights
from airflow_provider_nanobanana.landing.storage.destination import RESERVED
from airflow_provider_nanobanana.landing.storage.exclusive import NotExclusive, missing_exclusivity
from airflow_provider_nanobanana.landing.storage.staging import StagedFile
from airflow_provider_nanobanana.toapis.errors import StorageFailed, ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.worker_threads import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

log = LineLogger(__name__)

#: Up to so many stems are asked for one by one: a folder may hold a million other files.
_FEW: Final = 16
_MOST_PREFIXES: Final = 256
_THREADS: Final = 8
#: What no repeat can help where a user's own file is read: wrong path, no rights, no library, another format.
LASTING_ERRORS: Final = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    ImportError,
)
#: Where names are asked for one by one, so many numbers behind those that are wanted.
_SPARE_NUMBERS: Final = 8
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,5}")


class Storage(ABC):
    """One destination: names in, whole files out. Every failure is ``StorageFailed``."""

    #: Whether ``names`` with a prefix asks for those alone; where not, it reads the whole listing each time.
    lists_by_prefix: bool = False
    #: Whether to look for a name costs no request.
    looks_for_free: bool = False

    def __init__(self, above: Storage | None) -> None:
        #: The destination that this place is, or lies below.
        self.destination: Storage = self if above is None else above.destination

    @abstractmethod
    def uri(self, name: str) -> str:
        """Return the URI of a name, as ``ObjectStoragePath`` takes it (with the connection id, where there is one)."""

    @abstractmethod
    def below(self, folder: str) -> Storage:
        """Return the place at a relative path below this one; nothing is made yet."""

    @abstractmethod
    def check(self) -> None:
        """Raise ``ConfigurationError`` or ``StorageFailed`` where nothing could be written."""

    @abstractmethod
    def stage(self, stem: str) -> contextlib.AbstractContextManager[StagedFile]:
        """Open a local temporary file; it is gone afterwards, whatever happens."""

    @abstractmethod
    def publish(self, staged: StagedFile, name: str, mime_type: str, *, replace: bool = True) -> None:
        """Make the staged file appear under its final name, whole or not at all.

        :param replace: Whether a file of that name is replaced. Where not, and the place is known to tell whether one
            is there, it stays; of a place that cannot tell, it is replaced all the same.
        :raises FileExistsError: One is there and stays.
        """

    @abstractmethod
    def put_new(self, name: str, content: bytes) -> None:
        """Write a whole file where none of that name is.

        :raises FileExistsError: One is there, maybe this one: the answer of an earlier request may have been lost.
        :raises NotExclusive: This place cannot tell.
        :raises StorageFailed: Whether it was written is not known.
        """

    @abstractmethod
    def read(self, name: str, most: int) -> bytes | None:
        """Return the content of a file as it is now, never from a cache; None where there is certainly none.

        :param most: Of a longer file one byte more than that is returned, and no more is read.
        :raises StorageFailed: It could not be read; never "not there".
        """

    @abstractmethod
    def modified(self, name: str) -> float | None:
        """Return when a file was last written, in seconds since the epoch by the storage's own clock.

        None where it is not there, or the storage keeps no such times.
        """

    def create(self, name: str, content: bytes) -> bool:
        """Write a whole file where none of that name is, and return whether this call did.

        After whatever went wrong the file is read: an answer may be lost when the file is already written, and client
        libraries repeat requests by themselves. So the content must be nobody else's (hold a nonce): a file with this
        content is this call's, also where an earlier call with the same content wrote it.

        :return: False where another's file is there.
        :raises StorageFailed: Neither is sure. The same call may be repeated; until then nothing is decided.
        """
        try:
            self.put_new(name, content)
            return True
        except (FileExistsError, NotExclusive, StorageFailed) as error:
            found = self.read(name, len(content))
            if found is None:
                why = error.message if isinstance(error, StorageFailed) else f"{type(error).__name__}: {error}"
                raise StorageFailed(
                    f"Whether {self.uri(name)} was created is not known: {why.rstrip('.')}. It is not there yet."
                ) from error
            return found == content

    def write(self, name: str, content: bytes, mime_type: str = "application/json") -> None:
        """Write a whole file, in place of an earlier one of that name."""
        with self.stage(name) as staged:
            with storage_failures(f"write {self.uri(name)}", OSError):
                staged.file.write(content)
            self.publish(staged, name, mime_type)

    def missing_exclusivity(self) -> str:
        """Return why :meth:`create` may be true for two callers at this destination, in words; "" where it cannot.

        Found out once a process and destination, with a file that explains the provider's own folder to people.

        :raises StorageFailed: It could not be found out now, which is never a no.
        """
        return missing_exclusivity(self.destination.uri(""), self.destination.below(RESERVED))

    @abstractmethod
    def existing(self, stem: str, suffixes: tuple[str, ...]) -> list[str]:
        """Return the names of the stem, one for each suffix, that are there."""

    @abstractmethod
    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield what is directly in here and begins so, in any order; nothing where there is no such folder yet."""

    @abstractmethod
    def entries(self, prefix: str = "") -> Iterator[tuple[str, float | None]]:
        """Yield each file directly in here that begins so, and when it was last written as :meth:`modified` says it.

        One listing, in any order; the time is None where listings of this storage tell none.
        """

    @abstractmethod
    def local_copy(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Give a local path to read the named file from."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove the named file; it may be gone already."""


@contextlib.contextmanager
def storage_failures(what: str, *caught: type[Exception]) -> Iterator[None]:
    """Turn what a file system raises into ``StorageFailed``; stores raise their client library's own exceptions."""
    try:
        yield
    except ToApisError:
        raise
    except caught as error:
        raise StorageFailed(f"Could not {what}: {type(error).__name__}: {error}") from error


def readable_names(place: Storage, without: str) -> list[str]:
    """Return what is in a folder of ours; nothing where this account could write nothing either.

    That is where it has no rights to look, and where what stands there is no folder.

    :param without: What follows from having no rights, for the log.
    :raises StorageFailed: It could not be asked now.
    """
    try:
        return list(place.names())
    except StorageFailed as failure:
        if isinstance(failure.__cause__, NotADirectoryError):
            return []
        if not lacks_rights(failure.__cause__):
            raise
        log.warning("No rights to read %s: %s.", place.uri(""), without)
        return []


def stems_present(storage: Storage, stems: Collection[str], suffixes: tuple[str, ...]) -> set[str]:
    """Return the stems of which a file with one of the suffixes is there; nothing is read.

    Where the store lists by prefix, the names are asked for in up to 256 slices, eight at a time: of a folder with
    years of images in it, only a slice is in memory at once.

    :raises StorageFailed: The destination could not be asked; never "not there".
    """
    wanted = set(stems)
    if len(wanted) <= _FEW:
        return {stem for stem in wanted if storage.existing(stem, suffixes)}
    return _listed(storage, wanted, wanted.__contains__, suffixes)


def numbers_present(storage: Storage, heads: Mapping[str, int], suffixes: tuple[str, ...]) -> set[str]:
    """Return the stems ``<head>-<number>`` of which a file with one of the suffixes is there; nothing is read.

    A few at a place that does not list by prefix are asked for one by one: until as many as are wanted are found, and
    no more than eight numbers beyond those.

    :param heads: How many are wanted of each head.
    :raises StorageFailed: The destination could not be asked; never "not there".
    """

    def first_ones(head: str) -> set[str]:
        found: set[str] = set()
        for number in range(heads[head] + _SPARE_NUMBERS):
            if len(found) < heads[head] and storage.existing(f"{head}-{number}", suffixes):
                found.add(f"{head}-{number}")
        return found

    if storage.lists_by_prefix or sum(heads.values()) > _FEW:
        return _listed(storage, {f"{head}-" for head in heads}, lambda stem: is_numbered(stem, heads), suffixes)
    with WorkerPool(_THREADS) as pool:
        return set().union(*pool.map(first_ones, heads))


def is_numbered(stem: str, heads: Collection[str]) -> bool:
    """Whether a stem is ``<head>-<number>`` of one of the heads."""
    head, _, number = stem.rpartition("-")
    return head in heads and _NUMBER.fullmatch(number) is not None


def _listed(
    storage: Storage, beginnings: set[str], is_wanted: Callable[[str], bool], suffixes: tuple[str, ...]
) -> set[str]:
    """Return the wanted stems of which a file is listed.

    :param beginnings: Of all that are wanted.
    """
    prefixes = _prefixes(beginnings) if storage.lists_by_prefix else {""}
    with WorkerPool(_THREADS) as pool:
        return set().union(*pool.map(lambda prefix: _among(storage, prefix, is_wanted, suffixes), prefixes))


def _among(storage: Storage, prefix: str, is_wanted: Callable[[str], bool], suffixes: tuple[str, ...]) -> set[str]:
    """Return the wanted stems among the names that begin so."""
    found = set()
    for name in storage.names(prefix):
        stem, dot, suffix = name.rpartition(".")
        if dot + suffix in suffixes and is_wanted(stem):
            found.add(stem)
    return found


def _prefixes(stems: set[str]) -> set[str]:
    """Return the longest beginnings, all of one length, of which there are not too many."""
    prefixes = {""}
    for length in range(1, max(map(len, stems)) + 1):
        longer = {stem[:length] for stem in stems}
        if len(longer) > _MOST_PREFIXES:
            break
        prefixes = longer
    return prefixes
