"""``SpendReader``: spend records of whole destinations, out of their manifests and books; nothing else is asked.

One manifest is in memory at a time; of an object store, a few; more where a cache is given. What cannot be read is
named and left out.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.manifest import MANIFEST_PREFIX
from airflow_provider_nanobanana.batch.manifest_cache import ManifestCache, ReadManifest
from airflow_provider_nanobanana.batch.spend import SpendRecord
from airflow_provider_nanobanana.batch.spend_records import (
    ManifestRecords,
    NoManifest,
    TaskInstance,
    booked_record,
    manifest_records,
)
from airflow_provider_nanobanana.durable.claims import (
    BOOKS_FOLDER,
    CLAIMS_FOLDER,
    MOST_BOOK_BYTES,
    Book,
    Claim,
    claim_name,
    parse_book,
    parse_claim,
    read_book,
)
from airflow_provider_nanobanana.durable.claims import MOST_BYTES as MOST_CLAIM_BYTES
from airflow_provider_nanobanana.landing.storage.destination import RESERVED
from airflow_provider_nanobanana.landing.storage.read_ahead import read_files
from airflow_provider_nanobanana.toapis.errors import StorageFailed

if TYPE_CHECKING:
    from airflow_provider_nanobanana.landing.storage.base import Storage

#: Bytes of a manifest that are read: one of 20,000 images has 30 MB.
_MOST_BYTES: Final = 1 << 29


@dataclass
class Place:
    """One destination, as far as it was read.

    :param books: When each book was written, by name, as the storage says it; manifests likewise.
    :param by_task_instance: Those that were read.
    :param only_try: The number of the try that a manifest is of, by task instance, where it sums up no other.
    :param try_number: The number of the try that wrote a manifest, by task instance, where it says one.
    :param growing: Names of those whose task has not finished its work.
    :param reused: Hashes of task instance and stem: what manifests say was in place, and not paid by them.
    :param remembered: The same of what they paid for, and name no image task of.
    """

    storage: Storage
    books: Mapping[str, float | None]
    manifests: Mapping[str, float | None]
    by_task_instance: dict[TaskInstance, str] = field(default_factory=dict)
    only_try: dict[TaskInstance, int] = field(default_factory=dict)
    try_number: dict[TaskInstance, int] = field(default_factory=dict)
    growing: set[str] = field(default_factory=set)
    reused: set[int] = field(default_factory=set)
    remembered: set[int] = field(default_factory=set)

    @property
    def uri(self) -> str:
        return self.storage.uri("").rstrip("/")

    @property
    def book_folder(self) -> Storage:
        return _book_folder(self.storage)


def list_place(storage: Storage, since: float | None = None) -> Place:
    """Return what there is to be read at a destination.

    Books are listed before manifests: one that is written in between is of a task whose manifest may come later.

    :param since: Epoch seconds; what was last written before is left out, where the storage tells when that was, and
        so is what is no file. Nothing is left out without it, and a cache is of no use then.
    :raises StorageFailed: The destination could not be listed.
    :raises ConfigurationError: Nothing installed serves it, or its connection is missing.
    """

    def listed(folder: Storage, prefix: str = "") -> dict[str, float | None]:
        if since is None:
            return {name: None for name in sorted(folder.names(prefix)) if name.endswith(".json")}
        entries = sorted((name, at) for name, at in folder.entries(prefix) if name.endswith(".json"))
        return {name: at for name, at in entries if at is None or at >= since}

    books = listed(_book_folder(storage))
    return Place(storage, books, listed(storage, MANIFEST_PREFIX))


def _book_folder(storage: Storage) -> Storage:
    return storage.below(f"{RESERVED}/{BOOKS_FOLDER}")


class SpendReader:
    """Reads destinations once.

    :param places: From :func:`list_place`, each read by one reader only.
    :param skip: Called with the URI of each file that is left out, and with why, in words.
    :param progress: Called with the number of files that were read, and of all there are.
    :param cache: Manifests in it are not read again.
    :param may_read: Asked before each file that is; after a no, those that are left are skipped.
    :param parse: Returns the JSON of a manifest; raises ``ValueError`` where it is none.
    :param most_bytes: Of a manifest; a longer one is skipped.
    """

    def __init__(
        self,
        places: Iterable[Place],
        skip: Callable[[str, str], object],
        progress: Callable[[int, int], object] = lambda done, of: None,
        *,
        cache: ManifestCache | None = None,
        may_read: Callable[[], bool] = lambda: True,
        parse: Callable[[bytes], Any] = json.loads,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._places = places
        self._skip = skip
        self._progress = progress
        self._cache = cache or ManifestCache(0)
        self._may_read = may_read
        self._parse = parse
        self._most_bytes = most_bytes
        #: Image tasks that manifests count, and those that manifests say somebody else paid.
        self._known, self._shared = _Ids(), _Ids()
        self._digests: set[bytes] = set()
        self._done = self._of = 0
        #: How many manifests and books were counted.
        self.manifests = self.books = 0
        #: How many manifests sum up one try only, by DAG.
        self.of_one_try: Counter[str] = Counter()

    def records(self) -> Iterator[SpendRecord]:
        """Yield what every manifest tells of, then what books tell of and no manifest.

        :raises StorageFailed: A destination could not be listed.
        :raises ConfigurationError: Nothing installed serves it, or its connection is missing.
        """
        places = list(self._places)
        self._of = sum(len(place.manifests) + len(place.books) for place in places)
        for place in places:
            yield from self._of_manifests(place)
        for place in places:
            yield from self._of_books(place)

    def _of_manifests(self, place: Place) -> Iterator[SpendRecord]:
        for name, manifest in self._read(place):
            uri, found = place.storage.uri(name), manifest.found
            if manifest.digest in self._digests:
                self._skip(uri, "it is a copy of another manifest, which was counted")
                continue
            self._digests.add(manifest.digest)
            if found is None:
                self._skip(uri, manifest.why)
                continue
            self.manifests += 1
            if found.damaged:
                self._skip(uri, f"{found.damaged} of its entries cannot be understood; the others were counted")
            self._remember(place, name, found)
            yield from found.records

    def _read(self, place: Place) -> Iterator[tuple[str, ReadManifest]]:
        """Yield the manifests of a place, by name; those first that are read already."""
        unread = []
        for name, modified in place.manifests.items():
            kept = self._cache.get(place.storage.uri(name), modified)
            if kept is None:
                unread.append(name)
            else:
                yield name, kept
                self._count()
        names = self._counted(place.storage, unread)
        for name, content in read_files(place.storage, names, self._most_bytes, self._skip):
            manifest = _parsed(content, place.uri, self._parse)
            self._cache.put(place.storage.uri(name), place.manifests[name], manifest)
            yield name, manifest

    def _remember(self, place: Place, name: str, found: ManifestRecords) -> None:
        """Remember what tells whether a purchase that is in a book is in a manifest, too."""
        self._known.add(record.image_task_id for record in found.records if record.image_task_id)
        self._shared.add(found.shared)
        self.of_one_try[found.task_instance[0]] += found.only_try is not None
        if place.books:
            place.by_task_instance[found.task_instance] = name
            if found.only_try is not None:
                place.only_try[found.task_instance] = found.only_try
            if found.try_number is not None:
                place.try_number[found.task_instance] = found.try_number
            if not found.finished:
                place.growing.add(name)
            place.reused.update(hash((found.task_instance, stem)) for stem in found.reused)
            place.remembered.update(hash((found.task_instance, stem)) for stem in found.remembered)

    def _of_books(self, place: Place) -> Iterator[SpendRecord]:
        folder = place.book_folder
        for name, content in read_files(folder, self._counted(folder, place.books), MOST_BOOK_BYTES, self._skip):
            book = read_book(content)
            if book is None:
                self._skip(folder.uri(name), _why_no_book(content))
                continue
            self.books += 1
            bought = {
                claim: entry.detail
                for claim, entry in book.entries.items()
                if entry.outcome == "bought" and entry.detail not in self._known
            }
            if bought:
                yield from self._unreported(place, name, book, bought)

    def _unreported(self, place: Place, name: str, book: Book, bought: Mapping[str, str]) -> Iterator[SpendRecord]:
        """Yield those purchases of a book that are in no manifest's sum.

        A task instance's manifest sums up all that it had paid by then, also for image tasks that it does not name; one
        that remembers no earlier try sums up of those what it found in place. A try that Airflow gave up may live on
        and write over the manifest of its own retry, whose purchases it knows nothing of.

        :param bought: Image task ids by claim, of which no manifest names any.
        """
        by = book.by
        task_instance = (by.dag_id, by.run_id, by.task_id, by.map_index)
        written_at = self._modified(place.book_folder, name)
        summed_up = self._has_summed_up(place, task_instance, written_at)
        first = place.only_try.get(task_instance, by.try_number)
        last = place.try_number.get(task_instance, by.try_number)
        of_another_try = not first <= by.try_number <= last
        base = SpendRecord("booked", "", place.uri, *task_instance)
        for claim, image_task_id in bought.items():
            stem = claim.rpartition(".g")[0]
            # A run that was made again writes the manifest anew, and knows nothing of what it paid before; one of
            # another installation may have the same names, and so the same manifest.
            file = hash((task_instance, stem))
            forgotten = file not in place.remembered and (file in place.reused or image_task_id in self._shared)
            left_out = of_another_try and file not in place.remembered and not self._was_refunded(place, claim)
            if forgotten or not summed_up or left_out:
                yield booked_record(image_task_id, stem, book.models.get(claim, ""), at=written_at, base=base)

    def _was_refunded(self, place: Place, claim: str) -> bool:
        """Whether what a claim bought was refunded, by the word of the claim that follows it."""
        stem, _, number = claim.rpartition(".g")
        folder = place.storage.below(f"{RESERVED}/{CLAIMS_FOLDER}")
        following = int(number) + 1 if number.isdecimal() and len(number) < 7 else 0
        name = f"{claim_name(stem, following)}.json"
        try:
            content = folder.read(name, MOST_CLAIM_BYTES)
        except StorageFailed as failure:
            self._skip(folder.uri(name), failure.message)
            return False
        next_claim = None if content is None else parse_claim(content, stem=stem, digest=None, n=following)
        return isinstance(next_claim, Claim) and next_claim.because == "failed"

    def _has_summed_up(self, place: Place, task_instance: TaskInstance, written_at: float | None) -> bool:
        """Whether a task instance has written its manifest since a moment by the store's clock."""
        name = place.by_task_instance.get(task_instance)
        if name is None:
            return False
        summed_up_at = self._modified(place.storage, name)
        if written_at is None or summed_up_at is None:
            # A purchase that is left out is better than one that counts twice.
            return True
        # While a task works, no book is written with a manifest: where a store tells the same time of both, as its
        # clock has no finer one, the manifest names what of the book it sums up.
        return written_at < summed_up_at or (written_at == summed_up_at and name not in place.growing)

    def _modified(self, storage: Storage, name: str) -> float | None:
        try:
            return storage.modified(name)
        except StorageFailed as failure:
            self._skip(storage.uri(name), f"when it was written could not be asked: {failure.message}")
            return None

    def _counted(self, folder: Storage, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            if self._may_read():
                yield name
            else:
                self._skip(folder.uri(name), "there was no time to read it")
            self._count()

    def _count(self) -> None:
        self._done += 1
        self._progress(self._done, self._of)


def _why_no_book(content: bytes) -> str:
    """Return in words why a file among the books says nothing."""
    if any(entry.outcome == "newer" for entry in parse_book(content).values()):
        return "it was written by a newer version of this provider"
    return "it is no book of this provider, or damaged"


class _Ids:
    """Ids of image tasks, 8 bytes each: first all of them come, then they are asked for."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._sorted = True

    def add(self, ids: Iterable[str]) -> None:
        self._hashes.extend(map(hash, ids))
        self._sorted = False

    def __contains__(self, image_task_id: str) -> bool:
        if not self._sorted:
            self._hashes = array("q", sorted(self._hashes))
            self._sorted = True
        wanted = hash(image_task_id)
        place = bisect_left(self._hashes, wanted)
        return place < len(self._hashes) and self._hashes[place] == wanted


def _parsed(content: bytes, destination: str, parse: Callable[[bytes], Any] = json.loads) -> ReadManifest:
    """Return what a manifest tells."""
    digest = hashlib.sha256(content).digest()
    try:
        return ReadManifest(digest, manifest_records(parse(content), destination))
    except RecursionError:
        return ReadManifest(digest, None, "it is no JSON: it is nested too deeply")
    except ValueError as error:
        why = str(error) if isinstance(error, NoManifest) else f"it is no JSON: {error}"
        return ReadManifest(digest, None, why)
