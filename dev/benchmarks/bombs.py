"""Legal images that take a decoder a time or a memory out of all proportion, below 64 MiB and 20 megapixels.

A bomb is a few bytes that stand again and again beside, or among, the pixels of a small picture. What each did to
Pillow alone is in the issue they come from: 11 s for 133 KiB of scans, 1.1 GB for 16 MiB of empty segments. Those
called large are of one size, and honest: what they take is the memory of the library that decodes them.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Final

from PIL import Image, features

MIB: Final = 1024 * 1024


def _saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _small(image_format: str) -> bytes:
    return _saved(Image.new("P" if image_format == "gif" else "RGB", (8, 8)), image_format)


def _chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _jpeg(unit: bytes, size: int) -> bytes:
    picture = _small("jpeg")
    return picture[:2] + unit * (size // len(unit)) + picture[2:]


def _png(unit: bytes, size: int, before: bytes = b"IDAT") -> bytes:
    picture = _small("png")
    at = picture.index(before) - 4
    return picture[:at] + unit * (size // len(unit)) + picture[at:]


def _gif(unit: bytes, size: int, head: bytes = b"", end: bytes = b"") -> bytes:
    picture = _small("gif")
    at = 13 + (3 * 2 ** ((picture[10] & 7) + 1) if picture[10] & 0x80 else 0)
    return picture[:at] + head + unit * (size // len(unit)) + end + picture[at:]


def _webp(unit: bytes, size: int) -> bytes:
    pixels = _small("webp")[12:]
    body = b"WEBP" + pixels + unit * (size // len(unit))
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _scans(size: int, color: str = "L") -> bytes:
    """A progressive JPEG of 19 megapixels whose last scan stands there again and again."""
    picture = _saved(Image.new(color, (4400, 4400), 128 if color == "L" else "gray"), "jpeg", progressive=True)
    last = picture.rindex(b"\xff\xda")
    scan = picture[picture.rindex(b"\xff\xc4", 0, last) : -2]
    return picture[:-2] + scan * (size // len(scan)) + b"\xff\xd9"


def _heavy_scans(size: int) -> bytes:
    """As few scans as are taken, of as many pixels and colours."""
    few = _scans(0, "RGB")
    scan = few[few.rindex(b"\xff\xc4", 0, few.rindex(b"\xff\xda")) : -2]
    return _scans(min(size, 180 * len(scan)), "RGB")


def _large(image_format: str, **options: object) -> bytes:
    """A picture of 19 megapixels that a decoder holds in memory of its own, beside the pixels: no limit of Python's."""
    return _saved(Image.effect_noise((4400, 4400), 8).convert("RGB"), image_format, **options)


def _empty_blocks(size: int) -> bytes:
    """A PNG whose compressed pixels hold empty blocks of five bytes."""
    picture = _small("png")
    at = picture.index(b"IDAT") - 4
    length = int.from_bytes(picture[at : at + 4], "big")
    pixels = picture[at + 8 : at + 8 + length]
    chunk = _chunk(b"IDAT", pixels[:2] + b"\0\0\0\xff\xff" * (size // 5) + pixels[2:])
    return picture[:at] + chunk + picture[at + 12 + length :]


def _guesses(size: int) -> bytes:
    """A PNG in which each wrong length is followed by names of chunks that say they are long."""
    end = struct.pack(">I", size // 2)
    unit = b"\xff\xff\xff\xffabcd" + (end + b"IDAT") * 7 + _chunk(b"PLTE", b"\0\0\0")
    return _png(unit, size)


_Maker = Callable[[int], bytes]
#: What makes each, for a number of bytes. The first are those of the review (f4_images.py, f4b_scans.py).
BOMBS: Final[dict[str, _Maker]] = {
    "jpeg-scans": _scans,
    "jpeg-app": lambda size: _jpeg(b"\xff\xe5\x00\x02", size),
    "jpeg-exif": lambda size: _jpeg(b"\xff\xe1\x00\x09Exif\0\0A", size),
    "jpeg-icc": lambda size: _jpeg(b"\xff\xe2\x00\x12ICC_PROFILE\0\x01\x01AA", size),
    "jpeg-com": lambda size: _jpeg(b"\xff\xfe\x00\x03A", size),
    "jpeg-fill": lambda size: _jpeg(b"\xff", size),
    "png-private": lambda size: _png(_chunk(b"abCd"), size),
    "png-text": lambda size: _png(_chunk(b"tEXt", b"key\0value"), size),
    "png-private-behind": lambda size: _png(_chunk(b"abCd"), size, b"IEND"),
    "gif-comment1": lambda size: _gif(b"\xff" + b"A" * 255, size, b"\x21\xfe", b"\0"),
    "gif-comments": lambda size: _gif(b"\x21\xfe\x01A\0", size),
    "gif-xmp": lambda size: _gif(b"\xff" + b"A" * 255, size, b"\x21\xff\x0bXMP DataXMP", b"\0"),
    "gif-gce": lambda size: _gif(b"\x21\xf9\x04\0\0\0\0\0", size),
    # Neighbours of them.
    "jpeg-heavy-scans": _heavy_scans,
    "jpeg-restarts": lambda size: _jpeg(b"\xff\xd0", size),
    "jpeg-tables": lambda size: _jpeg(b"\xff\xdd\x00\x04\0\0", size),
    "png-empty-blocks": _empty_blocks,
    "png-empty-pixels": lambda size: _png(_chunk(b"IDAT"), size),
    "png-guesses": _guesses,
    "gif-noise": lambda size: _gif(b"\0", size),
    "webp-chunks": lambda size: _webp(b"abcd\0\0\0\0", size),
    "jpeg-large": lambda size: _large("jpeg", progressive=True, subsampling=0),
    "webp-large": lambda size: _large("webp", lossless=True, method=0, quality=0),
}
if features.check("avif"):
    BOMBS["avif-large"] = lambda size: _large("avif", speed=10)


def make(kind: str, mebibytes: float) -> bytes:
    """Return a bomb of at most so many mebibytes, and of 64 at most."""
    return BOMBS[kind](int(min(mebibytes, 63.9) * MIB))
