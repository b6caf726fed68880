"""``ManifestCache``: what manifests told of money when they were read last, for who sums up again and again."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.spend_records import ManifestRecords

#: Records that are kept unless it is said; each takes some 200 bytes.
_MOST_RECORDS: Final = 200_000


class ReadManifest(NamedTuple):
    """What one manifest told.

    :param digest: SHA-256 of its content.
    :param found: None where it is no manifest; ``why`` says it in words.
    """

    digest: bytes
    found: ManifestRecords | None
    why: str = ""


class ManifestCache:
    """Keeps manifests by URI and the moment they were written; the ones that were used longest ago make room.

    :param most_records: How many records are kept in all.
    """

    def __init__(self, most_records: int = _MOST_RECORDS) -> None:
        self._most = most_records
        self._kept: OrderedDict[str, tuple[float, ReadManifest]] = OrderedDict()
        self._records = 0

    def get(self, uri: str, modified: float | None) -> ReadManifest | None:
        """Return a manifest that was not written since, or None."""
        written, manifest = self._kept.get(uri, (None, None))
        if manifest is None or modified is None or written != modified:
            return None
        self._kept.move_to_end(uri)
        return manifest

    def put(self, uri: str, modified: float | None, manifest: ReadManifest) -> None:
        """Keep a manifest; one of a task at work is not kept: it may be written twice in one second."""
        if modified is None or (manifest.found is not None and not manifest.found.finished):
            return
        if uri in self._kept:
            self._records -= _size(self._kept.pop(uri)[1])
        self._kept[uri] = (modified, manifest)
        self._records += _size(manifest)
        while self._records > self._most:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._records -= _size(oldest)


def _size(manifest: ReadManifest) -> int:
    """Return the number of records, and one for the manifest itself."""
    return 1 + (len(manifest.found.records) if manifest.found else 0)
