"""What the metadata of a JPEG, PNG or WebP says of how its pixels are meant: which way is up, and the colour profile.

Nothing here refuses a file: what cannot be read says nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

_EXIF: Final = b"Exif\0\0"
_ICC: Final = b"ICC_PROFILE\0"
_APP1, _APP2 = 0xE1, 0xE2
_ORIENTATION: Final = 0x0112
_MOST_TAGS: Final = 1_000
_MOST_PIECES: Final = 2_000
#: Profiles of printers have some 2 MB.
_LONGEST_PROFILE: Final = 4 * 1024 * 1024


def orientation(data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where nothing else is said."""
    for name, body in _pieces(data):
        if name in (b"Exif", b"eXIf", b"EXIF"):
            return _orientation(body.removeprefix(_EXIF))
    return 1


def colour_profile(data: bytes) -> bytes | None:
    """Return the ICC profile, or None."""
    parts = [(name, body) for name, body in _pieces(data) if name in (b"ICC", b"iCCP", b"ICCP")]
    if not parts:
        return None
    name, body = parts[0]
    if name == b"ICC":
        # Cut into segments, each of which says its number.
        body = b"".join(part[2:] for _, part in sorted(parts, key=lambda one: one[1][:1]))
    elif name == b"iCCP":
        try:
            body = zlib.decompressobj().decompress(body.partition(b"\0")[2][1:], _LONGEST_PROFILE)
        except zlib.error:
            return None
    return body if 0 < len(body) <= _LONGEST_PROFILE else None


def _orientation(tiff: bytes) -> int:
    """Return what the first directory of a TIFF block says (EXIF 2.32, 4.6.4)."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for index in range(min(count, _MOST_TAGS)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * index)
            if tag == _ORIENTATION:
                return int(value) if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _pieces(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of the pieces that hold metadata, up to the pixels where the format allows it."""
    if data.startswith(b"\xff\xd8"):
        yield from _jpeg_pieces(data)
    elif data.startswith(b"\x89PNG"):
        yield from _chunks(data, 8, ">I4s", 4)
    elif data[:4] == b"RIFF":
        yield from ((name, body) for name, body in _chunks(data, 12, "<4sI", 0))


def _jpeg_pieces(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 2
    for _ in range(_MOST_PIECES):
        if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] == 0xDA:
            return
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if marker == _APP1 and body.startswith(_EXIF):
            yield b"Exif", body
        elif marker == _APP2 and body.startswith(_ICC):
            yield b"ICC", body[len(_ICC) :]
        at += 2 + max(length, 2)


def _chunks(data: bytes, at: int, head: str, behind: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each chunk.

    :param behind: Bytes of a checksum behind each; without one they are padded to even lengths (RIFF).
    """
    for _ in range(_MOST_PIECES):
        if at + 8 > len(data):
            return
        first, second = struct.unpack_from(head, data, at)
        name, length = (second, first) if isinstance(second, bytes) else (first, second)
        if name in (b"eXIf", b"iCCP", b"EXIF", b"ICCP"):
            yield name, data[at + 8 : at + 8 + length]
        at += 8 + length + (behind or length % 2)
