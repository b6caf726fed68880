"""Small real images in every format, made on the spot, with the chunks that provenance lives in."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, features

FORMATS = ("png", "jpeg", "webp", "gif")
SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "gif": ".gif"}
_SRGB = ImageCms.createProfile("sRGB")
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


def corners(size: tuple[int, int] = (64, 48), mode: str = "RGB") -> Image.Image:
    """A picture of which every turn differs: red, lime and blue in three of its quarters, white in the fourth."""
    image = Image.new("RGB", size, "white")
    middle, centre = size[0] // 2, size[1] // 2
    image.paste("red", (0, 0, middle, centre))
    image.paste("lime", (middle, 0, size[0], centre))
    image.paste("blue", (0, centre, middle, size[1]))
    return image.convert(mode)


def saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """The file of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    """The EXIF of a picture that is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def odd_pictures(size: tuple[int, int] = (640, 480)) -> dict[str, bytes]:
    """Files of the same picture (:func:`corners`) in every mode and kind that a decoder may meet, by name."""
    image = corners(size)
    see_through = image.convert("RGBA")
    see_through.putalpha(Image.new("L", size, 255))
    palette = image.quantize(8)
    other = Image.new("RGB", size, "black")
    frames = {"save_all": True, "append_images": [other], "duration": 100}
    return {
        "png-rgb": saved(image, "png"),
        "png-rgba": saved(see_through, "png"),
        "png-palette": saved(palette, "png"),
        "png-palette-transparency": saved(palette, "png", transparency=7),
        "png-rgb-transparency": saved(image, "png", transparency=(1, 2, 3)),
        "png-profile": saved(image, "png", icc_profile=ImageCms.ImageCmsProfile(_SRGB).tobytes()),
        "png-animated": saved(image, "png", **frames),
        "jpeg-rgb": saved(image, "jpeg", quality=95),
        "jpeg-cmyk": saved(image.convert("CMYK"), "jpeg", quality=95),
        "jpeg-progressive": saved(image, "jpeg", quality=95, progressive=True),
        "webp-lossy": saved(image, "webp", quality=95),
        "webp-lossless-rgba": saved(see_through, "webp", lossless=True),
        "webp-animated": saved(image, "webp", quality=95, **frames),
        "gif": saved(image, "gif"),
        "gif-animated": saved(image, "gif", **frames),
        **({"avif": saved(image, "avif", quality=90)} if features.check("avif") else {}),
    }


def grey_pictures(size: tuple[int, int] = (640, 480)) -> dict[str, bytes]:
    """Files whose left half is black and whose right half is white, in every mode without colours, by name."""
    half = Image.new("L", size, 0)
    half.paste(255, (size[0] // 2, 0, *size))
    with_alpha = half.convert("LA")
    deep = Image.new("I;16", size)
    deep.paste(65535, (size[0] // 2, 0, *size))
    return {
        "png-1bit": saved(half.convert("1"), "png"),
        "png-grey": saved(half, "png"),
        "png-grey-alpha": saved(with_alpha, "png"),
        "png-grey-16bit": saved(deep, "png"),
        "jpeg-grey": saved(half, "jpeg"),
    }
