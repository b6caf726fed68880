"""Manifests in the api-server: read where they may be, kept a while, many at once.

The one place that opens a storage for the gallery. Every manifest comes through
:mod:`~airflow_provider_nanobanana.ui.confinement`, and is used only if it says that it is this very task instance's.
All of it blocks: routes call it in a thread.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import conf

from airflow_provider_nanobanana.batch.manifest import manifest_name
from airflow_provider_nanobanana.landing.file_names import safe_name
from airflow_provider_nanobanana.landing.image_store import open_storage
from airflow_provider_nanobanana.landing.storage.confined_local import ConfinedLocalStorage
from airflow_provider_nanobanana.landing.storage.destination import RESERVED
from airflow_provider_nanobanana.landing.versions import REJECTIONS_FOLDER
from airflow_provider_nanobanana.stored_forms import MANIFEST
from airflow_provider_nanobanana.toapis.errors import StorageFailed, ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
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
    NEWER,
    NO_MANIFEST,
    NOT_ITS_OWN,
    TOO_LARGE,
    UNREADABLE,
    Gallery,
    is_manifest_of,
    read_gallery,
)
from airflow_provider_nanobanana.ui.image_bytes import read_confined
from airflow_provider_nanobanana.ui.kept import Kept
from airflow_provider_nanobanana.ui.task_records import TaskRecord, tasks_since

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_nanobanana.landing.storage.base import Storage

log = LineLogger(__name__)

#: Bytes of a manifest that is read, and objects and lists in it: one of 20,000 images has 30 MB and 120,000 of these.
#: More is parsed by no API server: it takes memory, and nothing else of Python runs meanwhile.
MOST_BYTES: Final = 1 << 25
_MOST_PARTS: Final = 300_000
#: Larger ones are parsed one by one.
_LARGE: Final = 1 << 20
_one_large: Final = threading.RLock()
#: Galleries kept at most, and their bytes, roughly.
_MOST_KEPT: Final = 4_000
_MOST_KEPT_BYTES: Final = 1 << 27
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
    if place.folder.is_local and _real_path(place.folder, roots) is None:
        raise NotReadable(OUTSIDE)
    return place


def _real_path(folder: Folder, roots: Sequence[Folder]) -> Path | None:
    """Return the path of a local folder without links in it; None where it leads out of the roots."""
    real = Path(os.path.realpath(_path(folder)))
    inside = (os.path.realpath(_path(root)) for root in roots if root.is_local)
    return real if any(real.is_relative_to(root) for root in inside) else None


def _path(folder: Folder) -> str:
    return f"/{'/'.join(folder.parts)}"


@dataclass(frozen=True)
class GalleryPointer:
    """Where a task instance says that its images are.

    :param folder: None where what it says is none.
    :param readable: Whether it may be read for this task instance.
    """

    dag_id: str
    folder: Folder | None
    readable: bool


def gallery_pointers(since: datetime) -> Iterator[GalleryPointer]:
    """Yield where the task instances of all DAGs have said since a moment that their images are."""
    roots = gallery_roots()
    for task in tasks_since(since):
        try:
            place = find_place(task, roots)
        except NotReadable:
            yield GalleryPointer(task.dag_id, _said(task), readable=False)
            continue
        if place is not None:
            yield GalleryPointer(task.dag_id, place.folder, readable=True)


def _said(task: TaskRecord) -> Folder | None:
    try:
        return parse_folder((task.manifest or "").rpartition("/")[0] + "/")
    except NotReadable:
        return None


def storage_of(folder: Folder) -> Storage:
    """Return the storage of a folder that :func:`find_place` has found; the api-server reads no other for users.

    :raises ToApisError: There is none such here, or links lead out of the roots by now.
    """
    if not folder.is_local:
        return _open_store(folder.uri)
    path = _real_path(folder, gallery_roots())
    if path is None:
        raise StorageFailed(OUTSIDE)
    return ConfinedLocalStorage(path)


@lru_cache(maxsize=1_024)
def _open_store(uri: str) -> Storage:
    """Return an object store; kept, as each new one asks Airflow for its connection."""
    return open_storage(uri)


def parse_manifest(content: bytes) -> Any:
    """Return the JSON of a manifest; numbers in it are finite.

    :raises ValueError: It is none, or too much for an API server.
    """
    if len(content) > MOST_BYTES or content.count(b"{") + content.count(b"[") > _MOST_PARTS:
        raise ValueError(TOO_LARGE)
    with _one_large if len(content) > _LARGE else contextlib.nullcontext():
        try:
            return json.loads(content, parse_constant=lambda _: None, parse_float=_finite)
        except RecursionError:
            raise ValueError(NOT_ITS_OWN) from None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def read_manifest(task: TaskRecord, place: ManifestPlace) -> tuple[dict[str, Any], int] | str:
    """Return the manifest of a task instance and its bytes, or in words why there is none to show."""
    try:
        storage = storage_of(place.folder)
        content = read_confined(storage, place.name, _LARGE)
        if content is not None and len(content) > _LARGE:
            with _one_large:
                return _own(task, read_confined(storage, place.name, MOST_BYTES))
    except ToApisError as error:
        log.warning("The manifest of %s cannot be read in the api-server: %s", task, error.message)
        return UNREADABLE
    return _own(task, content)


def _own(task: TaskRecord, content: bytes | None) -> tuple[dict[str, Any], int] | str:
    if content is None:
        return NO_MANIFEST
    try:
        found = parse_manifest(content)
    except ValueError as error:
        return TOO_LARGE if str(error) == TOO_LARGE else NOT_ITS_OWN
    if not is_manifest_of(found, task.dag_id, task.run_id, task.task_id, task.map_index):
        return NOT_ITS_OWN
    return NEWER if MANIFEST.is_newer(found.get("version")) else (found, len(content))


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
    if not isinstance(found, str):
        return replace(read_gallery(found[0], place.folder), bytes=found[1])
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


_galleries: Final = Kept[Gallery](_MOST_KEPT, _MOST_KEPT_BYTES, lambda gallery: gallery.weight)
_rejections: Final = Kept[frozenset[str]](256, 1_000_000, len)
