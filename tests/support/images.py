"""Small real images in every format, made on the spot, with the chunks that provenance lives in."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

FORMATS = ("png", "jpeg", "webp", "gif")
SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "gif": ".gif"}
JUMBF = b"jumb c2pa manifest store"


def picture(image_format: str = "png", size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    """A noisy picture: it does not compress to nothing, so cutting it anywhere cuts pixels."""
    noise = random.Random(7).randbytes(size[0] * size[1] * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", size, noise).save(buffer, image_format, **options)
    return buffer.getvalue()


def pixels(file: Path | str) -> tuple[int, int]:
    """Width and height of a picture on disk."""
    with Image.open(file) as image:
        return image.size


def chunk(name: bytes, data: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds hardly a pixel."""
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def png_with_provenance() -> bytes:
    """A PNG with a ``caBX`` chunk (C2PA 2.1, embedding manifests into PNG) before its pixels."""
    png = picture("png")
    at = png.index(b"IDAT") - 4
    return png[:at] + chunk(b"caBX", JUMBF) + png[at:]


def jpeg_with_provenance() -> bytes:
    """A JPEG with an APP11 segment (JUMBF, as C2PA embeds its manifest) right after the start marker."""
    jpeg = picture("jpeg")
    segment = b"JP\x00\x01\x00\x00\x00\x01" + JUMBF
    return jpeg[:2] + b"\xff\xeb" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
