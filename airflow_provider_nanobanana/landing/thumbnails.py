"""Thumbnails: where they lie beside the images, and how one is made of a picture that has none.

A worker makes them when it lands an image (:mod:`image_store`), of the decoding that checks it. They are named by the
image's content, so that a name is right for ever; whoever misses one makes it again. Nothing else looks at them.
"""

from __future__ import annotations

import re
from typing import Final

from airflow_provider_nanobanana.landing.decoder import decode_thumbnail

#: The folder below the provider's own.
THUMBNAILS_FOLDER: Final = "thumbs"
MIME_TYPE: Final = "image/webp"
#: Hexadecimal digits of the image's hash in the name.
_DIGITS: Final = 24
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def thumbnail_name(sha256: str) -> str:
    """Return the file name of an image's thumbnail.

    :param sha256: Of the image, 64 hexadecimal digits in lower case.
    :raises ValueError: It is none.
    """
    if not _SHA256.fullmatch(sha256):
        raise ValueError("no SHA-256")
    return f"{sha256[:_DIGITS]}.webp"


def make_thumbnail(data: bytes) -> bytes:
    """Return a picture as a WebP of at most 320 pixels a side and 256 KiB, upright; of an animation the first frame.

    It is decoded in the child process of :mod:`decoder`, one at a time, within its limits; never in this process.

    :raises ImageInvalid: It is no picture that is landed, or a broken one.
    :raises ImageTooCostly: It takes more than 10 s of processor time or 512 MiB.
    :raises StorageFailed: This machine could not decode it now.
    """
    return decode_thumbnail(data)
