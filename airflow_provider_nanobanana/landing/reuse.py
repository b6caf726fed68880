"""Images that earlier runs landed under the names wanted now: found by a listing, verified, and not paid twice."""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_nanobanana.toapis.errors import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from airflow_provider_nanobanana.landing.image_store import ImageStore, StoredImage


@dataclass(frozen=True)
class ReuseSearch:
    """What is in place of the wanted images.

    ``images`` holds the whole ones by key; their ``id`` is empty, the name of a file does not tell whose it was.
    ``unverified`` maps keys to stems that are there and were not looked at, because it was time to stop: whether they
    must be bought is not known yet.
    """

    images: dict[str, StoredImage] = field(default_factory=dict)
    unverified: dict[str, str] = field(default_factory=dict)


def find_existing(
    landing: ImageStore,
    wanted: Iterable[tuple[str, str]],
    *,
    enough: Callable[[], bool] = lambda: False,
    threads: int = 4,
) -> ReuseSearch:
    """Find the wanted images that lie at the destination, each decoded fully; a broken one does not count.

    Not a lock: another run may land, or buy, the same image at the same time.

    :param wanted: Key and stem of each image; the key is the caller's.
    :param enough: Asked before each verification (about 30 ms for a 1K PNG in a folder) but the first few, so that each
        search comes further; true ends it early.
    :param threads: Files read at once; they are decoded one at a time.
    :raises StorageFailed: The destination could not be asked, which is never "not there"; nothing was bought.
    """
    stems = dict(wanted)
    with _nothing_bought():
        present = landing.present(set(stems.values()))
        left = {key: stem for key, stem in stems.items() if stem in present}
        images: dict[str, StoredImage] = {}
        for key, image in _verified(landing, left, enough, threads):
            if image is not None:
                images[key] = image
            del left[key]
    return ReuseSearch(images, left)


def _verified(
    landing: ImageStore, present: dict[str, str], enough: Callable[[], bool], threads: int
) -> Iterator[tuple[str, StoredImage | None]]:
    """Yield each key with its image, or None for a broken file, until it is enough; few are under way at once."""
    todo = iter(list(present.items()))
    under_way: deque[tuple[str, Future[StoredImage | None]]] = deque()
    begun = False
    with ThreadPoolExecutor(threads) as pool:
        while True:
            room = 0 if begun and enough() else 2 * threads - len(under_way)
            begun = True
            under_way.extend((key, pool.submit(landing.find, stem)) for key, stem in islice(todo, room))
            if not under_way:
                return
            key, future = under_way.popleft()
            yield key, future.result()


@contextlib.contextmanager
def _nothing_bought() -> Iterator[None]:
    """Say of a destination that cannot be asked what became of the money: here it was not spent yet."""
    try:
        yield
    except StorageFailed as failure:
        raise StorageFailed(
            f"Whether images landed before could not be found out: {failure.message} Nothing was bought for them.",
            charged="no",
        ) from failure
