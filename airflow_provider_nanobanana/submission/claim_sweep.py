"""``sweep_claims``: removes the claims and books of more than a week ago at one destination, once a day.

All times are the store's own. One process a day does it: the one that creates the day's marker. It removes within
seconds of that, or not at all, and whoever would add to a chain that old waits until that time is over
(:mod:`~.durable.old_claims`). Nothing that goes wrong here is any matter of the batch that it follows.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.durable.claims import BOOKS_FOLDER, CLAIMS_FOLDER
from airflow_provider_nanobanana.durable.old_claims import next_marker, old_books, old_claims, older_markers
from airflow_provider_nanobanana.submission.claims import CLOCK_FOLDER
from airflow_provider_nanobanana.toapis.errors import ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.worker_threads import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_nanobanana.landing.image_store import ImageStore
    from airflow_provider_nanobanana.landing.storage.base import Storage
    from airflow_provider_nanobanana.submission.claims import ClaimFolder

log = LineLogger(__name__)

#: Seconds for removing, once it is known what goes; half of them at most for claims.
_SECONDS: Final = 10.0
#: Seconds after the marker was created at which nothing more is removed, however long the listings took.
_AT_LAST: Final = 60.0
#: A machine and a store whose clocks differ by more: one of the two tells no age.
_CLOCKS_DIFFER: Final = 3600.0
#: Files that cannot be removed, after which it is not tried any more: rights are missing, or the store is down.
_MOST_FAILURES: Final = 25
_THREADS: Final = 8


def sweep_claims(folder: ClaimFolder, store: ImageStore) -> int:
    """Remove what is old at a destination, if nobody did within a day, and return how many files that were.

    :param store: The destination of the claims.
    """
    try:
        return _sweep(folder, store)
    except ToApisError as failure:
        log.debug("Claims of weeks ago could not be removed: %s", failure.message)
        return 0


def _sweep(folder: ClaimFolder, store: ImageStore) -> int:
    clock, markers = folder.clock, store.reserved(CLOCK_FOLDER)
    began = clock.readings()
    now = folder.store_now()
    if now is None or abs(clock.now() - now) > _CLOCKS_DIFFER:
        log.debug("Claims are not removed by age: the store tells no time, or another one than this machine: %s", now)
        return 0
    seen = list(markers.entries())
    marker = next_marker(seen, now)
    if marker is None or not markers.create(marker, uuid.uuid4().hex.encode()):
        return 0
    claims, books = store.reserved(CLAIMS_FOLDER), store.reserved(BOOKS_FOLDER)
    chains = old_claims(claims.entries(), now)
    old = old_books(books.entries(), now)
    listed = clock.passed(began)

    def until(seconds: float) -> Callable[[], bool]:
        return lambda: clock.passed(began) < min(listed + seconds, _AT_LAST)

    removed = Remover(claims, until(_SECONDS / 2)).remove(chains)
    removed += Remover(books, until(_SECONDS)).remove([name] for name in old)
    Remover(markers, until(_SECONDS)).remove([name] for name in older_markers([*seen, (marker, now)]))
    left = sum(map(len, chains)) + len(old) - removed
    log.debug("Removed %d claims and books of more than a week ago; %d are left for tomorrow", removed, left)
    return removed


class Remover:
    """Removes files of one place, until it may not go on or too many cannot be removed.

    :param may_go_on: Asked right before each file.
    """

    def __init__(self, place: Storage, may_go_on: Callable[[], bool]) -> None:
        self._place = place
        self._may_go_on = may_go_on
        self._failures = 0
        self._lock = threading.Lock()

    def remove(self, chains: Iterable[Sequence[str]]) -> int:
        """Remove chains of files side by side, each in its order, and return how many files are gone.

        The rest of a chain stays where one of it could not be removed.
        """
        left = iter(chains)
        threads = 1 if self._place.looks_for_free else _THREADS
        with WorkerPool(threads) as pool:
            return sum(pool.map(self._remove_some, [left] * threads))

    def _remove_some(self, left: Iterator[Sequence[str]]) -> int:
        removed = 0
        while True:
            with self._lock:
                chain = next(left, None)
            if chain is None:
                return removed
            removed += self._remove_chain(chain)

    def _remove_chain(self, chain: Sequence[str]) -> int:
        for removed, name in enumerate(chain):
            if self._failures >= _MOST_FAILURES or not self._may_go_on():
                return removed
            try:
                self._place.delete(name)
            except ToApisError as failure:
                self._failures += 1
                log.debug("%s", failure.message)
                return removed
        return len(chain)
