"""Images that came inside the answer (``b64_json``) instead of behind a link."""

from __future__ import annotations

import binascii
import re
from typing import BinaryIO, Final

from airflow_provider_nanobanana.toapis.errors import ImageInvalid

MAX_BYTES: Final = 64 * 1024 * 1024
"""Largest decoded image, in bytes; the same limit as for links."""

_CHUNK: Final = 4 * 64 * 1024  # a multiple of 4, so that every chunk decodes by itself
_DATA_PREFIX: Final = re.compile(r"\s*data:[^,]{0,200};base64,", re.IGNORECASE)


def decode_b64(text: str, sink: BinaryIO, *, max_bytes: int = MAX_BYTES) -> int:
    """Decode a ``b64_json`` value into ``sink``, piece by piece, and return the number of bytes written.

    Strict, because the service has been seen to send values that are not base64 (``toapis-contract.md`` 4.5): no
    foreign character, no missing or early padding. A ``data:...;base64,`` prefix and white space at either end are
    taken.

    :raises ImageInvalid: Not base64, empty, or more than ``max_bytes`` (nothing is decoded then).
    """
    prefix = _DATA_PREFIX.match(text)
    start, end = prefix.end() if prefix else 0, len(text)
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start == end:
        raise ImageInvalid("The b64_json value is empty")
    if (end - start) // 4 * 3 - 2 > max_bytes:
        raise ImageInvalid(f"The b64_json value is larger than {max_bytes:,} bytes")
    written = 0
    for at in range(start, end, _CHUNK):
        piece = text[at : min(at + _CHUNK, end)]
        if "=" in piece and at + _CHUNK < end:
            raise ImageInvalid("The b64_json value is not base64: padding before the end")
        try:
            written += sink.write(binascii.a2b_base64(piece, strict_mode=True))
        except ValueError as error:
            raise ImageInvalid(f"The b64_json value is not base64: {error}") from None
    return written
