"""Which version of each wanted image an attempt works on: the current one, or a new one where ``redo`` names it.

Current is the newest version that is in place, whole, and was not rejected. Where all are rejected, a new one is made.
A new version belongs to the run that wanted it: its retries and clears find it again, and another run's ``redo`` takes
the next number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.durable.claims import CLAIMS_FOLDER, MOST_BYTES, claim_name
from airflow_provider_nanobanana.landing.image_file import SUFFIXES
from airflow_provider_nanobanana.landing.versions import VersionFolder, split_stem, unreadable_versions, versioned_stem
from airflow_provider_nanobanana.toapis.errors import InvalidRequest, StorageFailed
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.worker_threads import WorkerPool

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.items import BatchItem, SkippedRow
    from airflow_provider_nanobanana.landing.image_store import ImageStore, StoredImage

log = LineLogger(__name__)

_THREADS: Final = 8
#: The number of such an image in the name of its file.
_FURTHER: Final = re.compile(r"[1-9][0-9]{0,3}")
_MOST_LISTED: Final = 10


def redo_keys(redo: Iterable[str], items: Sequence[BatchItem], skipped: Sequence[SkippedRow] = ()) -> set[str]:
    """Return the keys of the items of which a new version is wanted.

    :param redo: Of each a name, what the log calls it (``SKU-001/2``: of a name one variant), the position of its
        request (from 0) in digits, or a URI or file name of any of its versions; a name comes first.
    :param skipped: The rows that were left out of the list.
    :raises InvalidRequest: An entry names no item; nothing was sent.
    """
    chosen: set[str] = set()
    unknown = []
    for entry in redo:
        keys = _named(entry, items)
        chosen |= keys
        if not keys:
            unknown.append(entry)
    if unknown:
        labels = [*dict.fromkeys(item.label for item in items if item.name)][:_MOST_LISTED]
        allowed = f"names such as {', '.join(map(repr, labels))}" if labels else "positions, as no request has a name"
        last = max(item.index for item in items)
        positions = f"a position from 0 to {last}" if last else "the position 0"
        left_out = [row for row in skipped if {row.name, str(row.index)} & {entry.strip() for entry in unknown}]
        why = "".join(f" Row {row.label} was skipped: {row.message.rstrip('.')}." for row in left_out[:_MOST_LISTED])
        raise InvalidRequest(
            f"redo names {', '.join(f'{entry!r:.80}' for entry in unknown[:_MOST_LISTED])}, which is none of the "
            f"{len(items):,} images of this task; allowed: {allowed}, {positions}, or the URI of an image that is in "
            f"place.{why} Nothing was sent and nothing was charged. Fix redo and clear the task (or trigger a run); a "
            "retry would meet the same."
        )
    return chosen


def _named(entry: str, items: Sequence[BatchItem]) -> set[str]:
    text = entry.strip()
    if by_name := {item.key for item in items if item.name == text}:
        return by_name
    if by_label := {item.key for item in items if item.label == text}:
        return by_label
    if text.isascii() and text.isdecimal():
        return {item.key for item in items if str(item.index) == text}
    name = PurePosixPath(text.partition("?")[0]).name
    stem, dot, suffix = name.rpartition(".")
    if dot + suffix.lower() not in SUFFIXES.values():
        stem = name
    base = split_stem(stem)[0]
    if by_file := {item.key for item in items if item.base_stem == base}:
        return by_file
    # Of an image beside the first of its image task the picture that was asked for is made again.
    first, _, number = stem.rpartition(".")
    base = split_stem(first)[0] if _FURTHER.fullmatch(number) else base
    return {item.key for item in items if item.base_stem == base}


class VersionChoice:
    """Chooses the version of each item of a batch.

    :param run: What tells the run from others: namespace, if any, DAG id and run id.
    :param now: Epoch seconds.
    :param trial: Whether nothing is written: what would be taken is chosen, and not taken.
    :ivar verified: What was found whole in place on the way, by stem: it need not be decoded a second time.
    """

    def __init__(self, store: ImageStore, run: Sequence[str], now: float, *, trial: bool = False) -> None:
        self._store = store
        self._folder = VersionFolder(store.reserved)
        self._claims = store.reserved(CLAIMS_FOLDER)
        self._run = run
        self._now = now
        self._trial = trial
        self.verified: dict[str, StoredImage] = {}

    def choose(self, items: Sequence[BatchItem], redo: set[str]) -> list[BatchItem]:
        """Return the items with the version that each is to have.

        :param redo: Keys of the items of which a new version is wanted.
        :raises StorageFailed: The versions could not be read or taken; nothing was bought.
        :raises InvalidRequest: There are too many versions; nothing was sent.
        """
        try:
            # Of one image there is one choice, also where several items share it.
            plain = [item for item in items if item.key not in redo and self._has_choice(item)]
            again = [item for item in items if item.key in redo]
            with WorkerPool(_THREADS) as pool:
                numbers = dict(zip((item.key for item in plain), pool.map(self._current, plain), strict=True))
                numbers.update(zip((item.key for item in again), pool.map(self._new, again), strict=True))
                # Last of all: where creates exclude nobody, the later it is read the more of the lost races show.
                numbers.update(
                    zip(
                        (item.key for item in again),
                        pool.map(self._kept, again, [numbers[item.key] for item in again]),
                        strict=True,
                    )
                )
        except StorageFailed as failure:
            raise unreadable_versions(failure) from failure
        if again:
            chosen = [f"{item.label} version {numbers[item.key]}" for item in again]
            more = f" and {len(chosen) - _MOST_LISTED:,} more" if len(chosen) > _MOST_LISTED else ""
            log.info("A version of its own in this run: %s%s", ", ".join(chosen[:_MOST_LISTED]), more)
        return [replace(item, version=numbers.get(item.key, 1)) for item in items]

    def _has_choice(self, item: BatchItem) -> bool:
        """Whether there is more than the first version, unrejected."""
        return self._folder.of(item.base_stem).alive != [1]

    def _current(self, item: BatchItem) -> int:
        """Return the newest version that is in place, whole and not rejected; else one that is to be made."""
        base = item.base_stem
        versions = self._folder.of(base)
        number = versions.current(lambda number: self._is_whole(versioned_stem(base, number)))
        if not versions.alive:
            # Whoever takes it first, this run shares it: all that is wanted is a picture that nobody rejected.
            self._take(base, number)
        return number

    def _is_whole(self, stem: str) -> bool:
        image = self._store.find(stem)
        if image is not None:
            self.verified[stem] = image
        return image is not None

    def _new(self, item: BatchItem) -> int:
        """Return the version of this run: the one that it took before, or a new one."""
        base = item.base_stem
        versions = self._folder.of(base)
        own = self._folder.own(base, versions.registered - versions.rejected, self._run)
        if own is not None:
            return own
        number = 1 if self._was_never_wanted(base) else versions.next
        while not self._take(base, number):
            number += 1
        return number

    def _was_never_wanted(self, base: str) -> bool:
        """Whether no picture of a request is or was here, nor being bought, so that a new one can be the first.

        A claim is left of one whose file somebody deleted: under the same name its image task would bring the very
        picture back that is not wanted.
        """
        versions = self._folder.of(base)
        return (
            versions.alive == [1]
            and not versions.registered
            and not self._store.present([base])
            and not self._store.in_quarantine([base])
            and self._claims.read(f"{claim_name(base, 0)}.json", MOST_BYTES) is None
        )

    def _kept(self, item: BatchItem, number: int) -> int:
        """Return the version of this run, another one where somebody else has written over it meanwhile."""
        while not (self._trial or self._folder.keeps(item.base_stem, number, self._run)):
            number = self._new(item)
        return number

    def _take(self, base: str, number: int) -> bool:
        return self._trial or self._folder.take(base, number, self._run, self._now)
