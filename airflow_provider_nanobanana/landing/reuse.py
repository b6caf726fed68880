"""What earlier runs landed, so that none of it is paid twice.

``find_existing`` returns whole images by the names that are wanted now, ``find_numbered`` the names of numbered ones.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from airflow_provider_nanobanana.toapis.errors import StorageFailed
from airflow_provider_nanobanana.worker_threads import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_nanobanana.landing.image_store import ImageStore, StoredImage


def find_existing(store: ImageStore, wanted: Iterable[tuple[str, str]], *, threads: int = 4) -> dict[str, StoredImage]:
    """Return those of the wanted images that are whole at the destination, by key.

    Each is decoded fully (about 30 ms for a 1K PNG in a folder). Their ``id`` is empty: the name of a file does not
    tell which image task it came from. Another run may be landing, or buying, the same image: claims tell of that.

    :param wanted: Key and stem of each image; the key is the caller's.
    :param threads: Files read at once; they are decoded one at a time.
    :raises StorageFailed: The destination could not be asked, which is never "not there"; nothing was bought.
    """
    stems = dict(wanted)
    with _nothing_bought():
        present = store.present(set(stems.values()))
        here = [key for key, stem in stems.items() if stem in present]
        with WorkerPool(threads) as pool:
            images = pool.map(store.find, (stems[key] for key in here))
            return {key: image for key, image in zip(here, images, strict=True) if image is not None}


def find_numbered(store: ImageStore, heads: Mapping[str, int]) -> set[str]:
    """Return the stems ``<head>-<number>`` of which a file is at the destination, whole or not.

    :param heads: How many are wanted of each head; files with higher numbers are found, too.
    :raises StorageFailed: The destination could not be asked, which is never "not there"; nothing was bought.
    """
    with _nothing_bought():
        return store.numbered(heads) if heads else set()


@contextlib.contextmanager
def _nothing_bought() -> Iterator[None]:
    try:
        yield
    except StorageFailed as failure:
        raise StorageFailed(
            f"Whether images landed before could not be found out: {failure.message} Nothing was bought for them.",
            charged="no",
        ) from failure
