"""Images that came inside the answer (``b64_json``) instead of behind a link."""

from __future__ import annotations

import binascii
import re
from typing import BinaryIO, Final

from airflow_provider_nanobanana.landing.imagefile import MAX_BYTES
from airflow_provider_nanobanana.toapis.errors import ImageInvalid

_CHUNK: Final = 4 * 64 * 1024
_DATA_PREFIX: Final = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_ENDS: Final = " \t\r\n\"'"
_NOISE: Final = re.compile(r"\s+")
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9+/]")
_URL_SAFE: Final = str.maketrans("-_", "+/")
#: What transports leave in a text; neither sign belongs to base64, so this is lossless.
_ESCAPES: Final = (
    ("\\n", ""), ("\\r", ""), ("\\t", ""), ("\\/", "/"), ("\\u002B", "+"), ("\\u002F", "/"), ("\\u003D", "="),
    ("%0A", ""), ("%0D", ""), ("%2B", "+"), ("%2F", "/"), ("%3D", "="),
)  # fmt: skip


def decode_b64(text: str, sink: BinaryIO, *, max_bytes: int = MAX_BYTES) -> int:
    """Decode a ``b64_json`` value into ``sink``, piece by piece, and return the number of bytes written.

    Whatever loses nothing is taken: line breaks and blanks anywhere, padding or none, the URL-safe alphabet, quotes
    around it, a ``data:...;base64,`` prefix, escaped slashes and percent signs. Whether it is a picture is found out
    afterwards; what is not base64 at all is refused, because the service has been seen to send such values
    (``toapis-contract.md`` 4.5).

    :raises ImageInvalid: Not base64, empty, or more than ``max_bytes`` (nothing is decoded then).
    """
    text = _unescaped(text.strip(_ENDS))
    prefix = _DATA_PREFIX.match(text)
    start, end = prefix.end() if prefix else 0, len(text)
    padding = 0
    while end > start and (text[end - 1] == "=" or text[end - 1].isspace()):
        padding += text[end - 1] == "="
        end -= 1
    if start == end:
        raise ImageInvalid("The b64_json value is empty")
    if padding > 2:
        raise ImageInvalid("The b64_json value is not base64: too much padding")
    if (end - start - sum(text.count(blank) for blank in " \t\r\n")) // 4 * 3 - 2 > max_bytes:
        raise ImageInvalid(f"The b64_json value is larger than {max_bytes:,} bytes; nothing of it is kept")
    written, carried = 0, ""
    for at in range(start, end, _CHUNK):
        piece = carried + _NOISE.sub("", text[at : min(at + _CHUNK, end)]).translate(_URL_SAFE)
        if foreign := _FOREIGN.search(piece):
            raise ImageInvalid(f"The b64_json value is not base64: {foreign.group()!a} is no character of it")
        whole = len(piece) // 4 * 4
        written += sink.write(binascii.a2b_base64(piece[:whole]))
        carried = piece[whole:]
    if len(carried) == 1:
        raise ImageInvalid("The b64_json value is not base64: a character is missing or one too many")
    return written + sink.write(binascii.a2b_base64(carried + "=" * (-len(carried) % 4)))


def _unescaped(text: str) -> str:
    if "\\" in text or "%" in text:
        for escape, plain in _ESCAPES:
            text = text.replace(escape, plain).replace(escape.lower(), plain)
    return text
