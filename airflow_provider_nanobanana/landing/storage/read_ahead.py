"""``read_files``: the contents of many small files of one place, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.toapis.errors import StorageFailed
from airflow_provider_nanobanana.worker_threads import WorkerPool

if TYPE_CHECKING:
    from airflow_provider_nanobanana.landing.storage.base import Storage

#: Requests to an object store under way at once, and so many files of it in memory.
_THREADS: Final = 8


def read_files(
    storage: Storage, names: Iterable[str], most: int, skip: Callable[[str, str], object]
) -> Iterator[tuple[str, bytes]]:
    """Yield files with their contents, in the order of the names; of an object store, a few are read ahead.

    :param most: Bytes; a longer file is left out.
    :param skip: Called with the URI of each file that is left out, and with why, in words.
    """

    def read(name: str) -> bytes | StorageFailed | None:
        try:
            return storage.read(name, most)
        except StorageFailed as failure:
            return failure

    contents = _in_turn(read, names) if storage.looks_for_free else _ahead(read, names)
    for name, content in contents:
        if isinstance(content, StorageFailed):
            skip(storage.uri(name), content.message)
        elif content is None:
            skip(storage.uri(name), "it is gone since the folder was listed")
        elif len(content) > most:
            skip(storage.uri(name), f"it is longer than {most:,} bytes")
        else:
            yield name, content


#: The content of a file; None where it is gone.
_Content = bytes | StorageFailed | None


def _in_turn(read: Callable[[str], _Content], names: Iterable[str]) -> Iterator[tuple[str, _Content]]:
    for name in names:
        yield name, read(name)


def _ahead(read: Callable[[str], _Content], names: Iterable[str]) -> Iterator[tuple[str, _Content]]:
    with WorkerPool(_THREADS) as pool:
        under_way: deque[tuple[str, Future[_Content]]] = deque()
        for name in names:
            under_way.append((name, pool.submit(read, name)))
            if len(under_way) == _THREADS:
                first, content = under_way.popleft()
                yield first, content.result()
        while under_way:
            first, content = under_way.popleft()
            yield first, content.result()
