"""``find_existing``: whole images that earlier runs landed under the names wanted now, so that none is paid twice."""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_nanobanana.toapis.errors import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Future

    from airflow_provider_nanobanana.landing.image_store import ImageStore, StoredImage


def find_existing(
    landing: ImageStore, wanted: Iterable[tuple[str, str]], *, threads: int = 4
) -> dict[str, StoredImage]:
    """Return those of the wanted images that are whole at the destination, by key.

    Each is decoded fully (about 30 ms for a 1K PNG in a folder). Their ``id`` is empty: the name of a file does not
    tell which image task it came from. This is no lock: another run may land, or buy, the same image meanwhile.

    :param wanted: Key and stem of each image; the key is the caller's.
    :param threads: Files read at once; they are decoded one at a time.
    :raises StorageFailed: The destination could not be asked, which is never "not there"; nothing was bought.
    """
    stems = dict(wanted)
    with _nothing_bought():
        present = landing.present(set(stems.values()))
        here = {key: stem for key, stem in stems.items() if stem in present}
        return {key: image for key, image in _verified(landing, here, threads) if image is not None}


def _verified(
    landing: ImageStore, present: Mapping[str, str], threads: int
) -> Iterator[tuple[str, StoredImage | None]]:
    """Yield each key with its image, or None for a broken file; few are under way at once, for the sake of memory."""
    todo = iter(present.items())
    under_way: deque[tuple[str, Future[StoredImage | None]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        while True:
            room = 2 * threads - len(under_way)
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
