"""Which of many names are there: a few listings, whatever the number of names and of files beside them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_nanobanana.landing.storage.base import Storage

_FEW: Final = 16
"""Up to so many stems are asked for one by one: a folder may hold a million other files."""

_MOST_PREFIXES: Final = 256
_THREADS: Final = 8


def stems_present(storage: Storage, stems: Collection[str], suffixes: tuple[str, ...]) -> set[str]:
    """Return the stems of which a file with one of the suffixes is there; nothing is read.

    Where the store lists by prefix, the names are asked for in up to 256 slices, eight at a time: of a folder with
    years of images in it, only a slice is in memory at once.

    :raises StorageFailed: The destination could not be asked; never "not there".
    """
    wanted = set(stems)
    if len(wanted) <= _FEW:
        return {stem for stem in wanted if storage.existing(stem, suffixes)}
    if not storage.lists_by_prefix:
        return _among(storage, "", wanted, suffixes)
    with ThreadPoolExecutor(_THREADS) as pool:
        slices = pool.map(lambda prefix: _among(storage, prefix, wanted, suffixes), _prefixes(wanted))
        return set().union(*slices)


def _among(storage: Storage, prefix: str, wanted: set[str], suffixes: tuple[str, ...]) -> set[str]:
    """Return the wanted stems among the names that begin so."""
    found = set()
    for name in storage.names(prefix):
        stem, dot, suffix = name.rpartition(".")
        if dot + suffix in suffixes and stem in wanted:
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
