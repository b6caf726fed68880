"""Manifests in the api-server: read where they may be, kept a while, many at once.

The one place that opens a storage for the gallery. Every manifest comes through
:mod:`~airflow_provider_nanobanana.ui.confinement`, and is used only if it says that it is this very task instance's.
All of it blocks: routes call it in a thread.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_nanobanana.batch.manifest import manifest_name
from airflow_provider_nanobanana.landing.file_names import safe_name
from airflow_provider_nanobanana.landing.image_store import open_storage
from airflow_provider_nanobanana.landing.storage.destination import RESERVED
from airflow_provider_nanobanana.landing.versions import REJECTIONS_FOLDER
from airflow_provider_nanobanana.toapis.errors import ToApisError
from airflow_provider_nanobanana.ui.confinement import (
    OUTSIDE,
    Folder,
    ManifestPlace,
    NotReadable,
    manifest_place,
    parse_folder,
    parse_roots,
)
from airflow_provider_nanobanana.ui.gallery import (
    NO_MANIFEST,
    NOT_ITS_OWN,
    TOO_LARGE,
    UNREADABLE,
    Gallery,
    is_manifest_of,
    read_gallery,
)
from airflow_provider_nanobanana.ui.image_bytes import read_confined
from airflow_provider_nanobanana.ui.task_records import TaskRecord, tasks_since

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_nanobanana.landing.storage.base import Storage

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Bytes of a manifest that is read: one of 20,000 images has 30 MB.
_MOST_BYTES: Final = 1 << 26
#: Manifests kept at most, and the cards in them: some 2 kB each.
_MOST_KEPT: Final = 4_000
_MOST_CARDS: Final = 20_000
#: Seconds for which a manifest is right that may still grow, and one whose task instance has ended.
_GROWING: Final = 3.0
_FINAL: Final = 60.0


def gallery_roots() -> list[Folder]:
    """Return the folders of ``[nanobanana] gallery_roots``; none where one of them is none."""
    try:
        return parse_roots(conf.get("nanobanana", "gallery_roots", fallback="") or "")
    except NotReadable as error:
        log.warning("[nanobanana] gallery_roots is not used: %s", error)
        return []


def find_place(task: TaskRecord, roots: Sequence[Folder]) -> ManifestPlace | None:
    """Return where the manifest of a task instance may be read; None where there is none to look for yet.

    Where its XCom says nothing (it may be deleted, or lie in another backend), the manifest is looked for under the
    name that it has below the destination that was rendered.

    :raises NotReadable: It may not.
    """
    uri = task.manifest
    if uri is None:
        if task.destination is None or not task.has_ended:
            return None
        name = safe_name(manifest_name(task.dag_id, task.run_id, task.task_id, task.map_index))
        uri = f"{task.destination.rstrip('/')}/{name}.json"
    place = manifest_place(uri, task.destination, roots)
    if place.folder.is_local:
        # A link must not lead out of the roots either.
        real = parse_folder(os.path.realpath(f"/{'/'.join(place.folder.parts)}"))
        inside = [parse_folder(os.path.realpath(f"/{'/'.join(root.parts)}")) for root in roots if root.is_local]
        if not any(root.holds(real) for root in inside):
            raise NotReadable(OUTSIDE)
    return place


@dataclass(frozen=True)
class GalleryPointer:
    """Where a task instance says that its images are.

    :param destination: URI of the folder; where it may not be read, what it says.
    """

    dag_id: str
    destination: str
    readable: bool


def gallery_pointers(since: datetime) -> Iterator[GalleryPointer]:
    """Yield where the task instances of all DAGs have said since a moment that their images are."""
    roots = gallery_roots()
    for task in tasks_since(since):
        try:
            place = find_place(task, roots)
        except NotReadable:
            yield GalleryPointer(task.dag_id, task.manifest or "", readable=False)
            continue
        if place is not None:
            yield GalleryPointer(task.dag_id, place.folder.uri, readable=True)


@lru_cache(maxsize=256)
def storage_of(folder: Folder) -> Storage:
    """Return the storage of a folder; kept, as each new one asks Airflow for its connection.

    :raises ToApisError: There is none such here.
    """
    # What the operators land in a folder is named so; "file:///" would be read as another path by some versions.
    return open_storage(f"/{'/'.join(folder.parts)}" if folder.is_local else folder.uri)


def read_manifest(task: TaskRecord, place: ManifestPlace) -> dict[str, Any] | str:
    """Return the manifest of a task instance, or in words why there is none to show."""
    try:
        content = read_confined(storage_of(place.folder), place.name, _MOST_BYTES)
    except ToApisError as error:
        log.warning("The manifest of %s cannot be read in the api-server: %s", task, error.message)
        return UNREADABLE
    if content is None:
        return NO_MANIFEST
    if len(content) > _MOST_BYTES:
        return TOO_LARGE
    try:
        found = json.loads(content, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return NOT_ITS_OWN
    own = is_manifest_of(found, task.dag_id, task.run_id, task.task_id, task.map_index)
    return dict(found) if own else NOT_ITS_OWN


def gallery_of(task: TaskRecord, roots: Sequence[Folder]) -> tuple[Gallery, Folder | None]:
    """Return what is shown of a task instance, and the folder of its pictures where they may be read.

    :param roots: From :func:`gallery_roots`.
    """
    try:
        place = find_place(task, roots)
    except NotReadable as error:
        return Gallery(problem=str(error)), None
    if place is None:
        return Gallery(), None
    # With another try, or another state, it is written anew.
    asked = (place, task.dag_id, task.run_id, task.task_id, task.map_index, task.try_number, task.state)
    seconds = _FINAL if task.has_ended else _GROWING
    return _galleries.get(asked, seconds, lambda: _gallery(task, place)), place.folder


def _gallery(task: TaskRecord, place: ManifestPlace) -> Gallery:
    found = read_manifest(task, place)
    if isinstance(found, dict):
        return read_gallery(found, place.folder)
    # Before the first image is in place there is none.
    return Gallery() if found == NO_MANIFEST and not task.has_ended else Gallery(problem=found)


def rejected_stems(folder: Folder) -> frozenset[str]:
    """Return the names without extension of the pictures of a folder that a person rejected; none if it cannot tell."""

    def listed() -> frozenset[str]:
        try:
            names = storage_of(folder).below(f"{RESERVED}/{REJECTIONS_FOLDER}").names()
            return frozenset(name.removesuffix(".json") for name in names)
        except ToApisError as error:
            log.warning("Rejections cannot be read in the api-server: %s", error.message)
            return frozenset()

    return _rejections.get(folder, _GROWING, listed)


@dataclass(frozen=True)
class _Kept(Generic[T]):
    read_at: float
    value: T


class _Cache(Generic[T]):
    """Values kept for seconds, the last used ones, up to a weight; safe to use from several threads."""

    def __init__(self, most: int, most_weight: int, weight: Callable[[T], int]) -> None:
        self._most, self._most_weight, self._weigh = most, most_weight, weight
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, _Kept[T]] = OrderedDict()
        self._weight = 0

    def get(self, key: Hashable, seconds: float, make: Callable[[], T]) -> T:
        """Return a value that is at most so old, a new one where there is none."""
        now = time.monotonic()
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and now - kept.read_at < seconds:
                self._kept.move_to_end(key)
                return kept.value
        value = make()
        with self._lock:
            self._drop(key)
            self._kept[key] = _Kept(now, value)
            self._weight += self._weigh(value)
            while len(self._kept) > self._most or (self._weight > self._most_weight and len(self._kept) > 1):
                self._drop(next(iter(self._kept)))
        return value

    def _drop(self, key: Hashable) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._weight -= self._weigh(kept.value)


_galleries: Final = _Cache[Gallery](_MOST_KEPT, _MOST_CARDS, lambda gallery: len(gallery.cards))
_rejections: Final = _Cache[frozenset[str]](256, 1_000_000, len)
