"""``read_open_claims``: the claims at a destination whose file is not in place, with what their books say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.durable.claim_outlook import outlook
from airflow_provider_nanobanana.durable.claims import (
    BOOKS_FOLDER,
    CLAIMS_FOLDER,
    DEAD_SECONDS,
    MOST_BOOK_BYTES,
    MOST_BYTES,
    BookEntry,
    Claim,
    Damaged,
    claim_name,
    entry_of,
    parse_book,
    parse_claim,
)
from airflow_provider_nanobanana.landing.storage.destination import RESERVED
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.landing.storage.read_ahead import read_files
from airflow_provider_nanobanana.toapis.errors import StorageFailed

if TYPE_CHECKING:
    from airflow_provider_nanobanana.landing.storage.base import Storage

_NAME: Final = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})\.g(\d{1,6})\.json")

Skip = Callable[[str, str], object]


@dataclass(frozen=True)
class OpenClaim:
    """The newest claim on a file that is not in place.

    :param destination: URI of the folder that the file belongs into.
    :param n: The generation, from 0.
    :param book: What the claim's book says of it; None where it says nothing.
    :param written_at: Epoch seconds by the store's clock; None where that is unknown.
    :param is_local: Whether that clock may be set: the one of a local disk is this machine's.
    """

    destination: str
    stem: str
    n: int
    claim: Claim | Damaged
    book: BookEntry | None
    written_at: float | None
    is_local: bool = False

    @property
    def image_task_id(self) -> str | None:
        """What was bought under it, by the word of its book."""
        return self.book.detail if self.book and self.book.outcome == "bought" else None

    def age(self, now: float) -> float | None:
        """Return its age in seconds, or None where that is not known; clocks of store and machine may differ.

        :param now: Epoch seconds.
        """
        at = self.written_at or (self.claim.at if isinstance(self.claim, Claim) else None)
        return max(0.0, now - at) if at else None

    def task_age(self, now: float) -> float:
        """Return the age that a task goes by at its first sight of the claim, in seconds, at least.

        :param now: Epoch seconds.
        """
        age = self.age(now) or 0.0
        return age if age > DEAD_SECONDS or not self.is_local else 0.0

    def plain(self, now: float) -> dict[str, Any]:
        """Return plain JSON: what is known of it, and what a retry and a clear of its task would do.

        :param now: Epoch seconds.
        """
        claim = self.claim if isinstance(self.claim, Claim) else None
        age = self.age(now)
        words = outlook(self.claim, self.book, age=self.task_age(now), now=now)
        return {
            "destination": self.destination,
            "stem": self.stem,
            "generation": self.n,
            "client_business_id": claim and claim.client_business_id,
            "image_task_id": self.image_task_id,
            "age_seconds": age if age is None else round(age),
            "because": claim and claim.because,
            "namespace": claim and claim.by.namespace,
            "dag_id": claim and claim.by.dag_id,
            "run_id": claim and claim.by.run_id,
            "task_id": claim and claim.by.task_id,
            "map_index": claim and claim.by.map_index,
            "try_number": claim and claim.by.try_number,
            "book": self.book and " ".join(filter(None, (self.book.outcome, self.book.detail))),
            "damaged": self.claim.why if isinstance(self.claim, Damaged) else None,
            "retry": words.retry.words,
            "clear": words.clear.words,
        }


def read_open_claims(storage: Storage, skip: Skip) -> Iterator[OpenClaim]:
    """Yield the open claims of a destination, by the names of their files.

    :param skip: Called with the URI of each file that is left out, and with why, in words.
    :raises StorageFailed: The destination could not be listed.
    :raises ConfigurationError: Nothing installed serves it, or its connection is missing.
    """
    folder = storage.below(f"{RESERVED}/{CLAIMS_FOLDER}")
    newest = _newest(folder, skip)
    # After the claims: what lands meanwhile counts as in place.
    for stem in _in_place(storage, newest):
        del newest[stem]
    names = {f"{claim_name(stem, n)}.json": (stem, n) for stem, n in sorted(newest.items())}
    books = _Books(storage.below(f"{RESERVED}/{BOOKS_FOLDER}"), skip)
    destination = storage.uri("").rstrip("/")
    # Longer ones are damaged claims, not other files.
    for name, content in read_files(folder, names, MOST_BYTES + 1, skip):
        stem, n = names[name]
        claim = parse_claim(content, stem=stem, digest=None, n=n)
        book = books.entry(claim) if isinstance(claim, Claim) else None
        is_local = isinstance(folder, LocalStorage)
        yield OpenClaim(destination, stem, n, claim, book, _modified(folder, name, skip), is_local)


def _newest(folder: Storage, skip: Skip) -> dict[str, int]:
    newest: dict[str, int] = {}
    for name in folder.names():
        if found := _NAME.fullmatch(name):
            newest[found[1]] = max(int(found[2]), newest.get(found[1], 0))
        elif name.endswith(".json"):
            skip(folder.uri(name), "its name is none of a claim")
    return newest


def _in_place(storage: Storage, stems: dict[str, int]) -> set[str]:
    from airflow_provider_nanobanana.landing.image_file import SUFFIXES
    from airflow_provider_nanobanana.landing.storage.base import stems_present

    return stems_present(storage, stems, tuple(SUFFIXES.values()))


class _Books:
    """The books that open claims name; each is read once."""

    def __init__(self, folder: Storage, skip: Skip) -> None:
        self._folder = folder
        self._skip = skip
        self._entries: dict[str, dict[str, BookEntry]] = {}

    def entry(self, claim: Claim) -> BookEntry | None:
        """Return what is said of a claim, or None where nothing is."""
        if claim.book not in self._entries:
            self._entries[claim.book] = self._read(f"{claim.book}.json")
        return entry_of(self._entries[claim.book], claim)

    def _read(self, name: str) -> dict[str, BookEntry]:
        try:
            content = self._folder.read(name, MOST_BOOK_BYTES)
        except StorageFailed as failure:
            self._skip(self._folder.uri(name), failure.message)
            return {}
        return parse_book(content if content and len(content) <= MOST_BOOK_BYTES else None)


def _modified(folder: Storage, name: str, skip: Skip) -> float | None:
    try:
        return folder.modified(name)
    except StorageFailed as failure:
        skip(folder.uri(name), f"when it was written could not be asked: {failure.message}")
        return None
