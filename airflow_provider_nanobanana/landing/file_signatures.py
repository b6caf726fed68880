"""What bytes are when they are no image that is landed: words for a person, and a suffix to keep them under."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_AVIF: Final = frozenset({b"avif", b"avis"})
_HEIF: Final = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"heif", b"miaf"})
_BMP_HEADERS: Final = frozenset({12, 40, 52, 56, 64, 108, 124})

_CONTAINERS: Final = ((rb"%PDF-", ".pdf"), (rb"PK\x03\x04", ".zip"), (rb"\x1f\x8b", ".gz"))
_SVG: Final = re.compile(r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg[^>]*>\s*)?<svg\b", re.I | re.S)
_TEXTS: Final = ((r"<!doctype html|<html|<head|<body", ".html"), (r"<", ".xml"), (r"[{\[]", ".json"))


class Kind(NamedTuple):
    """What something is, in words, and the suffix of its files."""

    words: str
    suffix: str


#: Beginnings of files.
_BEGINNINGS: Final = {
    rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n": Kind("a JPEG XL image", ".jxl"),
    rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51": Kind("a JPEG 2000 image", ".jp2"),
    rb"II[*+]\x00|MM\x00[*+]": Kind("a TIFF image", ".tif"),
    rb"8BPS\x00": Kind("a Photoshop file", ".psd"),
}


def image_of_another_kind(head: bytes) -> Kind | None:
    """Name an image, or a container of images, that is not landed, by its first kilobyte."""
    for pattern, kind in _BEGINNINGS.items():
        if re.match(pattern, head):
            return kind
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return Kind("a BMP image", ".bmp")
    if head[4:8] == b"ftyp":
        heif = _HEIF & _brands(head)
        return Kind("a HEIC image", ".heic") if heif else Kind("a video or another ISO media file", ".mp4")
    if is_text(head) and _SVG.match(_start(head)):
        return Kind("an SVG drawing", ".svg")
    return None


def is_avif(head: bytes) -> bool:
    """Say whether this is the beginning of an AVIF image (ISO/IEC 23000-22: the brands of its first box)."""
    return head[4:8] == b"ftyp" and bool(_AVIF & _brands(head))


def is_text(head: bytes) -> bool:
    """Say whether nearly all of it is readable as UTF-8."""
    text = head.decode("utf-8", "replace")
    return sum(c != "\ufffd" and (c.isprintable() or c in "\r\n\t") for c in text) >= 0.95 * len(text)


def suffix_of(head: bytes) -> str:
    """Return the suffix for what is no image that is landed; ``.bin`` where nothing is known of it."""
    if found := image_of_another_kind(head):
        return found.suffix
    if is_text(head):
        texts = (suffix for pattern, suffix in _TEXTS if re.match(pattern, _start(head), re.IGNORECASE))
        return next(texts, ".txt")
    return next((suffix for pattern, suffix in _CONTAINERS if re.match(pattern, head)), ".bin")


def _brands(head: bytes) -> set[bytes]:
    end = min(int.from_bytes(head[:4], "big"), 256)
    return {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}


def _start(head: bytes) -> str:
    return head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
