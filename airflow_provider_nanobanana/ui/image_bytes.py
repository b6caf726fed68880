"""The bytes of a picture for the api-server: the original as it is, and its thumbnail.

What is read is bounded, and shown only if its first bytes are those of a PNG, JPEG or WebP. A thumbnail that no worker
made is made in the decoder's child process, and kept in memory alone: the api-server writes nothing. Whatever goes
wrong is said in one of a few fixed texts; the storage's own words may hold credentials, and go to the log.

Which file a user may read was decided before; here no more is made of a name than one file below its destination.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.landing.image_file import MAX_BYTES, detect_format
from airflow_provider_nanobanana.landing.shrink_picture import MOST_BYTES as MOST_THUMBNAIL
from airflow_provider_nanobanana.landing.storage.destination import RESERVED
from airflow_provider_nanobanana.landing.thumbnails import (
    MIME_TYPE,
    THUMBNAILS_FOLDER,
    is_sha256,
    make_thumbnail,
    thumbnail_name,
)
from airflow_provider_nanobanana.toapis.errors import ImageInvalid, ImageTooCostly, StorageFailed, ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.ui.kept import Kept

if TYPE_CHECKING:
    from airflow_provider_nanobanana.landing.storage.base import Storage

log = LineLogger(__name__)

#: Bytes of a file that tell what it is.
_HEAD: Final = 16
_SHOWN: Final = frozenset({"png", "jpeg", "webp"})
#: Thumbnails in memory at most, and their bytes; usual ones take 12 kB.
_MOST_KEPT: Final = 2_000
_MOST_KEPT_BYTES: Final = 64 * 1024 * 1024
_SEPARATORS: Final = ("\\", "\0")


@dataclass(frozen=True)
class Picture:
    """What is sent to a browser, and its media type."""

    content: bytes
    media_type: str


class NotShown(Exception):
    """A picture cannot be shown.

    :param status: HTTP status: 404 there is none, 413 it is too large, 415 it is no picture that browsers are given,
        502 the storage or this machine does not serve it now.
    :param words: A sentence for a person; it names no place.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


def gone() -> NotShown:
    """Return the error of a file that is not there."""
    return NotShown(404, "The picture is not there any more.")


def too_large() -> NotShown:
    """Return the error of a file that has too many bytes, or takes too much to decode."""
    return NotShown(413, "The picture is too large to be shown.")


def no_picture() -> NotShown:
    """Return the error of bytes that are not shown."""
    return NotShown(415, "The file is no PNG, JPEG or WebP picture that can be shown.")


def unreadable() -> NotShown:
    """Return the error of a storage that cannot be asked."""
    return NotShown(502, "The api-server cannot read this store.")


def not_made() -> NotShown:
    """Return the error of a thumbnail that this machine cannot make now."""
    return NotShown(502, "The api-server cannot make this thumbnail now.")


def read_original(storage: Storage, name: str) -> Picture:
    """Return a picture as it was landed.

    :param storage: The destination, or a folder below it.
    :param name: Of the file in it; it may lead into folders below.
    :raises NotShown: With the status and the words of the answer.
    """
    content = _content(storage, name)
    found = detect_format(content[:_HEAD])
    if found not in _SHOWN:
        raise no_picture()
    return Picture(content, f"image/{found}")


def read_thumbnail(storage: Storage, name: str, sha256: str | None) -> Picture:
    """Return a picture's thumbnail: from memory, from the storage, or made now.

    :param storage: As :func:`read_original` takes it, and ``name``.
    :param sha256: Of the picture, as its record says; without one the picture itself is read each time.
    :raises NotShown: As :func:`read_original`; also of a GIF or AVIF a thumbnail is shown.
    """
    original = None
    if sha256 is None or not is_sha256(sha256):
        original = _content(storage, name)
        sha256 = hashlib.sha256(original).hexdigest()
    # Two destinations share nothing: a record may claim a hash that is another's.
    kept = _kept.get(
        (storage.uri(name), sha256),
        math.inf,
        lambda: _stored(storage, thumbnail_name(sha256)) or _made(original or _content(storage, name)),
    )
    if isinstance(kept, NotShown):
        raise NotShown(kept.status, kept.words)
    return Picture(kept, MIME_TYPE)


def read_confined(storage: Storage, name: str, most: int) -> bytes | None:
    """Return the content of a file as :meth:`Storage.read`.

    :param storage: From ``manifests.storage_of``, so that no link of a file system is followed.
    :param name: Of the file; it may lead into folders below, never above.
    :raises StorageFailed: It could not be read, or a link leads to it.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") or any(one in part for one in _SEPARATORS) for part in parts):
        return None
    # Not through a storage of the folder below, which would ask Airflow for its connection anew.
    return storage.read(name, most)


def _content(storage: Storage, name: str) -> bytes:
    try:
        content = read_confined(storage, name, MAX_BYTES)
    except ToApisError as error:
        log.warning("A picture cannot be read in the api-server: %s", error.message)
        raise unreadable() from None
    if content is None:
        raise gone()
    if len(content) > MAX_BYTES:
        raise too_large()
    return content


def _stored(storage: Storage, thumbnail: str) -> bytes | None:
    """Return the thumbnail that a worker made; None where there is none that can be read."""
    try:
        content = read_confined(storage.destination, f"{RESERVED}/{THUMBNAILS_FOLDER}/{thumbnail}", MOST_THUMBNAIL)
    except ToApisError as error:
        log.debug("A thumbnail cannot be read: %s", error.message)
        return None
    if content is None or len(content) > MOST_THUMBNAIL or detect_format(content[:_HEAD]) != "webp":
        return None
    return content


def _made(original: bytes) -> bytes | NotShown:
    """Return a thumbnail that is made now, or why there will never be one of these bytes.

    :raises NotShown: There is none now.
    """
    try:
        return make_thumbnail(original)
    except ImageTooCostly:
        return too_large()
    except ImageInvalid:
        return no_picture()
    except StorageFailed as error:
        log.warning("A thumbnail cannot be made in the api-server: %s", error.message)
        raise not_made() from None


def _size(value: bytes | NotShown) -> int:
    return len(value) if isinstance(value, bytes) else 0


_kept: Final = Kept[bytes | NotShown](_MOST_KEPT, _MOST_KEPT_BYTES, _size)
