"""``Quarantine``: what was paid and is not put in place, kept below ``.nanobanana/quarantine`` at the destination.

Bytes that failed a check are named by their content. Whole pictures that are suspect keep the stem of the image they
are, so that whoever wants that image later finds it there, paid: it is not downloaded again, and not bought again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.landing.image_file import SUFFIXES, ImageFormat, suffix_for
from airflow_provider_nanobanana.landing.storage.base import readable_names, storage_failures
from airflow_provider_nanobanana.landing.storage.client_errors import lacks_rights
from airflow_provider_nanobanana.toapis.errors import (
    ImageInvalid,
    ImageSuspect,
    ImageTooCostly,
    StorageFailed,
    ToApisError,
)
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.redaction import truncate_json

if TYPE_CHECKING:
    from airflow_provider_nanobanana.landing.storage.base import Storage
    from airflow_provider_nanobanana.landing.storage.staging import StagedFile

log = LineLogger(__name__)

#: The folder below the provider's own.
QUARANTINE_FOLDER: Final = "quarantine"
#: Bytes of JSON in what is said of a kept file: it travels in the result, beside the records of images.
_MOST_SAID: Final = 600
#: Of these the beginning tells what was kept.
_HEAD: Final = 1024
#: What is said of a kept file beside the reason.
_KEPT: Final = ("uri", "id", "index", "sha256", "bytes")
#: Hexadecimal digits of the content's hash behind a name.
_DIGITS: Final = 12
_SUFFIXES: Final = tuple(SUFFIXES.values())


class Quarantine:
    """The quarantine of one destination.

    :param place: Returns it; it is not asked for before something is kept or looked for.
    """

    def __init__(self, place: Callable[[], Storage]) -> None:
        self._place = place
        self._stems: set[str] | None = None
        self._lock = threading.Lock()

    def stems(self) -> set[str]:
        """Return the stems of which a whole picture is kept here; one listing, the first time.

        :raises StorageFailed: It could not be asked; never "not there".
        """
        with self._lock:
            if self._stems is None:
                names = readable_names(self._place(), "suspect pictures in it are not found again")
                split = (name.rpartition(".") for name in names)
                self._stems = {stem for stem, dot, suffix in split if dot + suffix in _SUFFIXES}
            return set(self._stems)

    def names(self, stem: str) -> list[str]:
        """Return the names under which whole pictures of a stem are kept."""
        return self._place().existing(stem, _SUFFIXES)

    @property
    def place(self) -> Storage:
        """Where it is."""
        return self._place()

    def keep_suspect(
        self, staged: StagedFile, stem: str, image_format: ImageFormat, record: Mapping[str, Any], why: str
    ) -> ImageSuspect:
        """Keep a whole picture instead of putting it in place, and return the error that says so.

        :param record: ``id``, ``index``, ``sha256`` and ``bytes`` of the picture.
        :param why: What makes it suspect, as a part of a sentence.
        :raises StorageFailed: It was not kept; nothing is left behind.
        """
        suffix, place = SUFFIXES[image_format], self._place()
        name, mime_type = stem + suffix, f"image/{image_format}"
        try:
            if self._is_taken(stem, name):
                raise FileExistsError(name)
            place.publish(staged, name, mime_type, replace=False)
        except FileExistsError:
            # Of another purchase that came meanwhile; each is paid, and that one may have been told of already.
            name = f"{stem}.{str(record['sha256'])[:_DIGITS]}{suffix}"
            place.publish(staged, name, mime_type)
        with self._lock:
            if self._stems is not None:
                self._stems.add(stem)
        return suspect_error({**record, "uri": place.uri(name)}, why)

    def _is_taken(self, stem: str, name: str) -> bool:
        """Whether a file is there; where this account may not look, that shows only if the storage excludes creates."""
        try:
            return name in self.names(stem)
        except StorageFailed as failure:
            if not lacks_rights(failure.__cause__):
                raise
            return False

    def drop(self, stem: str, name: str) -> None:
        """Remove a picture that is in place by now; where that is not allowed it stays."""
        with self._lock:
            if self._stems is not None:
                self._stems.discard(stem)
        try:
            self._place().delete(name)
        except ToApisError as failure:
            log.warning("%s is in place by now and could not be removed: %s", self._place().uri(name), failure.message)

    def keep_broken(
        self, staged: StagedFile, stem: str, image_id: str, index: int, error: ImageInvalid
    ) -> ImageInvalid:
        """Keep what failed a check and return the error that says so; trouble with that never hides the error."""
        try:
            with storage_failures("read back the image", OSError):
                size = staged.size()
                if not size:
                    return error.reworded(error.message)
                with open(staged.path, "rb") as file:
                    head = file.read(_HEAD)
                    file.seek(0)
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            # Named by its content: other bytes get another name, and the same are kept once.
            name = f"{stem}.{digest[:_DIGITS]}{suffix_for(head)}"
            self._place().publish(staged, name, "application/octet-stream")
        except ToApisError as failure:
            return error.reworded(f"{error.message}. What came could not be kept: {failure.message}")
        uri = self._place().uri(name)
        bought = "; it is paid, and not bought again" if isinstance(error, ImageTooCostly) else ""
        final = error.reworded(f"{error.message}. What came is kept as {uri}{bought}")
        record = {"uri": uri, "id": image_id, "index": index, "sha256": digest, "bytes": size}
        final.kept = _with_reason(record, error.message)
        return final


def suspect_error(held: Mapping[str, Any], why: str) -> ImageSuspect:
    """Return the error of an image of which a suspect picture is in quarantine.

    :param held: ``uri``, ``id``, ``index``, ``sha256`` and ``bytes`` of the picture there.
    :param why: What makes it suspect, as a part of a sentence; empty where that is not known.
    """
    reason = why or "it was found suspect when it came"
    error = ImageSuspect(
        f"The picture is suspect: {reason}. It is kept as {held['uri']}, paid, and not bought again",
        image_task_id=held["id"] or None,
    )
    error.kept = _with_reason({key: held[key] for key in _KEPT}, reason)
    return error


def _with_reason(record: dict[str, Any], reason: str) -> dict[str, Any]:
    room = max(0, _MOST_SAID - len(json.dumps(record | {"reason": ""})))
    return record | {"reason": truncate_json(reason, room)}
