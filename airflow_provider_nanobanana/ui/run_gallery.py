"""What the routes of the gallery answer with: the pictures of a run, one picture, what is known of it.

All of it blocks: routes call it in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.landing.image_file import SUFFIXES
from airflow_provider_nanobanana.landing.quarantine import QUARANTINE_FOLDER
from airflow_provider_nanobanana.landing.storage.destination import RESERVED
from airflow_provider_nanobanana.landing.versions import REJECTIONS_FOLDER, VERSIONS_FOLDER, split_stem, versioned_stem
from airflow_provider_nanobanana.toapis.errors import ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.ui.confinement import Folder, NotReadable, PicturePlace, picture_place
from airflow_provider_nanobanana.ui.gallery import (
    Gallery,
    find_entry,
    mark_rejected,
    read_rejection,
    sum_totals,
    task_json,
)
from airflow_provider_nanobanana.ui.image_bytes import (
    Picture,
    gone,
    read_confined,
    read_original,
    read_thumbnail,
    unreadable,
)
from airflow_provider_nanobanana.ui.manifests import (
    find_place,
    gallery_of,
    gallery_roots,
    read_manifest,
    rejected_stems,
    storage_of,
)
from airflow_provider_nanobanana.worker_threads import WorkerPool

if TYPE_CHECKING:
    from airflow_provider_nanobanana.landing.storage.base import Storage
    from airflow_provider_nanobanana.ui.task_records import TaskRecord

log = LineLogger(__name__)

#: Manifests read at once, and before it is looked whether the window is full.
_THREADS: Final = 8
_AT_ONCE: Final = 512
#: Versions of one picture that are told, the last ones; bytes of what is said of a rejected one.
_MOST_VERSIONS: Final = 50
_MOST_REJECTION: Final = 65_536


@dataclass(frozen=True)
class NamedPicture:
    """A picture for a browser, and what its file is called."""

    picture: Picture
    name: str


def window_of_run(tasks: Sequence[TaskRecord], offset: int, limit: int) -> dict[str, Any]:
    """Return the cards of task instances that lie in a window over all, and the sums of all that were read.

    Of many task instances only as many manifests are read as the window needs.

    :param offset: Of the first card, from 0.
    :param limit: Of the number of cards.
    """
    roots = gallery_roots()
    shown: list[tuple[TaskRecord, Gallery, Folder | None]] = []
    count = 0
    with WorkerPool(_THREADS) as pool:
        while len(shown) < len(tasks) and count < offset + limit:
            some = tasks[len(shown) : len(shown) + _AT_ONCE]
            for task, (gallery, folder) in zip(some, pool.map(lambda one: gallery_of(one, roots), some), strict=True):
                shown.append((task, gallery, folder))
                count += len(gallery.cards)
    answer, before = [], 0
    for task, gallery, folder in shown:
        begin = max(offset - before, 0)
        cards = gallery.cards[begin : max(offset + limit - before, begin)]
        rejected = rejected_stems(folder) if folder and cards else frozenset()
        answer.append(task_json(task, gallery, folder, [mark_rejected(card, rejected) for card in cards]))
        before += len(gallery.cards)
    return {
        "totals": sum_totals([gallery for _, gallery, _ in shown]),
        "offset": offset,
        "limit": limit,
        "card_count": count,
        "unread_tasks": len(tasks) - len(shown),
        "tasks": answer,
    }


def picture_of(task: TaskRecord, key: str, version: int | None, *, thumbnail: bool) -> NamedPicture:
    """Return a picture of a task instance.

    :param key: As in its card.
    :param version: Another version of it; None for this one.
    :raises NotShown: There is none such, or it cannot be shown.
    """
    gallery, folder = gallery_of(task, gallery_roots())
    found = gallery.pictures.get(key)
    if found is None or folder is None:
        raise gone()
    place, sha256, storage = found.place, found.sha256, _storage(folder)
    base, own = split_stem(place.stem)
    if version not in (None, own):
        names = _existing(storage, versioned_stem(base, version or 1))
        if not names:
            raise gone()
        place, sha256 = PicturePlace(False, names[0]), None
    path = f"{RESERVED}/{QUARANTINE_FOLDER}/{place.name}" if place.quarantined else place.name
    picture = read_thumbnail(storage, path, sha256) if thumbnail else read_original(storage, path)
    return NamedPicture(picture, place.name)


def record_of(task: TaskRecord, key: str) -> dict[str, Any]:
    """Return the manifest's own entry of a picture, and which versions of it there are.

    :param key: As in its card.
    :raises NotShown: There is none such, or it cannot be read.
    """
    try:
        place = find_place(task, gallery_roots())
    except NotReadable:
        raise gone() from None
    found = read_manifest(task, place) if place else ""
    entry = None if isinstance(found, str) else find_entry(found[0], key)
    if place is None or entry is None:
        raise gone()
    picture = picture_place(entry["uri"], place.folder)
    versions = _versions(_storage(place.folder), picture.stem) if picture else []
    return {"entry": entry, "manifest": f"{place.folder.uri}/{place.name}", "versions": versions}


def _versions(storage: Storage, stem: str) -> list[dict[str, Any]]:
    """Return the versions of a picture, the first one first, and what is said of those that a person rejected."""
    base, own = split_stem(stem)
    numbers = {1, own}
    rejected: dict[int, dict[str, str | None]] = {}
    try:
        for name in storage.below(f"{RESERVED}/{VERSIONS_FOLDER}").names(f"{base}-v"):
            numbers |= _number(name, base)
        rejections = storage.below(f"{RESERVED}/{REJECTIONS_FOLDER}")
        for name in rejections.names(base):
            for number in _number(name, base):
                rejected[number] = read_rejection(read_confined(rejections, name, _MOST_REJECTION))
    except ToApisError as error:
        log.warning("Versions cannot be read in the api-server: %s", error.message)
    told = sorted(numbers | rejected.keys())[-_MOST_VERSIONS:]
    there = {number: bool(_existing(storage, versioned_stem(base, number))) for number in told}
    return [{"version": number, "rejected": rejected.get(number), "there": there[number]} for number in told]


def _number(name: str, base: str) -> set[int]:
    """Return the version that a file of ours is about; none where it is another picture's."""
    found, number = split_stem(name.removesuffix(".json"))
    return {number} if found == base else set()


def _existing(storage: Storage, stem: str) -> list[str]:
    try:
        return storage.existing(stem, tuple(SUFFIXES.values()))
    except ToApisError as error:
        log.warning("A picture cannot be looked for in the api-server: %s", error.message)
        raise unreadable() from None


def _storage(folder: Folder) -> Storage:
    try:
        return storage_of(folder)
    except ToApisError as error:
        log.warning("A storage cannot be opened in the api-server: %s", error.message)
        raise unreadable() from None
