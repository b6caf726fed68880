"""``VersionFolder``: which versions of an image there are beside it, whose they are, and which were rejected.

The first picture of a request is version 1; a person may want another one of the same request (``redo``), and reject
one. Each further version has a small file below ``.nanobanana/versions`` that names the run it was made for, created
once and never changed: a retry or a clear of that run finds its own. A rejection is a file below
``.nanobanana/rejections``. Which version is the current one is written nowhere: it follows from these and the images.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.landing.file_names import check_stem
from airflow_provider_nanobanana.landing.storage.base import readable_names
from airflow_provider_nanobanana.stored_forms import PICTURE_VERSION, REJECTION
from airflow_provider_nanobanana.toapis.errors import InvalidRequest, StorageFailed
from airflow_provider_nanobanana.toapis.line_logger import LineLogger

if TYPE_CHECKING:
    from airflow_provider_nanobanana.landing.image_store import ImageStore
    from airflow_provider_nanobanana.landing.storage.base import Storage

log = LineLogger(__name__)

VERSIONS_FOLDER: Final = "versions"
REJECTIONS_FOLDER: Final = "rejections"
#: With it a stem stays within the characters that a file may have.
MOST_VERSIONS: Final = 999
#: Bytes of a file that is read; ours have some 300.
_MOST_BYTES: Final = 4_096
_WITHOUT_RIGHTS: Final = "of each image the first version counts, rejected or not"
_VERSION: Final = re.compile(r"(.+)-v([1-9][0-9]{0,2})")


def versioned_stem(base: str, number: int) -> str:
    """Return the name without extension of the file of a version; the first one has no number in it.

    :param base: That of the first version.
    :param number: From 1.
    """
    return base if number == 1 else f"{base}-v{number}"


def split_stem(stem: str) -> tuple[str, int]:
    """Return the stem of the first version and the number of the version that a stem stands for."""
    parts = _VERSION.fullmatch(stem)
    return (parts[1], int(parts[2])) if parts and parts[2] != "1" else (stem, 1)


@dataclass(frozen=True)
class Versions:
    """The versions of one image, as far as the files beside it tell.

    :param registered: The numbers that were taken for a run, with or without a file yet.
    :param rejected: The numbers that a person rejected.
    """

    registered: frozenset[int] = field(default_factory=frozenset)
    rejected: frozenset[int] = field(default_factory=frozenset)

    @property
    def alive(self) -> list[int]:
        """The numbers that may be used, the newest first; empty where a new one is needed."""
        return sorted({1, *self.registered} - self.rejected, reverse=True)

    @property
    def next(self) -> int:
        """The lowest number above all that there are."""
        return max({1, *self.registered, *self.rejected}) + 1

    def current(self, in_place: Callable[[int], bool]) -> int:
        """Return the newest version that is in place and not rejected; else the one that is to be made."""
        return next(filter(in_place, self.alive), self.alive[0] if self.alive else self.next)


class VersionFolder:
    """The versions and rejections beside the images of one destination; read once, when first asked for.

    :param reserved: Returns a folder of ours at the destination, by name.
    """

    def __init__(self, reserved: Callable[[str], Storage]) -> None:
        self._versions = reserved(VERSIONS_FOLDER)
        self._rejections = reserved(REJECTIONS_FOLDER)

    @cached_property
    def _all(self) -> Mapping[str, Versions]:
        registered: defaultdict[str, set[int]] = defaultdict(set)
        for name in readable_names(self._versions, _WITHOUT_RIGHTS):
            if parts := _VERSION.fullmatch(name.removesuffix(".json")):
                registered[parts[1]].add(int(parts[2]))
        rejected: defaultdict[str, set[int]] = defaultdict(set)
        for name in readable_names(self._rejections, _WITHOUT_RIGHTS):
            base, number = split_stem(name.removesuffix(".json"))
            rejected[base].add(number)
        return {
            base: Versions(frozenset(registered[base]), frozenset(rejected[base])) for base in {*registered, *rejected}
        }

    def of(self, base: str) -> Versions:
        """Return the versions of an image.

        :param base: Stem of the first version.
        :raises StorageFailed: The destination could not be asked.
        """
        return self._all.get(base, Versions())

    def own(self, base: str, numbers: Iterable[int], run: Sequence[str]) -> int | None:
        """Return the newest of some versions that was taken for a run, or None where none was.

        :param run: What tells the run from others: namespace, if any, DAG id and run id.
        :raises StorageFailed: The destination could not be asked.
        """
        for number in sorted(numbers, reverse=True):
            if self._is_of(base, number, run):
                return number
        return None

    def _is_of(self, base: str, number: int, run: Sequence[str]) -> bool:
        """Whether a number was taken for a run; one whose file cannot be understood is somebody else's.

        :raises StorageFailed: Only a later release can tell.
        """
        name = f"{base}-v{number}.json"
        content = self._versions.read(name, _MOST_BYTES)
        try:
            record = json.loads(content or b"null")
        except (ValueError, RecursionError):
            return False
        if not isinstance(record, dict):
            return False
        if PICTURE_VERSION.is_newer(version := record.get("version")):
            # Not somebody else's: the run's own retry would take, and buy, another number.
            raise StorageFailed(f"{self._versions.uri(name)} {PICTURE_VERSION.said(version)}.", charged="no")
        return bool(record.get("run") == [*run])

    def take(self, base: str, number: int, run: Sequence[str], now: float) -> bool:
        """Take a number for a run, and say whether it is the run's; another run may have been quicker.

        :param run: As for :meth:`own`.
        :param now: Epoch seconds.
        :raises InvalidRequest: There are too many versions; nothing was sent.
        :raises StorageFailed: Whether it was taken is not known; nothing was sent.
        """
        if number > MOST_VERSIONS:
            raise InvalidRequest(
                f"There are {MOST_VERSIONS} versions of {base} already, which is the most. Nothing was sent and "
                "nothing was charged; give the request another name."
            )
        name = f"{base}-v{number}.json"
        content = _plain(
            {"version": PICTURE_VERSION.version, "stem": base, "number": number, "run": [*run], "taken_at": _iso(now)}
        )
        if not self._versions.missing_exclusivity():
            return self._versions.create(name, content) or self._is_of(base, number, run)
        if self._versions.read(name, _MOST_BYTES) is None:
            # Two runs at the same moment may both write here; what was written last decides (:meth:`keeps`).
            self._versions.write(name, content)
        return self._is_of(base, number, run)

    def keeps(self, base: str, number: int, run: Sequence[str]) -> bool:
        """Whether a number that was taken for a run is still its own; to be asked after all were taken.

        Where creates do not exclude each other, another run that looked at the same moment may have written over it.
        One that writes after this was asked is not seen: then both runs have the number.

        :raises StorageFailed: That is not known; nothing was sent.
        """
        return not self._versions.missing_exclusivity() or self._is_of(base, number, run)


def reject(store: ImageStore, stem: str, *, by: str, comment: str, now: float) -> None:
    """Reject a picture: no run uses it any more, and the next one that wants the image makes a new version.

    :param stem: Its file name without extension.
    :param by: Who rejects it.
    :param now: Epoch seconds.
    :raises InvalidRequest: The stem names no file.
    :raises StorageFailed: It could not be written.
    """
    check_stem(stem)
    record = {"version": REJECTION.version, "stem": stem, "by": by, "comment": comment, "rejected_at": _iso(now)}
    store.reserved(REJECTIONS_FOLDER).write(f"{stem}.json", _plain(record))


def take_back(store: ImageStore, stem: str) -> None:
    """Take the rejection of a picture back; there may be none.

    :param stem: Its file name without extension.
    :raises StorageFailed: It could not be removed.
    """
    store.reserved(REJECTIONS_FOLDER).delete(f"{stem}.json")


def rejected_stems(store: ImageStore) -> set[str]:
    """Return the stems of all pictures that are rejected; none where this account may not look.

    :raises StorageFailed: The destination could not be asked.
    """
    names = readable_names(store.reserved(REJECTIONS_FOLDER), _WITHOUT_RIGHTS)
    return {name.removesuffix(".json") for name in names}


def unreadable_versions(failure: StorageFailed) -> StorageFailed:
    """Return the error of versions that could not be read or taken, which says what became of the money: nothing."""
    return StorageFailed(
        f"Which versions of the images there are could not be found out: {failure.message} Nothing was bought; a retry "
        "asks again.",
        charged="no",
    )


def _plain(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n").encode("utf-8", "replace")


def _iso(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
