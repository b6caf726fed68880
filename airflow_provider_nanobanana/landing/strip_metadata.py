"""PNG, WebP and GIF without what is no pixel: text, profiles, EXIF, comments. Only the rest can spoil an image.

A file may hold as many chunks and blocks as any encoder writes, and not as many as fit into it: each costs time.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Final

from airflow_provider_nanobanana.toapis.errors import ImageInvalid, ImageTooCostly

_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
#: Critical chunks of a PNG (PNG specification, 11.2): without one of them there is no picture.
_CRITICAL: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
#: Bytes of the chunk that says what can be seen through (11.3.1.1), by the colour type of the picture.
_SEE_THROUGH: Final = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}
_CHUNK_NAME: Final = re.compile(rb"[A-Za-z]{4}")
_CRITICAL_NAME: Final = re.compile(rb"PLTE|IDAT|IEND")
_MOST_GUESSES: Final = 8
#: Ancillary chunks of a wrong length behind which the next critical one is looked for.
_MOST_REPAIRS: Final = 8
#: Chunks of a PNG or a WebP. A PNG of 64 MiB in pieces of 8 KiB, which libpng writes, has 8,192.
_MOST_CHUNKS: Final = 100_000

#: What begins a GIF's extensions, frames and end (GIF89a specification, appendix A); the label of how a frame is shown.
_GIF_BLOCK: Final = re.compile(rb"[!,;]")
_FRAME, _TRAILER, _CONTROL = b",", b";", b"\xf9"
#: Blocks of a GIF before its first frame, and the pieces of up to 255 bytes that they are made of. XMP that fills
#: 64 MiB has about 600,000, as it is not really cut into such.
_MOST_BLOCKS: Final = 1_000_000

#: Chunks of a WebP that hold pixels (RFC 9649); the first one's flags announce chunks that are left out.
_WEBP_PIXELS: Final = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"})
_WEBP_METADATA_FLAGS: Final = 0x20 | 0x08 | 0x04  # ICC profile, EXIF, XMP


def bare_png(data: bytes) -> bytes:
    """Return the PNG with its critical chunks, whose checksums are right, and what says where it is see-through.

    :raises ImageInvalid: A critical chunk is broken, or the end is missing.
    :raises ImageTooCostly: There are more chunks than any encoder writes.
    """
    pieces, last = [_PNG_MAGIC], b""
    colour_type = -1
    for name, start, end in _png_chunks(data):
        if end > len(data):
            break
        if name in _CRITICAL:
            if not _checksum_is_right(data, start, end):
                raise ImageInvalid(f"The png image is corrupt: the checksum of a {name.decode()} chunk is wrong")
            pieces.append(data[start:end])
            last = name
            if name == b"IHDR" and end - start > 17:
                colour_type = data[start + 17]
        elif name == b"tRNS" and last != b"IDAT" and _is_see_through(data, start, end, colour_type):
            pieces.append(data[start:end])
        if name == b"IEND":
            break
    if last != b"IEND":
        raise ImageInvalid("The png image is truncated: its last chunk is missing")
    return b"".join(pieces)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each chunk; behind an ancillary one of a wrong length, go on at a critical."""
    at, repairs = len(_PNG_MAGIC), 0
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if name not in _CRITICAL and not _chunk_at(data, end):
            repairs += 1
            if repairs > _MOST_REPAIRS:
                raise ImageInvalid(f"The png image is corrupt: more than {_MOST_REPAIRS} chunks have a wrong length")
            at = _next_critical(data, at + 8)
            continue
        yield name, at, end
        at = end
    raise _too_many("png", _MOST_CHUNKS, "chunks")


def is_apng(data: bytes) -> bool:
    """Say whether a file is an animated PNG, of which the frames behind the first are in ancillary chunks."""
    return data.startswith(_PNG_MAGIC) and data.find(b"acTL", 0, max(0, data.find(b"IDAT"))) >= 0


def _is_see_through(data: bytes, start: int, end: int, colour_type: int) -> bool:
    """Say whether a chunk of that name is one that no decoder stumbles over: whole, and as long as it has to be."""
    return end - start - 12 in _SEE_THROUGH.get(colour_type, ()) and _checksum_is_right(data, start, end)


def _checksum_is_right(data: bytes, start: int, end: int) -> bool:
    view = memoryview(data)
    return zlib.crc32(view[start + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")


def _chunk_at(data: bytes, at: int) -> bool:
    """Say whether a chunk that ends within the file begins here."""
    if at + 12 > len(data) or not _CHUNK_NAME.fullmatch(data, at + 4, at + 8):
        return False
    return at + 12 + int.from_bytes(data[at : at + 4], "big") <= len(data)


def _next_critical(data: bytes, at: int) -> int:
    """Return where the next critical chunk begins that is whole, of the first few names that look like one."""
    for found in islice(_CRITICAL_NAME.finditer(data, at), _MOST_GUESSES):
        start = found.start() - 4
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end <= len(data) and _checksum_is_right(data, start, end):
            return start
    return len(data)


def bare_webp(data: bytes) -> bytes:
    """Return the WebP with the chunks of its pixels alone; the length that the file's head says is not believed.

    :raises ImageInvalid: A chunk of pixels is cut off.
    :raises ImageTooCostly: There are more chunks than any encoder writes.
    """
    pieces, at = [], 12
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            break
        name, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        if name in _WEBP_PIXELS:
            if len(body) < size:
                raise ImageInvalid(f"The webp image is truncated: its {name.decode().strip()} chunk is cut off")
            if name == b"VP8X" and body:
                body = bytes([body[0] & ~_WEBP_METADATA_FLAGS]) + body[1:]
            pieces.append(struct.pack("<4sI", name, size) + body + bytes(size % 2))
        elif not name.isascii() or not name.strip(b"\0"):
            break  # something was put behind the image
        at += 8 + size + size % 2
    else:
        raise _too_many("webp", _MOST_CHUNKS, "chunks")
    content = b"WEBP" + b"".join(pieces)
    return struct.pack("<4sI", b"RIFF", len(content)) + content


def bare_gif(data: bytes) -> bytes:
    """Return the GIF without what stands before its first frame, but for its colours and the frame's control block.

    :raises ImageInvalid: There is no frame.
    :raises ImageTooCostly: There are more blocks before it than any encoder writes.
    """
    flags = data[10] if len(data) > 10 else 0
    at = head = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
    control = b""
    blocks = 0
    while blocks < _MOST_BLOCKS:
        found = _GIF_BLOCK.search(data, at)
        if found is None or found.group() == _TRAILER:
            raise ImageInvalid("The gif image is truncated or corrupt: it holds no frame")
        start = found.start()
        if found.group() == _FRAME:
            return data[:head] + control + data[start:]
        at = start + 2
        blocks += 1
        while blocks < _MOST_BLOCKS and at < len(data) and data[at]:
            at += 1 + data[at]
            blocks += 1
        at += 1
        if data[start + 1 : start + 2] == _CONTROL:
            control = data[start:at]
    raise _too_many("gif", _MOST_BLOCKS, "blocks before its first frame")


def _too_many(image_format: str, most: int, what: str) -> ImageTooCostly:
    return ImageTooCostly(f"The {image_format} image has more than {most:,} {what}; no encoder writes so many")
