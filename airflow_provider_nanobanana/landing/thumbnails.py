"""Thumbnails: where they lie beside the images, and how one is made of a picture that has none.

A worker makes them when it lands an image (:mod:`image_store`), of the decoding that checks it. They are named by the
image's content, so that a name is right for ever; whoever misses one makes it again. Nothing else looks at them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.landing.decoder import decode_thumbnail
from airflow_provider_nanobanana.toapis.errors import ImageInvalid, ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_nanobanana.landing.storage.base import Storage

log = LineLogger(__name__)

#: The folder below the provider's own.
THUMBNAILS_FOLDER: Final = "thumbs"
MIME_TYPE: Final = "image/webp"
_SUFFIX: Final = ".webp"
#: Hexadecimal digits of the image's hash in the name.
_DIGITS: Final = 24
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def is_sha256(text: str) -> bool:
    """Say whether it is a SHA-256 as records have it: 64 hexadecimal digits in lower case."""
    return _SHA256.fullmatch(text) is not None


def thumbnail_name(sha256: str) -> str:
    """Return the file name of an image's thumbnail.

    :param sha256: Of the image.
    :raises ValueError: It is none.
    """
    if not is_sha256(sha256):
        raise ValueError("no SHA-256")
    return sha256[:_DIGITS] + _SUFFIX


def make_thumbnail(data: bytes) -> bytes:
    """Return a picture as a WebP of at most 320 pixels a side and 256 KiB, upright; of an animation the first frame.

    It is decoded in the child process of :mod:`decoder`, one at a time, within its limits; never in this process.

    :raises ImageInvalid: It is no picture that is landed, or a broken one.
    :raises ImageTooCostly: It takes more than 10 s of processor time or 512 MiB.
    :raises StorageFailed: This machine could not decode it now.
    """
    return decode_thumbnail(data)


class ThumbnailFolder:
    """The thumbnails of one destination, of which none is worth an error: whoever misses one makes it again.

    :param place: Returns it; it is not asked for before the first is written.
    :param wanted: Whether any are made.
    """

    def __init__(self, place: Callable[[], Storage], *, wanted: bool) -> None:
        self._place = place
        #: Whether any are made: no more after one could not be written, as the images themselves are waited for.
        self.wanted = wanted

    def write(self, sha256: str, content: bytes) -> None:
        """Write the thumbnail of an image that is in its place; nothing where none could be made."""
        if not self.wanted or not content:
            return
        try:
            self._place().write(thumbnail_name(sha256), content, MIME_TYPE)
        except ToApisError as failure:
            self._give_up(failure)

    def write_missing(self, sha256: str, path: Path) -> None:
        """Write the thumbnail of an image that was kept apart before, unless it was written then.

        :param path: The image.
        """
        if not self.wanted:
            return
        try:
            if self._place().existing(thumbnail_name(sha256).removesuffix(_SUFFIX), (_SUFFIX,)):
                return
            self.write(sha256, make_thumbnail(path.read_bytes()))
        except ImageInvalid as error:
            log.debug("No thumbnail of %s: %s", path.name, error.message)
        except (ToApisError, OSError, MemoryError) as failure:
            self._give_up(failure)

    def _give_up(self, failure: Exception) -> None:
        self.wanted = False
        log.warning(
            "No further thumbnails are written here, which the gallery makes itself where it can: %s",
            failure.message if isinstance(failure, ToApisError) else f"{type(failure).__name__}: {failure}",
        )
